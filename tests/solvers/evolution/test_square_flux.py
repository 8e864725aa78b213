"""Compiled steps of u_t = L u + c (u²)_x: they are those of torch, and those of a sample alone."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from headrace.platform.seeding import generator
from headrace.solvers.evolution import exponential, square_flux_kernels, stockham
from headrace.solvers.evolution.etdrk4 import ETDRK4
from headrace.solvers.evolution.periodic_box import PeriodicBox
from headrace.solvers.evolution.semilinear import AbstractSemilinear
from headrace.solvers.evolution.square_flux import SquareFlux
from headrace.solvers.problems import Burgers, KortewegDeVries, KuramotoSivashinsky

EQUATIONS = (Burgers(), KuramotoSivashinsky(length=20.0), KortewegDeVries())


def stepped(
    problem: AbstractSemilinear, count: int, num_steps: int, *, shares: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The spectra of a batch before steps, and after them compiled as a whole and one after the other."""
    box = PeriodicBox(problem.grid.shape, problem.grid.extent, degree=2)
    draws = [problem.draw(generator(0, "batch", number)) for number in range(count)]
    fields = np.stack([np.concatenate(list(draw.fields.values())) for draw in draws])
    (name,) = problem.numbers
    numbers = torch.tensor([draw.scalars[name] for draw in draws], dtype=torch.float64)
    equation = problem.equation(box, {name: numbers[: 1 if shares else count].reshape(-1, 1, 1)})
    coefficients = ETDRK4.of(equation.symbol, problem.default_step)
    start = box.forward(torch.from_numpy(fields))
    assert equation.square_flux is not None
    compiled = SquareFlux(box, equation.square_flux).advance(coefficients, start, num_steps)
    alone = start
    for _ in range(num_steps):
        alone = coefficients.advance(alone, equation.nonlinear)
    return start, compiled, alone


@pytest.mark.parametrize("points", [8, 16, 64, 128, 512])
@pytest.mark.parametrize("problem", EQUATIONS, ids=lambda one: one.kind)
def test_compiled_steps_are_those_of_torch(problem: AbstractSemilinear, points: int) -> None:
    for count, shares in ((1, False), (3, False), (3, True)):
        start, compiled, alone = stepped(problem.overridden({"resolution": points}), count, 4, shares=shares)
        scale = alone.abs().max()
        # A few roundings a step; what a step does to a state is much more than that.
        assert (compiled - alone).abs().max() < 1e-13 * scale
        assert (start - alone).abs().max() > 1e-6 * scale


@pytest.mark.parametrize("problem", EQUATIONS, ids=lambda one: one.kind)
def test_a_sample_is_the_same_in_a_tile_and_alone(problem: AbstractSemilinear) -> None:
    problem = problem.overridden({"resolution": 64})
    (_, whole, _), (_, alone, _) = stepped(problem, 17, 3), stepped(problem, 1, 3)
    for count in (2, 8, 9):  # a tile that is filled up, a whole one, one and a single sample
        assert torch.equal(stepped(problem, count, 3)[1], whole[:count])
    assert torch.equal(alone, whole[:1])


def test_steps_at_once_are_those_one_after_the_other() -> None:
    problem = Burgers(resolution=32)
    _, twice, _ = stepped(problem, 9, 2)
    box = PeriodicBox(problem.grid.shape, problem.grid.extent, degree=2)
    draws = [problem.draw(generator(0, "batch", number)) for number in range(9)]
    numbers = torch.tensor([draw.scalars["viscosity"] for draw in draws], dtype=torch.float64).reshape(-1, 1, 1)
    coefficients = ETDRK4.of(problem.equation(box, {"viscosity": numbers}).symbol, problem.default_step)
    steps = SquareFlux(box, -0.5)
    v = box.forward(torch.from_numpy(np.stack([draw.fields["velocity"] for draw in draws])))
    assert torch.equal(steps.advance(coefficients, steps.advance(coefficients, v, 1), 1), twice)


def test_it_suits_powers_of_two_along_one_axis_alone() -> None:
    for shape, suits in (((64,), True), ((8,), True), ((96,), False), ((65,), False), ((32, 32), False)):
        assert SquareFlux.suits(PeriodicBox(shape, (1.0,) * len(shape), degree=2)) is suits
    assert not SquareFlux.suits(PeriodicBox((64,), (1.0,), degree=2, dtype=torch.float32))


def test_what_blows_up_does_not_reach_its_neighbours() -> None:
    problem = Burgers(resolution=32, viscosity=0.01, horizon=0.2, snapshots=1)
    draws = [problem.draw(generator(0, "batch", number)) for number in range(3)]
    (calm,) = (snapshot.state for snapshot in exponential.follow_semilinear(problem, draws, problem.default_step))
    draws[1].fields["velocity"][:] *= 1e200
    (one,) = (snapshot.state for snapshot in exponential.follow_semilinear(problem, draws, problem.default_step))
    assert not np.isfinite(one[1]).all()
    np.testing.assert_array_equal(one[[0, 2]], calm[[0, 2]])


def test_what_was_compiled_with_other_transforms_is_not_taken_from_the_cache() -> None:
    # Numba hashes the file of the function and what it closes over, and not the files of what it calls.
    (cell,) = square_flux_kernels.advance.py_func.__closure__  # type: ignore[attr-defined]
    assert cell.cell_contents == zlib.crc32(Path(stockham.__file__).read_bytes())
