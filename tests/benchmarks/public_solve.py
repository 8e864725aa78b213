"""What does the public call `solve(system)` cost beside a solver that is held, and beside PETSc at equal accuracy?

Darcy flow on 65, 129 and 257 points a side, log-normal permeability. All solve the same systems to a true relative
residual of 1e-8, recomputed here from the assembled matrix, turn by turn in one process on one thread.

What is timed: process CPU time. Of the public call everything: the look at the arguments, the choice (`auto`), the
solver that is built for this one system, set-up, solve and verification; every call gets a system that nobody has
looked at. Of `held, verified` the same without building a solver; of `held` set-up and solve alone. What PETSc is given
for free: assembled matrices with their values inserted, and everything that depends on the grid alone; it verifies
nothing. See `multigrid_vs_petsc.py` for how PCMG was tuned, and for the peers that are slower than these.

    python tests/benchmarks/public_solve.py [--sizes 65 129 257] [--systems 6] [--repeats 14]

The last line is one JSON object.
"""

import argparse
import dataclasses
import json
import time

import numpy as np
from _machine import ran_on
from multigrid_vs_petsc import LOG_NORMAL, PCMG, RTOL, HeadraceMultigrid, Petsc, PetscMultigrid

from headrace.solvers import Darcy, LinearSystem, Multigrid, solve
from headrace.solvers.systems.verified import solve_verified


class Public:
    """The call of the documentation."""

    def __init__(self, method: str) -> None:
        self.name, self._method = f'solve(system, method="{method}")', method

    def prepare(self, system: LinearSystem) -> None:
        assert system.operator is not None
        self._system = dataclasses.replace(system, operator=dataclasses.replace(system.operator))

    def solve(self) -> tuple[np.ndarray, int]:
        solution = solve(self._system, RTOL, self._method)
        return solution.value, solution.num_iterations


class HeldVerified(HeadraceMultigrid):
    """A solver that stays, as a worker has it."""

    name = "held multigrid, verified"

    def __init__(self) -> None:
        self._running = Multigrid().build()

    def solve(self) -> tuple[np.ndarray, int]:
        solution = solve_verified(self._running, self._system, RTOL)
        return solution.value, solution.num_iterations


class Held(HeadraceMultigrid):
    """The same without verification."""

    name = "held multigrid"


type Contender = Public | HeadraceMultigrid | Petsc


def contenders() -> list[Contender]:
    cholesky = {"ksp_type": "preonly", "pc_type": "cholesky", "pc_factor_mat_ordering_type": "nd"}
    return [
        Public("multigrid"),
        Public("auto"),
        HeldVerified(),
        Held(),
        PetscMultigrid("PETSc CG + PCMG", PCMG),
        PetscMultigrid("PETSc CG + PCMG, SOR factor 1.2", {**PCMG, "mg_levels_pc_sor_omega": 1.2}),
        Petsc("PETSc Cholesky, nested dissection", cholesky),
    ]


NUM_OWN = 4


def compare(methods: list[Contender], systems: list[LinearSystem], repeats: int) -> list[dict[str, str | float]]:
    """Solve every system by every method, one solve each by turns; the first system warms up and does not count."""
    milliseconds = np.zeros((len(methods), repeats, len(systems)))
    worst, order = np.zeros(len(methods)), np.random.default_rng(0)
    for i, system in enumerate(systems):
        for repeat in range(repeats):
            # In another order every time: whoever comes after a large factorisation finds cold caches.
            for m in order.permutation(len(methods)):
                method = methods[m]
                method.prepare(system)
                started = time.process_time_ns()
                x, _ = method.solve()
                milliseconds[m, repeat, i] = 1e-6 * (time.process_time_ns() - started)
                residual = np.linalg.norm(system.rhs - system.matrix @ x) / np.linalg.norm(system.rhs)
                assert residual <= RTOL, f"{method.name} ends at {residual:.1e}"
                worst[m] = max(worst[m], residual)
    counted = milliseconds[:, :, 1:]
    # The least of the repeats is what the solve costs; what comes on top is other people's load.
    cost = counted.min(axis=1).mean(axis=1)
    peer = float(cost[NUM_OWN:].min())
    return [
        {
            "method": method.name,
            "ms": round(float(cost[m]), 3),
            "ms_median": round(float(np.median(counted[m])), 3),
            "ms_p10": round(float(np.quantile(counted[m], 0.1)), 3),
            "ms_p90": round(float(np.quantile(counted[m], 0.9)), 3),
            "worst_residual": float(f"{worst[m]:.1e}"),
            "times_as_fast_as_best_peer": round(peer / float(cost[m]), 2),
            "times_as_fast_as_best_peer_by_medians": round(
                float(np.median(counted[NUM_OWN:], axis=(1, 2)).min() / np.median(counted[m])), 2
            ),
        }
        for m, method in enumerate(methods)
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[65, 129, 257])
    parser.add_argument("--systems", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=14)
    arguments = parser.parse_args()
    about = ran_on("numpy", "scipy", "numba", "dolfinx-solver-real")
    print("Question: what does the public solve() cost? Process CPU ms a system, 1 thread, verification included.")
    print("Machine: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    print(
        f"Warm-up: the first of {arguments.systems} systems, not counted. Repeats: {arguments.repeats} a system, the "
        f"least counts. Spread: tenth and ninetieth percentile over all repeats and systems."
    )
    results: dict[str, list[dict[str, str | float]]] = {}
    for n in arguments.sizes:
        problem = Darcy(resolution=n, permeability=LOG_NORMAL)
        systems = [problem.discretize(problem.draw(seed)) for seed in range(arguments.systems)]
        rows = results[str(n)] = compare(contenders(), systems, arguments.repeats)
        print(f"\n{n} points a side ({(n - 2) ** 2} unknowns)")
        for row in rows:
            print(
                f"  {row['method']:36s} {row['ms']:9.3f} ms  [{row['ms_p10']:.3f}, {row['ms_p90']:.3f}]  "
                f"{row['times_as_fast_as_best_peer']:6.2f} x the best peer "
                f"({row['times_as_fast_as_best_peer_by_medians']:.2f} by medians)",
                flush=True,
            )
    print(json.dumps({"benchmark": "public_solve", "rtol": RTOL, "machine": about, "results": results}))


if __name__ == "__main__":
    main()
