"""How fast is a flow past obstacles, against DOLFINx and PhiFlow at equal error?

The same draws, Reynolds number and time; velocities at the end as means over 32² blocks. The error is the relative L2
distance from Headrace's own solution on 256² cells, which DOLFINx's on a fine mesh cross-checks: the two differ by what
the table says, and no error below that means anything.

DOLFINx takes P2-P1 elements on triangles that fit the obstacles, with a coupled matrix that is factored once
(`_taylor_hood.py`), or with a splitting scheme (IPCS, `_ipcs.py`) that has three ways to take convection and to solve
for velocities; all on some meshes and in some steps. Its meshes and forms are not counted. PhiFlow, in an environment
of its own (`_phiflow_peer.py`), takes staggered grids, semi-Lagrangian advection and conjugate gradients in torch,
compiled, in double precision; set-up not counted. What a peer pays at Headrace's errors is read off the lower
convex hull of its runs, in logarithms of error and time; below its smallest error, what that costs. CPU seconds of one
thread, Headrace's with set-up, compiling not counted; the least of some repeats in turns (PhiFlow: once).

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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch  # before DOLFINx: the other way round their runtimes do not get along
from _fitted_channel import Channel
from _ipcs import SCHEMES, Scheme, ipcs
from _machine import ran_on
from _taylor_hood import taylor_hood
from jaxtyping import Float64
from scipy.interpolate import RegularGridInterpolator

from headrace.platform.seeding import generator
from headrace.solvers import FlowPastObstacles
from headrace.solvers.evolution.evolution import Draw
from headrace.solvers.problems.obstacles import Block, SquareLattice

HORIZON = 0.5
CELLS, FINEST = (32, 64, 128), 256
MESHES, STEPS = (16, 32, 64), (80, 160, 320, 640)
# The splitting scheme's, and its steps on 16 squares: as many more as there are more squares.
IPCS_MESHES, IPCS_STEPS = (16, 32, 64, 128), (10, 20, 40, 80, 160)
# PhiFlow's cells, and its steps on 32 of them: as many more as there are more cells.
PHI_CELLS, PHI_STEPS = (32, 64, 128), (5, 10, 20)
SIDE = 0.25

type Means = Float64[np.ndarray, "2 32 32"]


@dataclass(kw_only=True)
class Rung:
    """What a solver reaches on a grid.

    Attributes:
        cells: of the grid, along the height.
        steps: 0 where the solver chooses.
        scheme: where there are several.
        error: from the truth.
        seconds: of the CPU.
    """

    cells: int
    steps: int = 0
    scheme: Scheme | None = None
    error: float
    seconds: float


def distance(one: Means, other: Means) -> float:
    """Relative to the other."""
    with np.errstate(over="ignore", invalid="ignore"):  # after steps that are too long
        found = float(np.linalg.norm(one - other) / np.linalg.norm(other))
    return found if math.isfinite(found) else math.inf


def front(rungs: Sequence[Rung]) -> list[Rung]:
    """Those that no other one beats in error and in time, from cheap to exact, and that say more than zeros would."""
    kept: list[Rung] = []
    for rung in sorted(rungs, key=lambda rung: rung.seconds):
        if rung.error < 1.0 and (not kept or rung.error < kept[-1].error):
            kept.append(rung)
    return kept


def price(error: float, rungs: Sequence[Rung]) -> float:
    """CPU seconds at an error, along the lower convex hull of runs in logarithms of both: the best that could be said.

    At an error that they do not reach, what the smallest costs, which is too little.
    """
    hull: list[tuple[float, float]] = []
    for x, y in sorted((math.log(one.error), math.log(one.seconds)) for one in front(rungs)):
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (x - hull[-2][0]) >= (y - hull[-2][1]) * (
            hull[-1][0] - hull[-2][0]
        ):
            hull.pop()
        hull.append((x, y))
    return math.exp(np.interp(math.log(error), *zip(*hull, strict=True)))


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


class Case:
    """One draw of obstacles, and each solver's way through it."""

    def __init__(self, blocks: Sequence[Block], reynolds: float) -> None:
        self.blocks, self.reynolds = blocks, reynolds
        self._own(CELLS[0])  # the warm-up
        self.truth = self._own(FINEST)[0]
        fine = self.problem(FINEST)
        parts = [
            RegularGridInterpolator(fine.grid.coordinates(), part, bounds_error=False, fill_value=None)
            for part in fine.around(blocks)["velocity"]
        ]
        self._channel = Channel(
            length=2.0,
            height=2.0,
            blocks=blocks,
            viscosity=2.0 / reynolds,
            start=lambda x: np.stack([part(x) for part in parts], axis=1),
        )
        x, y = np.meshgrid((np.arange(64) + 0.5) / 32, (np.arange(64) + 0.5) / 32, indexing="ij")
        self._is_fluid = np.all([one.distance(x, y) > 0.0 for one in blocks], axis=0)
        self._at = np.stack([x[self._is_fluid], y[self._is_fluid]], axis=1)

    def problem(self, cells: int) -> FlowPastObstacles:
        """Headrace's, with so many cells along the height."""
        return FlowPastObstacles(
            resolution=cells, obstacles=tuple(self.blocks), reynolds=self.reynolds, horizon=HORIZON, snapshots=1
        )

    def _own(self, cells: int) -> tuple[Means, float]:
        problem = self.problem(cells)
        draw = Draw(scalars={"reynolds": self.reynolds}, fields=problem.around(self.blocks))
        began = time.process_time()
        snapshot = list(problem.follow([draw], problem.default_step))[-1]
        seconds = time.process_time() - began
        assert not snapshot.reasons
        return problem.restrict(snapshot.state[0, :2], problem.resolution // 32), seconds

    def headrace(self, cells: int) -> Rung:
        """Headrace with the steps that it takes by default."""
        means, seconds = self._own(cells)
        return Rung(cells=cells, error=distance(means, self.truth), seconds=seconds)

    def dolfinx(self, cells: int, steps: int, scheme: Scheme | None) -> Rung:
        """DOLFINx with a coupled matrix, or with a splitting scheme."""
        step = HORIZON / steps
        if scheme is None:
            velocities, seconds = taylor_hood(self._channel, cells, step, [HORIZON], self._at)
        else:
            velocities, seconds = ipcs(self._channel, cells, step, [HORIZON], self._at, scheme)
        field = np.zeros((2, 64, 64))
        field[:, self._is_fluid] = velocities[0].T
        error = distance(field.reshape(2, 32, 2, 32, 2).mean(axis=(2, 4)), self.truth)
        return Rung(cells=cells, steps=steps, scheme=scheme, error=error, seconds=seconds)

    def phiflow(self, cells: int, steps: int, peer: PhiFlow) -> Rung:
        """PhiFlow in its process."""
        means, seconds = peer.solve(self.problem(cells), self.blocks, self.reynolds, steps)
        return Rung(cells=cells, steps=steps, error=distance(means, self.truth), seconds=seconds)


def compare(case: Case, repeats: int, phiflow: PhiFlow | None) -> dict[str, object]:
    """Every solver's runs, and what a peer costs at Headrace's errors over what Headrace does."""
    for scheme in (None, *SCHEMES):
        case.dolfinx(MESHES[0], IPCS_STEPS[0], scheme)  # compiles the forms
    ours, coupled, split = [case.headrace(cells) for cells in CELLS], [], []
    for cells in MESHES[:-1]:
        coupled += [case.dolfinx(cells, steps, None) for steps in STEPS]
    for steps in STEPS[-2:]:  # the finest takes long: the first that is stable has to do
        coupled.append(case.dolfinx(MESHES[-1], steps, None))
        if math.isfinite(coupled[-1].error):
            break
    for cells in IPCS_MESHES:
        # As above; shorter steps than these change no error there.
        numbers = IPCS_STEPS if cells < IPCS_MESHES[-1] else IPCS_STEPS[1:-1]
        split += [case.dolfinx(cells, number * cells // MESHES[0], scheme) for scheme in SCHEMES for number in numbers]
    check = split[-1].error
    peers = {"dolfinx": front(coupled), "dolfinx_ipcs": front(split)}
    for _ in range(repeats - 1):
        for rung in ours:
            rung.seconds = min(rung.seconds, case.headrace(rung.cells).seconds)
        for rung in (rung for rungs in peers.values() for rung in rungs):
            rung.seconds = min(rung.seconds, case.dolfinx(rung.cells, rung.steps, rung.scheme).seconds)
    if phiflow is not None:
        peers["phiflow"] = front(
            [case.phiflow(cells, steps * cells // PHI_CELLS[0], phiflow) for cells in PHI_CELLS for steps in PHI_STEPS]
        )
    found: dict[str, object] = {"obstacles": len(case.blocks), "reynolds": case.reynolds, "cross_check": check}
    found["headrace"] = [asdict(rung) for rung in ours]
    for name, rungs in peers.items():
        found[name] = [asdict(rung) for rung in rungs]
        prices = {rung.cells: price(rung.error, rungs) for rung in ours}
        found[f"{name}_at_equal_error"] = prices
        found[f"{name}_over_headrace"] = {rung.cells: prices[rung.cells] / rung.seconds for rung in ours}
    return found


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
        blocks = SquareLattice(2.0, 2.0, SIDE).draw(generator(0, "benchmark", number), 1 + 2 * number)
        row = compare(Case(blocks, given.reynolds), given.repeats, phiflow)
        rows.append(row)
        print(row, flush=True)
    print(json.dumps({"benchmark": Path(sys.argv[0]).stem, **about, "horizon": HORIZON, "rows": rows}))


if __name__ == "__main__":
    main()
