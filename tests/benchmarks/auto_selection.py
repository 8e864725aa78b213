"""Is `method: auto` within 1.1 times of the best fixed method, not knowing which that is?

Sequences of 250 systems, or 1000 where they take less than 3 ms: Helmholtz (64 x 64, k = 12 and k = 40; 128 x 128,
k = 40), upwind convection-diffusion (128 x 128), finite elements where DOLFINx is installed (heat conduction on two
meshes, elasticity), Darcy (128 x 128) and Poisson, whose matrix repeats. Every system is solved by auto and by every
fixed method in one process, to a true relative residual of 1e-8; every method keeps its state from system to system,
and one that misses once is out. They take turns, in blocks of 10 systems and an order drawn anew for each block: in a
run a method has the caches to itself, too. Each makes its own matrix. Iterative methods may take 2000 products. One
that is more than 20, 10 or 2.5 times slower than the best after 2, 3 or 10 systems is not run on the rest.

What is timed: process CPU time of set-up, solve and verification. The first system warms every method up and does not
count; imports and compilation of what auto tries on the way are done before. All that auto spends on trying counts. A
data set has thousands of systems; the share of trying is bounded at any length, and falls towards a little over 3 %.

    python tests/benchmarks/auto_selection.py [--systems N] [--cases NAME ...] [--strategies race ...]

The last line is one JSON object.
"""

import argparse
import dataclasses
import json
import os
import time
import warnings
from collections.abc import Sequence

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

# ruff: noqa: E402  (libraries read the number of threads when they are imported)
import numpy as np
from _machine import ran_on

from headrace.platform.spec import kinds
from headrace.solvers import ALL_METHODS, PROBLEMS, AbstractProblem, AbstractSolver, Auto, LinearSystem, SolveStatus
from headrace.solvers.selection.candidates import candidates, miniature
from headrace.solvers.systems.system import System
from headrace.solvers.systems.verified import solve_verified

# Whatever PyAMG says of methods that do not suit a matrix stands in the table.
warnings.showwarning = lambda *_, **__: None
RTOL = 1e-8
_PROBLEMS = kinds("headrace.problems", PROBLEMS)
_METHODS = kinds("headrace.methods", ALL_METHODS)
# Named by kind and settings: problems and methods that do not exist or do not fit are passed over.
CASES: dict[str, dict[str, object]] = {
    "Helmholtz 64^2, k = 12": {"kind": "helmholtz", "resolution": 66, "wave_number": 12.0},
    "Helmholtz 64^2, k = 40": {"kind": "helmholtz", "resolution": 66, "wave_number": 40.0},
    "Helmholtz 128^2, k = 40": {"kind": "helmholtz", "resolution": 130, "wave_number": 40.0},
    "convection-diffusion 128^2": {"kind": "convection_diffusion", "resolution": 130},
    "heat, finite elements": {"kind": "heat_conduction"},
    "heat, finite elements, fine": {"kind": "heat_conduction", "geometry": {"kind": "plate", "size": 0.015}},
    "elasticity, finite elements": {"kind": "elasticity"},
    "Darcy 128^2": {"kind": "darcy", "resolution": 130},
    "Poisson 127^2": {"kind": "poisson", "resolution": 129},
}
FIXED: tuple[dict[str, object], ...] = (
    {"kind": "multigrid"},
    {"kind": "transform"},
    {"kind": "direct"},
    {"kind": "direct", "package": "petsc"},
    {"kind": "direct", "package": "mumps"},
    {"kind": "direct", "package": "cholmod"},
    {"kind": "direct", "package": "scipy"},
    {"kind": "amg", "package": "petsc"},
    {"kind": "amg", "package": "pyamg"},
    {"kind": "cg", "preconditioner": "icc", "levels": 2},
    {"kind": "cg", "preconditioner": "ssor", "omega": 1.6},
    {"kind": "cg", "preconditioner": "stale"},
    {"kind": "minres"},
    {"kind": "gmres", "preconditioner": "ilu"},
    {"kind": "gmres", "preconditioner": "ilu", "levels": 2},
    {"kind": "gmres", "preconditioner": "stale"},
    {"kind": "bicgstab", "preconditioner": "ilu"},
    {"kind": "bicgstab", "preconditioner": "ilu", "levels": 2},
    {"kind": "gcrodr"},
    {"kind": "recycled_cg"},
)
# Of systems that are solved within 3 ms, more make a mean that does not depend on a few interruptions.
NUM_SYSTEMS, NUM_FAST = 250, 1000
FAST = ("heat, finite elements", "elasticity, finite elements", "Darcy 128^2", "Poisson 127^2")
# How many times slower than the best a method may be after so many systems.
HOPELESS = {2: 20.0, 3: 10.0, 10: 2.5}
MOST_PRODUCTS = 2000


