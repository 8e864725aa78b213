"""Round walls against exact swirls, a sparse factorisation and published forces, and what they leave as it was."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from jaxtyping import Bool, Float64
from scipy.optimize import brentq
from scipy.sparse import coo_array, csr_array
from scipy.sparse.linalg import splu
from scipy.special import j1, y1

from headrace.platform.sample import Sample
from headrace.platform.seeding import generator
from headrace.solvers.evolution.evolution import Draw
from headrace.solvers.evolution.fast_poisson import PressureSolver, box_poisson, find_rim
from headrace.solvers.evolution.incompressible import Coefficients, Enclosure, Surface
from headrace.solvers.evolution.round_walls import follow_walls
from headrace.solvers.evolution.source import EvolutionSource
from headrace.solvers.evolution.staggered import StaggeredFlow
from headrace.solvers.problems import FlowPastObstacles
from headrace.solvers.problems.obstacles import Block, Disk

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


def test_a_swirl_between_circles_decays_with_second_order_in_space() -> None:
    errors = [swirl(n) for n in (24, 48, 96)]
    print(errors, swirl(96, is_round=False), swirl(48,is_round=False),swirl(24,is_round=False))


def test_a_velocity_that_goes_with_the_distance_is_followed_exactly() -> None:
    shape, h = (24, 20), 0.1
    disk = Disk(x=1.23, y=0.98, radius=0.44)
    is_fluid = fluid_of(shape, h, disk)
    walls = follow_walls(is_fluid, h, (disk,), find_rim(is_fluid))
    x, y = np.meshgrid((np.arange(27) - 0.5) * h, (np.arange(23) - 0.5) * h, indexing="ij")
    distance = np.stack([disk.distance(x - 0.5 * h, y), disk.distance(x, y - 0.5 * h)]).ravel()
    followed = walls.weights @ distance[walls.sources]
    np.testing.assert_allclose(followed[-len(walls.ghosts) :], distance[walls.ghosts], atol=1e-14)
    # What flows through the rim adds up to nothing; what that changes is of second order.
    rim, faces = find_rim(is_fluid), walls.coupling.faces
    assert sorted(faces) == list(range(len(rim.sign)))
    assert abs(rim.sign[faces] @ followed[: len(faces)]) < 1e-13
    np.testing.assert_allclose(followed[: len(faces)], distance[walls.faces[: len(faces)]], atol=h**2 / disk.radius)


@pytest.mark.parametrize(("x", "y"), [(0.5, 0.5), (0.47, 0.54), (0.45, 0.45)])
def test_weights_stay_small_however_the_wall_cuts_the_cells(x: float, y: float) -> None:
    h = 1.0 / 32
    for radius in np.linspace(2.0 * h, 6.0 * h, 200):
        disk = Disk(x=x, y=y, radius=float(radius))
        is_fluid = fluid_of((32, 32), h, disk)
        walls = follow_walls(is_fluid, h, (disk,), find_rim(is_fluid))
        print(radius/h, abs(walls.weights).sum(axis=1).max())
