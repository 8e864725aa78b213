"""Is one torch operation for a whole batch worth more than one compiled solve after the other?

Darcy flow, log-normal permeability, as in `multigrid_vs_petsc.py`. Batched multigrid (torch, eager) and the compiled
method solve the same systems to a true relative residual of 1e-8, turn by turn in one process, one thread. Both compute
the same cycle, so that the iterations agree; what differs is who does the work. Timed is everything from the systems to
the verified solutions, per system: stacking and moving the batch to the device and back included. On the CPU process
time counts, on CUDA (rows appear only where torch finds it) wall time.

    python tests/benchmarks/batched_multigrid.py [--sizes 65 129 257] [--batches 1 8 32] [--repeats 5]

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
from _machine import ran_on

from headrace.solvers import AbstractSolver, Darcy, Multigrid, RunningSolver, SolveStatus
from headrace.solvers.methods.batched_multigrid import BatchedMultigrid, cuda_is_available
from headrace.solvers.random_inputs.permeability import LogNormal
from headrace.solvers.systems.verified import solve_batch_verified

RTOL = 1e-8


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[65, 129, 257])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    about = ran_on("numpy", "numba", "torch")
    print("Question: is a batch of systems faster than one compiled solve after the other?")
    print("Machine: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    print(
        f"ms per system; least of {arguments.repeats} interleaved repeats after one warm-up, [median]; rtol {RTOL:g}."
    )
    rows: list[dict[str, str | int | float]] = []
    for n in arguments.sizes:
        problem = Darcy(resolution=n, permeability=LogNormal(length_scale=0.25))
        systems = [problem.discretize(problem.draw(seed)) for seed in range(max(arguments.batches))]
        print(f"\n{n} points a side ({(n - 2) ** 2} unknowns)")
        methods: dict[str, AbstractSolver] = {"compiled, one by one": Multigrid()}
        for batch in arguments.batches:
            methods[f"torch, cpu, batch {batch}"] = BatchedMultigrid(batch=batch, device="cpu")
            if cuda_is_available():
                methods[f"torch, cuda, batch {batch}"] = BatchedMultigrid(batch=batch, device="cuda")
        running: dict[str, RunningSolver] = {name: method.build() for name, method in methods.items()}
        spent: dict[str, list[float]] = {name: [] for name in methods}
        iterations: dict[str, float] = {}
        for _ in range(arguments.repeats + 1):
            for name, method in methods.items():
                count = method.batch_size(systems[0]) if isinstance(method, BatchedMultigrid) else len(systems)
                clock = time.perf_counter if "cuda" in name else time.process_time
                began = clock()
                solutions = solve_batch_verified(running[name], systems[:count], RTOL)
                spent[name].append(1e3 * (clock() - began) / count)
                assert all(solution.status is SolveStatus.converged for solution in solutions)
                iterations[name] = float(np.mean([solution.num_iterations for solution in solutions]))
        compiled = min(spent["compiled, one by one"][1:])
        for name in methods:
            least, median = min(spent[name][1:]), float(np.median(spent[name][1:]))
            print(
                f"  {name:26s} {least:9.3f} ms  [{median:.3f}]  {iterations[name]:5.1f} iterations  "
                f"{least / compiled:5.2f} x compiled", flush=True
            )  # fmt: skip
            rows.append(
                {
                    "points": n,
                    "method": name,
                    "ms": round(least, 4),
                    "ms_median": round(median, 4),
                    "iterations": round(iterations[name], 2),
                    "times_compiled": round(least / compiled, 3),
                }
            )
    print(json.dumps({"benchmark": "batched_multigrid", "rtol": RTOL, "machine": about, "results": rows}))


if __name__ == "__main__":
    main()
