"""What is recycling worth on sequences that are made for it, and what is it worth against methods that recycle nothing?

Sequences on 127 x 127 unknowns, in which each system resembles the one before:

* `newton`: Newton steps of nonlinear diffusion, a handful of samples one after the other, solved as `solve` does it
  (inexactly, to a nonlinear residual of 1e-8); and `newton, exact`: its linear systems, each to 1e-8.
* `heat, fixed`: backward Euler for ∂u/∂t = ∇·(a ∇u) + f(t) with a log-normal a and fixed steps: the matrix repeats.
* `heat, drifting`: the same with an a that turns from one log-normal field into another, so that no factors repeat.
* `convection, drifting`: backward Euler for upwind convection-diffusion in a flow that turns into another.

`long steps` are 100 times as long, nearly a sequence of steady states: harder systems.

Time steps are solved for the increment, which every method begins at 0, to a true relative residual of 1e-8. All
methods solve the same systems in one process, in an order drawn anew for each system. GCRO-DR without recycling is
compiled GMRES(40), recycled CG without recycling compiled CG: the recycled space makes the difference to these.

What is timed: process CPU time of set-up, solve and verification, the first system (of `newton`, the first sample) not
counted. `iterations` are products with A, those that renew the recycled space included.

    python tests/benchmarks/recycling_sequences.py [--resolution 129] [--steps 60] [--samples 8] [--cases NAME ...]

The last line is one JSON object.
"""

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable, Sequence

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

# ruff: noqa: E402  (libraries read the number of threads when they are imported)
import numpy as np
import scipy.sparse
from _machine import ran_on

from headrace.platform.spec import kinds
from headrace.solvers import ALL_METHODS, AbstractSolver, Direct, LinearSystem, NonlinearSystem, SolveStatus
from headrace.solvers.problems import ConvectionDiffusion, Darcy, NonlinearDiffusion
from headrace.solvers.systems.operators import DiffusionOperator
from headrace.solvers.systems.verified import solve_verified

RTOL = 1e-8
_METHODS = kinds("headrace.methods", ALL_METHODS)
type System = LinearSystem | NonlinearSystem

NONSYMMETRIC: dict[str, dict[str, object]] = {
    "PETSc GMRES(40), ILU(0)": {"kind": "gmres", "preconditioner": "ilu"},
    "compiled GMRES(40), ILU(0)": {"kind": "gcrodr", "recycled": 0},
    "GCRO-DR(40, 10), ILU(0)": {"kind": "gcrodr"},
    "GCRO-DR(40, 20), ILU(0)": {"kind": "gcrodr", "recycled": 20},
    "BiCGStab, ILU(0)": {"kind": "bicgstab", "preconditioner": "ilu"},
    "BiCGStab, ILU(2)": {"kind": "bicgstab", "preconditioner": "ilu", "levels": 2},
    "GMRES, stale factors": {"kind": "gmres", "preconditioner": "stale"},
    "GAMG-GMRES": {"kind": "amg", "package": "petsc"},
    "direct, PETSc": {"kind": "direct", "package": "petsc"},
    "direct, MUMPS": {"kind": "direct", "package": "mumps"},
}
SYMMETRIC: dict[str, dict[str, object]] = {
    "PETSc CG, ICC(0)": {"kind": "cg", "preconditioner": "icc", "levels": 0},
    "compiled CG, ICC(0)": {"kind": "recycled_cg", "recycled": 0},
    "recycled CG(10), ICC(0)": {"kind": "recycled_cg"},
    "recycled CG(20), ICC(0)": {"kind": "recycled_cg", "recycled": 20, "window": 50},
    "compiled GMRES(40), ILU(0)": {"kind": "gcrodr", "recycled": 0},
    "GCRO-DR(40, 10), ILU(0)": {"kind": "gcrodr"},
    "PETSc CG, ICC(2)": {"kind": "cg", "preconditioner": "icc"},
    "CG, stale factors": {"kind": "cg", "preconditioner": "stale"},
    "GAMG-CG": {"kind": "amg", "package": "petsc"},
    "direct": {"kind": "direct", "package": "petsc"},
    "geometric multigrid": {"kind": "multigrid"},
}
UNRECYCLED = {"gcrodr": "compiled GMRES(40), ILU(0)", "recycled_cg": "compiled CG, ICC(0)"}


