"""The deep conjugate direction method: what training gains, and that no network can spoil a solution."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from headrace.platform.errors import InputError
from headrace.solvers import Darcy, DiffusionOperator, LinearSystem, SolveStatus, solve, solve_sequence
from headrace.solvers.methods import dcdm_network
from headrace.solvers.methods.dcdm import DCDM, RunningDCDM
from headrace.solvers.random_inputs.permeability import LogNormal
from headrace.solvers.systems.verified import solve_verified


def poisson(n: int, seed: int) -> LinearSystem:
    operator = DiffusionOperator(conductances=(np.ones((n + 1, n)), np.ones((n, n + 1))))
    return LinearSystem.from_operator(operator, np.random.default_rng(seed).standard_normal(n * n))


def darcy(n: int, seed: int) -> LinearSystem:
    problem = Darcy(resolution=n, permeability=LogNormal(log_std=0.5))
    return problem.discretize(problem.draw(seed))


def check(system: LinearSystem, value: np.ndarray, rtol: float = 1e-8) -> None:
    expected = scipy.sparse.linalg.spsolve(system.matrix.tocsc(), system.rhs)
    # The relative residual times the condition number, at most 1e3 here.
    np.testing.assert_allclose(value, expected, atol=1e3 * rtol * np.abs(expected).max())


# Little training, so that the test is short; with the defaults a Poisson system takes 6 iterations.
QUICK = DCDM(training_systems=1, training_steps=45)


@pytest.fixture(scope="module")
def trained() -> RunningDCDM:
    running = QUICK.build()
    assert running.solve(poisson(32, 0), 1e-8).method == "cg"
    assert running.network is not None
    return running


def test_a_trained_network_saves_iterations_on_poisson(trained: RunningDCDM) -> None:
    plain = solve(poisson(32, 1), method=DCDM(training_systems=1000))
    assert plain.method == "cg" and plain.num_iterations > 80
    for seed in range(1, 4):
        system = poisson(32, seed)
        solution = solve_verified(trained, system, 1e-8)
        assert solution.status is SolveStatus.converged and solution.method == "dcdm", str(solution)
        assert solution.num_iterations < 0.6 * plain.num_iterations
        check(system, solution.value)


def test_a_trained_network_saves_iterations_on_darcy() -> None:
    systems = [darcy(26, seed) for seed in range(5)]
    plain = [solve(system, method=DCDM(training_systems=1000)).num_iterations for system in systems]
    spec = DCDM(training_systems=2, training_steps=60)
    solutions = solve_sequence(systems, method=spec, order="none")
    for system, solution in zip(systems, solutions, strict=True):
        assert solution.status is SolveStatus.converged
        check(system, solution.value)
    assert [solution.method for solution in solutions] == ["cg", "cg", "dcdm", "dcdm", "dcdm"]
    assert np.mean([s.num_iterations for s in solutions[2:]]) < 0.8 * np.mean(plain[2:])


def test_the_seed_decides() -> None:
    systems = [poisson(12, seed) for seed in range(3)]

    def values(seed: int) -> np.ndarray:
        spec = DCDM(training_systems=1, training_steps=12, seed=seed)
        return np.stack([solution.value for solution in solve_sequence(systems, method=spec)])

    state = torch.random.get_rng_state()
    first = values(3)
    np.testing.assert_array_equal(first, values(3))
    assert not np.array_equal(first[1:], values(4)[1:])
    # The program's own randomness is not touched.
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("fill", [np.nan, np.inf, 0.0, -1.0])
def test_no_network_spoils_a_solution(fill: float) -> None:
    """Weights that are not numbers, or make no direction at all, or random ones that nothing was learnt by."""
    running = DCDM(training_systems=1, training_steps=0).build()
    running.solve(poisson(16, 0), 1e-8)
    assert running.network is not None
    for weight in running.network.parameters.values():
        weight.data.fill_(fill)
    for seed in range(5):
        solution = solve_verified(running, poisson(16, seed), 1e-8)
        assert solution.status is SolveStatus.converged
        check(poisson(16, seed), solution.value)


def test_an_untrained_network_is_not_asked_for_ever() -> None:
    running = DCDM(training_systems=1, training_steps=0, directions=1).build()
    plain = running.solve(poisson(24, 0), 1e-8)
    assert running.network is not None
    running.network.parameters["itself"].data.fill_(0.0)
    counts = [solve_verified(running, poisson(24, seed), 1e-8).num_iterations for seed in range(1, 6)]
    # Three systems pay for the attempt; from then on conjugate gradients take what they take.
    assert min(counts[:3]) > 1.05 * plain.num_iterations
    assert max(counts[3:]) < 1.05 * plain.num_iterations


def test_what_conjugate_gradients_do_not_finish_is_solved_directly() -> None:
    system = darcy(20, 0)
    solution = solve(system, method=DCDM(max_iterations=5))
    assert solution.status is SolveStatus.converged
    assert solution.method == "direct" and solution.num_iterations == 5
    assert "DCDM and CG ended at" in solution.detail
    check(system, solution.value)


def test_values_that_are_not_finite_end_in_a_status_and_do_not_spoil_the_next() -> None:
    good = poisson(12, 0)
    assert good.operator is not None
    running = DCDM(training_systems=1, training_steps=6).build()
    bad = LinearSystem.from_operator(good.operator, np.where(np.arange(144) == 50, np.nan, 1.0))
    assert solve_verified(running, bad, 1e-8).status is not SolveStatus.converged
    assert solve_verified(running, good, 1e-8).status is SolveStatus.converged
    assert solve_verified(running, bad, 1e-8).status is not SolveStatus.converged
    assert solve_verified(running, good, 1e-8).status is SolveStatus.converged
    zero = LinearSystem.from_operator(good.operator, np.zeros(144))
    assert not solve_verified(running, zero, 1e-8).value.any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (13, 21)])
def test_any_grid_and_a_change_of_it(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    nx, ny = shape
    operator = DiffusionOperator(
        conductances=(rng.uniform(0.5, 2, (nx + 1, ny)), rng.uniform(0.5, 2, (nx, ny + 1))),
        reaction=rng.uniform(0, 1, shape),
    )
    systems = [LinearSystem.from_operator(operator, rng.standard_normal(nx * ny)) for _ in range(3)]
    for solution in solve_sequence(
        [*systems, poisson(9, 0), poisson(9, 1)], method=DCDM(training_systems=1, training_steps=3)
    ):
        assert solution.status is SolveStatus.converged


def test_the_network_is_linear_in_the_residual_and_the_loss_is_the_residual_of_a_step() -> None:
    rng = np.random.default_rng(0)
    network = dcdm_network.Network((12, 9), 4, torch.Generator().manual_seed(0))
    operator = darcy(14, 0).operator
    assert operator is not None
    scaled = dcdm_network.ScaledOperator.of(operator)
    gates = network.gates(scaled.coefficient[None])
    a, b = rng.standard_normal((2, 12, 12))
    both = network.direction(a + 3.0 * b, gates)
    # Single precision.
    np.testing.assert_allclose(
        both, (network.direction(a, gates) * np.linalg.norm(a) + 3 * network.direction(b, gates) * np.linalg.norm(b))
        / np.linalg.norm(a + 3.0 * b), atol=1e-5,
    )  # fmt: skip
    image = dcdm_network.apply_scaled(*(face[None] for face in scaled.inner), torch.from_numpy(a).float()[None])
    np.testing.assert_allclose(image[0].numpy(), scaled.scale * operator.apply(scaled.scale * a), atol=1e-5)


def test_mismatch_says_why() -> None:
    matrix = LinearSystem.from_matrix(scipy.sparse.eye_array(3), np.ones(3), positive_definite=True)
    with pytest.raises(InputError, match="DCDM needs a diffusion operator on a 2-D grid"):
        solve(matrix, method=DCDM())
    closed = DiffusionOperator(conductances=(np.pad(np.ones((2, 3)), ((1, 1), (0, 0))), np.zeros((3, 4))))
    singular = LinearSystem.from_operator(closed, np.repeat([1.0, 0.0, -1.0], 3))
    with pytest.raises(InputError, match="not singular"):
        solve(singular, method=DCDM())
