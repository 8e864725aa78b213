"""Multigrid in two dimensions: every shape, every contrast, every tolerance; a symmetric cycle; a clean workspace."""

import numpy as np
import pytest
import scipy.sparse.linalg

from headrace.solvers import Darcy, DiffusionOperator, LinearSystem, SolveStatus, solve_sequence
from headrace.solvers.methods.multigrid import RunningMultigrid
from headrace.solvers.problems.permeability import LogNormal, TwoPhase
from headrace.solvers.solver import Solution, solve_verified


def operator_of(permeability: np.ndarray) -> DiffusionOperator:
    """Harmonic means between cells, and each cell's own permeability at both ends of an axis."""
    conductances = []
    for axis in range(2):
        a = np.moveaxis(permeability, axis, 0)
        inner = 2.0 * a[1:] * a[:-1] / (a[1:] + a[:-1])
        conductances.append(np.ascontiguousarray(np.moveaxis(np.concatenate([a[:1], inner, a[-1:]]), 0, axis)))
    return DiffusionOperator(conductances=tuple(conductances))


def waves(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A smooth random field of variance 1: a few random waves."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(*(np.arange(n) / max(shape) for n in shape), indexing="ij")
    field = np.zeros(shape)
    for a, b in rng.integers(-4, 5, size=(30, 2)):
        field += np.cos(2 * np.pi * (a * x + b * y) + rng.uniform(0, 2 * np.pi))
    return field / np.sqrt(15.0)


def two_phase(shape: tuple[int, int], contrast: float, seed: int = 0) -> np.ndarray:
    return np.where(waves(shape, seed) > 0.0, contrast, 1.0)


def system_of(operator: DiffusionOperator, seed: int = 0) -> LinearSystem:
    return LinearSystem.from_operator(operator, np.random.default_rng(seed).standard_normal(operator.num_unknowns))


def assert_solved(solution: Solution, system: LinearSystem, rtol: float) -> None:
    """Converged, to a residual that is the true one."""
    assert solution.status is SolveStatus.converged, str(solution)
    residual = np.linalg.norm(system.rhs - system.matrix @ solution.value) / np.linalg.norm(system.rhs)
    assert residual <= rtol * 1.001
    assert solution.relative_residual == pytest.approx(residual, rel=1e-3, abs=1e-13)


SHAPES = [
    *((1, 1), (1, 2), (2, 1), (2, 2), (1, 9), (9, 1), (3, 2), (2, 30), (31, 3), (3, 3), (1, 200), (200, 1), (4, 170)),
    *((13, 14), (14, 15), (15, 16), (16, 17), (17, 15), (40, 17), (17, 40), (31, 63), (62, 32), (100, 47), (90, 129)),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("contrast", [1.0, 100.0, 1e4])
def test_agrees_with_a_direct_solver_on_every_shape(shape: tuple[int, int], contrast: float) -> None:
    running = RunningMultigrid(100)
    for permeability in (two_phase(shape, contrast), np.exp(waves(shape, 1) * np.log(contrast) / 4.0)):
        system = system_of(operator_of(permeability))
        solution = running.solve(system, 1e-11)
        assert_solved(solution, system, 1e-11)
        expected = scipy.sparse.linalg.spsolve(system.matrix.tocsc(), system.rhs)
        # The relative error is at most the residual times the condition number: grid squared times contrast.
        error = np.linalg.norm(solution.value - expected) / np.linalg.norm(expected)
        assert error <= 1e-11 * max(shape) ** 2 * contrast


@pytest.mark.parametrize("shape", [(30, 41), (127, 127)], ids=str)
@pytest.mark.parametrize("contrast", [1.0, 10.0, 1e4])
@pytest.mark.parametrize("rtol", [1e-4, 1e-6, 1e-8, 1e-10, 1e-12, 1e-13])
def test_every_tolerance_is_reached(shape: tuple[int, int], contrast: float, rtol: float) -> None:
    system = system_of(operator_of(two_phase(shape, contrast)))
    assert_solved(RunningMultigrid(100).solve(system, rtol), system, rtol)


@pytest.mark.parametrize(
    ("permeability", "bound"),
    [
        (LogNormal(), 8),
        (LogNormal(length_scale=0.1, log_std=1.5), 9),
        (TwoPhase(length_scale=0.25), 9),
        (TwoPhase(low=1.0, high=20.0), 12),
        (TwoPhase(low=1.0, high=100.0), 14),
    ],
    ids=["log-normal", "rough", "contrast 4", "contrast 20", "contrast 100"],
)
def test_iterations_hardly_grow_with_the_grid(permeability: LogNormal | TwoPhase, bound: int) -> None:
    counts = []
    for n in (33, 50, 65, 129, 200, 257):
        problem = Darcy(resolution=n, permeability=permeability)
        systems = [problem.discretize(problem.draw(seed)) for seed in range(3)]
        counts.append(max(s.num_iterations for s in solve_sequence(systems, rtol=1e-8, method="multigrid")))
    assert max(counts) <= bound, counts


def test_single_precision_costs_no_iterations_on_a_large_grid() -> None:
    """Directions are kept when the residual is recomputed; in double precision throughout it takes 7 as well."""
    problem = Darcy(resolution=513)
    system = problem.discretize(problem.draw(0))
    solution = RunningMultigrid(100).solve(system, 1e-8)
    assert_solved(solution, system, 1e-8)
    assert solution.num_iterations <= 8


def test_a_sequence_of_shapes_and_tolerances_in_one_workspace() -> None:
    running = RunningMultigrid(100)
    for seed, (shape, rtol) in enumerate(
        [((20, 20), 1e-8), ((20, 20), 1e-12), ((9, 33), 1e-6), ((33, 9), 1e-10), ((20, 20), 1e-8), ((1, 1), 1e-8)]
    ):
        system = system_of(operator_of(np.exp(waves(shape, seed))), seed)
        assert_solved(running.solve(system, rtol), system, rtol)


def test_what_is_not_finite_or_not_positive_is_no_solution_and_spoils_nothing() -> None:
    running = RunningMultigrid(100)
    operator = operator_of(np.exp(waves((20, 23))))
    good = system_of(operator)
    first = running.solve(good, 1e-10)
    bad_rhs, infinite_rhs = good.rhs.copy(), good.rhs.copy()
    bad_rhs[100], infinite_rhs[7] = np.nan, np.inf
    bad = [LinearSystem.from_operator(operator, rhs) for rhs in (bad_rhs, infinite_rhs)]
    for value in (np.nan, np.inf, -100.0):
        for axis in range(2):
            conductances = tuple(c.copy() for c in operator.conductances)
            conductances[axis][7, 11] = value
            bad.append(
                LinearSystem.from_operator(
                    DiffusionOperator(conductances=conductances), good.rhs, positive_definite=True
                )
            )
    for system in bad:
        assert solve_verified(running, system, 1e-8).status is not SolveStatus.converged
        again = running.solve(good, 1e-10)
        assert_solved(again, good, 1e-10)
        np.testing.assert_array_equal(again.value, first.value)


def test_the_right_hand_side_zero() -> None:
    operator = operator_of(np.exp(waves((20, 23))))
    solution = RunningMultigrid(100).solve(LinearSystem.from_operator(operator, np.zeros(460)), 1e-8)
    assert solution.status is SolveStatus.converged and not solution.value.any()


@pytest.mark.parametrize("scales", [(1e-18, 1.0), (1e18, 1e-30), (1e-30, 1e30)], ids=str)
def test_units_do_not_matter(scales: tuple[float, float]) -> None:
    """Permeability of rock is 1e-15 m²; single precision must neither underflow nor overflow."""
    operator = operator_of(two_phase((40, 40), 1e3))
    one = RunningMultigrid(100).solve(system_of(operator), 1e-9)
    scaled = DiffusionOperator(conductances=tuple(scales[0] * c for c in operator.conductances))
    other = RunningMultigrid(100).solve(LinearSystem.from_operator(scaled, scales[1] * system_of(operator).rhs), 1e-9)
    assert other.status is SolveStatus.converged and other.num_iterations == one.num_iterations
    # Two solutions with residuals of 1e-9.
    np.testing.assert_allclose(other.value * scales[0] / scales[1], one.value, atol=1e-6 * np.abs(one.value).max())


@pytest.mark.parametrize("shape", [(15, 15), (14, 22), (29, 12), (1, 5)], ids=str)
def test_the_cycle_is_symmetric_and_positive_definite(shape: tuple[int, int]) -> None:
    """Column by column: the first iteration for the right-hand side eᵢ leaves D^1/2 B eᵢ in the workspace."""
    operator = operator_of(two_phase(shape, 20.0))
    running = RunningMultigrid(1)
    columns = []
    for unit in np.eye(operator.num_unknowns):
        running.solve(LinearSystem.from_operator(operator, unit), 1e-12)
        assert running._workspace is not None
        levels, levelled = running._workspace.arrays[:2]
        stride = int(levels[0, 3])
        scale, z = (levelled[k, : (shape[0] + 2) * stride].reshape(-1, stride) for k in (2, 7))
        columns.append((scale * z)[1:-1, 1 : shape[1] + 1].ravel().astype(np.float64))
    matrix = np.stack(columns)
    # Single precision: 1e-7 times a modest number of operations.
    np.testing.assert_allclose(matrix, matrix.T, atol=2e-6 * np.abs(matrix).max())
    assert np.linalg.eigvalsh((matrix + matrix.T) / 2).min() > 0.0


def test_iterations_end_at_the_cap_with_the_true_residual() -> None:
    system = system_of(operator_of(np.exp(waves((60, 60)))))
    for cap in (1, 2, 3):
        solution = RunningMultigrid(cap).solve(system, 1e-8)
        assert solution.status is SolveStatus.max_iterations and solution.num_iterations == cap
        true = np.linalg.norm(system.rhs - system.matrix @ solution.value) / np.linalg.norm(system.rhs)
        assert solution.relative_residual == pytest.approx(true, rel=1e-9)


def test_conductances_in_other_layouts_and_types() -> None:
    operator = operator_of(np.exp(waves((21, 34))))
    system = system_of(operator)
    expected = RunningMultigrid(100).solve(system, 1e-10).value
    for change in (np.asfortranarray, lambda c: np.repeat(c, 2, axis=1)[:, ::2]):
        other = DiffusionOperator(conductances=tuple(change(c) for c in operator.conductances))
        solution = RunningMultigrid(100).solve(LinearSystem.from_operator(other, system.rhs), 1e-10)
        np.testing.assert_array_equal(solution.value, expected)


def test_a_general_matrix_is_refused() -> None:
    system = LinearSystem.from_matrix(scipy.sparse.eye_array(4), np.ones(4))
    with pytest.raises(ValueError, match="multigrid needs a system with a diffusion operator, got a general matrix"):
        RunningMultigrid(100).solve(system, 1e-8)