def newton(resolution: int, samples: int) -> tuple[list[System], list[System]]:
    """Samples of nonlinear diffusion, and the linear systems of exact Newton steps on the same samples."""
    problem = NonlinearDiffusion(resolution=resolution)
    nonlinear: list[System] = [problem.discretize(problem.draw(seed)) for seed in range(samples)]
    direct, linear = Direct().build(), list[System]()
    for system in nonlinear:
        assert isinstance(system, NonlinearSystem)
        u = system.guess.copy()
        while system.relative_residual(u) > RTOL:
            linear.append(system.linearize(u))
            u = u + direct.solve(linear[-1], RTOL).value
    return nonlinear, linear


def heat(resolution: int, steps: int, *, angle: float, dt: float = 0.01) -> list[System]:
    """Backward Euler, a = exp(cos θ g₀ + sin θ g₁) with θ growing by `angle` a step, and a source that pulsates."""
    problem = Darcy(resolution=resolution)
    ends = [np.log(problem.draw(seed)["permeability"]) for seed in range(2)]
    area = (resolution - 1.0) ** -2
    direct, systems, u = Direct().build(), list[System](), np.zeros((resolution - 2) ** 2)
    for step in range(steps):
        a = np.exp(np.cos(angle * step) * ends[0] + np.sin(angle * step) * ends[1])
        flow = problem.discretize({"permeability": a})
        assert flow.operator is not None
        operator = DiffusionOperator(
            conductances=flow.operator.conductances, reaction=np.full(flow.operator.shape, area / dt)
        )
        rhs = (1.0 + 0.5 * np.sin(0.3 * step)) * flow.rhs - flow.apply(u)
        systems.append(LinearSystem.from_operator(operator, rhs, feature=a))
        u = u + direct.solve(systems[-1], RTOL).value
    return systems


def convection(resolution: int, steps: int, *, angle: float = 0.02, dt: float) -> list[System]:
    """Backward Euler in the flow of ψ = cos θ ψ₀ + sin θ ψ₁, with θ growing by `angle` a step."""
    problem = ConvectionDiffusion(resolution=resolution)
    ends = [problem.draw(seed)["stream_function"] for seed in range(2)]
    reaction = (resolution - 1.0) ** -2 / dt
    direct, systems, u = Direct().build(), list[System](), np.zeros((resolution - 2) ** 2)
    for step in range(steps):
        psi = np.cos(angle * step) * ends[0] + np.sin(angle * step) * ends[1]
        steady = problem.discretize({"stream_function": psi})
        matrix = steady.matrix + reaction * scipy.sparse.eye_array(u.size, format="csr")
        rhs = (1.0 + 0.5 * np.sin(0.3 * step)) * steady.rhs - steady.apply(u)
        systems.append(LinearSystem.from_matrix(matrix, rhs, feature=psi))
        u = u + direct.solve(systems[-1], RTOL).value
    return systems


