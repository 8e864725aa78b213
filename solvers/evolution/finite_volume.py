"""Following a batch of conservation laws through their output times, each sample with steps of its own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headrace.solvers.device import found_device
from headrace.solvers.evolution.cells import Boundary, Limiter
from headrace.solvers.evolution.evolution import Draw, Snapshot
from headrace.solvers.evolution.riemann import AbstractRiemann, State

if TYPE_CHECKING:
    from headrace.solvers.evolution.conservation import AbstractConservationLaw

# A sample that would need more steps than this to its next output is given up: its waves run away.
_MAX_STEPS = 200_000
# The slopes in the cells beside the boundary reach two cells beyond it.
_GHOSTS = 2


@torch.inference_mode()
def follow_conservation_law(
    problem: "AbstractConservationLaw", draws: Sequence[Draw], step: float
) -> Iterator[Snapshot]:
    """The states of a batch at the output times; see `AbstractEvolution.follow`.

    Every sample takes steps as long as its own waves allow, and leaves the batch when it has come to the output time,
    or when its state is not physical any more: it is NaN from then on, and a reason is given.
    """
    fields = [np.concatenate([draw.fields[spec.name] for spec in problem.state]) for draw in draws]
    primitive = torch.from_numpy(np.stack(fields)).to(found_device(problem.device))
    batch = _Batch(problem, primitive, [draw.scalars for draw in draws], step)
    start = 0.0
    for end in problem.times:
        batch.advance(start, end)
        start = end
        yield Snapshot(
            state=batch.primitive().cpu().numpy(),
            defect=np.full(len(draws), np.nan),
            num_steps=np.array(batch.num_steps.cpu()),
            reasons=dict(batch.reasons),
        )


class _Batch:
    """Samples on their way.

    Attributes:
        num_steps: that each has taken.
        reasons: why a sample went no further, by row.
    """

    def __init__(
        self, problem: "AbstractConservationLaw", primitive: State, scalars: Sequence[Mapping[str, float]], step: float
    ) -> None:
        self._problem, self._step, self._device = problem, step, primitive.device
        self._scheme = Scheme(problem)
        shape = (-1, *(1,) * problem.dim)
        self._scalars = {
            name: torch.tensor([one[name] for one in scalars], dtype=primitive.dtype, device=self._device).reshape(
                shape
            )
            for name in scalars[0]
        }
        components = [spec.name for spec in problem.state for _ in range(spec.components)]
        self._positive = {name: components.index(name) for name in problem.positive}
        self._rows = torch.arange(len(primitive), device=self._device)
        self._state = self._riemann(self._rows).conserved(primitive)
        self.num_steps = torch.zeros(len(primitive), dtype=torch.int64, device=self._device)
        self.reasons: dict[int, str] = {}
        # Through the conserved variables and back: beside a huge kinetic energy no pressure is left.
        back = self.primitive()
        for row in self._rows[~self._is_positive(back)].tolist():
            self._give_up(row, f"{self._complaint(back[row])} at the start, expected above 0")

    def primitive(self) -> State:
        """The state of all samples, in primitive variables."""
        return self._riemann(self._rows).primitive(self._state)

    def advance(self, start: float, end: float) -> None:
        """Take the samples from one time to the next."""
        going = [row for row in range(len(self._rows)) if row not in self.reasons]
        rows = torch.tensor(going, dtype=torch.int64, device=self._device)
        left = torch.full((len(rows),), end - start, dtype=self._state.dtype, device=self._device)
        state, riemann = self._state[rows], self._riemann(rows)
        stages: tuple[State, ...] = ()
        taken = 0
        while len(rows):
            primitive = riemann.primitive(state)
            is_physical = self._is_positive(primitive)
            longest = (self._problem.cfl / self._scheme.rate(riemann, primitive)).clamp_max_(self._step)
            # What is left is divided evenly, so that no step is a tiny rest. 0 of one that has arrived.
            num_left = torch.ceil(left / longest - 1e-9)
            goes_on = is_physical & (num_left >= 1.0) & (num_left <= _MAX_STEPS)
            if not goes_on.all():
                self._state[rows] = state
                self.num_steps[rows[~goes_on]] += taken
                has_arrived = is_physical & (num_left < 1.0)
                for place in torch.nonzero(~goes_on & ~has_arrived).flatten().tolist():
                    states = [riemann.primitive(stage)[place] for stage in stages] or [primitive[place]]
                    self._give_up(int(rows[place]), self._reason(states, end - float(left[place])))
                rows, left, num_left = rows[goes_on], left[goes_on], num_left[goes_on]
                state, primitive, riemann = state[goes_on], primitive[goes_on], self._riemann(rows)
                if not len(rows):
                    break
            size = left / num_left
            stages = self._scheme.advance(riemann, state, primitive, size)
            state, left = stages[-1], left - size
            taken += 1

    def _riemann(self, rows: Tensor) -> AbstractRiemann:
        return self._problem.riemann({name: values[rows] for name, values in self._scalars.items()})

    def _is_positive(self, primitive: State) -> Tensor:
        # Not "any <= 0", which is false of NaN.
        is_positive = torch.ones(len(primitive), dtype=torch.bool, device=primitive.device)
        for place in self._positive.values():
            is_positive &= primitive[:, place].flatten(1).amin(1) > 0.0
        return is_positive

    def _give_up(self, row: int, reason: str) -> None:
        self._state[row] = torch.nan
        self.reasons[row] = reason

    def _reason(self, stages: Sequence[Tensor], time: float) -> str:
        """Why a sample goes no further that has been through these primitive states in its last step."""
        remedy = "take a smaller cfl, a finer grid, or milder initial data"
        for stage in stages:
            if (complaint := self._complaint(stage)) is not None:
                return f"{complaint} before t = {time:.4g}, expected above 0: {remedy}"
        return f"waves at t = {time:.4g} so fast that {_MAX_STEPS:,} steps do not reach the next output: {remedy}"

    def _complaint(self, primitive: Float[Tensor, "components *grid"]) -> str | None:
        for name, place in self._positive.items():
            least = float(primitive[place].min())
            if not least > 0.0:
                return f"{name} {least:.3g}"
        return None


class Scheme:
    """MUSCL and SSPRK3 on the cells of a problem."""

    def __init__(self, problem: "AbstractConservationLaw") -> None:
        self._dim, self._boundary = problem.dim, problem.boundary
        self._half_slope = _HALF_SLOPES[problem.limiter]
        self._per_length = problem.resolution / problem.length

    def rate(self, riemann: AbstractRiemann, primitive: State) -> Float[Tensor, " batch"]:
        """The cells that the fastest waves of all axes together cross in a unit of time."""
        speeds = riemann.wave_speed(primitive).mul_(self._dim)
        for axis in range(self._dim):
            speeds += primitive[:, 1 + axis].abs()
        return speeds.flatten(1).amax(1).mul_(self._per_length)

    def advance(
        self, riemann: AbstractRiemann, state: State, primitive: State, size: Float[Tensor, " batch"]
    ) -> tuple[State, State, State]:
        """One step of SSPRK3: the states after its stages; the last one is the new state.

        Source: Shu and Osher (1988), Journal of Computational Physics 77, Eq. 2.18.
        """
        size = size.reshape(-1, *(1,) * (1 + self._dim))

        def euler(state: State, primitive: State) -> State:
            return self._change(riemann, primitive).mul_(size).add_(state)

        first = euler(state, primitive)
        second = euler(first, riemann.primitive(first)).add_(3.0 * state).div_(4.0)
        third = euler(second, riemann.primitive(second)).mul_(2.0).add_(state).div_(3.0)
        return first, second, third

    def _change(self, riemann: AbstractRiemann, primitive: State) -> State:
        """-∇·F: what flows into every cell in a unit of time, over its size."""
        total: Tensor | None = None
        for axis in range(self._dim):
            along = 2 + axis
            padded = self._padded(primitive, axis)
            count = padded.shape[along]
            jumps = padded.diff(dim=along)
            half = self._half_slope(jumps.narrow(along, 0, count - 2), jumps.narrow(along, 1, count - 2))
            left = padded.narrow(along, 1, count - 3) + half.narrow(along, 0, count - 3)
            right = padded.narrow(along, 2, count - 3) - half.narrow(along, 1, count - 3)
            outflow = riemann.flux(left, right, axis).diff(dim=along)
            total = outflow if total is None else total.add_(outflow)
        assert total is not None
        return total.mul_(-self._per_length)

    def _padded(self, primitive: State, axis: int) -> State:
        """With cells beyond both ends of an axis, as the boundary has them."""
        along = 2 + axis
        count = primitive.shape[along]
        first, last = primitive.narrow(along, 0, _GHOSTS), primitive.narrow(along, count - _GHOSTS, _GHOSTS)
        boundary: Boundary = self._boundary
        if boundary == "periodic":
            before, after = last, first
        elif boundary == "wall":
            before, after = first.flip(along), last.flip(along)
            for mirrored in (before, after):
                mirrored[:, 1 + axis].neg_()
        else:
            before = first.narrow(along, 0, 1).expand_as(first)
            after = last.narrow(along, _GHOSTS - 1, 1).expand_as(last)
        return torch.cat([before, primitive, after], dim=along)


def _minmod(a: Tensor, b: Tensor) -> Tensor:
    smaller = torch.where(a.abs() < b.abs(), a, b)
    return torch.where(a * b > 0.0, smaller, 0.0)


def _half_minmod(a: Tensor, b: Tensor) -> Tensor:
    """Half of the smaller jump, if both have one sign."""
    return _minmod(a, b).mul_(0.5)


def _half_van_leer(a: Tensor, b: Tensor) -> Tensor:
    """Half of the harmonic mean (van Leer 1974): a b / (a + b)."""
    product = a * b
    return torch.where(product > 0.0, product / (a + b), 0.0)


def _half_mc(a: Tensor, b: Tensor) -> Tensor:
    """Half of the mean, or a whole jump where that is smaller (van Leer 1977)."""
    quarter = (a + b).mul_(0.25)
    smaller = _minmod(a, b)
    return torch.where(quarter.abs() < smaller.abs(), quarter, smaller)


_HALF_SLOPES: Mapping[Limiter, Callable[[Tensor, Tensor], Tensor]] = {
    "minmod": _half_minmod,
    "van_leer": _half_van_leer,
    "mc": _half_mc,
}
