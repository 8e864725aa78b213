"""No method is believed: the residual is recomputed, whatever it claims."""

import numpy as np
import pytest

from headrace.solvers import Darcy, LinearSystem, RunningSolver, Solution, SolveStatus
from headrace.solvers.systems.verified import solve_verified


class Boastful(RunningSolver):
    """Claims convergence to a wrong answer."""

    def __init__(self, value: float) -> None:
        self.value = value

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        return Solution(
            value=np.full(system.num_unknowns, self.value),
            status=SolveStatus.converged,
            relative_residual=0.0,
            num_iterations=1,
            seconds=0.0,
            method="boastful",
        )


@pytest.mark.parametrize("value", [0.1, np.nan, np.inf])
def test_a_false_claim_is_downgraded(value: float) -> None:
    problem = Darcy(resolution=20)
    system = problem.discretize(problem.draw(0))
    with np.errstate(invalid="ignore"):
        solution = solve_verified(Boastful(value), system, 1e-8)
    assert solution.status is SolveStatus.residual_too_large
    assert not solution.relative_residual <= 1e-8
    assert str(solution).startswith("boastful: residual_too_large after 1 iterations, relative residual ")


def test_operator_and_matrix_are_the_same() -> None:
    problem = Darcy(resolution=13)
    system = problem.discretize(problem.draw(0))
    x = np.random.default_rng(0).standard_normal(system.num_unknowns)
    np.testing.assert_allclose(system.matrix @ x, system.apply(x), rtol=1e-12, atol=1e-12)
    assert abs(system.matrix - system.matrix.T).max() == 0.0
    assert np.linalg.eigvalsh(system.matrix.toarray()).min() > 0.0
