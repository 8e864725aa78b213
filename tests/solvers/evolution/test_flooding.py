"""Shallow water over a bottom: exact solutions with moving shores, lakes at rest, mass, depths that stay above 0."""

import itertools
import math

import numpy as np
import pytest
from jaxtyping import Float64

from headrace.platform.sample import Failure
from headrace.platform.seeding import generator
from headrace.solvers.evolution.evolution import Draw
from headrace.solvers.problems import Flooding, ShallowWater
from headrace.solvers.sources.trajectories import EvolutionSource

Array = Float64[np.ndarray, "..."]

GRAVITY = 9.8125


def basin(**values: object) -> Flooding:
    return Flooding.model_validate({"dim": 1, "gravity": GRAVITY, "snapshots": 1} | values)


def ended(problem: Flooding, depth: Array, bottom: Array, velocity: Array | float = 0.0) -> Array:
    """Depth and velocity at the last output time."""
    fields = {
        "depth": depth[np.newaxis],
        "velocity": np.broadcast_to(velocity, (problem.dim, *depth.shape)).copy(),
        "bottom": bottom[np.newaxis],
    }
    draw = Draw(scalars={"gravity": GRAVITY}, fields=fields)
    *_, last = problem.follow([draw], problem.default_step)
    assert not last.reasons
    return np.array(last.state[0])


def orders(errors: list[float]) -> list[float]:
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("boundary", ["wall", "periodic", "outflow"])
def test_a_lake_stays_at_rest_around_dry_islands(dim: int, boundary: str) -> None:
    problem = basin(dim=dim, boundary=boundary, resolution=32, surface={"std": 0.0}, bottom={"std": 1.0}, horizon=1.0)
    fields = problem.draw(generator(3, "lake")).fields
    depth, bottom = fields["depth"][0], fields["bottom"][0]
    assert 0.02 < (depth == 0.0).mean() < 0.5
    after = ended(problem, depth, bottom)
    # The momentum that rounding leaves in depths of a metre, over some hundred steps.
    assert np.abs(after[0] - depth).max() < 1e-12
    assert np.abs(after[0] * after[1:]).max() < 1e-12


def test_a_dam_breaks_over_dry_land_as_ritter_has_it() -> None:
    errors = []
    for n in (50, 100, 200):
        problem = basin(resolution=n, horizon=0.5, boundary="outflow")
        (x,) = problem.grid.coordinates()
        depth, _ = ended(problem, np.where(x < 5.0, 1.0, 0.0), np.zeros(n))
        xi, c = (x - 5.0) / 0.5, math.sqrt(GRAVITY)
        exact = np.select([xi < -c, xi < 2.0 * c], [1.0, (2.0 * c - xi) ** 2 / (9.0 * GRAVITY)], 0.0)
        errors.append(float(np.abs(depth - exact).mean()))
    assert errors[-1] < 2e-3  # of a depth of 1 m
    assert min(orders(errors)) > 0.9  # the corners of a rarefaction allow no more than 1


def thacker(x: Array, time: float) -> tuple[Array, Array, float]:
    """Depth, bottom and speed of water that swings in a parabola: Thacker (1981), numbers by Delestre et al. (2013)."""
    h0, a = 0.5, 1.0
    omega = math.sqrt(2.0 * GRAVITY * h0) / a
    depth = np.maximum(-h0 * (((x - 2.0) / a + math.cos(omega * time) / (2.0 * a)) ** 2 - 1.0), 0.0)
    return depth, h0 * ((x - 2.0) ** 2 / a**2 - 1.0), a * omega / 2.0 * math.sin(omega * time) / a


@pytest.mark.parametrize("periods", [0.3, 1.0])
def test_water_swings_in_a_parabola_as_thacker_has_it(periods: float) -> None:
    horizon, errors = periods * 2.0 * math.pi / math.sqrt(GRAVITY), []
    for n in (50, 100, 200):
        problem = basin(resolution=n, length=4.0, horizon=horizon)
        (x,) = problem.grid.coordinates()
        depth, bottom, _ = thacker(x, 0.0)
        exact, _, speed = thacker(x, horizon)
        found, velocity = ended(problem, depth, bottom)
        errors.append(float(np.linalg.norm(found - exact) / np.linalg.norm(exact)))
        if n == 200:
            deep = exact > 0.1
            assert np.abs(velocity[deep] - speed).max() < 0.02 * math.sqrt(GRAVITY * 0.5)
    assert errors[-1] < 0.01
    assert math.log2(errors[0] / errors[-1]) / 2 > 1.2  # the shores are of first order, the water between of second


