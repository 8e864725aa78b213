"""Does a learned preconditioner, trained on the sequence itself, pay on the systems that follow?

The deep conjugate direction method (Kaneda et al., ICML 2023) against conjugate gradients without a preconditioner,
with Jacobi and with ICC(2), and against multigrid. Darcy flow, log-normal permeability at the level `smooth`, and
Poisson's equation, where the paper's networks are at home. All solve the same systems to a true relative residual of
1e-8, turn by turn in one process, one thread; process CPU time. Training is timed apart: it is done once, while the
first systems of the sequence are solved by conjugate gradients.

    python tests/benchmarks/dcdm.py [--sizes 33 65] [--systems 12]

The last line is one JSON object.
"""

import argparse
import json
import os
import time

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

# ruff: noqa: E402  (libraries read the number of threads when they are imported)
import numpy as np
import torch
from _machine import ran_on

from headrace.solvers import CG, DCDM, AbstractSolver, Darcy, LinearSystem, Multigrid, Poisson, SolveStatus
from headrace.solvers.systems.verified import solve_verified

RTOL = 1e-8
METHODS: dict[str, AbstractSolver] = {
    "DCDM": DCDM(),
    "CG": CG(preconditioner="none"),
    "CG, Jacobi": CG(preconditioner="jacobi"),
    "CG, ICC(2)": CG(),
    "multigrid": Multigrid(),
}


def systems_of(family: str, points: int, count: int) -> list[LinearSystem]:
    problem = Darcy(resolution=points).at_level("smooth") if family == "darcy, smooth" else Poisson(resolution=points)
    systems = [problem.discretize(problem.draw(seed)) for seed in range(count)]
    assert all(isinstance(system, LinearSystem) for system in systems)
    return [system for system in systems if isinstance(system, LinearSystem)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[33, 65])
    parser.add_argument("--systems", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    about = ran_on("numpy", "numba", "torch")
    print("Question: does a learned preconditioner pay on the systems that follow?")
    print("Machine: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    first = DCDM().training_systems
    print(f"Process CPU ms per system after the first {first}, which train; median; rtol {RTOL:g}.")
    rows: list[dict[str, str | int | float]] = []
    for family in ("darcy, smooth", "poisson"):
        for points in arguments.sizes:
            systems = systems_of(family, points, first + arguments.systems)
            running = {name: method.build() for name, method in METHODS.items()}
            spent: dict[str, list[float]] = {name: [] for name in METHODS}
            counts: dict[str, list[int]] = {name: [] for name in METHODS}
            solved_by: list[str] = []
            for system in systems:
                for name, solver in running.items():
                    began = time.process_time()
                    solution = solve_verified(solver, system, RTOL)
                    spent[name].append(1e3 * (time.process_time() - began))
                    counts[name].append(solution.num_iterations)
                    assert solution.status is SolveStatus.converged, f"{name}: {solution}"
                    if name == "DCDM":
                        solved_by.append(solution.method)
            training = sum(spent["DCDM"][:first]) / 1e3
            own = sum(method == "dcdm" for method in solved_by[first:])
            print(
                f"\n{family}, {points} points a side: training {training:.1f} s; "
                f"{own} of {arguments.systems} systems finished by the network"
            )
            for name in METHODS:
                ms, iterations = float(np.median(spent[name][first:])), float(np.mean(counts[name][first:]))
                print(f"  {name:12s} {ms:9.2f} ms  {iterations:7.1f} iterations", flush=True)
                rows.append(
                    {"family": family, "points": points, "method": name, "ms": round(ms, 3), "iterations": iterations}
                )
            rows.append({"family": family, "points": points, "method": "training", "seconds": round(training, 2)})
    print(json.dumps({"benchmark": "dcdm", "rtol": RTOL, "machine": about, "results": rows}))


if __name__ == "__main__":
    main()
