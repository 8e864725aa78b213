"""Is multigrid faster and smaller than PETSc's algebraic multigrid on Darcy flow in three dimensions?

Conjugate gradients with a geometric V-cycle (Headrace) against conjugate gradients with GAMG in several settings, on
log-normal permeability, 64³ and 128³ unknowns, one thread, relative residual 1e-8 recomputed from the operator.

Every method runs in a process of its own, one after the other. What is timed is process CPU time of set-up and solve:
`first` with nothing to reuse, `next` the least over the further systems of the sequence, in which GAMG keeps its
interpolation and both keep their memory. Given for free to PETSc: the assembly of its matrix.

Memory is the growth of the resident set over a process that holds the operator and the right-hand side of one system:
the peak during set-up and solve of the first system. PETSc's matrix counts, for GAMG cannot do without it; the copy
that it was made from has been freed before, and does not.

    python tests/benchmarks/darcy_3d.py                    # the table
    python tests/benchmarks/darcy_3d.py --method NAME --size 64      # one process of it

The last line is one JSON object.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

# ruff: noqa: E402  (libraries read the number of threads when they are imported)
import numpy as np
from _machine import ran_on

from headrace.solvers import Darcy3D, LinearSystem
from headrace.solvers.methods.direct import load_petsc
from headrace.solvers.methods.multigrid3d import RunningMultigrid3D

RTOL = 1e-8
SSOR = {"mg_levels_ksp_type": "richardson", "mg_levels_ksp_max_it": 1, "mg_levels_pc_type": "sor"}
JACOBI = {"mg_levels_ksp_type": "chebyshev", "mg_levels_pc_type": "jacobi"}
GAMG: dict[str, dict[str, str | int | float]] = {
    "GAMG, defaults": {},
    "GAMG, SSOR": {**SSOR},
    "GAMG, SSOR, threshold 0.02": {**SSOR, "pc_gamg_threshold": 0.02},
    "GAMG, SSOR, not aggressive": {**SSOR, "pc_gamg_aggressive_coarsening": 0},
    "GAMG, Chebyshev(3) with Jacobi": {**JACOBI, "mg_levels_ksp_max_it": 3},
}
HEADRACE = "Headrace multigrid"


class Headrace:
    """The contender."""

    def __init__(self) -> None:
        self._running = RunningMultigrid3D(100)

    def prepare(self, system: LinearSystem) -> None:
        self._system = system

    def solve(self) -> tuple[np.ndarray, int]:
        solution = self._running.solve(self._system, RTOL)
        return solution.value, solution.num_iterations


class Gamg:
    """CG + GAMG, with interpolation kept for the next system."""

    def __init__(self, options: dict[str, str | int | float]) -> None:
        self._options, self._ksp = options, None

    def prepare(self, system: LinearSystem) -> None:
        petsc = load_petsc()
        assert system.operator is not None
        matrix = system.operator.to_csr()
        if self._ksp is None:
            shape = (matrix.shape[0], matrix.shape[0])
            csr = (matrix.indptr, matrix.indices, matrix.data)
            self._matrix = petsc.Mat().createAIJ(shape, csr=csr, comm=petsc.COMM_SELF)
            self._matrix.setOption(petsc.Mat.Option.SPD, True)
            self._x, self._b = self._matrix.createVecs()
            self._ksp = petsc.KSP().create(petsc.COMM_SELF)
            database = petsc.Options("peer_")
            common = {"ksp_type": "cg", "ksp_norm_type": "unpreconditioned", "pc_type": "gamg"}
            for key, value in {**common, "pc_gamg_reuse_interpolation": 1, **self._options}.items():
                database[key] = value
            self._ksp.setOptionsPrefix("peer_")
            self._ksp.setTolerances(rtol=0.98 * RTOL, atol=1e-300, max_it=500)
            self._ksp.setFromOptions()
        else:
            self._matrix.setValuesCSR(matrix.indptr, matrix.indices, matrix.data)
            self._matrix.assemble()
        self._ksp.setOperators(self._matrix)
        self._b.setArray(system.rhs)

    def solve(self) -> tuple[np.ndarray, int]:
        self._ksp.setUp()
        self._ksp.solve(self._b, self._x)
        return self._x.getArray(), self._ksp.getIterationNumber()


def resident_mib(what: str = "VmRSS") -> float:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def forget_peak() -> None:
    """Give freed memory back to the system, and start the high-water mark anew."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def forget_patterns() -> None:
    """`to_csr` keeps the index arrays of a grid for the next matrix; PETSc has its own."""
    from headrace.solvers.systems import operators

    operators._pattern.cache_clear()