def test_smooth_waves_over_a_smooth_bottom_are_of_second_order() -> None:
    found = {}
    for n in (64, 128, 256, 1024):
        problem = basin(resolution=n, length=1.0, boundary="periodic", horizon=0.1)
        (x,) = problem.grid.coordinates()
        bottom = 0.3 * np.sin(2.0 * np.pi * x)
        surface = 1.0 + 0.05 * np.cos(2.0 * np.pi * x)
        after = ended(problem, surface - bottom, bottom)
        found[n] = after.reshape(2, 64, -1).mean(axis=2)
    errors = [float(np.linalg.norm(found[n] - found[1024])) for n in (64, 128, 256)]
    assert min(orders(errors)) > 1.7  # van Leer's limiter clips the crests


def test_over_a_flat_bottom_it_is_shallow_water() -> None:
    values = {"dim": 2, "resolution": 32, "length": 1.0, "boundary": "wall", "horizon": 0.1, "snapshots": 1}
    flat, other = basin(**values), ShallowWater.model_validate(values | {"gravity": GRAVITY})
    fields = other.draw(generator(0, "flat")).fields
    after = ended(flat, fields["depth"][0], np.zeros((32, 32)), fields["velocity"])
    *_, right = other.follow([Draw(scalars={"gravity": GRAVITY}, fields=fields)], other.default_step)
    # Both are of second order, and differ in the steps that they take.
    assert np.abs(after - right.state[0]).max() < 0.01 * np.abs(right.state[0]).max()


@pytest.mark.parametrize("level", Flooding().levels())
def test_mass_is_kept_and_no_depth_is_negative(level: str) -> None:
    problem = basin(dim=2, resolution=24, snapshots=5).at_level(level)
    draws = [problem.draw(generator(seed, "mass")) for seed in range(3)]
    for snapshot in problem.follow(draws, problem.default_step):
        assert not snapshot.reasons
        assert (snapshot.state[:, 0] >= 0.0).all()
        for state, draw in zip(snapshot.state, draws, strict=True):
            assert state[0].sum() == pytest.approx(draw.fields["depth"].sum(), rel=1e-12)
            assert (state[1:, state[0] == 0.0] == 0.0).all()


def test_the_axes_of_a_plane_are_alike_and_one_is_a_line() -> None:
    line = basin(resolution=32, horizon=0.5)
    fields = line.at_level("flood").draw(generator(1, "line")).fields
    depth, bottom = fields["depth"][0], fields["bottom"][0]
    alone = ended(line, depth, bottom)
    # The waves of both axes count for the length of a step: the plane takes those of the line.
    plane = basin(dim=2, resolution=32, horizon=0.5, cfl=0.4)
    along = ended(plane, np.repeat(depth[:, None], 32, 1), np.repeat(bottom[:, None], 32, 1))
    across = ended(plane, np.repeat(depth[None], 32, 0), np.repeat(bottom[None], 32, 0))
    assert np.abs(across[[0, 2, 1]] - along.transpose(0, 2, 1)).max() < 1e-12
    assert np.abs(along[:2, :, 5] - alone).max() < 0.05


def test_a_sample_does_not_depend_on_those_beside_it() -> None:
    problem = basin(resolution=32).at_level("flood")
    draws = [problem.draw(generator(seed, "beside")) for seed in range(3)]
    *_, together = problem.follow(draws, problem.default_step)
    for row, draw in enumerate(draws):
        *_, alone = problem.follow([draw], problem.default_step)
        assert np.array_equal(alone.state[0], together.state[row])


def test_a_bottom_above_all_water_is_a_failure_with_a_reason() -> None:
    problem = basin(resolution=16, start="dam_break", surface={"std": 0.0}, tailwater=0.0, bottom={"std": 0.0})
    (found,) = EvolutionSource(problem=problem).samples([0])
    assert isinstance(found, Failure) and "all of the bottom is dry" in found.reason
