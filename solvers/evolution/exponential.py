"""Following a batch of semilinear equations through their output times."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Complex, Float64
from torch import Tensor

from headrace.solvers.device import found_device
from headrace.solvers.evolution.etdrk4 import ETDRK4
from headrace.solvers.evolution.evolution import Draw, Snapshot, looked_at
from headrace.solvers.evolution.periodic_box import PeriodicBox
from headrace.solvers.evolution.square_flux import SquareFlux

if TYPE_CHECKING:
    from headrace.solvers.evolution.semilinear import AbstractSemilinear


@torch.inference_mode()
def follow_semilinear(problem: "AbstractSemilinear", draws: Sequence[Draw], step: float) -> Iterator[Snapshot]:
    """The states of a batch at the output times; see `AbstractEvolution.follow`."""
    grid, device = problem.grid, found_device(problem.device)
    box = PeriodicBox(grid.shape, grid.extent, device=device)
    scalars = _scalars(draws, box)
    equation = problem.equation(box, scalars)
    if equation.nonlinear is not None:
        # Waves that its products falsify are not carried along.
        box = PeriodicBox(grid.shape, grid.extent, degree=problem.degree, device=device)
        equation = problem.equation(box, scalars)
    state = np.stack([np.concatenate([draw.fields[spec.name] for spec in problem.state]) for draw in draws])
    v = box.forward(torch.from_numpy(state).to(box.device))
    if equation.encode is not None:
        v = equation.encode(v)
    coefficients: dict[float, ETDRK4] = {}

    def steps_of(size: float) -> ETDRK4:
        if size not in coefficients:
            coefficients[size] = ETDRK4.of(equation.symbol, size)
        return coefficients[size]

    is_square_flux = equation.square_flux is not None and equation.encode is None and SquareFlux.suits(box)
    compiled = SquareFlux(box, equation.square_flux or 0.0) if is_square_flux else None

    def advanced(v: Tensor, size: float, count: int) -> Tensor:
        if compiled is not None:
            return compiled.advance(steps_of(size), v, count)
        for _ in range(count):
            v = steps_of(size).advance(v, equation.nonlinear)
        return v

    looks = looked_at(len(problem.times))
    time, num_steps = 0.0, 0
    for number, later in enumerate(problem.times):
        # Evenly spaced times differ in their last bits, which must not cost coefficients of their own.
        interval = float(f"{later - time:.12g}")
        divisions = max(1, math.ceil(interval / step - 1e-9))
        size = interval / divisions
        before = advanced(v, size, divisions - 1)
        v = advanced(before, size, 1)
        defect = np.full(len(draws), np.nan)
        if number in looks and equation.nonlinear is not None:
            defect = _distance(v, advanced(before, size / 2.0, 2))
        time, num_steps = later, num_steps + divisions
        decoded = v if equation.decode is None else equation.decode(v)
        state = box.backward(decoded).cpu().numpy()
        yield Snapshot(state=state, defect=defect, num_steps=np.full(len(draws), num_steps))


def _scalars(draws: Sequence[Draw], box: PeriodicBox) -> dict[str, Tensor]:
    """The scalars of a batch, in one row where all samples share them."""
    shape = (-1, 1, *(1 for _ in box.shape))
    found = {}
    for name in draws[0].scalars:
        values = [draw.scalars[name] for draw in draws]
        shared = values[:1] if len(set(values)) == 1 else values
        found[name] = torch.tensor(shared, dtype=box.dtype, device=box.device).reshape(shape)
    return found


def _distance(
    spectrum: Complex[Tensor, "batch components *spectrum"], other: Complex[Tensor, "batch components *spectrum"]
) -> Float64[np.ndarray, " batch"]:
    size = other.abs().square().flatten(1).sum(1)
    distance: Float64[np.ndarray, " batch"] = (
        ((spectrum - other).abs().square().flatten(1).sum(1) / size.clamp_min(torch.finfo(size.dtype).tiny))
        .sqrt()
        .cpu()
        .numpy()
    )
    return distance
