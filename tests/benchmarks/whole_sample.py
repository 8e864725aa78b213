"""Question: how many whole samples a second, against the same pipeline with the fastest peer inside?

A whole sample is drawn, discretised, solved to a relative residual of 1e-8, verified in double precision and handed
over as a stacked batch: all that `SolverSource` does. All pipelines draw the same samples of log-normal Darcy flow with
the same code; only the method differs. The peers get what helps them: PETSc's multigrid-preconditioned CG and PETSc's
Cholesky factorisation keep pattern, ordering, interpolations and vectors from sample to sample, and the matrix is
assembled from its cached pattern in the rows that each wants. The grid has 2^k + 1 points a side, because PETSc's grids
nest only so. One thread; process CPU time.

The second table says where the time goes. Its phases are measured one by one, on other samples, after the first table;
"the rest" is what is left of the whole: mixture of levels, clocks, provenance, batch, and the scatter of both tables.

    python tests/benchmarks/whole_sample.py [--resolution 129] [--block 8] [--repeats 12]

The last line is one JSON object.
"""

import argparse
import json
import os
import time
from collections.abc import Callable

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

# ruff: noqa: E402  (libraries read the number of threads when they are imported)
import numpy as np
import scipy.sparse
from _machine import ran_on
from multigrid_vs_petsc import PCMG, RTOL, Petsc, PetscMultigrid

from headrace.platform.sample import Sample, SampleBatch
from headrace.platform.seeding import generator
from headrace.solvers import Darcy, LinearSystem, Multigrid, RunningSolver, Solution, SolverSource, SolveStatus
from headrace.solvers.systems.operators import stencil_csr


class AssembledMultigrid(PetscMultigrid):
    """PCMG on the grid with its boundary, assembled in one go."""

    def _arrays(self, system: LinearSystem) -> tuple[scipy.sparse.csr_array, np.ndarray]:
        assert system.operator is not None
        cx, cy = system.operator.conductances
        n = len(cy) + 2
        inside = (slice(1, -1), slice(1, -1))
        if self._ksp is None:
            mask = np.zeros((n, n), dtype=bool)
            mask[inside] = True
            self._inside = mask.ravel()
            self._parts = np.zeros((5, n, n))
            self._rhs = np.zeros((n, n))
        diagonal, before_x, before_y, after_x, after_y = self._parts
        diagonal[...] = 4.0
        diagonal[inside] = system.operator.diagonal()
        # A neighbour on the boundary has no say.
        before_x[2:-1, 1:-1], after_x[1:-2, 1:-1] = -cx[1:-1], -cx[1:-1]
        before_y[1:-1, 2:-1], after_y[1:-1, 1:-2] = -cy[:, 1:-1], -cy[:, 1:-1]
        self._rhs[inside] = system.rhs.reshape(n - 2, n - 2)
        return stencil_csr(diagonal, (before_x, before_y), (after_x, after_y)), self._rhs.ravel()


class Peer(RunningSolver):
    """A PETSc solver in the place of a method."""

    def __init__(self, inner: Petsc) -> None:
        self._inner = inner

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        assert rtol == RTOL
        self._inner.prepare(system)
        value, iterations = self._inner.solve()
        return Solution(
            value=value,
            status=SolveStatus.converged,
            relative_residual=float("nan"),
            num_iterations=iterations,
            seconds=0.0,
            method=self._inner.name,
        )


def pipelines() -> dict[str, Callable[[], RunningSolver]]:
    cholesky = {"ksp_type": "preonly", "pc_type": "cholesky", "pc_factor_mat_ordering_type": "nd"}
    return {
        "Headrace multigrid": lambda: Multigrid().build(),
        "PETSc CG + PCMG": lambda: Peer(AssembledMultigrid("PETSc CG + PCMG", PCMG)),
        "PETSc Cholesky": lambda: Peer(Petsc("PETSc Cholesky", cholesky)),
    }


def milliseconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return 1e3 * (time.process_time() - started)


