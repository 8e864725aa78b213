"""Who solves the stages of implicit steps fastest, and how far ahead of SciPy's BDF is that at equal error?

Heat in media, trajectories of several samples one after the other. Every method that fits gets the same trajectories,
with what it keeps from stage to stage: factors, recycled spaces. `auto` chooses among them as it goes. `jacobian` are
the same stages with Newton's exact Jacobian in place of the frozen medium, whose matrix is not symmetric: BiCGStab with
ILU(2), GCRO-DR, stale factors and a direct method. The peer is what one takes without Headrace:
`scipy.integrate.solve_ivp` with BDF (variable order and step, sparse exact Jacobian, factors kept as long as Newton
converges), at the largest tolerance that is as accurate.

Times are the processor's, one thread; all methods take turns in one process. Errors are relative L2 distances from
steps eight times as short.

    python tests/benchmarks/implicit_steps.py [--resolutions 65 129] [--samples 4] [--steps 20]

The last line is one JSON object.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _machine import ran_on
from jaxtyping import Float64
from scipy.integrate import solve_ivp

from headrace.platform.seeding import generator
from headrace.solvers import AbstractSolver, Auto, HeatInMedia, NonlinearSystem, Structure
from headrace.solvers.evolution.evolution import Draw
from headrace.solvers.evolution.implicit import Semidiscrete, StageSolver, Unknowns
from headrace.solvers.problems.conduction import Conduction
from headrace.solvers.problems.heat_in_media import HeatAtPoints
from headrace.solvers.selection.candidates import candidates, candidates_of
from headrace.solvers.systems.family import Family

type Field = Float64[np.ndarray, "points points"]
RTOL = 1e-8
TOLERANCES = tuple(10.0**-power for power in np.arange(2.0, 8.1, 0.5))


def distance(a: Field, b: Field) -> float:
    """Relative L2."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def timed[Found](run: Callable[[], Found]) -> tuple[Found, float]:
    """What it returns, and processor seconds."""
    began = time.process_time()
    found = run()
    return found, time.process_time() - began


class WithJacobian(HeatInMedia):
    """The same stages, linearised by Newton's Jacobian."""

    def semidiscrete(self, draw: Draw) -> Semidiscrete:  # type: ignore[override]
        """The temperatures of the interior points."""
        conductivity, strength = draw.fields["conductivity"][0], draw.scalars["strength"]
        return _Exact(conductivity, draw.fields["temperature"][0], strength, draw.scalars["source"])


class _Exact(HeatAtPoints):
    def stage(self, size: float, known: Unknowns, guess: Unknowns) -> NonlinearSystem:
        """As its parent's."""
        whole = super().stage(size, known, guess)
        assert whole.exactly is not None
        return dataclasses.replace(whole, linearize=whole.exactly, structure=Structure(drifts=True))


def end(problem: HeatInMedia, draw: Draw, step: float, stages: StageSolver) -> Field:
    """The temperature at the horizon."""
    *_, last = problem.follow([draw], step, stages)
    assert not last.reasons, last.reasons
    return last.state[0, 0]


def bdf(problem: HeatInMedia, draw: Draw, tolerance: float) -> Field:
    """The same by SciPy."""
    start = draw.fields["temperature"][0]
    conduction = Conduction(draw.fields["conductivity"][0], draw.scalars["strength"])
    inside, area = start[1:-1, 1:-1], (len(start) - 1.0) ** -2
    found = solve_ivp(
        lambda _, u: -conduction.outflow(u.reshape(inside.shape)).ravel() / area,
        (0.0, problem.horizon),
        inside.ravel(),
        method="BDF",
        jac=lambda _, u: conduction.jacobian(u.reshape(inside.shape)) * (-1.0 / area),
        rtol=tolerance,
        atol=tolerance * float(start.max()),
        t_eval=[problem.horizon],
    )
    assert found.success, found.message
    return np.pad(found.y[:, -1].reshape(inside.shape), 1)


def case(problem: HeatInMedia, level: str, samples: int, steps: int) -> dict[str, object]:
    """One level on one grid."""
    draws = [problem.draw(generator(0, "benchmark", level, number)) for number in range(samples)]
    step = problem.horizon / steps
    exactly = WithJacobian.model_validate(problem.model_dump())
    ways: dict[str, tuple[HeatInMedia, AbstractSolver]] = {
        **{one.label: (problem, one.method) for one in candidates(problem)},
        "auto": (problem, Auto()),
    }
    if level != "linear":
        ways |= {f"jacobian: {one.label}": (exactly, one.method) for one in candidates_of(Family.drifting_nonsymmetric)}
    ends: dict[str, list[Field]] = {}
    seconds: dict[str, float] = {}
    chosen = ""
    for name, (equation, method) in ways.items():
        end(equation, draws[0], step, StageSolver(method, RTOL))  # imports and compilation
        stages = StageSolver(method, RTOL)
        found = [timed(functools.partial(end, equation, draw, step, stages)) for draw in draws]
        ends[name] = [field for field, _ in found]
        seconds[name] = float(np.mean([spent for _, spent in found]))
        report = stages.running.report()
        if report is not None:
            chosen = report.winner
    exact = [end(problem, draw, step / 8.0, StageSolver(Auto(), 1e-10)) for draw in draws]
    spread = max(distance(a, b) for name in ways for a, b in zip(ends[name], ends["auto"], strict=True))
    errors = [distance(a, b) for a, b in zip(ends["auto"], exact, strict=True)]
    peers = []
    for draw, truth, error in zip(draws, exact, errors, strict=True):
        for tolerance in TOLERANCES:
            field, spent = timed(functools.partial(bdf, problem, draw, tolerance))
            if distance(field, truth) <= error:
                break
        peers.append(spent)
    return {
        "level": level,
        "points": problem.resolution,
        "error": float(np.mean(errors)),
        "methods_agree_to": spread,
        "milliseconds": {
            name: round(1000.0 * mean, 2) for name, mean in sorted(seconds.items(), key=lambda item: item[1])
        },
        "scipy_bdf_milliseconds": round(1000.0 * float(np.mean(peers)), 2),
        "bdf_over_auto": round(float(np.mean(peers)) / seconds["auto"], 2),
        "auto_over_best": round(seconds["auto"] / min(spent for name, spent in seconds.items() if name != "auto"), 3),
        "auto_chose": chosen,
    }


def main() -> None:
    """Run the comparison."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--resolutions", type=int, nargs="+", default=[65, 129])
    arguments.add_argument("--samples", type=int, default=4)
    arguments.add_argument("--steps", type=int, default=20)
    given = arguments.parse_args()
    print(__doc__)
    about = ran_on("numpy", "scipy", "numba", "petsc4py")
    print(about)
    rows = []
    for resolution, level in itertools.product(given.resolutions, ("linear", "medium", "rough")):
        problem = HeatInMedia(resolution=resolution, snapshots=1).at_level(level)
        row = case(problem, level, given.samples, given.steps)
        rows.append(row)
        print(json.dumps(row), flush=True)
    print(json.dumps({"benchmark": Path(sys.argv[0]).stem, **about, "samples": given.samples, "rows": rows}))


if __name__ == "__main__":
    main()
