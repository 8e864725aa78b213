"""Heat between walls against exact solutions, sparse matrices, and what diffusion promises."""

import functools
import math
from typing import Literal

import numpy as np
import pytest
from jaxtyping import Float64
from scipy.linalg import expm
from scipy.sparse import csc_array, diags_array, eye_array, kron
from scipy.sparse.linalg import spsolve

from headrace.platform.sample import Sample
from headrace.platform.seeding import generator
from headrace.solvers.evolution.accuracy import choose_numerics
from headrace.solvers.evolution.evolution import Draw
from headrace.solvers.numerics import Numerics
from headrace.solvers.problems import HeatWithWalls
from headrace.solvers.sources.trajectories import EvolutionSource

Array = Float64[np.ndarray, "..."]
INTEGRATORS: tuple[Literal["exponential", "implicit_euler"], ...] = ("exponential", "implicit_euler")
WALLS = ("west", "east", "south", "north", "bottom", "top")


def followed(problem: HeatWithWalls, draws: list[Draw], step: float | None = None) -> Array:
    """The temperatures at the output times, "time batch *grid"."""
    return np.stack([shot.state[:, 0] for shot in problem.follow(draws, step or problem.default_step)])


def drawn(problem: HeatWithWalls, seed: int = 0) -> Draw:
    return problem.draw(generator(seed, "draw"))


def with_field(problem: HeatWithWalls, field: Array, **scalars: float) -> Draw:
    """Walls at 0, but for those that are given."""
    values = dict.fromkeys(problem.scalars, 0.0) | {"diffusivity": 1.0} | scalars
    return Draw(scalars=values, fields={"temperature": field[np.newaxis]})


def matrix_and_walls(problem: HeatWithWalls, draw: Draw) -> tuple[csc_array, Array]:
    """The Laplacian of the interior points, and what the walls add to it, put together anew."""
    n, dim = problem.resolution, problem.dim
    h = problem.length / (n + 1)
    second = diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(n, n)) / h**2
    parts = []
    walls = np.zeros((n,) * dim)
    for axis in range(dim):
        factors = [second if other == axis else eye_array(n) for other in range(dim)]
        parts.append(functools.reduce(kron, factors))
        along = np.moveaxis(walls, axis, 0)
        along[0] += draw.scalars[WALLS[2 * axis]] / h**2
        along[-1] += draw.scalars[WALLS[2 * axis + 1]] / h**2
    return csc_array(sum(parts[1:], start=parts[0])), walls.ravel()


def sines(problem: HeatWithWalls) -> Array:
    """The slowest mode: a half wave along each axis."""
    one = np.sin(math.pi * np.arange(1, problem.resolution + 1) / (problem.resolution + 1))
    return functools.reduce(np.multiply.outer, [one] * problem.dim)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_half_wave_decays_by_its_own_rate(dim: Literal[1, 2, 3]) -> None:
    n = 9
    problem = HeatWithWalls(resolution=n, dim=dim, length=2.0, horizon=0.5, snapshots=(0.125, 0.5))
    mode = sines(problem)
    rate = 0.5 * dim * (2.0 * (n + 1) / 2.0 * math.sin(math.pi / (2 * (n + 1)))) ** 2  # κ = 0.5
    states = followed(problem, [with_field(problem, mode, diffusivity=0.5)])
    for state, time in zip(states, problem.times, strict=True):
        np.testing.assert_allclose(state[0], math.exp(-rate * time) * mode, atol=1e-14)
    implicit = problem.overridden({"integrator": "implicit_euler"})
    # Two steps of 0.0625, then six.
    for state, count in zip(
        followed(implicit, [with_field(problem, mode, diffusivity=0.5)], 0.0625), (2, 8), strict=True
    ):
        np.testing.assert_allclose(state[0], (1.0 + 0.0625 * rate) ** -count * mode, atol=1e-14)


def test_space_is_of_second_order() -> None:
    errors = []
    for n in (9, 19, 39):
        problem = HeatWithWalls(resolution=n, horizon=0.05, snapshots=1)
        mode = sines(problem)
        (state,) = followed(problem, [with_field(problem, mode)])
        errors.append(np.abs(state[0] - math.exp(-2.0 * math.pi**2 * 0.05) * mode).max())
    # Every grid has its points, and one half-way between any two: h is halved exactly.
    assert 1.95 < math.log2(errors[0] / errors[1]) < 2.05
    assert 1.98 < math.log2(errors[1] / errors[2]) < 2.02


