"""Does an iteration of the compiled GCRO-DR cost as little as one of PETSc's GMRES, and is the whole solve faster?

Darcy flow on 65 and 129 points a side, log-normal permeability (the problem's defaults), sorted by nearest neighbours
and in the order drawn. All methods precondition with ILU(0) from the right and solve the same systems, turn by turn in
one process, to a true relative residual of 1e-8, recomputed here from the matrix.

What is timed: process CPU time of one system. For both the matrix is given as compressed rows, and factoring ILU(0)
counts. PETSc has its values already inserted, and its symbolic factorisation kept. GCRO-DR's numbers hold all of its
work: renewing the recycled space, the small eigenproblems, replacing the space. `num_iterations` counts products with A
inside the method, those that renew the space included.

The aims: on 129 points at least 2.2 times fewer iterations than GMRES(40), faster in time than PETSc's and our own
GMRES(40), an iteration at most 1.5 times as dear as PETSc's.

    python tests/benchmarks/gcrodr.py [--sizes 65 129] [--systems 9] [--repeats 3]

The last line is one JSON object.
"""

import argparse
import itertools
import json
import os
import time

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

# ruff: noqa: E402  (libraries read the number of threads when they are imported)
import numpy as np
from _machine import ran_on

from headrace.solvers import GCRODR, Darcy, LinearSystem, SolveStatus
from headrace.solvers.methods.direct import load_petsc
from headrace.solvers.sequences.sequence import order_of_systems

PETSc = load_petsc()
RTOL = 1e-8
# Options stay in PETSc's database for good: every solver needs a prefix of its own.
_numbers = itertools.count()


class Petsc:
    """GMRES(m) with ILU(0), from the right; classical Gram-Schmidt without refinement, PETSc's own default."""

    def __init__(self, restart: int) -> None:
        self.name, self._restart, self._ksp = f"PETSc GMRES({restart})", restart, None

    def start_sequence(self) -> None:
        """Nothing is carried over."""

    def prepare(self, system: LinearSystem) -> None:
        matrix = system.matrix
        if self._ksp is None:
            csr = (matrix.indptr, matrix.indices, matrix.data)
            self._matrix = PETSc.Mat().createAIJ(matrix.shape, csr=csr, comm=PETSc.COMM_SELF)
            self._x, self._b = self._matrix.createVecs()
            self._ksp = PETSc.KSP().create(PETSc.COMM_SELF)
            prefix = f"contender{next(_numbers)}_"
            database = PETSc.Options(prefix)
            for key, value in {
                "ksp_type": "gmres",
                "ksp_gmres_restart": self._restart,
                "ksp_pc_side": "right",
                "pc_type": "ilu",
            }.items():
                database[key] = value
            self._ksp.setOptionsPrefix(prefix)
            self._ksp.setTolerances(rtol=0.98 * RTOL, atol=1e-300, max_it=10_000)
            self._ksp.setFromOptions()
        else:
            self._matrix.setValuesCSR(matrix.indptr, matrix.indices, matrix.data)
            self._matrix.assemble()
        self._b.setArray(system.rhs)
        self._ksp.setOperators(self._matrix)

    def solve(self) -> tuple[np.ndarray, int]:
        self._ksp.setUp()
        self._ksp.solve(self._b, self._x)
        return self._x.getArray().copy(), self._ksp.getIterationNumber()


class Headrace:
    """Ours, with or without recycling."""

    def __init__(self, spec: GCRODR) -> None:
        self._spec, self._running = spec, spec.build()
        kind = f"GCRO-DR({spec.subspace}, {spec.recycled})" if spec.recycled else f"compiled GMRES({spec.subspace})"
        self.name = f"{kind}, {spec.basis}"

    def start_sequence(self) -> None:
        self._running = self._spec.build()

    def prepare(self, system: LinearSystem) -> None:
        self._system = system

    def solve(self) -> tuple[np.ndarray, int]:
        solution = self._running.solve(self._system, RTOL)
        assert solution.status is SolveStatus.converged, str(solution)
        return solution.value, solution.num_iterations


def contenders() -> list[Petsc | Headrace]:
    return [
        Petsc(40),
        Petsc(30),
        Headrace(GCRODR(recycled=0)),
        Headrace(GCRODR()),
        Headrace(GCRODR(basis="double")),
        Headrace(GCRODR(recycled=20)),
    ]


