"""Round walls against exact swirls, a sparse factorisation and published forces, and what they leave as it was."""

import math
from dataclasses import dataclass
from itertools import product
from typing import get_args

import numpy as np
import pytest
from jaxtyping import Bool, Float64
from scipy.optimize import brentq
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import splu
from scipy.special import j1, y1

from headrace.platform.sample import Sample
from headrace.platform.seeding import generator
from headrace.solvers.evolution.enclosure import Coefficients, Enclosure, Lids, Sides, Surface
from headrace.solvers.evolution.evolution import Draw
from headrace.solvers.evolution.fast_poisson import PressureSolver, box_poisson, find_rim
from headrace.solvers.evolution.round_walls import follow_walls
from headrace.solvers.evolution.staggered import StaggeredFlow
from headrace.solvers.problems import FlowPastObstacles
from headrace.solvers.problems.obstacles import Disk
from headrace.solvers.sources.trajectories import EvolutionSource

Array = Float64[np.ndarray, "..."]


@dataclass(frozen=True)
class Drum:
    """All that is outside of a circle."""

    inner: Disk

    def distance(self, x: Array, y: Array) -> Array:
        return -self.inner.distance(x, y)


def order(errors: list[float]) -> float:
    """From the first to the last of grids with twice the cells each."""
    return math.log2(errors[0] / errors[-1]) / (len(errors) - 1)


def centres(shape: tuple[int, int], h: float) -> tuple[Array, Array]:
    x, y = np.meshgrid((np.arange(shape[0]) + 0.5) * h, (np.arange(shape[1]) + 0.5) * h, indexing="ij")
    return x, y


def fluid_of(shape: tuple[int, int], h: float, *surfaces: Surface) -> Bool[np.ndarray, "nx ny"]:
    return np.all([one.distance(*centres(shape, h)) >= 0.0 for one in surfaces], axis=0)


def free_faces(is_fluid: Bool[np.ndarray, "nx ny"]) -> tuple[Bool[np.ndarray, "..."], Bool[np.ndarray, "..."]]:
    """Those between two cells of fluid."""
    nx, ny = is_fluid.shape
    free_u, free_v = np.zeros((nx + 1, ny), dtype=bool), np.zeros((nx, ny + 1), dtype=bool)
    free_u[1:-1], free_v[:, 1:-1] = is_fluid[1:] & is_fluid[:-1], is_fluid[:, 1:] & is_fluid[:, :-1]
    return free_u, free_v


# Exact solutions.


def swirl(n: int, is_round: bool = True) -> tuple[float, float, float]:
    """How wrong a swirl between two circles at rest is when it has decayed: at most, on the average, and the pressure.

    With u_θ = J₁(k r) Y₁(k a) - Y₁(k r) J₁(k a), which is 0 at a and b, circles remain what the fluid goes along, so
    that it decays with exp(-ν k² t) whatever its speed, and ∂p/∂r = u_θ² / r.
    """
    h, a, b, viscosity, end = 1.0 / n, 0.17, 0.41, 0.002, 1.5
    inner, outer = Disk(x=0.513, y=0.497, radius=a), Drum(Disk(x=0.513, y=0.497, radius=b))
    is_fluid = fluid_of((n, n), h, inner, outer)
    k = brentq(lambda k: j1(k * b) * y1(k * a) - y1(k * b) * j1(k * a), 10.0, 15.0)

    def speed(r: Array) -> Array:
        return 5.0 * (j1(k * r) * y1(k * a) - y1(k * r) * j1(k * a))

    def at(x: Array, y: Array) -> tuple[Array, Array]:
        r = np.hypot(x - inner.x, y - inner.y)
        return -speed(r) * (y - inner.y) / r, speed(r) * (x - inner.x) / r

    x, y = centres((n + 1, n + 1), h)
    u, v = at(x[:, :-1] - 0.5 * h, y[:, :-1])[0], at(x[:-1], y[:-1] - 0.5 * h)[1]
    box = Enclosure(shape=(n, n), spacing=h, surfaces=(inner, outer) if is_round else ())
    flow = StaggeredFlow(box, Coefficients(viscosity=viscosity), is_fluid)
    flow.start_from_faces(u, v)
    count = math.ceil(end / (0.9 * flow.longest_step()))
    for _ in range(count):
        flow.advance(end / count)
    decay = math.exp(-viscosity * k**2 * end)
    errors = np.concatenate(
        [
            (found / decay - true)[free]
            for found, true, free in zip(flow.faces(), (u, v), free_faces(is_fluid), strict=True)
        ]
    )
    r = np.linspace(a, b, 2001)
    push = speed(r) ** 2 / r
    pressure = np.concatenate([[0.0], np.cumsum(0.5 * (push[1:] + push[:-1]) * np.diff(r))])
    x, y = centres((n, n), h)
    wrong = flow.pressure() / decay**2 - np.interp(np.hypot(x - inner.x, y - inner.y), r, pressure)
    wrong = wrong[is_fluid] - wrong[is_fluid].mean()
    return float(np.abs(errors).max()), float(np.sqrt(np.mean(errors**2))), float(np.sqrt(np.mean(wrong**2)))


