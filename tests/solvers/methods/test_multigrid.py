"""Multigrid in two dimensions: every shape, every contrast, every tolerance; a symmetric cycle; a clean workspace."""

import numpy as np
import pytest
import scipy.sparse.linalg

from headrace.solvers import Darcy, DiffusionOperator, LinearSystem, SolveStatus, solve, solve_sequence
from headrace.solvers.methods.multigrid import RunningMultigrid
from headrace.solvers.random_inputs.permeability import LogNormal, TwoPhase
from headrace.solvers.systems.solver import Solution
from headrace.solvers.systems.verified import solve_verified


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


def assert_solved(solution: Solution, system: LinearSystem, rtol: float, rounding: float = 1e-13) -> None:
    """Converged, to a residual that is the true one, as far as A x can be rounded."""
    assert solution.status is SolveStatus.converged, str(solution)
    residual = np.linalg.norm(system.rhs - system.matrix @ solution.value) / np.linalg.norm(system.rhs)
    assert residual <= rtol * 1.001 + rounding
    assert solution.relative_residual == pytest.approx(residual, rel=1e-3, abs=rounding)


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
    matrix = cycle_of(operator_of(two_phase(shape, 20.0)))
    # Single precision: 1e-7 times a modest number of operations.
    np.testing.assert_allclose(matrix, matrix.T, atol=2e-6 * np.abs(matrix).max())
    assert np.linalg.eigvalsh((matrix + matrix.T) / 2).min() > 0.0


def cycle_of(operator: DiffusionOperator) -> np.ndarray:
    """Column by column: the first iteration for the right-hand side eᵢ leaves D^1/2 B eᵢ in the workspace."""
    shape = operator.shape
    running = RunningMultigrid(1)
    columns = []
    for unit in np.eye(operator.num_unknowns):
        running.solve(LinearSystem.from_operator(operator, unit), 1e-12)
        assert running._workspace is not None
        levels, levelled = running._workspace.arrays[:2]
        stride = int(levels[0, 3])
        scale, z = (levelled[k, : (shape[0] + 2) * stride].reshape(-1, stride) for k in (2, 7))
        columns.append((scale * z)[1:-1, 1 : shape[1] + 1].ravel().astype(np.float64))
    return np.stack(columns)


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


# Reaction and closed ends ---------------------------------------------------------------------------------------------

OPEN, CLOSED, MIXED = (1.0, 1.0), (0.0, 0.0), (0.0, 2.0)
type Ends = tuple[float, float]


def with_ends(
    operator: DiffusionOperator, ends: tuple[Ends, Ends], reaction: np.ndarray | None = None
) -> DiffusionOperator:
    """The operator with the conductances at both ends of every axis multiplied, and with a reaction."""
    conductances = []
    for axis, (first, last) in enumerate(ends):
        c = np.moveaxis(operator.conductances[axis].copy(), axis, 0)
        c[0] *= first
        c[-1] *= last
        conductances.append(np.ascontiguousarray(np.moveaxis(c, 0, axis)))
    return DiffusionOperator(conductances=tuple(conductances), reaction=reaction)


def compatible(operator: DiffusionOperator, seed: int = 0) -> LinearSystem:
    """A random right-hand side that the operator can produce."""
    rhs = np.random.default_rng(seed).standard_normal(operator.num_unknowns)
    return LinearSystem.from_operator(operator, rhs - rhs.mean() if operator.singular else rhs)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("ends", [(OPEN, OPEN), (CLOSED, CLOSED), (MIXED, CLOSED), (CLOSED, OPEN)], ids=str)
def test_agrees_with_a_direct_solver_with_any_reaction_and_ends(
    shape: tuple[int, int], ends: tuple[Ends, Ends]
) -> None:
    running = RunningMultigrid(100)
    small, jumping = 0.01 * (1.0 + waves(shape, 5) ** 2), np.where(waves(shape, 6) > 0.0, 100.0, 0.01)
    # Between closed ends x is large: at the high contrast A x is rounded by 1e-11 to 3e-10 of the right-hand side.
    for contrast, rtol, rounding in ((4.0, 1e-11, 1e-13), (1e4, 1e-9, 5e-10)):
        for reaction in (None, small if contrast > 10.0 else jumping):
            system = compatible(with_ends(operator_of(two_phase(shape, contrast)), ends, reaction))
            solution = running.solve(system, rtol)
            if shape == (1, 1) and system.structure.singular:
                assert solution.status is SolveStatus.converged and not solution.value.any()
                continue
            assert_solved(solution, system, rtol, rounding)
            matrix = system.regular_matrix.tocsc()
            expected = system.without_mean(scipy.sparse.linalg.spsolve(matrix, system.rhs))
            # The relative error is at most the residual times the condition number.
            error = np.linalg.norm(solution.value - expected) / np.linalg.norm(expected)
            assert error <= 10.0 * rtol * max(shape) ** 2 * contrast


