"""How fast is a time step of two-dimensional Navier-Stokes, against a plain torch loop?

Both take the same steps of ETDRK4 for the same batch in double precision and must end in the same vorticities. The peer
is what one writes down from the equation: real transforms, the convective term u·∇ω by four inverse transforms and one
forward, dealiased by a mask, coefficients made once. Headrace's are the parts of `exponential.follow`, without its look
at half steps.
Turn by turn, one thread; the coefficients are not in the time.

    python tests/benchmarks/navier_stokes_steps.py [--sizes 64 128] [--batches 1 4 16] [--steps 40] [--repeats 5]

The last line is one JSON object.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _machine import ran_on
from torch import Tensor

from headrace.platform.seeding import generator
from headrace.solvers import NavierStokes
from headrace.solvers.evolution.etdrk4 import ETDRK4
from headrace.solvers.evolution.periodic_box import PeriodicBox

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
    box = PeriodicBox(grid.shape, grid.extent)
    shape = (-1, 1, 1, 1)
    zero = torch.zeros((1, 1, 1, 1), dtype=torch.float64)
    equation = problem.equation(box, {"viscosity": viscosities.reshape(shape), "drag": zero, "forcing": zero})
    kept = box.kept(problem.degree)
    coefficients = ETDRK4.of(equation.symbol, STEP, kept)

    def run(steps: int) -> Tensor:
        w = box.forward(start[:, None]) * kept
        for _ in range(steps):
            w = coefficients.advance(w, equation.nonlinear)
        return box.backward(w)[:, 0]

    return run


def main() -> None:
    """Run the comparison."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    arguments.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    arguments.add_argument("--steps", type=int, default=40)
    arguments.add_argument("--repeats", type=int, default=5)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print(__doc__)
    about = ran_on("torch", "numpy")
    print(about)
    rows = []
    for size in given.sizes:
        for count in given.batches:
            problem = NavierStokes(resolution=size)
            draws = [problem.draw(generator(0, "benchmark", number)) for number in range(count)]
            start = torch.from_numpy(np.stack([draw.fields["vorticity"][0] for draw in draws]))
            viscosities = torch.tensor([draw.scalars["viscosity"] for draw in draws], dtype=torch.float64)
            ways = {"headrace": headrace(problem, start, viscosities), "plain": plain(problem, start, viscosities)}
            ends = {name: run(given.steps) for name, run in ways.items()}  # the warm-up
            difference = float((ends["headrace"] - ends["plain"]).norm() / ends["plain"].norm())
            assert difference < 1e-9, "they do not solve the same equation"
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            for repeat in range(given.repeats):
                for name in sorted(ways, reverse=bool(repeat % 2)):
                    began = time.perf_counter()
                    ways[name](given.steps)
                    seconds[name].append((time.perf_counter() - began) / (given.steps * count))
            ratios = [b / a for a, b in zip(seconds["headrace"], seconds["plain"], strict=True)]
            row = {
                "points": size,
                "batch": count,
                "milliseconds": {name: 1000.0 * statistics.median(values) for name, values in seconds.items()},
                "plain_over_headrace": statistics.median(ratios),
                "range": [min(ratios), max(ratios)],
                "difference": difference,
            }
            rows.append(row)
            print(row, flush=True)
    print(json.dumps({"benchmark": Path(sys.argv[0]).stem, **about, "step": STEP, "rows": rows}))


if __name__ == "__main__":
    main()