def phases(problem: Darcy, running: RunningSolver, repeats: int) -> dict[str, float]:
    """Milliseconds of each phase, the median over samples."""
    rows = []
    for index in range(repeats + 1):
        fields: dict[str, np.ndarray] = {}
        systems: list[LinearSystem] = []
        solutions: list[Solution] = []
        row = {
            "seed": milliseconds(lambda index=index: generator(0, "train", "fields", index)),
            "draw": milliseconds(
                lambda index=index, fields=fields: fields.update(problem.draw(generator(0, "train", "fields", index)))
            ),
            "discretise": milliseconds(
                lambda systems=systems, fields=fields: systems.append(problem.discretize(fields))
            ),
            "solve": milliseconds(
                lambda solutions=solutions, systems=systems: solutions.append(running.solve(systems[0], RTOL))
            ),
            "verify": milliseconds(
                lambda solutions=solutions, systems=systems: systems[0].relative_residual(solutions[0].value)
            ),
            "arrays": milliseconds(
                lambda fields=fields, solutions=solutions: problem.sample_arrays(fields, solutions[0].value)
            ),
        }
        row["draw"] -= row["seed"]
        rows.append(row)
    return {name: round(float(np.median([row[name] for row in rows[1:]])), 3) for name in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--resolution", type=int, default=129)
    parser.add_argument(
        "--block", type=int, default=8, help="samples solved by one pipeline before the next has its turn"
    )
    parser.add_argument("--repeats", type=int, default=12, help="blocks of every pipeline, beside the first")
    arguments = parser.parse_args()
    about = ran_on("numpy", "scipy", "numba", "dolfinx-solver-real")
    print(
        "Question: how many whole samples a second, against the same pipeline with the fastest peer? CPU time, 1 core."
    )
    print("Machine: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    print(
        f"Warm-up: one block of {arguments.block} samples of every pipeline. Repeats: {arguments.repeats} blocks, turn "
        f"by turn. Spread: tenth and ninetieth percentile over blocks."
    )
    problem = Darcy(resolution=arguments.resolution)
    spec = SolverSource(problem=problem, method=Multigrid(), rtol=RTOL)
    sources = {}
    for name, build in pipelines().items():
        sources[name] = spec.build()
        # Everything around the method is ours, for all of them.
        sources[name]._running = build()
    cost: dict[str, list[float]] = {name: [] for name in sources}
    worst = dict.fromkeys(sources, 0.0)
    for block in range(arguments.repeats + 1):
        indices = range(block * arguments.block, (block + 1) * arguments.block)
        for name, source in sources.items():
            started = time.process_time()
            samples = list(source.solve(spec.requests(indices)))
            batch = SampleBatch.stack([sample for sample in samples if isinstance(sample, Sample)])
            spent = time.process_time() - started
            assert len(batch) == len(indices) and {p.solver for p in batch.provenance} <= {"multigrid", name}
            if block > 0:
                cost[name].append(1e3 * spent / len(indices))
            worst[name] = max([worst[name], *(p.relative_residual for p in batch.provenance)])
    rows = []
    for name, spent in cost.items():
        rows.append(
            {
                "pipeline": name,
                "ms_per_sample": round(float(np.median(spent)), 3),
                "ms_least": round(min(spent), 3),
                "ms_p10": round(float(np.quantile(spent, 0.1)), 3),
                "ms_p90": round(float(np.quantile(spent, 0.9)), 3),
                "samples_per_second": round(1e3 / float(np.median(spent)), 1),
                # Blocks of one turn saw the same load.
                "slower_than_headrace": round(float(np.median(np.divide(spent, cost["Headrace multigrid"]))), 2),
                "worst_residual": float(f"{worst[name]:.1e}"),
                "phases_ms": phases(problem, pipelines()[name](), 3 * arguments.repeats),
            }
        )
    print(f"\nDarcy, log-normal, {arguments.resolution} points a side, blocks of {arguments.block}")
    for row in rows:
        print(
            f"  {row['pipeline']:20s} {row['ms_per_sample']:7.2f} ms a sample  "
            f"[{row['ms_p10']:.2f}, {row['ms_p90']:.2f}]  least {row['ms_least']:.2f}  "
            f"{row['samples_per_second']:6.1f} samples/s  {row['slower_than_headrace']:5.2f} x"
        )
    names = list(rows[0]["phases_ms"])
    print("\nMilliseconds of each phase, median" + " " * 2 + "".join(f"{name:>12s}" for name in [*names, "the rest"]))
    for row in rows:
        spent = row["phases_ms"]
        rest = row["ms_per_sample"] - sum(spent.values())
        print(f"  {row['pipeline']:34s}" + "".join(f"{spent[name]:12.3f}" for name in names) + f"{rest:12.3f}")
    print(json.dumps({"benchmark": "whole_sample", "rtol": RTOL, "machine": about, "results": rows}))


if __name__ == "__main__":
    main()