def compare(systems: Sequence[System], listed: dict[str, dict[str, object]]) -> list[dict[str, object]]:
    """Every method on the sequence, the methods taking turns system by system; the fastest first."""
    methods: dict[str, AbstractSolver] = {}
    for name, values in listed.items():
        method = _METHODS[str(values["kind"])].model_validate(values)
        assert isinstance(method, AbstractSolver)
        if method.mismatch(systems[0]) is None:
            methods[name] = method
    running = {name: method.build() for name, method in methods.items()}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    iterations: dict[str, list[int]] = {name: [] for name in methods}
    failed: dict[str, str] = {}
    names = list(methods)
    turns = np.random.default_rng(0)
    for turn, system in enumerate(systems):
        # Who comes first finds the system's arrays cold, who comes after its like finds the code of its library warm.
        for name in turns.permutation(names):
            if name in failed:
                continue
            # Without the matrix that another one has made.
            own = dataclasses.replace(system)
            started = time.process_time()
            solution = solve_verified(running[name], own, RTOL)
            seconds[name].append(time.process_time() - started)
            iterations[name].append(solution.num_iterations)
            if solution.status is not SolveStatus.converged:
                failed[name] = f"system {turn}: {solution}"
    rows: list[dict[str, object]] = []
    mean = {
        name: (1e3 * np.mean(seconds[name][1:]), np.mean(iterations[name][1:])) for name in names if seconds[name][1:]
    }
    for name in sorted(set(names) - set(failed), key=lambda name: mean[name][0]):
        base = UNRECYCLED.get(str(listed[name]["kind"]), name)
        rows.append(
            {
                "method": name,
                "iterations": round(float(mean[name][1]), 1),
                "ms": round(float(mean[name][0]), 2),
                "ms_p10": round(1e3 * float(np.quantile(seconds[name][1:], 0.1)), 2),
                "ms_p90": round(1e3 * float(np.quantile(seconds[name][1:], 0.9)), 2),
                **(
                    {
                        "fewer_iterations": round(float(mean[base][1] / mean[name][1]), 2),
                        "faster": round(float(mean[base][0] / mean[name][0]), 2),
                    }
                    if base != name and base not in failed
                    else {}
                ),
            }
        )
    return [*rows, *({"method": name, "failed": words} for name, words in failed.items())]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--resolution", type=int, default=129)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--cases", nargs="+", default=None)
    arguments = parser.parse_args()
    n, steps = arguments.resolution, arguments.steps
    cases: dict[str, tuple[Callable[[], list[System]], dict[str, dict[str, object]]]] = {
        "newton": (lambda: newton(n, arguments.samples)[0], NONSYMMETRIC),
        "newton, exact": (lambda: newton(n, arguments.samples)[1], NONSYMMETRIC),
        "heat, fixed": (lambda: heat(n, steps, angle=0.0), SYMMETRIC),
        "heat, drifting": (lambda: heat(n, steps, angle=0.02), SYMMETRIC),
        "heat, drifting, long steps": (lambda: heat(n, steps, angle=0.02, dt=1.0), SYMMETRIC),
        "convection, drifting": (lambda: convection(n, steps, dt=0.1), NONSYMMETRIC),
        "convection, drifting, long steps": (lambda: convection(n, steps, dt=10.0), NONSYMMETRIC),
    }
    about = ran_on("numpy", "scipy", "numba", "dolfinx-solver-real")
    print("Question: what is recycling worth on sequences of neighbours? Process CPU ms a system, one thread.")
    print("Machine: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    print("Warm-up: the first system of each sequence, and a small one before all, not counted. Methods take turns.")
    # Compilation.
    small = newton(17, 1)[1][:2]
    compare(small, NONSYMMETRIC)
    compare(heat(17, 2, angle=0.1), SYMMETRIC)
    results: dict[str, list[dict[str, object]]] = {}
    for case in arguments.cases or cases:
        make, listed = cases[case]
        systems = make()
        print(f"\n{case}: {len(systems)} systems of {systems[0].num_unknowns} unknowns", flush=True)
        results[case] = compare(systems, listed)
        for row in results[case]:
            if "failed" in row:
                print(f"  {row['method']:28s} {str(row['failed'])[:100]}")
                continue
            gain = (
                f"   {row['fewer_iterations']:.2f} x fewer, {row['faster']:.2f} x faster than unrecycled"
                if "faster" in row
                else ""
            )
            print(
                f"  {row['method']:28s} {row['iterations']:7.1f} iterations {row['ms']:9.2f} ms "
                f"[{row['ms_p10']:.2f}, {row['ms_p90']:.2f}]{gain}",
                flush=True,
            )
    print(json.dumps({"benchmark": "recycling_sequences", "rtol": RTOL, "machine": about, "results": results}))


if __name__ == "__main__":
    main()
