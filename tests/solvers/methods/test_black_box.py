"""Multigrid where coefficients jump: every shape, every contrast, a symmetric cycle, and when it is due."""

import numpy as np
import pytest
import scipy.sparse.linalg

from headrace.solvers import Darcy, DiffusionOperator, LinearSystem, Multigrid, SolveStatus
from headrace.solvers.methods.black_box import RunningBlackBox, jumps
from headrace.solvers.methods.multigrid import RunningMultigrid
from headrace.solvers.random_inputs.permeability import AnyPermeability, LogNormal, TwoPhase
from headrace.solvers.systems.verified import solve_verified


def jumping(shape: tuple[int, int], contrast: float, seed: int, *, closed: bool = False) -> DiffusionOperator:
    """Every conductance is either 1 or the contrast, at random; some ends are closed, not all."""
    rng = np.random.default_rng(seed)
    along_x = np.where(rng.random((shape[0] + 1, shape[1])) > 0.5, contrast, 1.0)
    along_y = np.where(rng.random((shape[0], shape[1] + 1)) > 0.5, contrast, 1.0)
    if closed:
        along_x[0] = along_y[:, -1] = 0.0
    return DiffusionOperator(conductances=(along_x, along_y))


def system_of(operator: DiffusionOperator, seed: int = 0) -> LinearSystem:
    return LinearSystem.from_operator(operator, np.random.default_rng(seed).standard_normal(operator.num_unknowns))


def darcy(n: int, permeability: AnyPermeability, seed: int) -> LinearSystem:
    problem = Darcy(resolution=n, permeability=permeability)
    return problem.discretize(problem.draw(seed))


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 9), (9, 1), (3, 2), (2, 30), (4, 4), (5, 90), (90, 6), (16, 17), (31, 40)]
)
def test_agrees_with_a_direct_solver_on_every_shape(shape: tuple[int, int], closed: bool) -> None:
    running = RunningBlackBox(200)
    for contrast in (1.0, 100.0):
        if closed and min(shape) == 1:
            continue
        system = system_of(jumping(shape, contrast, 3, closed=closed))
        solution = solve_verified(running, system, 1e-9)
        assert solution.status is SolveStatus.converged, str(solution)
        expected = scipy.sparse.linalg.spsolve(system.matrix.tocsc(), system.rhs)
        error = np.linalg.norm(solution.value - expected) / np.linalg.norm(expected)
        assert error <= 1e-9 * 4 * max(shape) ** 2 * contrast


def test_a_reaction_is_part_of_the_operator() -> None:
    operator = jumping((31, 40), 100.0, 0)
    reaction = np.random.default_rng(1).uniform(0.0, 100.0, operator.shape)
    system = system_of(DiffusionOperator(conductances=operator.conductances, reaction=reaction))
    solution = solve_verified(RunningBlackBox(100), system, 1e-10)
    assert solution.status is SolveStatus.converged
    np.testing.assert_allclose(system.matrix @ solution.value, system.rhs, atol=1e-8)


@pytest.mark.parametrize("contrast", [1e4, 1e6])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("n", "length", "bound"), [(65, 0.05, 30), (129, 0.05, 30), (65, 0.02, 70), (129, 0.02, 45)], ids=str
)
def test_what_the_five_point_cycle_does_not_solve(
    n: int, length: float, bound: int, seed: int, contrast: float
) -> None:
    """Two materials: within 100 iterations that one fails on all at 1e6, and at 1e4 on all of a length of 0.02."""
    system = darcy(n, TwoPhase(length_scale=length, low=1.0, high=contrast), seed)
    assert jumps(system.operator)
    solution = solve_verified(Multigrid().build(), system, 1e-8)
    assert solution.status is SolveStatus.converged and solution.method == "multigrid", str(solution)
    assert solution.num_iterations <= bound