@pytest.mark.parametrize(
    ("contrast", "reaction", "bound"),
    [(None, 0.0, 10), (None, 1e-3, 9), (None, 1.0, 7), (None, 1e3, 5), (100.0, 0.0, 22), (100.0, 0.1, 15)],
    ids=str,
)
@pytest.mark.parametrize("ends", [(CLOSED, CLOSED), (MIXED, OPEN)], ids=["closed", "mixed"])
def test_iterations_hardly_grow_with_the_grid_between_closed_ends(
    ends: tuple[Ends, Ends], contrast: float | None, reaction: float, bound: int
) -> None:
    counts = []
    for n in (33, 50, 100, 127, 200):
        permeability = np.exp(waves((n, n))) if contrast is None else two_phase((n, n), contrast)
        field = np.full((n, n), reaction) if reaction else None
        system = compatible(with_ends(operator_of(permeability), ends, field))
        solution = RunningMultigrid(100).solve(system, 1e-8)
        assert_solved(solution, system, 1e-8)
        counts.append(solution.num_iterations)
    assert max(counts) <= bound, counts


@pytest.mark.parametrize("ends", [(OPEN, OPEN), (CLOSED, CLOSED), (MIXED, CLOSED)], ids=["open", "closed", "mixed"])
@pytest.mark.parametrize("contrast", [1.0, 1e4])
@pytest.mark.parametrize("rtol", [1e-4, 1e-8, 1e-12, 1e-13])
def test_every_tolerance_is_reached_with_a_reaction(ends: tuple[Ends, Ends], contrast: float, rtol: float) -> None:
    operator = operator_of(two_phase((90, 127), contrast))
    system = compatible(with_ends(operator, ends, np.full((90, 127), 0.01 * contrast)))
    assert_solved(RunningMultigrid(100).solve(system, rtol), system, rtol)


def test_heat_between_insulated_ends_converges_with_order_two() -> None:
    """u/dt - Δu = f on cells, u = cos πx cos 2πy: nothing flows through the ends; and u = 0 at nodes along x."""
    errors = []
    for n in (20, 40, 80):
        cells, nodes = (np.arange(n) + 0.5) / n, np.arange(1, n) / n
        both = []
        for across, ends in ((np.cos(np.pi * cells), CLOSED), (np.sin(np.pi * nodes), OPEN)):
            u = np.outer(across, np.cos(2 * np.pi * cells))
            operator = operator_of(np.full(u.shape, float(n * n)))
            operator = with_ends(operator, (ends, CLOSED), np.full(u.shape, 10.0))
            system = LinearSystem.from_operator(operator, (10.0 + 5 * np.pi**2) * u.ravel())
            solution = RunningMultigrid(100).solve(system, 1e-10)
            assert_solved(solution, system, 1e-10)
            both.append(np.abs(solution.value - u.ravel()).max())
        errors.append(both)
    np.testing.assert_allclose(np.log2(np.array(errors[:-1]) / errors[1:]), 2.0, atol=0.05)


def test_an_implicit_step_between_insulated_ends_keeps_the_heat() -> None:
    """Σ x = dt Σ rhs, because every column of the diffusion sums to 0."""
    dt = 0.3
    operator = with_ends(operator_of(two_phase((60, 47), 100.0)), (CLOSED, CLOSED), np.full((60, 47), 1.0 / dt))
    system = LinearSystem.from_operator(operator, np.random.default_rng(0).uniform(size=60 * 47))
    solution = RunningMultigrid(100).solve(system, 1e-12)
    assert solution.value.sum() == pytest.approx(dt * system.rhs.sum(), rel=1e-11)


def test_a_reaction_comes_and_goes_in_one_sequence() -> None:
    running = RunningMultigrid(100)
    plain = operator_of(np.exp(waves((30, 41))))
    reaction = 1.0 + waves((30, 41), 7) ** 2
    operators = [plain, with_ends(plain, (CLOSED, MIXED), reaction), with_ends(plain, (CLOSED, CLOSED)), plain]
    solutions = []
    for operator in operators:
        system = compatible(operator)
        solutions.append(running.solve(system, 1e-10))
        assert_solved(solutions[-1], system, 1e-10)
    np.testing.assert_array_equal(solutions[0].value, solutions[-1].value)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_units_do_not_matter_with_a_reaction(scale: float) -> None:
    operator = with_ends(operator_of(two_phase((40, 40), 1e3)), (CLOSED, CLOSED), np.full((40, 40), 2.0))
    assert operator.reaction is not None
    one = RunningMultigrid(100).solve(system_of(operator), 1e-9)
    scaled = DiffusionOperator(
        conductances=tuple(scale * c for c in operator.conductances), reaction=scale * operator.reaction
    )
    other = RunningMultigrid(100).solve(system_of(scaled), 1e-9)
    assert other.status is SolveStatus.converged and other.num_iterations == one.num_iterations
    # Two solutions with residuals of 1e-9.
    np.testing.assert_allclose(other.value * scale, one.value, atol=1e-6 * np.abs(one.value).max())


