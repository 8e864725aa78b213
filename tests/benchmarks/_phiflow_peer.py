"""The part of flow_past_obstacles.py that runs in an environment of its own, which has PhiFlow and no Headrace.

Reads one JSON object a line, answers with one a line: a case names the cells a side, the steps, and files with the
start and for the end. It is compiled by a first step that is thrown away, and answered with the CPU seconds of the
others.
"""

import json
import os
import sys
import time

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import phi
import torch
from phi.torch.flow import (
    ZERO_GRADIENT,
    Box,
    CenteredGrid,
    Obstacle,
    Solve,
    StaggeredGrid,
    advect,
    diffuse,
    fluid,
    jit_compile,
    math,
    resample,
    vec,
)

torch.set_num_threads(1)
math.set_global_precision(64)


def solved(case: dict) -> float:
    """Follow the flow; write its velocities at the centres of the cells, and return the CPU seconds."""
    n, dt, nu = case["cells"], case["horizon"] / case["steps"], case["viscosity"]
    length, height = case["length"], case["height"]
    box = Box(x=length, y=height)

    def parabola(x, y):
        return vec(x=6.0 * y * (height - y) / height**2, y=0.0 * x)

    inflow = CenteredGrid(parabola, ZERO_GRADIENT, box, x=1, y=n)
    boundary = {"x-": inflow.as_boundary(), "x+": ZERO_GRADIENT, "y": 0}
    obstacles = [
        Obstacle(Box(x=(b["left"], b["left"] + b["width"]), y=(b["bottom"], b["bottom"] + b["height"])))
        for b in case["blocks"]
    ]
    start = np.load(case["start"])
    centres = CenteredGrid(math.tensor(start, math.channel(vector="x,y"), math.spatial("x,y")), boundary, box, x=n, y=n)
    velocity = resample(centres, StaggeredGrid(0, boundary, box, x=n, y=n))

    @jit_compile
    def step(velocity, pressure):
        solve = Solve("CG", case["tolerance"], 0, x0=pressure, max_iterations=5000)
        # Its schemes of higher order do not take an inflow that varies along the boundary.
        moved = diffuse.explicit(advect.semi_lagrangian(velocity, velocity, dt), nu, dt, substeps=case["substeps"])
        return fluid.make_incompressible(moved, obstacles, solve)

    velocity, pressure = fluid.make_incompressible(velocity, obstacles, Solve("CG", case["tolerance"], 0))
    step(velocity, pressure)
    began = time.process_time()
    for _ in range(case["steps"]):
        velocity, pressure = step(velocity, pressure)
    seconds = time.process_time() - began
    np.save(case["end"], velocity.at_centers().values.numpy("vector,x,y"))
    return seconds


def main() -> None:
    """Answer until the input ends."""
    print(json.dumps({"phiflow": phi.__version__, "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        try:
            answer = {"seconds": solved(json.loads(line))}
        except Exception as error:  # noqa: BLE001  (the other side decides what a failure means)
            answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
