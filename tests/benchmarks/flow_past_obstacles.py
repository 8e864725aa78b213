"""How fast is a flow past obstacles, against DOLFINx at equal error?

The same draws, Reynolds number and time; velocities at the end as means over 32² blocks. The error is the relative L2
distance from Headrace's own solution on 256² cells, which DOLFINx's on its finest mesh cross-checks: the two differ by
what the table says, and no error below that means anything. DOLFINx takes P2-P1 elements on triangles that fit the
obstacles, with a coupled matrix that is factored once (`_taylor_hood.py`), each mesh with the longest of some steps
whose error is at most a tenth above that of the shortest. PhiFlow, in an environment of its own (`_phiflow_peer.py`),
takes staggered grids, semi-Lagrangian advection and conjugate gradients in torch, compiled, in double precision; of
some steps the one with the smallest error, set-up not counted. What a peer pays at Headrace's errors is interpolated
between its grids, in logarithms. CPU seconds of one thread, set-up included, compiling not; the least of some repeats.

    uv venv /tmp/phiflow && uv pip install --python /tmp/phiflow/bin/python phiflow torch
    python tests/benchmarks/flow_past_obstacles.py [--draws 2] [--reynolds 300] [--repeats 3]
        [--phiflow-python /tmp/phiflow/bin/python]

The last line is one JSON object.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch  # before DOLFINx: the other way round their runtimes do not get along
from _machine import ran_on
from _taylor_hood import Channel, taylor_hood
from jaxtyping import Float64
from scipy.interpolate import RegularGridInterpolator

from headrace.platform.seeding import generator
from headrace.solvers import FlowPastObstacles
from headrace.solvers.evolution.evolution import Draw
from headrace.solvers.problems.obstacles import Block, SquareLattice

HORIZON = 0.5
CELLS, FINEST = (32, 64, 128), 256
MESHES, STEPS = (16, 32, 64), (80, 160, 320, 640)
# PhiFlow's cells, and its steps on 32 of them: as many more as there are more cells.
PHI_CELLS, PHI_STEPS = (32, 64, 128), (5, 10, 20)
SIDE = 0.25

type Means = Float64[np.ndarray, "2 32 32"]


def headrace(problem: FlowPastObstacles, draw: Draw) -> tuple[Means, float]:
    """Velocities at the end, and CPU seconds."""
    began = time.process_time()
    snapshot = list(problem.follow([draw], problem.default_step))[-1]
    seconds = time.process_time() - began
    assert not snapshot.reasons
    return problem.restrict(snapshot.state[0, :2], problem.resolution // 32), seconds


def distance(one: Means, other: Means) -> float:
    """Relative to the other."""
    found = float(np.linalg.norm(one - other) / np.linalg.norm(other))
    return found if math.isfinite(found) else math.inf


def price(error: float, ladder: list[tuple[float, float]]) -> float:
    """CPU seconds at an error, between the rungs (error, seconds) or along the line of the two nearest."""
    errors, seconds = (np.log(part) for part in zip(*sorted(ladder), strict=True))
    place = min(max(int(np.searchsorted(errors, math.log(error))), 1), len(errors) - 1)
    slope = (seconds[place] - seconds[place - 1]) / (errors[place] - errors[place - 1])
    return float(np.exp(seconds[place] + slope * (math.log(error) - errors[place])))


class PhiFlow:
    """PhiFlow in its own process."""

    def __init__(self, python: str) -> None:
        peer = Path(__file__).with_name("_phiflow_peer.py")
        self._process = subprocess.Popen(
            [python, "-W", "ignore", str(peer)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.versions = self._answer()

    def solve(
        self, problem: FlowPastObstacles, blocks: Sequence[Block], reynolds: float, steps: int
    ) -> tuple[Means, float]:
        """Velocities at the end, and CPU seconds of the steps."""
        with tempfile.TemporaryDirectory() as folder:
            start, end = Path(folder) / "start.npy", Path(folder) / "end.npy"
            np.save(start, problem.around(blocks)["velocity"])
            asked = {
                "cells": problem.resolution,
                "steps": steps,
                # Explicit diffusion is stable up to a quarter of h² / ν.
                "substeps": math.ceil(HORIZON / steps * 2.0 / reynolds / (0.2 * (2.0 / problem.resolution) ** 2)),
                "horizon": HORIZON,
                "viscosity": 2.0 / reynolds,
                "length": 2.0,
                "height": 2.0,
                "blocks": [one.model_dump() for one in blocks],
                "tolerance": 1e-4,
                "start": str(start),
                "end": str(end),
            }
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            answer = self._answer()
            if "error" in answer:
                sys.exit(f"PhiFlow: {answer['error']}")
            return problem.restrict(np.load(end), problem.resolution // 32), float(answer["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found


def case(number: int, count: int, reynolds: float, repeats: int, phiflow: PhiFlow | None) -> dict[str, object]:
    """One draw."""
    blocks = SquareLattice(2.0, 2.0, SIDE).draw(generator(0, "benchmark", number), count)

    def problem_on(cells: int) -> FlowPastObstacles:
        return FlowPastObstacles(resolution=cells, obstacles=blocks, reynolds=reynolds, horizon=HORIZON, snapshots=1)

    def own(cells: int, times: int) -> tuple[Means, float]:
        problem = problem_on(cells)
        draw = Draw(scalars={"reynolds": reynolds}, fields=problem.around(blocks))
        runs = [headrace(problem, draw) for _ in range(times)]
        return runs[0][0], min(seconds for _, seconds in runs)

    own(32, 1)  # the warm-up
    truth, _ = own(FINEST, 1)
    ours = [(distance(means, truth), seconds) for means, seconds in (own(cells, repeats) for cells in CELLS)]

    fine = problem_on(FINEST)
    parts = [
        RegularGridInterpolator(fine.grid.coordinates(), part, bounds_error=False, fill_value=None)
        for part in fine.around(blocks)["velocity"]
    ]
    channel = Channel(
        length=2.0,
        height=2.0,
        blocks=blocks,
        viscosity=2.0 / reynolds,
        start=lambda x: np.stack([part(x) for part in parts], axis=1),
    )
    x, y = np.meshgrid((np.arange(64) + 0.5) / 32, (np.arange(64) + 0.5) / 32, indexing="ij")
    is_fluid = np.all([one.distance(x, y) > 0.0 for one in blocks], axis=0)
    at = np.stack([x[is_fluid], y[is_fluid]], axis=1)

    def peer(cells: int, steps: int) -> tuple[Means, float]:
        field = np.zeros((2, 64, 64))
        velocities, seconds = taylor_hood(channel, cells, HORIZON / steps, [HORIZON], at)
        field[:, is_fluid] = velocities[0].T
        return field.reshape(2, 32, 2, 32, 2).mean(axis=(2, 4)), seconds

    peer(MESHES[0], STEPS[0])  # compiles its forms
    theirs, finest = [], truth
    for cells in MESHES:
        runs = {}
        # The finest takes a minute: the first of two steps that is stable has to do.
        for steps in STEPS if cells < MESHES[-1] else STEPS[-2:]:
            means, seconds = peer(cells, steps)
            runs[steps] = (distance(means, truth), seconds)
            finest = means
            if cells == MESHES[-1] and math.isfinite(runs[steps][0]):
                break
        best = next(steps for steps in runs if runs[steps][0] <= 1.1 * runs[max(runs)][0])
        again = [runs[best][1]] + [peer(cells, best)[1] for _ in range(repeats - 1 if cells < MESHES[-1] else 0)]
        theirs.append((runs[best][0], min(again), best))
    ladder = [(error, seconds) for error, seconds, _ in theirs]
    ratios = [price(error, ladder) / seconds for error, seconds in ours]
    others: dict[str, object] = {}
    if phiflow is not None:
        rungs = []
        for cells in PHI_CELLS:
            tried = [steps * cells // 32 for steps in PHI_STEPS]
            ends = [phiflow.solve(problem_on(cells), blocks, reynolds, steps) for steps in tried]
            rungs.append(
                min(
                    (distance(means, truth), seconds, steps)
                    for (means, seconds), steps in zip(ends, tried, strict=True)
                )
            )
        # Below the smallest error that it reached, what that cost is a lower bound.
        least = min(error for error, _, _ in rungs)
        prices = [(error, seconds) for error, seconds, _ in rungs]
        rates = [price(max(error, least), prices) / seconds for error, seconds in ours]
        others = {
            "phiflow": [
                dict(cells=n, error=e, seconds=s, steps=k) for n, (e, s, k) in zip(PHI_CELLS, rungs, strict=True)
            ],
            "phiflow_over_headrace": dict(zip(map(str, CELLS), rates, strict=True)),
        }
    return {
        "obstacles": count,
        "reynolds": reynolds,
        "cross_check": distance(finest, truth),
        "headrace": [dict(cells=n, error=e, seconds=s) for n, (e, s) in zip(CELLS, ours, strict=True)],
        "dolfinx": [dict(cells=n, error=e, seconds=s, steps=k) for n, (e, s, k) in zip(MESHES, theirs, strict=True)],
        "dolfinx_over_headrace": dict(zip(map(str, CELLS), ratios, strict=True)),
        **others,
    }


def main() -> None:
    """Run the comparison."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--draws", type=int, default=2)
    arguments.add_argument("--reynolds", type=float, default=300.0)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--phiflow-python", help="a Python that has PhiFlow; left out, it is not compared")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print(__doc__)
    about = ran_on("numpy", "torch", "numba")
    print(about)
    phiflow = PhiFlow(given.phiflow_python) if given.phiflow_python else None
    about |= phiflow.versions if phiflow is not None else {}
    rows = []
    for number in range(given.draws):
        row = case(number, 1 + 2 * number, given.reynolds, given.repeats, phiflow)
        rows.append(row)
        print(row, flush=True)
    print(json.dumps({"benchmark": Path(sys.argv[0]).stem, **about, "horizon": HORIZON, "rows": rows}))


if __name__ == "__main__":
    main()