def one(method: str, size: int, systems: int) -> dict[str, float | int | str]:
    """Run one method in this process."""

    def drawn(n: int, seed: int) -> LinearSystem:
        problem = Darcy3D(resolution=n + 2)
        return problem.discretize(problem.draw(seed))

    def make() -> Headrace | Gamg:
        return Headrace() if method == HEADRACE else Gamg(GAMG[method])

    # Compiles, imports, and fills the caches of both.
    warm_up = drawn(8, 0)
    running = make()
    running.prepare(warm_up)
    running.solve()
    warm_up.relative_residual(np.zeros(512))
    seconds, iterations, worst, peak = [], [], 0.0, 0.0
    running = make()
    for seed in range(systems):
        system = drawn(size, seed)
        forget_patterns()
        forget_peak()
        before = resident_mib()
        running.prepare(system)
        forget_patterns()
        forget_peak()
        started = time.process_time()
        x, count = running.solve()
        seconds.append(time.process_time() - started)
        if seed == 0:
            peak = resident_mib("VmHWM") - before
        iterations.append(count)
        worst = max(worst, system.relative_residual(x))
    assert worst <= RTOL, f"{method} ends at {worst:.1e}"
    return {
        "method": method,
        "first_seconds": round(seconds[0], 3),
        "next_seconds": round(min(seconds[1:]), 3),
        "next_seconds_worst": round(max(seconds[1:]), 3),
        "iterations": round(float(np.mean(iterations)), 1),
        "peak_mib": round(peak),
        "bytes_per_unknown": round(peak * 2**20 / size**3),
        "worst_residual": float(f"{worst:.1e}"),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--systems", type=int, default=4)
    parser.add_argument("--method", help="run this one in this process")
    parser.add_argument("--size", type=int, default=64)
    given = parser.parse_args()
    if given.method:
        print(json.dumps(one(given.method, given.size, given.systems)))
        return
    about = ran_on("numpy", "scipy", "numba", "dolfinx-solver-real")
    print("Question: is multigrid faster and smaller than PETSc's GAMG on 3-D Darcy? Process CPU s, 1 thread.")
    print("Machine: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    print(
        f"Warm-up: an 8 x 8 x 8 system. {given.systems} systems: the first builds all, of the others the least counts."
    )
    results: dict[str, list[dict[str, float | int | str]]] = {}
    for size in given.sizes:
        print(f"\nlog-normal, {size} x {size} x {size} unknowns")
        rows = results[str(size)] = []
        for method in [HEADRACE, *GAMG]:
            command = [sys.executable, __file__, "--method", method, "--size", str(size)]
            command += ["--systems", str(given.systems)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row = json.loads(done.stdout.splitlines()[-1])
            rows.append(row)
            print(
                f"  {row['method']:31s} first {row['first_seconds']:.3f} s, next {row['next_seconds']:.3f} s "
                f"[.. {row['next_seconds_worst']:.3f}], {row['iterations']:.1f} iterations, {row['peak_mib']:.0f} MiB "
                f"({row['bytes_per_unknown']} B an unknown); {row['next_seconds'] / rows[0]['next_seconds']:.1f} x, "
                f"{row['peak_mib'] / rows[0]['peak_mib']:.1f} x", flush=True
            )  # fmt: skip
    print(json.dumps({"benchmark": "darcy_3d", "rtol": RTOL, "machine": about, "results": results}))


if __name__ == "__main__":
    main()
