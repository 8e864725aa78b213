"""Newton's method: quadratic end, exact answers, and an honest word when it fails."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse

from headrace.solvers import LinearSystem, NonlinearSystem, SolveStatus, Structure, solve

UNKNOWN = np.linspace(0.5, 1.5, 40)
LAPLACIAN = scipy.sparse.diags_array([-np.ones(39), 2.0 * np.ones(40), -np.ones(39)], offsets=[-1, 0, 1], format="csr")


def cubic(power: int = 3) -> NonlinearSystem:
    """L u + u³ = b with the solution UNKNOWN."""
    rhs = LAPLACIAN @ UNKNOWN + UNKNOWN**power
    known = Structure(symmetric=True, positive_definite=True)

    def residual(u: np.ndarray) -> np.ndarray:
        return LAPLACIAN @ u + u**power - rhs

    def linearize(u: np.ndarray) -> LinearSystem:
        matrix = LAPLACIAN + scipy.sparse.diags_array(power * u ** (power - 1))
        return LinearSystem.from_matrix(matrix, -residual(u), positive_definite=True)

    return NonlinearSystem(
        guess=np.zeros(40),
        residual=residual,
        linearize=linearize,
        structure=known,
        scale=float(np.linalg.norm(rhs)),
    )


@pytest.mark.parametrize("method", ["direct", "gcrodr", "auto"])
def test_finds_the_solution(method: str) -> None:
    solution = solve(cubic(), rtol=1e-12, method=method)
    assert solution.status is SolveStatus.converged
    assert solution.relative_residual <= 1e-12
    np.testing.assert_allclose(solution.value, UNKNOWN, rtol=1e-10)


def test_steps_are_few() -> None:
    """Ten for a guess of 0: quadratic convergence, once it is near."""
    steps = int(solve(cubic(), rtol=1e-12, method="direct").detail.split()[0])
    assert steps <= 10


def test_no_solution_is_a_status() -> None:
    """u² + 1 = 0 has none."""

    def linearize(u: np.ndarray) -> LinearSystem:
        return LinearSystem.from_matrix(scipy.sparse.diags_array(2.0 * u).tocsr(), -(u**2 + 1.0))

    system = NonlinearSystem(
        guess=np.full(3, 2.0),
        residual=lambda u: u**2 + 1.0,
        linearize=linearize,
        structure=Structure(),
        scale=1.0,
    )
    solution = solve(system, method="direct")
    assert solution.status is not SolveStatus.converged
    assert "Newton step" in solution.detail


@pytest.mark.parametrize("slope", [30.0, 0.3])
def test_a_linearisation_that_is_far_off_gives_way_to_the_jacobian(slope: float) -> None:
    """A constant in place of 3 u²: 30 creeps, and 0.3 runs too far."""
    exact = cubic()
    matrix = LAPLACIAN + scipy.sparse.diags_array(np.full(40, slope))
    rough = dataclasses.replace(
        exact, linearize=lambda u: LinearSystem.from_matrix(matrix, -exact.residual(u), positive_definite=True)
    )
    alone = solve(rough, rtol=1e-12, method="direct")
    assert alone.status is not SolveStatus.converged or int(alone.detail.split()[0]) > 20
    solution = solve(dataclasses.replace(rough, exactly=exact.linearize), rtol=1e-12, method="direct")
    assert solution.status is SolveStatus.converged and int(solution.detail.split()[0]) <= 12
    np.testing.assert_allclose(solution.value, UNKNOWN, rtol=1e-10)