def test_implicit_euler_is_of_first_order_in_time_and_exponential_has_no_error() -> None:
    problem = HeatWithWalls(resolution=9, horizon=0.1, snapshots=1)
    draw = drawn(problem)
    laplacian, walls = matrix_and_walls(problem, draw)
    start = draw.fields["temperature"].ravel()
    steady = spsolve(laplacian, -walls)
    truth = steady + expm(0.1 * laplacian.toarray()) @ (start - steady)
    (exact,) = followed(problem, [draw])
    np.testing.assert_allclose(exact[0].ravel(), truth, rtol=1e-12)
    implicit = problem.overridden({"integrator": "implicit_euler"})
    errors = [np.abs(followed(implicit, [draw], step)[0, 0].ravel() - truth).max() for step in (1e-3, 5e-4, 2.5e-4)]
    assert 0.97 < math.log2(errors[0] / errors[1]) < 1.03
    assert 0.98 < math.log2(errors[1] / errors[2]) < 1.02


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_implicit_euler_is_what_sparse_systems_solve(dim: Literal[1, 2, 3]) -> None:
    problem = HeatWithWalls(
        resolution=8, dim=dim, integrator="implicit_euler", horizon=0.05, snapshots=5, diffusivity=0.5
    )
    draw = drawn(problem)
    laplacian, walls = matrix_and_walls(problem, draw)
    step = csc_array(eye_array(8**dim) - 0.01 * 0.5 * laplacian)
    u = draw.fields["temperature"].ravel()
    for state in followed(problem, [draw]):
        before, u = u, spsolve(step, u + 0.01 * 0.5 * walls)
        np.testing.assert_allclose(state[0].ravel(), u, rtol=1e-12)
        # What comes in through the walls is what the points take up.
        received = 0.01 * 0.5 * (laplacian @ state[0].ravel() + walls)
        np.testing.assert_allclose((u - before).sum(), received.sum(), atol=1e-9 * np.abs(received).sum())


@pytest.mark.parametrize("integrator", INTEGRATORS)
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_end_is_the_solution_of_laplace_s_equation(
    dim: Literal[1, 2, 3], integrator: Literal["exponential", "implicit_euler"]
) -> None:
    problem = HeatWithWalls(resolution=8, dim=dim, integrator=integrator, horizon=50.0, snapshots=50)
    draw = drawn(problem)
    laplacian, walls = matrix_and_walls(problem, draw)
    np.testing.assert_allclose(followed(problem, [draw])[-1, 0].ravel(), spsolve(laplacian, -walls), rtol=1e-12)


@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_no_point_leaves_the_temperatures_of_start_and_walls(
    integrator: Literal["exponential", "implicit_euler"],
) -> None:
    # Steps far beyond what an explicit method survives, and where a trapezoid rule would overshoot.
    problem = HeatWithWalls(resolution=32, integrator=integrator, horizon=1.0, snapshots=(1e-5, 1e-3, 0.02, 1.0))
    draws = [drawn(problem, seed) for seed in range(4)]
    states = followed(problem, draws)
    for row, draw in enumerate(draws):
        given = [draw.scalars[name] for name in ("start", *WALLS[:4])]
        # The transforms round to some 1e-15 of the temperatures.
        assert states[:, row].min() >= min(given) - 1e-9 and states[:, row].max() <= max(given) + 1e-9
    # Between walls as warm as the start nothing happens.
    calm = with_field(problem, np.full((32, 32), 300.0), **dict.fromkeys(("start", *WALLS[:4]), 300.0))
    np.testing.assert_allclose(followed(problem, [calm]), 300.0, rtol=1e-12)


