"""Is `method: auto` within 1.1 times of the best fixed method, not knowing which that is?

Sequences of a few hundred systems: Helmholtz (64 x 64, k = 12 and k = 40; 128 x 128, k = 40), upwind
convection-diffusion (128 x 128), Darcy (64 x 64 and 128 x 128), and finite elements where DOLFINx is installed. Every
system is solved by auto and by every fixed method turn by turn in one process, each with its state from the systems
before, to a true relative residual of 1e-8; a method that misses it once is out of the comparison. A fixed method that
is more than 4 times slower than the best after 12 systems is not run on the rest.

What is timed: process CPU time of set-up, solve and verification. The first system warms every method up and does not
count; imports and compilation of what auto tries on the way do not count either (`RunningSolver.warm_up_seconds`). All
else that auto spends on trying counts. Auto itself goes by wall time.

    python tests/benchmarks/auto_selection.py [--systems 200] [--cases NAME ...] [--strategies race ...]

The last line is one JSON object.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

# ruff: noqa: E402  (libraries read the number of threads when they are imported)
import numpy as np

from headrace.platform.spec import kinds
from headrace.solvers import METHODS, PROBLEMS, AbstractProblem, AbstractSolver, Auto, SolveStatus
from headrace.solvers.solver import solve_verified

RTOL = 1e-8
_PROBLEMS = kinds("headrace.problems", PROBLEMS)
_METHODS = kinds("headrace.methods", METHODS)
# Named by kind and settings: problems and methods that do not exist or do not fit are passed over.
CASES: dict[str, dict[str, object]] = {
    "Helmholtz 64^2, k = 12": {"kind": "helmholtz", "resolution": 66, "wave_number": 12.0},
    "Helmholtz 64^2, k = 40": {"kind": "helmholtz", "resolution": 66, "wave_number": 40.0},
    "Helmholtz 128^2, k = 40": {"kind": "helmholtz", "resolution": 130, "wave_number": 40.0},
    "convection-diffusion 128^2": {"kind": "convection_diffusion", "resolution": 130},
    "Darcy 64^2": {"kind": "darcy", "resolution": 66},
    "Darcy 128^2": {"kind": "darcy", "resolution": 130},
    "heat, finite elements": {"kind": "heat"},
    "elasticity, finite elements": {"kind": "elasticity"},
}
FIXED: tuple[dict[str, object], ...] = (
    {"kind": "multigrid"},
    {"kind": "direct"},
    {"kind": "direct", "package": "petsc"},
    {"kind": "direct", "package": "mumps"},
    {"kind": "direct", "package": "scipy"},
    {"kind": "amg"},
    {"kind": "cg"},
    {"kind": "minres"},
    {"kind": "gmres"},
    {"kind": "bicgstab"},
    {"kind": "gcrodr"},
    {"kind": "recycled_cg"},
)
HOPELESS, ENOUGH = 4.0, 12


class Contender:
    """A method at work, and its CPU seconds on every system but the first."""

    def __init__(self, name: str, method: AbstractSolver) -> None:
        self.name, self.running = name, method.build()
        self.seconds: list[float] = []
        self.out = ""

    def solve(self, system: object) -> None:
        warm_up = self.running.warm_up_seconds
        started = time.process_time()
        solution = solve_verified(self.running, system, RTOL)  # type: ignore[arg-type]
        seconds = time.process_time() - started
        self.seconds.append(max(seconds - (self.running.warm_up_seconds - warm_up), 0.0))
        if solution.status is not SolveStatus.converged:
            self.out = str(solution)

    @property
    def mean(self) -> float:
        return float(np.mean(self.seconds[1:]))


def contenders(problem: AbstractProblem, strategies: Sequence[str]) -> list[Contender]:
    system = problem.discretize(problem.draw(0))
    autos = [Contender(f"auto, {name}", Auto.model_validate({"strategy": name})) for name in strategies]
    fixed = []
    for values in FIXED:
        if values["kind"] not in _METHODS:
            continue
        method = _METHODS[str(values["kind"])].model_validate(values)
        assert isinstance(method, AbstractSolver)
        if method.mismatch(problem) is None and method.mismatch(system) is None:
            fixed.append(Contender(", ".join(str(value) for value in values.values()), method))
    return [*autos, *fixed]


def compare(problem: AbstractProblem, num_systems: int, strategies: Sequence[str]) -> dict[str, object]:
    """All methods on the same systems; returns milliseconds, and the ratio of each auto to the best fixed method."""
    methods = contenders(problem, strategies)
    fixed = methods[len(strategies) :]
    for seed in range(num_systems):
        system = problem.discretize(problem.draw(seed))
        # Who comes first finds the system's arrays cold.
        first = seed % len(methods)
        for method in methods[first:] + methods[:first]:
            if not method.out:
                method.solve(system)
        if seed == ENOUGH:
            best = min(method.mean for method in fixed if not method.out)
            for method in fixed:
                if not method.out and method.mean > HOPELESS * best:
                    method.out = f"not run on: {1e3 * method.mean:.1f} ms"
    complete = [method for method in fixed if not method.out]
    best = min(complete, key=lambda method: method.mean)
    found: dict[str, object] = {"best": best.name, "best_ms": round(1e3 * best.mean, 2)}
    print(f"  {'best fixed: ' + best.name:40s} {1e3 * best.mean:9.2f} ms a system")
    for method in methods[: len(strategies)]:
        ratio = method.mean / best.mean
        report = method.running.report()
        assert report is not None
        counts = {arm.label: arm.solves for arm in report.arms if arm.solves}
        found[method.name] = {
            "ms": round(1e3 * method.mean, 2),
            "ratio": round(ratio, 3),
            "regret_share": round(report.regret_seconds / report.seconds, 3),
            "solves": counts,
        }
        print(f"  {method.name:40s} {1e3 * method.mean:9.2f} ms  {ratio:6.3f} x the best; {counts}")
    found["fixed"] = {method.name: method.out or round(1e3 * method.mean, 2) for method in fixed}
    for method in sorted(complete, key=lambda method: method.mean)[1:]:
        print(f"    {method.name:38s} {1e3 * method.mean:9.2f} ms")
    for method in fixed:
        if method.out:
            print(f"    {method.name:38s} {method.out[:110]}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--systems", type=int, default=200)
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--strategies", nargs="+", default=["race"])
    arguments = parser.parse_args()
    with open("/proc/cpuinfo") as lines:
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    about = {
        "cpu": model,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in ("headrace", "numpy", "scipy", "numba")},
    }
    print("Question: is auto within 1.1 times of the best fixed method? Process CPU ms a system, one thread.")
    print("Machine: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"Warm-up: the first of {arguments.systems} systems, not counted. One repeat; methods take turns.")
    results = {}
    for case in arguments.cases:
        values = CASES[case]
        if values["kind"] not in _PROBLEMS:
            print(f"\n{case}: there is no problem {values['kind']} here")
            continue
        problem = _PROBLEMS[str(values["kind"])].model_validate(values)
        assert isinstance(problem, AbstractProblem)
        print(f"\n{case}")
        results[case] = compare(problem, arguments.systems, arguments.strategies)
    print(json.dumps({"benchmark": "auto_selection", "rtol": RTOL, "machine": about, "results": results}))


if __name__ == "__main__":
    main()
