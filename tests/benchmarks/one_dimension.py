"""How fast is a time step in one dimension, and of Gray-Scott in two, against exponax?

Burgers, Kuramoto-Sivashinsky and Korteweg-de Vries at 256 points, Gray-Scott on 64 x 64 and 128 x 128: the same steps
of ETDRK4 in double precision from the same states, with a number of its own for each sample and without the same waves.
Headrace's steps are those of `exponential.follow_semilinear`: spectra in, spectra out; `in torch` are the same where
nothing is compiled as a whole. exponax is compiled by JAX, with its loop over steps, and takes the form of an equation
with the fewest transforms. Its ETDRK4 takes the real part of complex coefficients (version 0.2), with which waves that
travel are of first order: of Korteweg-de Vries it takes its scheme of second order, half as many transforms a step.
There `equal_error` tells by how much it has to divide its steps for an error no larger (at most by 64) and what that
costs, and `order_4` what its ETDRK4 takes and errs by.

All must end in the same states to 1e-6, but for Korteweg-de Vries; `error` is the distance of each from the end of
Headrace with an eighth of the step. Turn by turn, one thread and one core for all; times are the processor's, without
coefficients and compilation, which are told for Headrace. See navier_stokes_steps.py for the peer's environment.

    python tests/benchmarks/one_dimension.py [--exponax-python PYTHON] [--peer-path FOLDER] [--equations burgers]
        [--batches 1 8 256] [--steps 100] [--repeats 5]

The last line is one JSON object.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _machine import ran_on
from navier_stokes_steps import Exponax
from torch import Tensor

from headrace.platform.seeding import generator
from headrace.solvers import Burgers, GrayScott, KortewegDeVries, KuramotoSivashinsky
from headrace.solvers.evolution.etdrk4 import ETDRK4
from headrace.solvers.evolution.periodic_box import PeriodicBox
from headrace.solvers.evolution.semilinear import AbstractSemilinear
from headrace.solvers.evolution.square_flux import SquareFlux

EQUATIONS: dict[str, AbstractSemilinear] = {
    "burgers": Burgers(resolution=256),
    "kuramoto_sivashinsky": KuramotoSivashinsky(resolution=256, length=128.0),
    "korteweg_de_vries": KortewegDeVries(resolution=256),
    "gray_scott_64": GrayScott(resolution=64),
    "gray_scott_128": GrayScott(resolution=128),
}


def own(
    problem: AbstractSemilinear, start: Tensor, numbers: dict[str, Tensor], is_compiled: bool
) -> Callable[[int, float], Callable[[], Tensor]]:
    """Given steps and their size, a function that takes them from the start."""
    grid = problem.grid
    box = PeriodicBox(grid.shape, grid.extent, degree=problem.degree)
    scalars = {name: values.reshape(-1, *(1 for _ in range(box.dim + 1))) for name, values in numbers.items()}
    equation = problem.equation(box, scalars)
    compiled = SquareFlux(box, equation.square_flux or 0.0) if is_compiled and SquareFlux.suits(box) else None

    def of(steps: int, size: float) -> Callable[[], Tensor]:
        coefficients = ETDRK4.of(equation.symbol, size)

        def run() -> Tensor:
            v = box.forward(start)
            if compiled is not None:
                return box.backward(compiled.advance(coefficients, v, steps))
            for _ in range(steps):
                v = coefficients.advance(v, equation.nonlinear)
            return box.backward(v)

        return run

    return of


def seconds_of(run: Callable[[], Tensor]) -> float:
    """Of all steps of the batch [s]."""
    began = time.process_time()
    run()
    return time.process_time() - began


def distance(end: Tensor, other: Tensor) -> float:
    """Relative, of two batches."""
    return float((end - other).norm() / other.norm())


def compared(
    problem: AbstractSemilinear, count: int, given: argparse.Namespace, peer: Exponax | None
) -> dict[str, object]:
    """The row of an equation and a batch."""
    draws = [problem.draw(generator(0, "benchmark", number)) for number in range(count)]
    fields = np.stack([np.concatenate([draw.fields[spec.name] for spec in problem.state]) for draw in draws])
    numbers = {
        name: torch.tensor([draw.scalars[name] for draw in draws], dtype=torch.float64) for name in problem.numbers
    }
    # Without the waves that are left out: exponax would carry them along with the linear part.
    box = PeriodicBox(problem.grid.shape, problem.grid.extent, degree=problem.degree)
    start = box.backward(box.forward(torch.from_numpy(fields)))
    step, steps = problem.default_step, given.steps
    # As many steps whatever the batch, but not for minutes.
    steps = max(10, min(steps, 20_000_000 // (count * fields[0].size)))
    kinds = {"headrace": True} | ({"in torch": False} if box.dim == 1 else {})
    began = time.process_time()
    runs = {name: own(problem, start, numbers, is_compiled)(steps, step) for name, is_compiled in kinds.items()}
    ends = {name: run() for name, run in runs.items()}  # the warm-up
    warm = time.process_time() - began
    ways: dict[str, Callable[[], float]] = {
        name: lambda run=run: seconds_of(run)  # type: ignore[misc]
        for name, run in runs.items()
    }
    order = 2 if problem.kind == "korteweg_de_vries" else 4
    if peer:
        ends["exponax"] = peer.prepare(problem, start, numbers, steps, step=step, order=order)
        ways["exponax"] = peer.seconds
    fine = own(problem, start, numbers, True)(8 * steps, step / 8.0)()
    difference = {name: distance(end, ends["headrace"]) for name, end in ends.items()}
    error = {name: distance(end, fine) for name, end in ends.items()}
    assert order == 2 or max(difference.values()) < 1e-6, f"they do not solve the same equation: {difference}"
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(given.repeats):
        for name in sorted(ways, reverse=bool(repeat % 2)):
            seconds[name].append(ways[name]() / (steps * count))
    ratios = {
        name: [b / a for a, b in zip(seconds["headrace"], values, strict=True)]
        for name, values in seconds.items()
        if name != "headrace"
    }
    more: dict[str, dict[str, float]] = {}
    if peer and order == 2:
        end = peer.prepare(problem, start, numbers, steps, step=step)
        fastest = min(peer.seconds() for _ in range(given.repeats)) / (steps * count)
        more["order_4"] = {"error": float(f"{distance(end, fine):.1e}"), "microseconds": round(1e6 * fastest, 2)}
        for divisions in (4, 8, 16, 32, 64):
            end = peer.prepare(problem, start, numbers, divisions * steps, step=step / divisions, order=order)
            more["equal_error"] = equal = {
                "divisions": divisions,
                "error": float(f"{distance(end, fine):.1e}"),
                "microseconds": round(1e6 * peer.seconds() / (steps * count), 2),
            }
            if equal["error"] <= error["headrace"]:
                break
    return {
        "batch": count,
        "is_own_batch": count == problem.batch_size,
        "microseconds": {name: round(1e6 * statistics.median(values), 2) for name, values in seconds.items()},
        "over_headrace": {name: round(statistics.median(values), 2) for name, values in ratios.items()},
        "range": {name: [round(min(values), 2), round(max(values), 2)] for name, values in ratios.items()},
        "difference": {name: float(f"{one:.1e}") for name, one in difference.items()},
        "error": {name: float(f"{one:.1e}") for name, one in error.items()},
        **more,
        "warm_up_seconds": round(warm, 2),
    }


@torch.inference_mode()
def main() -> None:
    """Run the comparison."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--equations", nargs="+", choices=EQUATIONS, default=list(EQUATIONS))
    arguments.add_argument("--batches", type=int, nargs="+", help="default: 1, 8 and the batch that Headrace chooses")
    arguments.add_argument("--steps", type=int, default=100)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--exponax-python", help="interpreter of an environment with exponax; without it, no peer")
    arguments.add_argument("--peer-path", help="folder with exponax, where that interpreter does not find it")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(__doc__)
    about = ran_on("torch", "numpy", "numba")
    peer = Exponax(given.exponax_python, given.peer_path) if given.exponax_python else None
    about |= peer.versions if peer else {}
    print(about)
    rows = []
    for name in given.equations:
        problem = EQUATIONS[name]
        for count in given.batches or sorted({1, 8, problem.batch_size}):
            row = {"equation": name, "points": problem.grid.shape, **compared(problem, count, given, peer)}
            rows.append(row)
            print(row, flush=True)
    if peer:
        peer.close()
    print(json.dumps({"benchmark": Path(sys.argv[0]).stem, **about, "rows": rows}))


if __name__ == "__main__":
    main()
