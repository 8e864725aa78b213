"""Which method is fastest where permeability jumps: both cycles of multigrid, Cholesky and algebraic multigrid.

Darcy flow with two-phase and log-normal permeability, of several contrasts, correlation lengths and grids. The contrast
of a log-normal field is that of exp(±2 standard deviations). All solve the same systems to a relative residual of 1e-8,
verified; every method is held, so that it may keep what depends on the grid alone, and solves each system by turns.

What is timed: process CPU time, one thread; set-up, solve and verification. Cholesky and algebraic multigrid are given
the assembled matrix for free. The last column is what `auto` had settled on at the end of a sequence of such systems.

    python tests/benchmarks/contrast.py [--sizes 65 129 257] [--seeds 3] [--repeats 3] [--sequence 12]

The last line is one JSON object.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator

import numpy as np
from _machine import ran_on

from headrace.solvers import AMG, Auto, Darcy, Direct, Multigrid, SolveStatus, solve_sequence
from headrace.solvers.methods.black_box import RunningBlackBox
from headrace.solvers.methods.multigrid import RunningMultigrid
from headrace.solvers.random_inputs.permeability import AnyPermeability, LogNormal, TwoPhase
from headrace.solvers.systems.solver import RunningSolver
from headrace.solvers.systems.verified import solve_verified

RTOL = 1e-8
CONTRASTS = (10.0, 1e2, 1e3, 1e4, 1e6)
LENGTHS = (0.1, 0.05, 0.02)


def permeabilities() -> Iterator[tuple[str, float, float, AnyPermeability]]:
    """Kind, contrast, correlation length and the field."""
    for kind in ("two_phase", "log_normal"):
        for contrast in CONTRASTS:
            for length in LENGTHS:
                if kind == "two_phase":
                    yield kind, contrast, length, TwoPhase(low=1.0, high=contrast, length_scale=length)
                else:
                    yield kind, contrast, length, LogNormal(log_std=math.log(contrast) / 4.0, length_scale=length)


def contenders() -> dict[str, RunningSolver]:
    return {
        "five_point": RunningMultigrid(100),
        "black_box": RunningBlackBox(100),
        "multigrid": Multigrid().build(),
        "direct": Direct().build(),
        "amg": AMG().build(),
    }


def measure(
    problem: Darcy, methods: dict[str, RunningSolver], seeds: int, repeats: int
) -> dict[str, dict[str, object]]:
    """Medians over seeds of iterations and of the least milliseconds, and how many systems were solved."""
    iterations: dict[str, list[int]] = {name: [] for name in methods}
    milliseconds: dict[str, list[float]] = {name: [] for name in methods}
    solved = dict.fromkeys(methods, 0)
    for seed in range(seeds):
        permeability = problem.draw(seed)["permeability"]
        system = problem.discretize({"permeability": permeability})
        best = dict.fromkeys(methods, math.inf)
        for repeat in range(repeats + (seed == 0)):
            for name, method in methods.items():
                # Factors of a matrix that comes again are kept: every repeat is a new matrix, off by a factor.
                scaled = problem.discretize({"permeability": (1.01 + 0.01 * repeat) * permeability})
                _ = scaled.matrix
                started = time.process_time_ns()
                solution = solve_verified(method, scaled, RTOL)
                spent = 1e-6 * (time.process_time_ns() - started)
                # The first solve on a grid makes what is kept.
                if seed > 0 or repeat > 0:
                    best[name] = min(best[name], spent)
        for name, method in methods.items():
            solution = solve_verified(method, system, RTOL)
            solved[name] += solution.status is SolveStatus.converged
            iterations[name].append(solution.num_iterations)
            milliseconds[name].append(best[name])
    return {
        name: {
            "iterations": iterations[name],
            "ms": round(float(np.median(milliseconds[name])), 2),
            "solved": solved[name],
        }
        for name in methods
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[65, 129, 257])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--sequence", type=int, default=12)
    arguments = parser.parse_args()
    about = ran_on("numpy", "scipy", "numba", "dolfinx-solver-real")
    print("Question: which method is fastest where permeability jumps? Process CPU ms a system, 1 thread, verified.")
    print("Machine: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    print(
        f"Warm-up: one solve a grid, not counted. Repeats: {arguments.repeats} a system, the least counts; then the "
        f"median of {arguments.seeds} systems. Iterations: of each system; ! not solved."
    )
    rows = []
    for n in arguments.sizes:
        for kind, contrast, length, permeability in permeabilities():
            problem = Darcy(resolution=n, permeability=permeability)
            found = measure(problem, contenders(), arguments.seeds, arguments.repeats)
            systems = [problem.discretize(problem.draw(100 + seed)) for seed in range(arguments.sequence)]
            auto = [solution.method for solution in solve_sequence(systems, rtol=RTOL, method=Auto())][-1]
            rows.append({"points": n, "kind": kind, "contrast": contrast, "length": length, "auto": auto, **found})
            told = "  ".join(
                f"{name} {'/'.join(map(str, one['iterations']))}{'!' * (arguments.seeds - one['solved'])} {one['ms']}"  # type: ignore[arg-type,operator]
                for name, one in found.items()
            )
            print(f"{n:4d} {kind:10s} {contrast:9.0f} {length:5.2f}  {told}  auto: {auto}", flush=True)
    print(json.dumps({"benchmark": "contrast", "rtol": RTOL, "machine": about, "results": rows}))


if __name__ == "__main__":
    main()
