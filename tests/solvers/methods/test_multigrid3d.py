"""Multigrid in three dimensions, and in two with any boundaries: every size, jumps, bounded iterations, symmetry."""

import itertools

import numpy as np
import pytest
import scipy.sparse.linalg

from headrace.solvers import DiffusionOperator, LinearSystem, Multigrid, SolveStatus, solve
from headrace.solvers.methods.multigrid3d import RunningMultigrid3D
from headrace.solvers.systems.verified import solve_verified

PERIODIC = None
OPEN, CLOSED, MIXED = (1.0, 1.0), (0.0, 0.0), (0.0, 2.0)
type Ends = tuple[float, float] | None


def operator_of(
    permeability: np.ndarray, ends: tuple[Ends, ...] = (OPEN, OPEN, OPEN), reaction: float = 0.0
) -> DiffusionOperator:
    """Harmonic means between cells; at both ends of an axis a multiple of the cell's own permeability."""
    conductances = []
    for axis, end in enumerate(ends):
        a = np.moveaxis(permeability, axis, 0)
        before = np.roll(a, 1, axis=0)
        inner = 2.0 * a * before / (a + before)
        if end is not None:
            inner = np.concatenate([end[0] * a[:1], inner[1:], end[1] * a[-1:]])
        conductances.append(np.ascontiguousarray(np.moveaxis(inner, 0, axis)))
    field = np.full(permeability.shape, reaction) if reaction else None
    return DiffusionOperator(
        conductances=tuple(conductances), periodic=tuple(end is None for end in ends), reaction=field
    )


def system_of(operator: DiffusionOperator, seed: int = 0) -> LinearSystem:
    rhs = np.random.default_rng(seed).standard_normal(operator.num_unknowns)
    return LinearSystem.from_operator(operator, rhs - rhs.mean() if operator.singular else rhs)


def lognormal(shape: tuple[int, ...], seed: int = 0, std: float = 1.0) -> np.ndarray:
    """A few random waves."""
    rng = np.random.default_rng(seed)
    x = np.meshgrid(*(np.arange(n) / max(shape) for n in shape), indexing="ij")
    field = np.zeros(shape)
    for _ in range(30):
        k = rng.integers(-4, 5, size=len(shape))
        field += np.cos(2 * np.pi * sum(a * b for a, b in zip(k, x, strict=True)) + rng.uniform(0, 2 * np.pi))
    return np.exp(std * field / np.sqrt(15.0))


def two_phase(shape: tuple[int, ...], contrast: float) -> np.ndarray:
    return np.where(lognormal(shape, 3) > 1.0, contrast, 1.0)


def assert_exact(operator: DiffusionOperator, max_iterations: int = 16) -> None:
    system = system_of(operator)
    solution = solve_verified(RunningMultigrid3D(100), system, 1e-11)
    assert solution.status is SolveStatus.converged, str(solution)
    assert solution.num_iterations <= max_iterations
    expected = system.without_mean(scipy.sparse.linalg.spsolve(system.regular_matrix.tocsc(), system.rhs))
    # A residual of 1e-11 times condition numbers up to 1e3.
    np.testing.assert_allclose(solution.value, expected, atol=1e-8 * max(np.abs(expected).max(), 1e-300))


@pytest.mark.parametrize("ends", itertools.product([PERIODIC, OPEN, CLOSED, MIXED], repeat=3), ids=str)
def test_every_combination_of_boundaries(ends: tuple[Ends, Ends, Ends]) -> None:
    assert_exact(operator_of(lognormal((7, 6, 9)), ends))
    assert_exact(operator_of(lognormal((6, 9, 8), 1), ends, reaction=0.05))