def test_a_swirl_between_circles_decays_with_second_order() -> None:
    errors = [swirl(n) for n in (24, 48, 96)]
    for each in zip(*errors, strict=True):
        # How a circle cuts the cells differs from grid to grid, and so does what is before h².
        assert order(list(each)) == pytest.approx(2.2, abs=0.3)
    at_most, mean, pressure = errors[-1]
    assert at_most < 0.004 and mean < 0.001 and pressure < 0.001  # of a speed of 1


def test_steps_of_cells_are_of_first_order() -> None:
    stairs = [swirl(n, is_round=False)[1] for n in (24, 48, 96)]
    assert order(stairs) < 1.5
    assert stairs[-1] > 5.0 * swirl(96)[1]


# What follows, and what it does to the pressure.


def test_a_velocity_that_goes_with_the_distance_is_followed_exactly() -> None:
    shape, h = (24, 20), 0.1
    disk = Disk(x=1.23, y=0.98, radius=0.44)
    is_fluid = fluid_of(shape, h, disk)
    rim = find_rim(is_fluid)
    walls = follow_walls(is_fluid, h, (disk,), rim)
    x, y = np.meshgrid((np.arange(27) - 0.5) * h, (np.arange(23) - 0.5) * h, indexing="ij")
    distance = np.stack([disk.distance(x - 0.5 * h, y), disk.distance(x, y - 0.5 * h)]).ravel()
    followed, count = distance.copy(), len(walls.coupling.faces)
    followed[walls.faces] = np.nan
    walls.impose(followed)
    followed = followed[walls.faces]
    np.testing.assert_allclose(followed[count:], distance[walls.ghosts], atol=1e-14)
    # What flows out through the rim adds up to nothing. It is the same that is taken off every face.
    outwards = rim.sign[walls.coupling.faces]
    assert sorted(walls.coupling.faces) == list(range(len(rim.sign)))
    assert abs(outwards @ followed[:count]) < 1e-13
    taken = outwards * (followed[:count] - distance[walls.faces[:count]])
    np.testing.assert_allclose(taken, taken[0], atol=1e-14)


def test_no_weight_grows_however_a_wall_cuts_the_cells() -> None:
    h, largest = 1.0 / 32, []
    for radius, (x, y) in product(np.linspace(2.0, 6.0, 60) * h, ((0.5, 0.5), (0.484375, 0.5), (0.47, 0.54))):
        disk = Disk(x=x, y=y, radius=float(radius))
        is_fluid = fluid_of((32, 32), h, disk)
        walls = follow_walls(is_fluid, h, (disk,), find_rim(is_fluid))
        largest.append(float(abs(walls.coupling.weights).sum(axis=1).max()))
    # A ghost lies at most one cell inside, and of the faces that it sees some are a cell outside or more.
    assert max(largest) < 2.5


