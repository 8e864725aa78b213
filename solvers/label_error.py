"""The discretisation error of labels: how far samples are from those of a finer grid and step."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
from jaxtyping import Float, Float64

from headrace.platform.sample import Failure, Sample

NUM_PILOTS = 4
"""Samples of a level that its error is measured on."""

# What has all but died away is measured by what it was.
_DIED_AWAY = 1e-6
# Orders that are believed when three grids show them.
_LEAST_ORDER, _LARGEST_ORDER = 0.5, 8.0
# Equal draws differ on two grids by what lies between the points, means of cells by h². Other draws differ by 1.4.
_OTHER_DRAW = 0.5
# By so much the cost of a solve may grow faster than its points and steps.
_GROWTH = 1.25


def relative_distances(
    one: Float[np.ndarray, "batch time components *grid"], truth: Float[np.ndarray, "batch time components *grid"]
) -> Float64[np.ndarray, " batch"]:
    """For each sample the largest relative L2 distance over its output times; infinite where one is not finite.

    The norm is over all components and points of the output grid. A state that is smaller than a millionth of the
    sample's largest is measured by that.
    """
    a, b = (values.astype(np.float64).reshape(*values.shape[:2], -1) for values in (one, truth))
    is_finite = np.isfinite(a).all((1, 2)) & np.isfinite(b).all((1, 2))
    a, b = np.where(is_finite[:, None, None], a, 0.0), np.where(is_finite[:, None, None], b, 0.0)
    sizes = np.linalg.norm(b, axis=2)
    sizes = np.maximum(sizes, _DIED_AWAY * sizes.max(axis=1, keepdims=True))
    distances = np.linalg.norm(a - b, axis=2) / np.maximum(sizes, np.finfo(np.float64).tiny)
    return np.where(is_finite, distances.max(axis=1), np.inf)


def share_left(order: float, factor: float = 2.0) -> float:
    """Of the error of a grid, what its distance from one `factor` times as fine shows: 1 - factor^-order.

    With e(h) = C h^p the distance of two grids is C h^p - C (h / factor)^p (Richardson 1911; Roache 1998).
    """
    return float(1.0 - factor**-order)


@dataclass(frozen=True, kw_only=True)
class LabelError:
    """The discretisation error of the samples of a difficulty level: relative L2, at the worst output time.

    Attributes:
        level: its name.
        worst: of the pilots; None where it was not measured.
        median: of the pilots.
        num_pilots: samples, apart from those of the data set, that it was measured on.
        refinement: the solver's points for each of the output grid, along each axis.
        finest: how many times as fine the finest grid (and step) was that the pilots were compared with.
        order: by which errors fall: as three grids showed it, or, with two, as the equation says it at least.
        cpu_seconds: that measuring took [s].
        reason: why it was not measured.
    """

    level: str
    worst: float | None = None
    median: float | None = None
    num_pilots: int = 0
    refinement: int = 1
    finest: int = 0
    order: float | None = None
    cpu_seconds: float = 0.0
    reason: str = ""

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> Self:
        """What `to_json` gave; keys of a later version are left out."""
        return cls(**{name: value for name, value in values.items() if name in cls.__dataclass_fields__})  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Refinable:
    """A level whose samples can be had on finer grids.

    Attributes:
        level: its name.
        refinement: of its own labels.
        dimensions: in which the points grow: axes of the grid, and time where it is stepped through.
        order: of convergence, at least.
        has_third: whether a grid four times as fine is affordable, to see the order.
        solve: pilots by their numbers, on a grid so many times as fine as the labels': one result for each.
    """

    level: str
    refinement: int
    dimensions: int
    order: float
    has_third: bool
    solve: Callable[[int, Sequence[int]], Sequence[Sample | Failure]]


def measured(
    of: Refinable,
    *,
    num_pilots: int = NUM_PILOTS,
    seconds: float | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> LabelError:
    """Measure the error of a level's labels on pilot samples.

    The same draws are solved as the labels are, on a grid twice and, where it is affordable, four times as fine, with
    steps that much shorter. With three grids the order p is log2 of the ratio of the distances between neighbours, and
    the error of the labels is their distance from the finest over 1 - 4^-p; with two it is the distance over 1 - 2^-p,
    p the least that the equation promises: no error is told too small because the finer grid has one, too.

    Args:
        of: the level.
        num_pilots: at most so many.
        seconds: CPU time that it may take, estimated from the first pilot; fewer pilots are taken where they are too
            dear, and none where one is; None for no limit [s].
        tell: is told what is being solved.
    """
    spent = 0.0

    def solve(fineness: int, numbers: Sequence[int]) -> dict[int, Sample]:
        nonlocal spent
        if not numbers:
            return {}
        tell(f"{of.level}: {'as the labels' if fineness == 1 else f'{fineness} x the points'}")
        results = of.solve(fineness, numbers)
        spent += sum(_cpu_seconds(one) for one in results)
        return {number: one for number, one in zip(numbers, results, strict=True) if isinstance(one, Sample)}

    def unknown(reason: str) -> LabelError:
        return LabelError(level=of.level, refinement=of.refinement, cpu_seconds=spent, reason=reason)

    grids = (1, 2, 4) if of.has_third else (1, 2)
    coarse = solve(1, [0])
    each = spent * sum(_GROWTH * float(k) ** of.dimensions for k in grids[1:])
    if seconds is not None:
        if each > seconds:
            return unknown(f"a pilot would take about {each:.3g} s, and all may take {seconds:.3g} s")
        num_pilots = max(1, min(num_pilots, int(seconds / max(each, 1e-9))))
    coarse |= solve(1, range(1, num_pilots))
    if not coarse:
        return unknown("no pilot could be solved")
    finer = [solve(k, sorted(coarse)) for k in grids[1:]]
    numbers = sorted(set(coarse).intersection(*finer))
    if not numbers:
        return unknown("no pilot could be solved on a finer grid")
    solved = [{number: samples[number] for number in numbers} for samples in (coarse, *finer)]
    if _inputs_differ(solved[0], solved[1]):
        return unknown("the equation draws other fields on a finer grid, so that nothing can be compared")
    outputs = [np.stack([one.outputs for one in samples.values()]) for samples in solved]
    order = of.order
    if of.has_third:
        first, second = (relative_distances(a, b) for a, b in zip(outputs, outputs[1:], strict=False))
        order = _observed_order(first, second)
    errors = relative_distances(outputs[0], outputs[-1]) / share_left(order, grids[-1])
    if not np.isfinite(errors).all():
        return unknown("a pilot is not finite")
    return LabelError(
        level=of.level,
        worst=float(errors.max()),
        median=float(np.median(errors)),
        num_pilots=len(errors),
        refinement=of.refinement,
        finest=grids[-1],
        order=round(order, 2),
        cpu_seconds=spent,
    )


def _cpu_seconds(result: Sample | Failure) -> float:
    return result.cpu_seconds if isinstance(result, Failure) else result.provenance.cpu_seconds


def _inputs_differ(one: Mapping[int, Sample], other: Mapping[int, Sample]) -> bool:
    """Whether two grids show other draws."""
    for number, sample in one.items():
        a, b = sample.inputs.astype(np.float64), other[number].inputs.astype(np.float64)
        if not np.array_equal(sample.parameters, other[number].parameters):
            return True
        if a.size and np.linalg.norm(a - b) > _OTHER_DRAW * np.linalg.norm(b):
            return True
    return False


def _observed_order(first: Float64[np.ndarray, " pilots"], second: Float64[np.ndarray, " pilots"]) -> float:
    """By which the distances between neighbouring grids fall; of all pilots together."""
    one, other = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    if not (math.isfinite(one) and other > 0.0 and one > 0.0):
        return _LARGEST_ORDER if other == 0.0 else _LEAST_ORDER
    return min(max(math.log2(one / other), _LEAST_ORDER), _LARGEST_ORDER)