@pytest.mark.parametrize("ends", itertools.product([PERIODIC, OPEN, CLOSED, MIXED], repeat=2), ids=str)
@pytest.mark.parametrize("reaction", [0.0, 0.05])
def test_every_combination_of_boundaries_in_the_plane(ends: tuple[Ends, Ends], reaction: float) -> None:
    system = system_of(operator_of(lognormal((20, 23)), ends, reaction))
    assert Multigrid().mismatch(system) is None
    solution = solve(system, rtol=1e-11, method="multigrid")
    assert solution.status is SolveStatus.converged and solution.num_iterations <= 16, str(solution)
    assert solution.method == "multigrid"
    expected = system.without_mean(scipy.sparse.linalg.spsolve(system.regular_matrix.tocsc(), system.rhs))
    # A residual of 1e-11 times condition numbers up to 1e3.
    np.testing.assert_allclose(solution.value, expected, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("ends", [(OPEN, OPEN, OPEN), (CLOSED, MIXED, PERIODIC), (PERIODIC, PERIODIC, CLOSED)], ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 1, 2), (1, 5, 1), (4, 1, 1), (2, 2, 2), (3, 2, 1), (1, 12, 17), (3, 3, 3), (21, 2, 5), (5, 16, 31)]
)
def test_every_shape(shape: tuple[int, int, int], ends: tuple[Ends, Ends, Ends]) -> None:
    assert_exact(operator_of(lognormal(shape), ends))


@pytest.mark.parametrize("n", [16, 23, 40])
@pytest.mark.parametrize(
    ("make", "bound"),
    [
        # Closed ends, whose coarse points do not lie on the boundary, cost 2 or 3 iterations, with jumps up to 8.
        (lambda shape: np.ones(shape), 10),
        (lognormal, 11),
        (lambda shape: two_phase(shape, 4.0), 10),
        (lambda shape: two_phase(shape, 100.0), 20),
    ],
    ids=["constant", "log-normal", "contrast 4", "contrast 100"],
)
@pytest.mark.parametrize("ends", [(OPEN, OPEN, OPEN), (CLOSED, MIXED, PERIODIC)], ids=["open", "mixed"])
def test_iterations_are_bounded_on_every_grid(make: object, bound: int, n: int, ends: tuple[Ends, Ends, Ends]) -> None:
    operator = operator_of(make((n, n, n)), ends)  # type: ignore[operator]
    solution = solve_verified(RunningMultigrid3D(100), system_of(operator), 1e-8)
    assert solution.status is SolveStatus.converged
    assert solution.num_iterations <= bound


@pytest.mark.parametrize("factors", [(1.0, 1.0, 100.0), (100.0, 1.0, 0.01), (1.0, 1000.0, 1000.0)], ids=str)
def test_weak_axes_are_not_coarsened(factors: tuple[float, float, float]) -> None:
    """Flat cells: conductances that differ by the square of the aspect ratio."""
    operator = operator_of(lognormal((20, 24, 17), std=0.5), (OPEN, CLOSED, OPEN))
    scaled = tuple(f * c for f, c in zip(factors, operator.conductances, strict=True))
    solution = solve_verified(RunningMultigrid3D(100), system_of(DiffusionOperator(conductances=scaled)), 1e-8)
    assert solution.status is SolveStatus.converged
    assert solution.num_iterations <= 12


def test_the_cycle_is_symmetric_and_positive_definite() -> None:
    """Column by column: the first iteration for the right-hand side eᵢ leaves B eᵢ in the workspace."""
    shape = (5, 4, 6)
    operator = operator_of(two_phase(shape, 20.0), (OPEN, CLOSED, PERIODIC))
    running = RunningMultigrid3D(1)
    columns = []
    for unit in np.eye(operator.num_unknowns):
        running.solve(LinearSystem.from_operator(operator, unit), 1e-12)
        assert running._workspace is not None
        padded = running._workspace.single[4][: 7 * 6 * 8].reshape(7, 6, 8)
        columns.append(padded[1:-1, 1:-1, 1:-1].ravel().astype(np.float64))
    matrix = np.stack(columns)
    # Single precision: 1e-7 times a modest number of operations.
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-5 * np.abs(matrix).max())
    assert np.linalg.eigvalsh((matrix + matrix.T) / 2).min() > 0.0