def compare(systems: list[LinearSystem], order: list[int], repeats: int) -> list[dict[str, str | float]]:
    """Every sequence `repeats` times, the methods taking turns system by system; the first system does not count."""
    methods = contenders()
    seconds = np.zeros((len(methods), repeats, len(order)))
    iterations, worst = np.zeros((len(methods), len(order))), np.zeros(len(methods))
    for repeat in range(repeats):
        for method in methods:
            method.start_sequence()
        for i, index in enumerate(order):
            system = systems[index]
            for m, method in enumerate(methods):
                method.prepare(system)
                started = time.process_time()
                x, iterations[m, i] = method.solve()
                seconds[m, repeat, i] = time.process_time() - started
                residual = np.linalg.norm(system.rhs - system.matrix @ x) / np.linalg.norm(system.rhs)
                assert residual <= RTOL, f"{method.name} ends at {residual:.1e}"
                worst[m] = max(worst[m], residual)
    # The least of the repeats is what the solve costs; what comes on top is other people's load.
    cost = 1e3 * seconds[:, :, 1:].min(axis=1)
    spread = 1e3 * seconds[:, :, 1:]
    # Per iteration: the ratio of sums, so that long solves weigh more.
    each = cost.sum(axis=1) / iterations[:, 1:].sum(axis=1)
    return [
        {
            "method": method.name,
            "iterations": round(float(iterations[m, 1:].mean()), 1),
            "ms": round(float(cost[m].mean()), 3),
            "ms_p10": round(float(np.quantile(spread[m], 0.1)), 3),
            "ms_p90": round(float(np.quantile(spread[m], 0.9)), 3),
            "ms_per_iteration": round(float(each[m]), 4),
            "iteration_by_petsc": round(float(each[m] / each[0]), 2),
            "fewer_iterations": round(float(iterations[0, 1:].mean() / iterations[m, 1:].mean()), 2),
            "faster": round(float(cost[0].mean() / cost[m].mean()), 2),
            "worst_residual": float(f"{worst[m]:.1e}"),
        }
        for m, method in enumerate(methods)
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[65, 129])
    parser.add_argument("--systems", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    about = ran_on("numpy", "scipy", "numba", "dolfinx-solver-real")
    print("Question: does an iteration of GCRO-DR cost as little as one of PETSc's GMRES? Process CPU ms, 1 thread.")
    print("Machine: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    print(
        f"Warm-up: the first of {arguments.systems} systems of a sequence, not counted, and a sequence of two before "
        f"all. Repeats: {arguments.repeats} sequences, the least counts for every system. Spread: tenth and ninetieth "
        f"percentile over all. Ratios are to PETSc GMRES(40)."
    )
    small = Darcy(resolution=17)
    compare([small.discretize(small.draw(seed)) for seed in range(2)], [0, 1], 1)
    results: dict[str, list[dict[str, str | float]]] = {}
    for n in arguments.sizes:
        problem = Darcy(resolution=n)
        systems = [problem.discretize(problem.draw(seed)) for seed in range(arguments.systems)]
        greedy = [int(index) for index in order_of_systems(systems, GCRODR(), "greedy")]
        for name, order in (("sorted", greedy), ("unsorted", list(range(len(systems))))):
            rows = compare(systems, order, arguments.repeats)
            results[f"{n} {name}"] = rows
            print(f"\n{n} points a side ({(n - 2) ** 2} unknowns), {name}")
            for row in rows:
                print(
                    f"  {row['method']:28s} {row['iterations']:6.1f} iterations ({row['fewer_iterations']:.2f}x fewer) "
                    f"{row['ms']:8.2f} ms [{row['ms_p10']:.2f}, {row['ms_p90']:.2f}] ({row['faster']:.2f} x faster) "
                    f"{row['ms_per_iteration']:.3f} ms an iteration ({row['iteration_by_petsc']:.2f} x PETSc's)",
                    flush=True,
                )
    print(json.dumps({"benchmark": "gcrodr", "rtol": RTOL, "machine": about, "results": results}))


if __name__ == "__main__":
    main()
