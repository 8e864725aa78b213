"""AbstractIncompressible: flow without compression on a staggered grid, projected in every stage of RK4."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from headrace.platform.fields import FieldSpec, Grid
from headrace.solvers.evolution.enclosure import Coefficients, Enclosure
from headrace.solvers.evolution.evolution import AbstractEvolution, Draw, Snapshot, looked_at

if TYPE_CHECKING:
    from headrace.solvers.evolution.staggered import StaggeredFlow


class AbstractIncompressible(AbstractEvolution):
    """u_t + ∇·(u ⊗ u) = -∇p + ν Δu, ∇·u = 0 on a box of square cells: an equation is its enclosure and its numbers.

    Velocities are stepped as means over the faces of the cells (Harlow and Welch 1965, Physics of Fluids 8), with
    central differences of second order that keep the kinetic energy, so that a coarse grid is inaccurate but stable.
    After every stage of the classical Runge-Kutta method the velocity is projected, so the order in time is 4
    (Sanderse and Koren 2012, J. Comput. Phys. 231) and the divergence that of rounding. No step is longer than `cfl`
    allows, whatever the `step` that is asked for.

    Fields are shown at the centres of the cells. The velocity there is the mean of the two faces; that of a start is
    brought to the faces by means again, and projected. The pressure follows from the velocity: the one at time 0 is
    given as 0 and not used.

    Attributes:
        resolution: cells along the second axis (the first one of a box that is longer has more).
        cfl: the part of the longest stable step that is taken.
    """

    integrator: ClassVar[str] = "RK4 with a projection in every stage"
    sets_its_steps: ClassVar[bool] = True
    restarts_within: ClassVar[float] = 0.02  # by the means between centres and faces

    resolution: Annotated[int, Field(ge=8, le=4096)] = 64
    cfl: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9

    @property
    @abstractmethod
    def enclosure(self) -> Enclosure:
        """The box and its boundary."""

    @abstractmethod
    def coefficients(self, scalars: Mapping[str, float]) -> Coefficients:
        """The numbers of the equation for a sample."""

    @property
    def state(self) -> tuple[FieldSpec, ...]:
        """`velocity` and `pressure`."""
        return (FieldSpec(name="velocity", components=2), FieldSpec(name="pressure"))

    @property
    def grid(self) -> Grid:
        """The cells of the box."""
        box = self.enclosure
        return Grid(
            shape=box.shape,
            extent=(box.shape[0] * box.spacing, box.shape[1] * box.spacing),
            periodic=(box.sides == "periodic", box.lids == "periodic"),
            location="cells",
        )

    @property
    def default_step(self) -> float:
        """The shortest interval between outputs: the flow sets the steps, and needs no help."""
        return self.shortest_interval

    @property
    def batch_size(self) -> int:
        """One: a sample alone keeps a core busy, and its obstacles are its own."""
        return 1

    def cautious(self) -> Self:
        """The same with half the steps."""
        return self.overridden({"cfl": self.cfl / 2.0})

    def refined(self, refinement: int) -> Self:
        """The same equation with so many times the cells along each axis."""
        return self if refinement == 1 else self.overridden({"resolution": refinement * self.resolution})

    def restrict(self, fields: Float64[np.ndarray, "..."], refinement: int) -> Float64[np.ndarray, "..."]:
        """The means over the cells that make up a coarse one."""
        if refinement == 1:
            return fields
        nx, ny = (n // refinement for n in fields.shape[-2:])
        blocks = fields.reshape(*fields.shape[:-2], nx, refinement, ny, refinement)
        return np.asarray(blocks.mean(axis=(-3, -1)))

    def follow(self, draws: Sequence[Draw], step: float) -> Iterator[Snapshot]:
        """The states at the output times, of each sample with steps of its own.

        A sample that is not finite, or would need too many steps, is NaN from then on, and a reason is given.
        """
        return _follow(self, draws, step)


# A sample that would need more steps than this to its next output is given up: it runs away.
_MAX_STEPS = 200_000


# A divergence, in parts of a cell that a step adds to it, that rounding does not explain.
_MAX_DIVERGENCE = 1e-8


def _follow(problem: AbstractIncompressible, draws: Sequence[Draw], step: float) -> Iterator[Snapshot]:
    # Numba takes a second to import: those who solve nothing do not wait for it.
    from headrace.solvers.evolution.staggered import StaggeredFlow

    flows: list[StaggeredFlow] = []
    for draw in draws:
        mask = draw.fields.get("mask")
        is_fluid = None if mask is None else mask[0] > 0.5
        flow = StaggeredFlow(problem.enclosure, problem.coefficients(draw.scalars), is_fluid)
        temperature = draw.fields.get("temperature")
        flow.start(draw.fields["velocity"], None if temperature is None else temperature[0])
        flows.append(flow)
    times, reasons, num_steps = problem.times, dict[int, str](), np.zeros(len(draws), dtype=np.int64)
    looks = looked_at(len(times))
    shape = (sum(spec.components for spec in problem.state), *problem.grid.shape)
    begin = 0.0
    for number, end in enumerate(times):
        state, defect = np.full((len(draws), *shape), np.nan), np.full(len(draws), np.nan)
        for row, flow in enumerate(flows):
            if row in reasons:
                continue
            reason, size = _advance(flow, begin, end, step, problem.cfl)
            num_steps[row] = flow.num_steps
            if reason is not None:
                reasons[row] = reason
                continue
            if number in looks and size:
                defect[row] = flow.defect(size)
            fields = {"velocity": flow.velocity(), "pressure": flow.pressure()[np.newaxis]}
            if flow.has_heat:
                fields["temperature"] = flow.temperature()[np.newaxis]
            state[row] = np.concatenate([fields[spec.name] for spec in problem.state])
        begin = end
        yield Snapshot(state=state, defect=defect, num_steps=num_steps.copy(), reasons=dict(reasons))


def _advance(flow: "StaggeredFlow", begin: float, end: float, step: float, cfl: float) -> tuple[str | None, float]:
    """Take a flow from one time to the next. Why that failed, or None; and the size of the last step."""
    left, size = end - begin, 0.0
    remedy = "take a smaller cfl, a finer grid, or a lower Reynolds number"
    while left > 0.0:
        longest = min(cfl * flow.longest_step(), step)
        if not math.isfinite(longest) or longest <= 0.0:
            return f"velocities that are not finite at t = {end - left:.4g}: {remedy}", size
        # What is left is divided evenly, so that no step is a tiny rest.
        num_left = math.ceil(left / longest - 1e-9)
        if num_left > _MAX_STEPS:
            return (
                f"a flow at t = {end - left:.4g} so fast that {_MAX_STEPS:,} steps do not reach the next output: "
                f"{remedy}"
            ), size
        size = left / num_left
        flow.advance(size)
        left = 0.0 if num_left == 1 else left - size
    divergence = size * flow.divergence()
    if not divergence <= _MAX_DIVERGENCE:
        return (
            f"a divergence that adds {divergence:.2g} of a cell in a step at t = {end:.4g}, allowed is "
            f"{_MAX_DIVERGENCE:g}: {remedy}"
        ), size
    return None, size
