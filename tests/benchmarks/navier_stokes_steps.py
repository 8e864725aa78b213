"""How fast is a time step of two-dimensional Navier-Stokes, against exponax and a plain torch loop?

All take the same steps of ETDRK4 for the same batch in double precision, leave out the same waves, and must end in the
same vorticities. Headrace's are the parts of `exponential.follow`, without its look at half steps. `plain` is what one
writes down from the equation: real transforms, the convective term u·∇ω by four inverse transforms and one forward,
dealiased by a mask. exponax (JAX, compiled) is a peer in an environment of its own:

    uv venv /tmp/exponax && uv pip install --python /tmp/exponax/bin/python exponax "jax[cpu]"

Turn by turn, one thread and one core for all. Times are the processor's, so that what else a machine does counts less;
coefficients and compilation are not in them.

    python tests/benchmarks/navier_stokes_steps.py [--exponax-python /tmp/exponax/bin/python] [--peer-path FOLDER]
        [--sizes 64 128] [--batches 1 4 16] [--steps 40] [--repeats 5]

The last line is one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import ran_on
from torch import Tensor

from headrace.platform.seeding import generator
from headrace.solvers import NavierStokes
from headrace.solvers.evolution.etdrk4 import ETDRK4
from headrace.solvers.evolution.periodic_box import PeriodicBox
from headrace.solvers.evolution.semilinear import AbstractSemilinear

STEP = 0.005


def plain(problem: NavierStokes, start: Tensor, viscosities: Tensor) -> Callable[[int], Tensor]:
    """The peer: a function that takes so many steps from the start."""
    n = problem.resolution
    k = 2.0 * np.pi / problem.length * torch.fft.fftfreq(n, 1.0 / n, dtype=torch.float64)
    kx, ky = k[:, None], 2.0 * np.pi / problem.length * torch.fft.rfftfreq(n, 1.0 / n, dtype=torch.float64)[None, :]
    square = kx**2 + ky**2
    inverse = torch.where(square > 0.0, 1.0 / square.clamp_min(1e-300), 0.0)
    cutoff = 2.0 * np.pi / problem.length * n / 3.0 - 1e-9
    mask = (kx.abs() < cutoff) & (ky.abs() < cutoff)
    symbol = -viscosities[:, None, None] * square
    circle = torch.exp(1j * np.pi * (torch.arange(32, dtype=torch.float64) + 0.5) / 32.0)
    z = STEP * symbol[..., None] + circle
    weight = (STEP * ((torch.exp(z / 2) - 1) / z).mean(-1)).real
    f1 = (STEP * ((-4 - z + torch.exp(z) * (4 - 3 * z + z**2)) / z**3).mean(-1)).real
    f2 = (STEP * ((2 + z + torch.exp(z) * (-2 + z)) / z**3).mean(-1)).real
    f3 = (STEP * ((-4 - 3 * z - z**2 + torch.exp(z) * (4 - z)) / z**3).mean(-1)).real
    e, e2 = torch.exp(STEP * symbol), torch.exp(STEP * symbol / 2.0)

    def rate(w: Tensor) -> Tensor:
        psi = w * inverse
        u, v = torch.fft.irfft2(1j * ky * psi, s=(n, n)), torch.fft.irfft2(-1j * kx * psi, s=(n, n))
        w_x, w_y = torch.fft.irfft2(1j * kx * w, s=(n, n)), torch.fft.irfft2(1j * ky * w, s=(n, n))
        return mask * -torch.fft.rfft2(u * w_x + v * w_y)

    def run(steps: int) -> Tensor:
        w = torch.fft.rfft2(start) * mask
        for _ in range(steps):
            n_w = rate(w)
            a = e2 * w + weight * n_w
            n_a = rate(a)
            b = e2 * w + weight * n_a
            n_b = rate(b)
            c = e2 * a + weight * (2.0 * n_b - n_w)
            w = e * w + f1 * n_w + 2.0 * f2 * (n_a + n_b) + f3 * rate(c)
        return torch.fft.irfft2(w, s=(n, n))

    return run


def headrace(problem: NavierStokes, start: Tensor, viscosities: Tensor) -> Callable[[int], Tensor]:
    """The same by Headrace's parts, as `exponential.follow` puts them together."""
    grid = problem.grid
    box = PeriodicBox(grid.shape, grid.extent, degree=problem.degree)
    shape = (-1, 1, 1, 1)
    zero = torch.zeros((1, 1, 1, 1), dtype=torch.float64)
    equation = problem.equation(box, {"viscosity": viscosities.reshape(shape), "drag": zero, "forcing": zero})
    coefficients = ETDRK4.of(equation.symbol, STEP)

    def run(steps: int) -> Tensor:
        w = box.forward(start[:, None])
        for _ in range(steps):
            w = coefficients.advance(w, equation.nonlinear)
        return box.backward(w)[:, 0]

    return run