def test_iterations_stay_below_20_on_log_normal_permeability() -> None:
    """Contrast 1e4 within two standard deviations on either side, which changes within three points."""
    for seed in range(3):
        system = darcy(129, LogNormal(length_scale=0.02, log_std=np.log(1e4) / 4.0), seed)
        for running in (Multigrid().build(), RunningBlackBox(100)):
            solution = solve_verified(running, system, 1e-8)
            assert solution.status is SolveStatus.converged and solution.num_iterations <= 20


@pytest.mark.parametrize(
    "permeability", [LogNormal(), LogNormal(length_scale=0.02, log_std=1.5), TwoPhase(), TwoPhase(low=1.0, high=100.0)]
)
def test_moderate_contrast_stays_with_the_fast_cycle_to_the_bit(permeability: AnyPermeability) -> None:
    system = darcy(65, permeability, 0)
    assert not jumps(system.operator)
    np.testing.assert_array_equal(
        Multigrid().build().solve(system, 1e-8).value, RunningMultigrid(100).solve(system, 1e-8).value
    )


def test_what_rounding_leaves_is_accepted_by_its_backward_error() -> None:
    """Large pieces of contrast 1e6, where the iteration ends at what double precision allows: 1.3e-8."""
    system = darcy(129, TwoPhase(length_scale=0.1, low=1.0, high=1e6), 8)
    solution = solve_verified(Multigrid().build(), system, 1e-8)
    assert solution.status is SolveStatus.converged and solution.num_iterations <= 30, str(solution)
    assert 1e-8 < solution.relative_residual < 1e-7 and "backward error" in solution.detail


def test_takes_over_where_the_fast_cycle_gives_up() -> None:
    """Jumps just below what the look calls one, and fewer iterations than the five-point cycle needs."""
    found = 0
    for seed in range(12):
        system = darcy(33, TwoPhase(length_scale=0.05, low=1.0, high=900.0), seed)
        assert not jumps(system.operator)
        if RunningMultigrid(30).solve(system, 1e-8).status is SolveStatus.converged:
            continue
        found += 1
        solution = solve_verified(Multigrid(max_iterations=30).build(), system, 1e-8)
        assert solution.status is SolveStatus.converged and "smaller contrasts" in solution.detail
    assert found


def test_the_cycle_is_symmetric_and_positive() -> None:
    """What one step leaves in the workspace is the cycle, applied to the right-hand side."""
    operator, columns = jumping((11, 13), 1e3, 5), []
    running = RunningBlackBox(1)
    for unit in np.eye(operator.num_unknowns):
        running.solve(LinearSystem.from_operator(operator, unit), 1e-8)
        assert running._workspace is not None
        preconditioned = running._workspace.arrays[5][1]
        columns.append(preconditioned[: 13 * 15].reshape(13, 15)[1:-1, 1:-1].ravel().copy())
    cycle = np.array(columns)
    np.testing.assert_allclose(cycle, cycle.T, rtol=1e-9, atol=1e-12 * np.abs(cycle).max())
    assert np.linalg.eigvalsh(0.5 * (cycle + cycle.T)).min() > 0.0


def test_what_is_not_finite_or_not_positive_is_no_solution_and_spoils_nothing() -> None:
    running = RunningBlackBox(100)
    operator = jumping((20, 23), 1e4, 1)
    good = system_of(operator)
    first = running.solve(good, 1e-8)
    for value in (np.nan, np.inf, -1e5):
        conductances = tuple(c.copy() for c in operator.conductances)
        conductances[0][7, 11] = value
        bad = LinearSystem.from_operator(DiffusionOperator(conductances=conductances), good.rhs, positive_definite=True)
        assert solve_verified(running, bad, 1e-8).status is not SolveStatus.converged
        np.testing.assert_array_equal(running.solve(good, 1e-8).value, first.value)
    nothing = running.solve(LinearSystem.from_operator(operator, np.zeros(460)), 1e-8)
    assert nothing.status is SolveStatus.converged and not nothing.value.any()
