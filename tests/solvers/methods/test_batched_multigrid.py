"""Batched multigrid against independent solvers and against the compiled method whose mathematics it shares."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from headrace.platform.errors import InputError
from headrace.solvers import Darcy, DiffusionOperator, LinearSystem, Multigrid, SolveStatus, solve
from headrace.solvers.device import cuda_is_available
from headrace.solvers.methods import batched_multigrid_tensors as tensors
from headrace.solvers.methods.batched_multigrid import BatchedMultigrid
from headrace.solvers.random_inputs.permeability import LogNormal, TwoPhase
from headrace.solvers.systems.verified import solve_batch_verified

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def method(request: pytest.FixtureRequest) -> BatchedMultigrid:
    if request.param == "cuda" and not cuda_is_available():
        pytest.skip("no CUDA device")
    return BatchedMultigrid(device=request.param)


def darcy(n: int, seed: int, permeability: LogNormal | TwoPhase) -> LinearSystem:
    problem = Darcy(resolution=n, permeability=permeability)
    return problem.discretize(problem.draw(seed))


def rectangle(nx: int, ny: int, seed: int = 1, reaction: float = 0.0) -> LinearSystem:
    rng = np.random.default_rng(seed)
    operator = DiffusionOperator(
        conductances=(rng.uniform(0.5, 2.0, (nx + 1, ny)), rng.uniform(0.5, 2.0, (nx, ny + 1))),
        reaction=reaction * rng.uniform(0.5, 1.5, (nx, ny)) if reaction else None,
    )
    return LinearSystem.from_operator(operator, rng.standard_normal(nx * ny))


def neumann(nx: int, ny: int, *, everywhere: bool) -> LinearSystem:
    """No flow through three sides, or through all four."""
    rng = np.random.default_rng(3)
    cx, cy = rng.uniform(0.5, 2.0, (nx + 1, ny)), rng.uniform(0.5, 2.0, (nx, ny + 1))
    cx[0] = cy[:, 0] = cy[:, -1] = 0.0
    if everywhere:
        cx[-1] = 0.0
    rhs = rng.standard_normal(nx * ny)
    return LinearSystem.from_operator(DiffusionOperator(conductances=(cx, cy)), rhs - rhs.mean())


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (2, 30), (31, 3), (40, 17), (17, 40), (32, 33)])
@pytest.mark.parametrize("reaction", [0.0, 3.0])
def test_agrees_with_an_independent_solver(method: BatchedMultigrid, shape: tuple[int, int], reaction: float) -> None:
    systems = [rectangle(*shape, seed=seed, reaction=reaction) for seed in range(3)]
    for system, solution in zip(systems, solve_batch_verified(method.build(), systems, 1e-12), strict=True):
        assert solution.status is SolveStatus.converged, str(solution)
        expected = scipy.sparse.linalg.spsolve(system.matrix.tocsc(), system.rhs)
        # A relative residual of 1e-12 times the condition number, at most 1e4 here.
        np.testing.assert_allclose(solution.value, expected, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("n", [33, 64, 100])
@pytest.mark.parametrize(
    "permeability",
    [LogNormal(), LogNormal(length_scale=0.1, log_std=1.5), TwoPhase(low=1.0, high=100.0)],
    ids=["log-normal", "rough", "contrast 100"],
)
def test_takes_as_many_iterations_as_the_compiled_method(
    method: BatchedMultigrid, n: int, permeability: LogNormal | TwoPhase
) -> None:
    systems = [darcy(n, seed, permeability) for seed in range(3)]
    solutions = solve_batch_verified(method.build(), systems, 1e-8)
    for system, solution in zip(systems, solutions, strict=True):
        compiled = solve(system, method=Multigrid())
        assert solution.status is SolveStatus.converged
        # The same cycle up to rounding in single precision.
        assert abs(solution.num_iterations - compiled.num_iterations) <= 1
        np.testing.assert_allclose(solution.value, compiled.value, rtol=1e-5, atol=1e-7 * compiled.value.max())


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (16, 16), (33, 20)])
@pytest.mark.parametrize("everywhere", [False, True], ids=["three sides", "all sides"])
def test_neumann_boundaries(method: BatchedMultigrid, shape: tuple[int, int], everywhere: bool) -> None:
    system = neumann(*shape, everywhere=everywhere)
    solution = solve(system, rtol=1e-10, method=method)
    assert solution.status is SolveStatus.converged, str(solution)
    assert solution.num_iterations <= 16
    if everywhere:
        assert abs(solution.value.mean()) <= 1e-12 * max(np.abs(solution.value).max(), 1.0)


def test_a_system_does_not_depend_on_its_neighbours(method: BatchedMultigrid) -> None:
    """Hard, zero and broken neighbours change nothing but the last bits."""
    easy = darcy(33, 0, LogNormal())
    hard = darcy(33, 1, TwoPhase(low=1e-3, high=1e3))
    assert easy.operator is not None
    zero = LinearSystem.from_operator(easy.operator, np.zeros(31 * 31))
    broken = LinearSystem.from_operator(easy.operator, np.where(np.arange(961) == 100, np.nan, 1.0))
    infinite = LinearSystem.from_operator(easy.operator, np.where(np.arange(961) == 100, np.inf, 1.0))
    cx, cy = easy.operator.conductances
    negative = LinearSystem.from_operator(DiffusionOperator(conductances=(-cx, cy)), easy.rhs)
    hole = cx.copy()
    hole[5, 5] = np.nan
    unknown = LinearSystem.from_operator(DiffusionOperator(conductances=(hole, cy)), easy.rhs)
    alone = solve(easy, method=method)
    batch = [broken, easy, zero, hard, infinite, negative, unknown]
    solutions = solve_batch_verified(method.build(), batch, 1e-8)
    for position, solution in enumerate(solutions):
        assert (solution.status is SolveStatus.converged) == (position in (1, 2, 3)), (position, str(solution))
    assert solutions[1].num_iterations == alone.num_iterations < solutions[3].num_iterations
    np.testing.assert_allclose(solutions[1].value, alone.value, rtol=1e-7)
    assert not solutions[2].value.any()


def test_batches_and_shapes_come_back_in_order(method: BatchedMultigrid) -> None:
    systems = [rectangle(n, n + 1, seed=n) for n in (5, 9, 5, 12, 5, 9)]
    assert method.batch_size(systems[0]) == 32
    small = method.model_copy(update={"batch": 2})
    for system, solution in zip(systems, solve_batch_verified(small.build(), systems, 1e-10), strict=True):
        assert solution.status is SolveStatus.converged
        assert solution.value.shape == system.rhs.shape


@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_does_not_depend_on_units(method: BatchedMultigrid, scale: float) -> None:
    """Permeability of rock is 1e-15 m²; single precision must not underflow."""
    problem = Darcy(resolution=40)
    a = problem.draw(2)["permeability"]
    one = solve(problem.discretize({"permeability": a}), method=method)
    other = solve(problem.discretize({"permeability": scale * a}), method=method)
    assert other.status is SolveStatus.converged and other.num_iterations == one.num_iterations
    np.testing.assert_allclose(other.value * scale, one.value, rtol=1e-6)


@pytest.mark.parametrize("shape", [(5, 6), (9, 4), (7, 7)])
def test_cycle_is_symmetric_and_positive_definite(shape: tuple[int, int]) -> None:
    """As a matrix, column by column: every unit vector is one system of a batch."""
    operator = rectangle(*shape, reaction=0.5).operator
    assert operator is not None and operator.reaction is not None
    n = operator.num_unknowns
    cx, cy, reaction = (
        torch.from_numpy(array).float().expand(n, *array.shape).clone()
        for array in (*operator.conductances, operator.reaction)
    )
    cycle = tensors.Cycle(cx, cy, reaction, torch.zeros(n, dtype=torch.bool))
    matrix = cycle(torch.eye(n, dtype=torch.float64).reshape(n, *shape)).reshape(n, n).numpy()
    # Single precision: 1e-7 times a modest number of operations.
    np.testing.assert_allclose(matrix, matrix.T, atol=2e-6 * np.abs(matrix).max())
    assert np.linalg.eigvalsh((matrix + matrix.T) / 2).min() > 0.0


def test_periodic_systems_go_to_the_direct_method() -> None:
    rng = np.random.default_rng(0)
    operator = DiffusionOperator(
        conductances=(rng.uniform(1, 2, (6, 7)), rng.uniform(1, 2, (6, 8))), periodic=(True, False)
    )
    solution = solve(LinearSystem.from_operator(operator, rng.standard_normal(42)), method=BatchedMultigrid())
    assert solution.status is SolveStatus.converged and solution.method == "direct"


def test_iterations_end_at_the_cap() -> None:
    solution = solve(darcy(40, 0, LogNormal()), method=BatchedMultigrid(max_iterations=2))
    assert solution.status is SolveStatus.max_iterations and solution.num_iterations == 2


def test_mismatch_says_why_and_what_to_use() -> None:
    matrix = LinearSystem.from_matrix(scipy.sparse.eye_array(3), np.ones(3), positive_definite=True)
    with pytest.raises(InputError, match="needs a diffusion operator on a 2-D grid, this is a general matrix; use"):
        solve(matrix, method=BatchedMultigrid())
    if not cuda_is_available():
        with pytest.raises(InputError, match="told to use cuda, which torch does not find here; use device auto"):
            solve(rectangle(4, 4), method=BatchedMultigrid(device="cuda"))


def test_threads_of_torch_are_left_alone() -> None:
    before = torch.get_num_threads()
    solve(rectangle(20, 20), method=BatchedMultigrid())
    assert torch.get_num_threads() == before