def test_walls_are_where_they_are_named() -> None:
    problem = HeatWithWalls(resolution=9, dim=3, horizon=0.01, snapshots=1)
    for number, wall in enumerate(WALLS):
        (state,) = followed(problem, [with_field(problem, np.zeros((9, 9, 9)), **{wall: 100.0})])
        along = np.moveaxis(state[0], number // 2, 0)
        near, far = (along[0], along[-1]) if number % 2 == 0 else (along[-1], along[0])
        assert near.min() > 10.0 > 1e-3 > far.max()


@pytest.mark.parametrize("integrator", INTEGRATORS)
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_sample_does_not_depend_on_its_batch(
    dim: Literal[1, 2, 3], integrator: Literal["exponential", "implicit_euler"]
) -> None:
    problem = HeatWithWalls(resolution=11, dim=dim, integrator=integrator, diffusivity={"low": 0.1, "high": 1.0})
    draws = [drawn(problem, seed) for seed in range(5)]
    together = followed(problem, draws)
    np.testing.assert_array_equal(together[:, 3:4], followed(problem, draws[3:4]))


def test_points_of_a_grid_are_among_those_of_the_refined_one() -> None:
    problem = HeatWithWalls(resolution=8, length=2.0, variation={"std": 30.0})
    fine = problem.refined(3)
    assert fine.resolution == 26
    # Coordinates count from the first point, which is one spacing from the wall.
    where, finer = (grid.coordinates()[0] + grid.spacing[0] for grid in (problem.grid, fine.grid))
    np.testing.assert_allclose(where, 2.0 * np.arange(1, 9) / 9.0, rtol=1e-14)
    np.testing.assert_allclose(fine.restrict(np.multiply.outer(finer, finer), 3), np.multiply.outer(where, where))
    a, b = drawn(problem).fields["temperature"], drawn(fine).fields["temperature"]
    np.testing.assert_allclose(problem.restrict(b, 3), a, atol=1e-3)  # single precision of 500 K, twice


def test_a_start_that_varies_is_an_input() -> None:
    plain, varied = HeatWithWalls(resolution=16), HeatWithWalls(resolution=16, variation={"std": 30.0})
    names = ["start", "west", "east", "south", "north", "diffusivity"]
    for problem in (plain, varied):
        assert [field.name for field in problem.schema().parameters] == names
        assert [field.unit for field in problem.schema().parameters] == ["K"] * 5 + ["m²/s"]
    assert plain.schema().inputs == () and varied.schema().inputs == varied.schema().outputs
    (sample,) = EvolutionSource(problem=plain).samples([0])
    assert isinstance(sample, Sample) and sample.inputs.shape == (0, 16, 16)
    (sample,) = EvolutionSource(problem=varied).samples([0])
    assert isinstance(sample, Sample) and sample.inputs.shape == (1, 16, 16)
    assert sample.inputs.mean() == pytest.approx(sample.parameters[0], abs=60.0) and np.ptp(sample.inputs) > 10.0


def test_implicit_euler_keeps_the_step_that_is_asked_for_and_an_accuracy_finds_one() -> None:
    problem = HeatWithWalls(resolution=15, integrator="implicit_euler", horizon=0.1, snapshots=2)
    source = EvolutionSource(problem=problem, numerics={"default": Numerics(step=0.02)})
    built = source.build()
    (sample,) = built.solve(source.requests([0]))
    assert isinstance(sample, Sample) and sample.provenance.num_iterations == 6
    assert sample.provenance.solver.startswith("implicit_euler on 15x15 points") and built.report()["rescued"] == 0
    choice = choose_numerics(problem, 0.01, level="default", seed=0, num_pilots=2)
    assert choice.error <= 0.01 and choice.numerics.step < 0.02


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"diffusivity": 0.0}, "diffusivity above 0, got 0"),
        ({"diffusivity": {"low": -1.0, "high": 1.0}}, "diffusivity above 0, got -1 to 1"),
        ({"west": {"low": 500.0, "high": 100.0}}, "low 500 not above high 100"),
        ({"resolution": 4}, "greater than or equal to 8"),
        ({"length": 0.0}, "greater than 0"),
        ({"integrator": "explicit_euler"}, "'exponential' or 'implicit_euler'"),
        ({"snapshots": (2.0,)}, "output times up to the horizon, 1, in snapshots, got 2"),
    ],
)
def test_what_it_cannot_take_is_said(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        HeatWithWalls.model_validate(values)