@pytest.mark.parametrize("ends", [(CLOSED, CLOSED), (MIXED, CLOSED)], ids=["closed", "mixed"])
@pytest.mark.parametrize("shape", [(15, 15), (14, 22), (1, 5)], ids=str)
def test_the_cycle_is_symmetric_and_positive_definite_with_a_reaction(
    shape: tuple[int, int], ends: tuple[Ends, Ends]
) -> None:
    reaction = 0.3 * (1.0 + waves(shape, 5) ** 2)
    matrix = cycle_of(with_ends(operator_of(two_phase(shape, 20.0)), ends, reaction))
    # Single precision: 1e-7 times a modest number of operations.
    np.testing.assert_allclose(matrix, matrix.T, atol=2e-6 * np.abs(matrix).max())
    assert np.linalg.eigvalsh((matrix + matrix.T) / 2).min() > 0.0


@pytest.mark.parametrize("reaction", [0.0, 1e-12, 1e-6, 1e-3, 1.0, 1e3])
def test_reactions_of_every_size_between_closed_ends(reaction: float) -> None:
    """Next to nothing is left to the kernels for three dimensions; all say the same fields."""
    field = np.full((50, 61), reaction) if reaction else None
    operator = with_ends(operator_of(np.exp(waves((50, 61)))), (CLOSED, CLOSED), field)
    rhs = np.random.default_rng(0).standard_normal(operator.num_unknowns)
    system = LinearSystem.from_operator(operator, rhs - rhs.mean())
    solution = solve(system, 1e-8, method="multigrid")
    assert_solved(solution, system, 1e-8)
    assert 0 < solution.num_iterations <= 10
    assert solution.seconds > 0.0 and solution.method == "multigrid"
    assert solution.value.shape == (50 * 61,) and solution.value.dtype == np.float64


@pytest.mark.parametrize("left", [1e-9, 1e-6, 1e-3])
def test_an_end_that_is_nearly_closed(left: float) -> None:
    operator = with_ends(operator_of(np.exp(waves((50, 61)))), (CLOSED, (left, 0.0)))
    rhs = np.random.default_rng(0).standard_normal(operator.num_unknowns)
    system = LinearSystem.from_operator(operator, rhs - rhs.mean())
    solution = solve(system, 1e-8, method="multigrid")
    assert_solved(solution, system, 1e-8, 1e-9)
    assert solution.num_iterations <= 15


@pytest.mark.parametrize("factor", [30.0, 1e3, 1e5])
def test_conductances_that_differ_along_the_axes(factor: float) -> None:
    operator = with_ends(operator_of(np.exp(0.5 * waves((60, 70)))), (CLOSED, MIXED), np.full((60, 70), 0.1))
    conductances = (factor * operator.conductances[0], operator.conductances[1])
    system = system_of(DiffusionOperator(conductances=conductances, reaction=operator.reaction))
    solution = solve(system, 1e-8, method="multigrid")
    assert_solved(solution, system, 1e-8)
    assert solution.num_iterations <= 35


def test_a_negative_reaction_is_left_to_the_kernels_for_three_dimensions() -> None:
    """A is positive definite all the same: the smallest eigenvalue of the diffusion is 8 sin²(π/42) = 0.045."""
    operator = with_ends(operator_of(np.ones((20, 20))), (OPEN, OPEN), np.full((20, 20), -0.02))
    rhs = np.random.default_rng(0).standard_normal(400)
    system = LinearSystem.from_operator(operator, rhs, positive_definite=True)
    assert_solved(solve(system, 1e-8, method="multigrid"), system, 1e-8)


def test_a_periodic_axis_is_refused() -> None:
    operator = DiffusionOperator(conductances=(np.ones((6, 5)), np.ones((5, 5))), periodic=(False, True))
    with pytest.raises(ValueError, match=r"two axes that are not periodic, got periodic = \(False, True\)"):
        RunningMultigrid(100).solve(system_of(operator), 1e-8)