class Exponax:
    """The peer, which waits in a process of its own until it is asked."""

    def __init__(self, python: str, path: str | None = None) -> None:
        """Start it.

        Args:
            python: its interpreter.
            path: folder with its packages, where the interpreter does not find them.
        """
        script = Path(__file__).with_name("_exponax_peer.py")
        elsewhere = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [python, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=elsewhere | ({"PYTHONPATH": path} if path else {}),
        )
        self.versions = self._answer()
        self._folder = tempfile.TemporaryDirectory()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the peer has ended; what it said is above"
        found: dict[str, Any] = json.loads(line)
        return found

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def prepare(
        self,
        problem: AbstractSemilinear,
        start: Tensor,
        numbers: Mapping[str, Tensor],
        steps: int,
        *,
        step: float = STEP,
        order: int = 4,
    ) -> Tensor:
        """Compile for a batch "batch components *grid" with numbers of each sample; where it ends."""
        file, end = (str(Path(self._folder.name) / name) for name in ("start.npz", "end.npy"))
        np.savez(file, start=start.numpy(), **{name: values.numpy() for name, values in numbers.items()})
        # Those that products do not falsify, as for the box of Headrace.
        largest = (problem.resolution - 1) // (problem.degree + 1)
        case = {"file": file, "end": end, "length": problem.length, "step": step, "steps": steps, "order": order}
        self._ask(case | {"equation": problem.kind, "largest_wave": largest})
        return torch.from_numpy(np.load(end))

    def seconds(self) -> float:
        """Of all steps of the batch, from fields to fields [s]."""
        return float(self._ask({})["seconds"])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._folder.cleanup()


def seconds_of(run: Callable[[int], Tensor], steps: int) -> float:
    """Of all steps of the batch [s]."""
    began = time.process_time()
    run(steps)
    return time.process_time() - began


@torch.inference_mode()
def main() -> None:
    """Run the comparison."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    arguments.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    arguments.add_argument("--steps", type=int, default=40)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--exponax-python", help="interpreter of an environment with exponax; without it, no peer")
    arguments.add_argument("--peer-path", help="folder with exponax, where that interpreter does not find it")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    # One core for this process and the peer, which inherits it: they take turns, so neither waits for the other.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(__doc__)
    about = ran_on("torch", "numpy")
    peer = Exponax(given.exponax_python, given.peer_path) if given.exponax_python else None
    about |= peer.versions if peer else {}
    print(about)
    rows = []
    for size in given.sizes:
        for count in given.batches:
            problem = NavierStokes(resolution=size)
            draws = [problem.draw(generator(0, "benchmark", number)) for number in range(count)]
            fields = torch.from_numpy(np.stack([draw.fields["vorticity"][0] for draw in draws]))
            # Without the waves that are left out: exponax would carry them along with the linear part.
            box = PeriodicBox(problem.grid.shape, problem.grid.extent, degree=problem.degree)
            start = box.backward(box.forward(fields))
            viscosities = torch.tensor([draw.scalars["viscosity"] for draw in draws], dtype=torch.float64)
            own = {"headrace": headrace(problem, start, viscosities), "plain": plain(problem, start, viscosities)}
            ends = {name: run(given.steps) for name, run in own.items()}  # the warm-up
            ways: dict[str, Callable[[], float]] = {
                name: lambda run=run: seconds_of(run, given.steps)  # type: ignore[misc]
                for name, run in own.items()
            }
            if peer:
                ends["exponax"] = peer.prepare(problem, start[:, None], {"viscosity": viscosities}, given.steps)[:, 0]
                ways["exponax"] = peer.seconds
            difference = {
                name: float((end - ends["plain"]).norm() / ends["plain"].norm()) for name, end in ends.items()
            }
            assert max(difference.values()) < 1e-9, f"they do not solve the same equation: {difference}"
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            for repeat in range(given.repeats):
                for name in sorted(ways, reverse=bool(repeat % 2)):
                    seconds[name].append(ways[name]() / (given.steps * count))
            ratios = {
                name: [b / a for a, b in zip(seconds["headrace"], values, strict=True)]
                for name, values in seconds.items()
                if name != "headrace"
            }
            row = {
                "points": size,
                "batch": count,
                "milliseconds": {name: 1000.0 * statistics.median(values) for name, values in seconds.items()},
                "over_headrace": {name: statistics.median(values) for name, values in ratios.items()},
                "range": {name: [min(values), max(values)] for name, values in ratios.items()},
                "difference": difference,
            }
            rows.append(row)
            print(row, flush=True)
    if peer:
        peer.close()
    print(json.dumps({"benchmark": Path(sys.argv[0]).stem, **about, "step": STEP, "rows": rows}))


if __name__ == "__main__":
    main()
