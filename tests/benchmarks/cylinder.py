"""Does the flow past a cylinder have the drag and lift that were published?

The two-dimensional test cases of Schäfer and Turek (1996), "Benchmark computations of laminar flow around a cylinder":
a channel of 2.2 by 0.41 with a disk of diameter D = 0.1 at (0.2, 0.2), and a parabola of mean velocity U that comes in.
2D-1 has Re = U D / ν = 20 and becomes steady; 2D-2 has Re 100 and sheds vortices. The coefficients are those of the
momentum that the faces in and beside the disk take up, 2 F / (U² D). The pressure at the foremost and the hindmost
point of the disk is that of the parabola through the three cells before, or behind.

    python tests/benchmarks/cylinder.py [--cells 41 82] [--cases 2D-1 2D-2]

The last line is one JSON object.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from _machine import ran_on

from headrace.solvers import FlowPastObstacles
from headrace.solvers.evolution.staggered import StaggeredFlow
from headrace.solvers.problems.obstacles import Disk

DIAMETER = 0.1
PUBLISHED = {
    "2D-1": {"drag": (5.57, 5.59), "lift": (0.0104, 0.0110), "pressure_drop": (2.93, 2.94)},
    "2D-2": {"drag_max": (3.22, 3.24), "lift_max": (0.99, 1.01), "strouhal": (0.295, 0.305)},
}
"""The pressure's difference over U², 0.04 in their units, where it is 0.1172 to 0.1176."""


def run(name: str, cells: int) -> dict[str, object]:
    """One case on a grid of so many cells along the height."""
    reynolds, end, record = {"2D-1": (20.0, 2.5, 2.4), "2D-2": (100.0, 12.0, 10.0)}[name]
    problem = FlowPastObstacles(
        length=2.2,
        height=0.41,
        resolution=cells,
        obstacles=(Disk(x=0.2, y=0.2, radius=0.5 * DIAMETER),),
        reynolds=0.41 * reynolds / DIAMETER,
    )
    began = time.process_time()
    fields = problem.around(problem.obstacles or ())
    mask = fields["mask"][0] > 0.5
    flow = StaggeredFlow(problem.enclosure, problem.coefficients({"reynolds": 0.41 * reynolds / DIAMETER}), mask)
    flow.start(fields["velocity"])
    now, forces = 0.0, []
    while now < end:
        size = 0.9 * flow.longest_step()
        flow.advance(size)
        now += size
        if now > record and flow.num_steps % 4 == 0:
            forces.append((now, *(2.0 / DIAMETER * part for part in flow.force())))
    times, drag, lift = np.array(forces).T
    found: dict[str, object] = {"case": name, "cells": cells, "num_steps": flow.num_steps}
    if name == "2D-1":
        middle = round(0.2 / 0.41 * cells)  # the line between two rows, where the cells are a multiple of 41
        pressure, x = flow.pressure()[:, middle - 1 : middle + 1].mean(axis=1), problem.grid.coordinates()[0]
        first, last = np.flatnonzero(~mask[:, middle])[[0, -1]]
        before, behind = (
            np.polyfit(x[cells] - 0.2 - side * 0.5 * DIAMETER, pressure[cells], 2)[-1]
            for cells, side in ((np.s_[first - 3 : first], -1.0), (np.s_[last + 1 : last + 4], 1.0))
        )
        found |= {"drag": drag[-1], "lift": lift[-1], "pressure_drop": float(before - behind)}
        found["change_since"] = float(abs(drag[-1] - drag[0]))
    else:
        swing = lift - lift.mean()
        up = np.flatnonzero((swing[:-1] < 0.0) & (swing[1:] >= 0.0))
        crossings = times[up] - swing[up] * (times[up + 1] - times[up]) / (swing[up + 1] - swing[up])
        found |= {"drag_max": drag.max(), "lift_max": lift.max(), "lift_min": lift.min()}
        found |= {"strouhal": float(DIAMETER / np.diff(crossings).mean()), "num_periods": len(crossings) - 1}
    found = {name: float(value) if isinstance(value, np.floating) else value for name, value in found.items()}
    return found | {"cpu_seconds": time.process_time() - began}


def main() -> None:
    """Run the cases."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cells", type=int, nargs="+", default=[41, 82])
    arguments.add_argument("--cases", nargs="+", choices=list(PUBLISHED), default=list(PUBLISHED))
    given = arguments.parse_args()
    print(__doc__)
    about = ran_on("numpy", "torch", "numba")
    print(about)
    rows = []
    for name in given.cases:
        for cells in given.cells:
            rows.append(run(name, cells))
            print(rows[-1], flush=True)
    print(json.dumps({"benchmark": Path(sys.argv[0]).stem, **about, "published": PUBLISHED, "rows": rows}))


if __name__ == "__main__":
    main()