def test_the_pressure_that_keeps_the_walls_is_that_of_a_sparse_factorisation() -> None:
    shape, h = (20, 14), 1.0
    disk = Disk(x=8.3, y=7.4, radius=3.1)
    is_fluid = fluid_of(shape, h, disk)
    is_fluid[15:17, 0:3] = False  # what fits the cells stays closed
    rim = find_rim(is_fluid)
    coupling = follow_walls(is_fluid, h, (disk,), rim).coupling
    cells, number = np.arange(is_fluid.size).reshape(shape), is_fluid.size
    free_u, free_v = free_faces(is_fluid)
    before = np.concatenate([cells[:-1][free_u[1:-1]], cells[:, :-1][free_v[:, 1:-1]]])
    after = np.concatenate([cells[1:][free_u[1:-1]], cells[:, 1:][free_v[:, 1:-1]]])

    def differences(before: Array, after: Array) -> csr_array:
        rows = np.arange(len(before))
        ones = np.ones(len(before))
        entries = np.concatenate([ones, -ones]), (np.tile(rows, 2), np.concatenate([after, before]))
        return csr_array(entries, shape=(len(before), number))

    gradient, of_rim = differences(before, after), differences(rim.before[coupling.faces], rim.after[coupling.faces])
    # Divergences are the transposes, but for the sign. On the outflow the potential is 0, half a cell away.
    outflow = np.zeros(number)
    outflow[cells[-1]] = 2.0
    # What would flow out of the disk is taken off all of its rim alike.
    outwards, count = rim.sign[coupling.faces], len(coupling.faces)
    through_rim = coupling.weights[:count] - csr_array(np.outer(outwards, outwards @ coupling.weights[:count]) / count)
    through = of_rim.T @ through_rim @ differences(coupling.before, coupling.after)
    matrix = -(gradient.T @ gradient) - through - diags_array(outflow)
    velocity = np.random.default_rng(0).standard_normal(len(before))
    lookup = {pair: k for k, pair in enumerate(zip(before.tolist(), after.tolist(), strict=True))}
    at = [lookup[pair] for pair in zip(coupling.before.tolist(), coupling.after.tolist(), strict=True)]
    given = -(gradient.T @ velocity) - of_rim.T @ (through_rim @ velocity[at])
    solver = PressureSolver(box_poisson(*shape, "through", "walls"), rim, coupling)
    given = given.reshape(shape)
    solver.parts.array[:] = (given + given[:, ::-1])[:, :7], (given - given[:, ::-1])[:, :7]
    found = solver.solve().ravel()
    kept = np.flatnonzero(is_fluid.ravel())
    truth = splu(matrix.tocsr()[kept][:, kept].tocsc()).solve(given.ravel()[kept])
    np.testing.assert_allclose(found[kept], truth, atol=1e-11)
    # So the velocity less the gradient lets nothing appear, and the walls are where they were.
    left = velocity - gradient @ found
    residue = -(gradient.T @ left) - of_rim.T @ (through_rim @ left[at])
    inner = is_fluid.copy()
    inner[-1] = False
    np.testing.assert_allclose(residue[inner.ravel()], 0.0, atol=1e-12)


# What is kept.


def stirred(sides: Sides, lids: Lids) -> tuple[StaggeredFlow, Bool[np.ndarray, "nx ny"]]:
    """A random flow around two disks, two cells apart."""
    shape, h = (28, 16), 1.0 / 16
    disks = Disk(x=0.5, y=0.47, radius=0.2), Disk(x=1.0, y=0.52, radius=0.17)
    is_fluid = fluid_of(shape, h, *disks)
    inflow = np.ones(16) if sides == "through" else None
    box = Enclosure(shape=shape, spacing=h, sides=sides, lids=lids, inflow=inflow, surfaces=disks)
    flow = StaggeredFlow(box, Coefficients(viscosity=0.01), is_fluid)
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal((29, 16)), rng.standard_normal((28, 17))
    if sides == "periodic":
        u[-1] = u[0]
    if lids == "periodic":
        v[:, -1] = v[:, 0]
    flow.start_from_faces(u + (sides == "through"), v)
    return flow, is_fluid


@pytest.mark.parametrize(("sides", "lids"), product(get_args(Sides), get_args(Lids)))
def test_nothing_is_left_of_the_divergence(sides: Sides, lids: Lids) -> None:
    flow, is_fluid = stirred(sides, lids)
    for _ in range(20):
        flow.advance(0.5 * flow.longest_step())
        u, v = flow.faces()
        divergence = (np.diff(u, axis=0) + np.diff(v, axis=1))[is_fluid]
        # A sum of four velocities, after sums over dozens of modes.
        assert np.abs(divergence).max() < 1e-13 * flow.largest_velocity()
        assert flow.divergence() == pytest.approx(16 * np.abs(divergence).max(), rel=1e-12)
    assert (flow.velocity()[:, ~is_fluid] == 0.0).all() and (flow.pressure()[~is_fluid] == 0.0).all()


def test_steps_converge_to_fourth_order() -> None:
    # What is prescribed before a projection and not solved for with it would make the first order of this.
    def end(count: int) -> Array:
        flow, _ = stirred("through", "walls")
        for _ in range(count):
            flow.advance(0.1 / count)
        return np.concatenate([part.ravel() for part in flow.faces()])

    truth = end(320)
    errors = [float(np.abs(end(count) - truth).max()) for count in (20, 40)]
    assert errors[1] > 1e-11 and order(errors) == pytest.approx(4.0, abs=0.4)


