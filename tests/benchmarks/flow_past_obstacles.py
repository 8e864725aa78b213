"""How fast is a flow past obstacles, against DOLFINx and PhiFlow at equal error?

The same draws, Reynolds number and time; velocities at the end as means over 32² blocks. The error is the relative L2
distance from Headrace's own solution on 256² cells, which DOLFINx's on a fine mesh cross-checks: the two differ by what
the table says, and no error below that means anything.

DOLFINx takes P2-P1 elements on triangles that fit the obstacles, with a coupled matrix that is factored once
(`_taylor_hood.py`), or with a splitting scheme (IPCS, `_ipcs.py`) that has three ways to take convection and to solve
for velocities. On each mesh the cheapest of some steps, and of these ways, whose error is at most a tenth above the
smallest. Its meshes and forms are not counted. PhiFlow, in an environment of its own (`_phiflow_peer.py`), takes
staggered grids, semi-Lagrangian advection and conjugate gradients in torch, compiled, in double precision; of some
steps the one with the smallest error, once, set-up not counted. What a peer pays at Headrace's errors is interpolated
between its grids, in logarithms. CPU seconds of one thread, Headrace's with set-up, compiling not counted; the least of
some repeats in turns.

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
# The splitting scheme's on 16 squares: as many more as there are more squares. The cross-check is on a mesh of its own.
IPCS_STEPS, CHECKED_ON = (10, 20, 40, 80, 160), 128
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


def price(error: float, ladder: Sequence[Rung]) -> float:
    """CPU seconds at an error, between the rungs or along the line of the two nearest."""
    pairs = sorted((rung.error, rung.seconds) for rung in ladder)
    errors, seconds = (np.log(part) for part in zip(*pairs, strict=True))
    place = min(max(int(np.searchsorted(errors, math.log(error))), 1), len(errors) - 1)
    slope = (seconds[place] - seconds[place - 1]) / (errors[place] - errors[place - 1])
    return float(np.exp(seconds[place] + slope * (math.log(error) - errors[place])))


def cheapest(rungs: Sequence[Rung]) -> Rung:
    """Of those whose error is at most a tenth above the smallest."""
    least = min(rung.error for rung in rungs)
    return min((rung for rung in rungs if rung.error <= 1.1 * least), key=lambda rung: rung.seconds)


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
    """Every solver's ladder, and what it costs at Headrace's errors over what Headrace does."""
    for scheme in (None, *SCHEMES):
        case.dolfinx(MESHES[0], IPCS_STEPS[0], scheme)  # compiles the forms
    ladders = {"headrace": [case.headrace(cells) for cells in CELLS], "dolfinx": [], "dolfinx_ipcs": []}
    for cells in MESHES:
        if cells < MESHES[-1]:
            tried = [case.dolfinx(cells, steps, None) for steps in STEPS]
        else:  # takes long: the first of two steps that is stable has to do
            tried = [case.dolfinx(cells, STEPS[-2], None)]
            if not math.isfinite(tried[0].error):
                tried = [case.dolfinx(cells, STEPS[-1], None)]
        ladders["dolfinx"].append(cheapest(tried))
        steps = [number * cells // MESHES[0] for number in IPCS_STEPS]
        ladders["dolfinx_ipcs"].append(
            cheapest([case.dolfinx(cells, number, scheme) for scheme in SCHEMES for number in steps])
        )
    for _ in range(repeats - 1):
        for name, ladder in ladders.items():
            for rung in ladder:
                if name == "headrace":
                    again = case.headrace(rung.cells)
                else:
                    again = case.dolfinx(rung.cells, rung.steps, rung.scheme)
                rung.seconds = min(rung.seconds, again.seconds)
    if phiflow is not None:
        ladders["phiflow"] = [
            min(
                (case.phiflow(cells, steps * cells // PHI_CELLS[0], phiflow) for steps in PHI_STEPS),
                key=lambda rung: rung.error,
            )
            for cells in PHI_CELLS
        ]
    check = case.dolfinx(CHECKED_ON, IPCS_STEPS[-2] * CHECKED_ON // MESHES[0], "explicit, CG")
    found: dict[str, object] = {"obstacles": len(case.blocks), "reynolds": case.reynolds, "cross_check": check.error}
    for name, ladder in ladders.items():
        found[name] = [asdict(rung) for rung in ladder]
        if name != "headrace":
            # Below the smallest error that a peer reached, what that cost is a lower bound.
            least = min(rung.error for rung in ladder)
            found[f"{name}_over_headrace"] = {
                rung.cells: price(max(rung.error, least), ladder) / rung.seconds for rung in ladders["headrace"]
            }
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
