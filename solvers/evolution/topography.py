"""Following shallow water over a bottom through its output times, one sample after the other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from headrace.solvers.evolution import topography_kernels as kernels
from headrace.solvers.evolution.evolution import Draw, Snapshot

# A sample that would need more steps than this to its next output is given up: its waves run away.
_MAX_STEPS = 200_000
_BOUNDARIES = {"periodic": kernels.PERIODIC, "wall": kernels.WALL, "outflow": kernels.OUTFLOW}
_REMEDY = "take a smaller cfl, a finer grid, or milder initial data"


@dataclass(frozen=True, kw_only=True)
class Basin:
    """What all samples of a batch have in common.

    Attributes:
        shape: cells along each axis.
        spacing: side of a cell [m].
        boundary: on all sides.
        cfl: the part of a cell that the fastest waves may cross in a step.
        dry: depth of a film that does not flow [m].
        times: when outputs are wanted, from 0 on [s].
    """

    shape: tuple[int, ...]
    spacing: float
    boundary: str
    cfl: float
    dry: float
    times: tuple[float, ...]


def follow_over_bottom(basin: Basin, draws: Sequence[Draw], step: float) -> Iterator[Snapshot]:
    """Depth and velocity of a batch at the output times; see `AbstractEvolution.follow`.

    Every sample takes steps as long as its own waves allow. One whose depth comes out negative, or that is not finite
    any more, is NaN from then on, and a reason is given.

    Args:
        basin: where they are.
        draws: with the fields `depth`, `velocity` and `bottom`, and the scalar `gravity`.
        step: the largest time step [s].
    """
    water = [_Water(basin, draw) for draw in draws]
    num_steps, reasons = np.zeros(len(draws), dtype=np.int64), dict[int, str]()
    for row, draw in enumerate(draws):
        if not (least := float(draw.fields["depth"].min())) >= 0.0:
            reasons[row] = f"depth {least:.3g} at the start, expected 0 or more"
    start = 0.0
    for end in basin.times:
        for row, one in enumerate(water):
            if row in reasons:
                continue
            came, steps, left = one.advance(end - start, step)
            num_steps[row] += steps
            if came != kernels.ARRIVED:
                reasons[row] = _reason(came, end - left)
        start = end
        yield Snapshot(
            state=np.stack([one.primitive(row in reasons) for row, one in enumerate(water)]),
            defect=np.full(len(draws), np.nan),
            num_steps=num_steps.copy(),
            reasons=dict(reasons),
        )


class _Water:
    """One sample on its way."""

    def __init__(self, basin: Basin, draw: Draw) -> None:
        self._basin, self._gravity = basin, draw.scalars["gravity"]
        self._dim = len(basin.shape)
        nx, ny = (*basin.shape, 1)[:2]
        self._cells = (slice(2, nx + 2), slice(2, ny + 2))
        self._state = np.zeros((3, nx + 4, ny + 4))
        self._bottom = np.zeros((nx + 4, ny + 4))
        self._bottom[self._cells] = draw.fields["bottom"].reshape(nx, ny)
        for axis in range(self._dim):
            kernels.fill(self._bottom, nx, ny, axis, _BOUNDARIES[basin.boundary], 1.0)
        depth = draw.fields["depth"].reshape(nx, ny)
        self._state[(0, *self._cells)] = depth
        for axis, velocity in enumerate(draw.fields["velocity"]):
            self._state[(1 + axis, *self._cells)] = depth * velocity.reshape(nx, ny)

    def advance(self, duration: float, step: float) -> tuple[int, int, float]:
        """See `topography_kernels.advance`."""
        basin = self._basin
        return kernels.advance(
            self._state, self._bottom, self._dim, _BOUNDARIES[basin.boundary], self._gravity, basin.dry,
            1.0 / basin.spacing, basin.cfl, step, duration, _MAX_STEPS,
        )  # fmt: skip

    def primitive(self, is_lost: bool) -> Float64[np.ndarray, "components *grid"]:
        """Depth and velocity, 0 where it is dry; NaN when it is lost."""
        if is_lost:
            return np.full((1 + self._dim, *self._basin.shape), np.nan)
        h = self._state[(0, *self._cells)]
        found = np.zeros((1 + self._dim, *h.shape))
        found[0] = h
        is_wet = h > self._basin.dry
        for axis in range(self._dim):
            np.divide(self._state[(1 + axis, *self._cells)], h, out=found[1 + axis], where=is_wet)
        return found.reshape(1 + self._dim, *self._basin.shape)


def _reason(came: int, time: float) -> str:
    said: Mapping[int, str] = {
        kernels.NEGATIVE: f"a negative depth at t = {time:.4g}",
        kernels.TOO_MANY: f"waves at t = {time:.4g} so fast that {_MAX_STEPS:,} steps do not reach the next output",
        kernels.NOT_FINITE: f"not finite any more at t = {time:.4g}",
    }
    return f"{said[came]}: {_REMEDY}"