def test_disks_take_up_the_momentum_that_is_lost() -> None:
    flow, is_fluid = stirred("periodic", "periodic")
    for _ in range(20):
        flow.advance(0.2 * flow.longest_step())
    force, size = flow.force(), 1e-6
    one, other = (
        flow.force(np.arange(28)[:, None] < 12 if first else np.arange(28)[:, None] >= 12) for first in (1, 0)
    )
    np.testing.assert_allclose(np.add(one, other), force, rtol=1e-12)
    open_u, open_v = is_fluid & np.roll(is_fluid, 1, axis=0), is_fluid & np.roll(is_fluid, 1, axis=1)

    def momentum() -> Array:
        u, v = flow.faces()
        return np.array([u[:-1][open_u].sum(), v[:, :-1][open_v].sum()])

    before = momentum()
    flow.advance(size)
    lost = (before - momentum()) / size / 16**2
    # The force changes during the step, and the sums are rounded by 1e-14 over the step's size.
    np.testing.assert_allclose(force, lost, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_the_longest_step_of_a_creeping_flow_is_stable(seed: int) -> None:
    # Where viscosity alone counts, a step is a matrix.
    shape, rng = (11, 12), np.random.default_rng(seed)
    disk = Disk(x=rng.uniform(5.0, 6.0), y=rng.uniform(5.5, 6.5), radius=rng.uniform(2.0, 3.2))
    box = Enclosure(shape=shape, spacing=1.0, surfaces=(disk,))
    is_fluid = fluid_of(shape, 1.0, disk)
    flow = StaggeredFlow(box, Coefficients(viscosity=1.0), is_fluid)
    free_u, free_v = free_faces(is_fluid)
    count, tiny = int(free_u.sum()), 1e-9
    columns = []
    for unit in tiny * np.eye(count + int(free_v.sum())):
        u, v = np.zeros(free_u.shape), np.zeros(free_v.shape)
        u[free_u], v[free_v] = unit[:count], unit[count:]
        flow.start_from_faces(u, v)
        flow.advance(flow.longest_step())
        u, v = flow.faces()
        columns.append(np.concatenate([u[free_u], v[free_v]]) / tiny)
    growth = np.abs(np.linalg.eigvals(np.array(columns).T))
    assert growth.max() <= 1.0 + 1e-6


def test_a_mirrored_disk_has_the_mirrored_flow() -> None:
    states = []
    for y in (0.83, 2.0 - 0.83):
        problem = FlowPastObstacles(
            resolution=32, reynolds=300.0, horizon=1.0, snapshots=1, obstacles=(Disk(x=0.7, y=y, radius=0.19),)
        )
        (snapshot,) = problem.follow([problem.draw(generator(0, "draw"))], problem.default_step)
        states.append(snapshot.state[0])
    mirrored = states[1][:, :, ::-1] * np.array([1.0, -1.0, 1.0])[:, None, None]
    np.testing.assert_allclose(states[0], mirrored, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_a_grid_that_is_too_coarse_is_inaccurate_but_stable(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = Disk(x=rng.uniform(0.45, 0.55), y=rng.uniform(0.6, 1.2), radius=rng.uniform(0.13, 0.25))
    # Two cells behind it.
    second = Disk(x=first.x + first.radius + 0.13 + 0.22, y=first.y, radius=0.22)
    problem = FlowPastObstacles(
        resolution=32, reynolds=1e5, horizon=6.0, snapshots=1, obstacles=(first, second), length=4.0
    )
    (result,) = EvolutionSource(problem=problem).samples([0])
    assert isinstance(result, Sample)
    assert np.abs(result.outputs[:, :2]).max() < 10.0


# Published flows.


def test_a_cylinder_has_the_drag_and_the_lift_that_were_published() -> None:
    # Schäfer and Turek (1996), case 2D-1: tests/benchmarks/cylinder.py has more of it.
    reynolds = 0.41 * 20.0 / 0.1
    problem = FlowPastObstacles(
        length=2.2, height=0.41, resolution=41, obstacles=(Disk(x=0.2, y=0.2, radius=0.05),), reynolds=reynolds
    )
    draw = problem.draw(generator(0, "draw"))
    flow = StaggeredFlow(problem.enclosure, problem.coefficients(draw.scalars), draw.fields["mask"][0] > 0.5)
    flow.start(draw.fields["velocity"])
    now = 0.0
    while now < 3.0:
        size = 0.9 * flow.longest_step()
        flow.advance(size)
        now += size
    drag, lift = (2.0 / 0.1 * part for part in flow.force())
    assert 5.57 < drag < 5.59 and 0.0104 < lift < 0.0110


# What cannot be.


def test_a_disk_that_the_problem_does_not_list_is_refused() -> None:
    disk = Disk(x=0.7, y=0.9, radius=0.2)
    with pytest.raises(ValueError, match="disks that the problem lists in obstacles, got another one: .*radius=0.2"):
        FlowPastObstacles(resolution=32).around((disk,))
    problem = FlowPastObstacles(resolution=32, obstacles=(disk,), horizon=0.1, snapshots=1)
    draw = Draw(scalars={"reynolds": 100.0}, fields=problem.around(()))
    with pytest.raises(
        ValueError, match=r"a mask that is 0 in the obstacles of the box, got fluid inside of surfaces\.0"
    ):
        next(problem.follow([draw], 0.1))