class Contender:
    """A method at work, and its CPU seconds on every system but the first."""

    def __init__(self, name: str, method: AbstractSolver) -> None:
        self.name, self.running = name, method.build()
        self.seconds: list[float] = []
        self.out = ""

    def solve(self, system: System) -> None:
        started = time.process_time()
        solution = solve_verified(self.running, system, RTOL)
        self.seconds.append(time.process_time() - started)
        if solution.status is not SolveStatus.converged:
            self.out = str(solution)

    @property
    def mean(self) -> float:
        return float(np.mean(self.seconds[1:]))


def contenders(problem: AbstractProblem, strategies: Sequence[str]) -> list[Contender]:
    system = problem.discretize(problem.draw(0))
    if isinstance(system, LinearSystem):
        for one in candidates(system):
            one.method.build().solve(miniature(system), RTOL)
    autos = [Contender(f"auto, {name}", Auto.model_validate({"strategy": name})) for name in strategies]
    fixed = []
    for values in FIXED:
        if values["kind"] not in _METHODS:
            continue
        method = _METHODS[str(values["kind"])].model_validate(values)
        assert isinstance(method, AbstractSolver)
        if values["kind"] != "amg" and "max_iterations" in type(method).model_fields:
            method = method.model_copy(update={"max_iterations": MOST_PRODUCTS})
        if method.mismatch(problem) is None and method.mismatch(system) is None:
            fixed.append(Contender(", ".join(str(value) for value in values.values()), method))
    return [*autos, *fixed]


def compare(problem: AbstractProblem, num_systems: int, strategies: Sequence[str]) -> dict[str, object]:
    """All methods on the same systems; returns milliseconds, and the ratio of each auto to the best fixed method."""
    methods = contenders(problem, strategies)
    fixed = methods[len(strategies) :]
    turns = np.random.default_rng(0)
    first = 0
    for last in [1, 2, 3, *range(10, num_systems, 10), num_systems]:
        systems = [problem.discretize(problem.draw(seed)) for seed in range(first, last)]
        first = last
        for position in turns.permutation(len(methods)):
            method = methods[position]
            for system in systems:
                if not method.out:
                    # Without the matrix that another one has made.
                    method.solve(dataclasses.replace(system))
        if last in HOPELESS:
            best = min(method.mean for method in fixed if not method.out)
            for method in fixed:
                if not method.out and method.mean > HOPELESS[last] * best:
                    method.out = f"not run on: {1e3 * method.mean:.1f} ms"
    complete = [method for method in fixed if not method.out]
    best = min(complete, key=lambda method: method.mean)
    found: dict[str, object] = {"best": best.name, "best_ms": round(1e3 * best.mean, 2)}
    found["systems"] = num_systems
    print(f"  {num_systems} systems")
    print(f"  {'best fixed: ' + best.name:40s} {1e3 * best.mean:9.2f} ms a system")
    for method in methods[: len(strategies)]:
        ratio = method.mean / best.mean
        report = method.running.report()
        assert report is not None
        counts = {arm.label: arm.solves for arm in report.arms if arm.solves}
        exploring = sum(arm.exploring_seconds for arm in report.arms)
        found[method.name] = {
            "ms": round(1e3 * method.mean, 2),
            "ratio": round(ratio, 3),
            "exploring_share": round(exploring / report.seconds, 3),
            "regret_share": round(report.regret_seconds / report.seconds, 3),
            "solves": counts,
        }
        print(f"  {method.name:40s} {1e3 * method.mean:9.2f} ms  {ratio:6.3f} x the best")
        print(f"    {exploring / report.seconds:.1%} of its time on methods that were not thought the best; {counts}")
    found["fixed"] = {method.name: method.out or round(1e3 * method.mean, 2) for method in fixed}
    for method in sorted(complete, key=lambda method: method.mean)[1:]:
        print(f"    {method.name:38s} {1e3 * method.mean:9.2f} ms")
    for method in fixed:
        if method.out:
            print(f"    {method.name:38s} {method.out[:110]}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--systems", type=int, default=None)
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--strategies", nargs="+", default=["race"])
    arguments = parser.parse_args()
    about = ran_on("numpy", "scipy", "numba")
    print("Question: is auto within 1.1 times of the best fixed method? Process CPU ms a system, one thread.")
    print("Machine: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    print("Warm-up: the first system, not counted. One repeat; methods take turns, in blocks of 10 systems.")
    results = {}
    for case in arguments.cases:
        values = CASES[case]
        if values["kind"] not in _PROBLEMS:
            print(f"\n{case}: there is no problem {values['kind']} here")
            continue
        problem = _PROBLEMS[str(values["kind"])].model_validate(values)
        assert isinstance(problem, AbstractProblem)
        print(f"\n{case}")
        num_systems = arguments.systems or (NUM_FAST if case in FAST else NUM_SYSTEMS)
        results[case] = compare(problem, num_systems, arguments.strategies)
    print(json.dumps({"benchmark": "auto_selection", "rtol": RTOL, "machine": about, "results": results}))


if __name__ == "__main__":
    main()
