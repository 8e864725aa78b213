"""The splitting scheme that a benchmark compares with, against the coupled one on the same mesh and in halved steps."""

import math
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from jaxtyping import Float64
from scipy.interpolate import RegularGridInterpolator

from headrace.solvers.problems import FlowPastObstacles
from headrace.solvers.problems.heat import HeatConduction
from headrace.solvers.problems.obstacles import Block

pytestmark = pytest.mark.skipif(HeatConduction().unavailable() is not None, reason="DOLFINx or a C compiler is missing")

SCHEMES = ("explicit, factored", "explicit, CG", "semi-implicit")
AT = np.array([(0.3, 1.0), (0.9, 0.6), (1.0, 1.0), (1.3, 1.3), (1.7, 0.4), (1.97, 1.1)])


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return import_module("_taylor_hood"), import_module("_ipcs")


def follow(peers: tuple[ModuleType, ModuleType], steps: int, scheme: str | None) -> Float64[np.ndarray, "points 2"]:
    """Velocities at t = 0.5 behind a block, by the splitting scheme or, with None, by the coupled one."""
    coupled, split = peers
    block = Block(left=0.5, bottom=0.75, width=0.25, height=0.5)
    problem = FlowPastObstacles(resolution=128, reynolds=100.0, obstacles=(block,))
    start = [
        RegularGridInterpolator(problem.grid.coordinates(), part, bounds_error=False, fill_value=None)
        for part in problem.around((block,))["velocity"]
    ]
    channel = coupled.Channel(
        length=2.0,
        height=2.0,
        blocks=(block,),
        viscosity=0.02,
        start=lambda x: np.stack([part(x) for part in start], axis=1),
    )
    if scheme is None:
        velocities, _ = coupled.taylor_hood(channel, 16, 0.5 / steps, [0.5], AT)
    else:
        velocities, _ = split.ipcs(channel, 16, 0.5 / steps, [0.5], AT, scheme)
    return velocities[0]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_is_the_coupled_scheme_but_for_the_splitting(peers: tuple[ModuleType, ModuleType], scheme: str) -> None:
    wanted = follow(peers, 320, None)
    # Steps and splitting make 1.4e-4 of it; the rest is the tolerance of iterative solvers, 1e-5 in each step.
    assert np.linalg.norm(follow(peers, 160, scheme) - wanted) < 1e-3 * np.linalg.norm(wanted)


def test_it_is_of_second_order(peers: tuple[ModuleType, ModuleType]) -> None:
    flows = [follow(peers, steps, SCHEMES[0]) for steps in (80, 160, 320)]
    changes = [float(np.linalg.norm(fine - coarse)) for coarse, fine in pairwise(flows)]
    assert math.log2(changes[0] / changes[1]) > 1.8