def test_a_manufactured_solution_converges_with_order_two() -> None:
    """-Δu = 3 π² u with u = sin πx sin πy cos πz: Dirichlet at nodes, Dirichlet on cell faces, closed."""
    errors = []
    for n in (8, 16, 32):
        nodes, cells = np.arange(1, n) / n, (np.arange(n) + 0.5) / n
        u = np.einsum("i,j,k->ijk", np.sin(np.pi * nodes), np.sin(np.pi * cells), np.cos(np.pi * cells))
        operator = operator_of(np.full(u.shape, float(n * n)), (OPEN, (2.0, 2.0), CLOSED))
        system = LinearSystem.from_operator(operator, 3 * np.pi**2 * u.ravel())
        solution = solve_verified(RunningMultigrid3D(100), system, 1e-10)
        assert solution.status is SolveStatus.converged
        errors.append(np.abs(solution.value - u.ravel()).max())
    np.testing.assert_allclose(np.log2(np.array(errors[:-1]) / errors[1:]), 2.0, atol=0.1)


@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_units_do_not_matter(scale: float) -> None:
    a = lognormal((12, 13, 11))
    one, other = (solve_verified(RunningMultigrid3D(100), system_of(operator_of(s * a)), 1e-8) for s in (1.0, scale))
    assert other.status is SolveStatus.converged and other.num_iterations == one.num_iterations
    np.testing.assert_allclose(other.value * scale, one.value, rtol=1e-6, atol=1e-9)


def test_double_precision_is_reached() -> None:
    system = system_of(operator_of(lognormal((24, 24, 24)), (CLOSED, PERIODIC, CLOSED)))
    assert solve_verified(RunningMultigrid3D(100), system, 1e-12).status is SolveStatus.converged


def test_a_sequence_of_grids_and_a_system_that_is_not_finite() -> None:
    running = RunningMultigrid3D(100)
    good = system_of(operator_of(lognormal((9, 8, 7))))
    for shape in [(9, 8, 7), (7, 8, 9), (9, 8, 7)]:
        system = system_of(operator_of(lognormal(shape, 2)))
        assert solve_verified(running, system, 1e-10).status is SolveStatus.converged
    assert good.operator is not None
    rhs = np.where(np.arange(504) == 100, np.nan, 1.0)
    bad = LinearSystem.from_operator(good.operator, rhs)
    assert solve_verified(running, bad, 1e-8).status is not SolveStatus.converged
    conductances = tuple(c.copy() for c in good.operator.conductances)
    conductances[1][2, 3, 4] = np.nan
    bad = LinearSystem.from_operator(DiffusionOperator(conductances=conductances), np.ones(504))
    assert solve_verified(running, bad, 1e-8).status is not SolveStatus.converged
    assert solve_verified(running, good, 1e-10).status is SolveStatus.converged
    zero = LinearSystem.from_operator(good.operator, np.zeros(504))
    solution = solve_verified(running, zero, 1e-8)
    assert solution.status is SolveStatus.converged and not solution.value.any()


def test_the_multigrid_method_takes_all_dimensions_that_it_has_kernels_for() -> None:
    system = system_of(operator_of(lognormal((6, 7, 8))))
    assert Multigrid().mismatch(system) is None
    solution = solve(system, method="multigrid")
    assert solution.status is SolveStatus.converged and solution.method == "multigrid"
    line = LinearSystem.from_operator(DiffusionOperator(conductances=(np.ones(5),)), np.ones(4))
    assert "on a 2-D or 3-D grid, this one is 1-D" in (Multigrid().mismatch(line) or "")


def test_iterations_end_at_the_cap() -> None:
    solution = solve_verified(RunningMultigrid3D(2), system_of(operator_of(lognormal((20, 20, 20)))), 1e-8)
    assert solution.status is SolveStatus.max_iterations and solution.num_iterations == 2
    assert solution.relative_residual > 1e-8
