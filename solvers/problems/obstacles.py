"""Obstacles in a channel: blocks and disks, how far away they are, and how they are drawn."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from jaxtyping import Bool, Float64
from pydantic import Discriminator, Field, PositiveFloat, model_validator

from headrace.platform.spec import Spec

type Points = Float64[np.ndarray, "*points"]

_TINY = 1e-9


class Block(Spec):
    """A rectangle.

    Attributes:
        left: where it begins along the channel, from the inlet.
        bottom: where it begins across the channel, from its bottom.
        width: its length along the channel.
        height: its length across the channel.
    """

    kind: Literal["block"] = "block"
    left: float
    bottom: float
    width: PositiveFloat
    height: PositiveFloat

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top."""
        return self.left, self.left + self.width, self.bottom, self.bottom + self.height

    def distance(self, x: Points, y: Points) -> Points:
        """To its surface; negative inside."""
        left, right, bottom, top = self.box
        across = np.maximum(left - x, x - right)
        upwards = np.maximum(bottom - y, y - top)
        outside = np.hypot(np.maximum(across, 0.0), np.maximum(upwards, 0.0))
        return outside + np.minimum(np.maximum(across, upwards), 0.0)


class Disk(Spec):
    """A disk, anywhere between the cells. Those whose centre is in it are shown as solid, but the wall is round.

    Attributes:
        x: of its centre along the channel, from the inlet.
        y: of its centre across the channel, from its bottom.
        radius: of the disk.
    """

    kind: Literal["disk"] = "disk"
    x: float
    y: float
    radius: PositiveFloat

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top."""
        return self.x - self.radius, self.x + self.radius, self.y - self.radius, self.y + self.radius

    def distance(self, x: Points, y: Points) -> Points:
        """To its surface; negative inside."""
        return np.hypot(x - self.x, y - self.y) - self.radius


Obstacle = Annotated[Block | Disk, Discriminator("kind")]


class Counts(Spec):
    """A number that is drawn evenly from a range.

    Attributes:
        low: the smallest number that may be drawn.
        high: the largest number that may be drawn.
    """

    low: Annotated[int, Field(ge=0, le=1000)]
    high: Annotated[int, Field(ge=0, le=1000)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} not above high {self.high}")
        return self


def gap(one: Block | Disk, other: Block | Disk) -> float:
    """The distance of two obstacles; 0 or less where they touch or overlap."""
    if isinstance(one, Disk):
        return float(other.distance(np.array(one.x), np.array(one.y))) - one.radius
    if isinstance(other, Disk):
        return gap(other, one)
    (a, b, c, d), (e, f, g, h) = one.box, other.box
    across, upwards = max(a - f, e - b), max(c - h, g - d)
    if across <= 0.0 and upwards <= 0.0:
        return max(across, upwards)
    return math.hypot(max(across, 0.0), max(upwards, 0.0))


def require_free(obstacles: Sequence[Block | Disk], length: float, height: float, spacing: float) -> None:
    """Raise `ValueError` unless obstacles stand within a channel that stays open, on a grid that can show them.

    They stand at least two cells from each other and from the ends. Of the walls, above and below, one may be touched.
    """
    least, tiny = 2.0 * spacing, _TINY * height
    for number, one in enumerate(obstacles):
        name = f"obstacles.{number}"
        left, right, bottom, top = one.box
        if isinstance(one, Block):
            for value in one.box:
                if abs(value / spacing - round(value / spacing)) > 1e-6:
                    raise ValueError(
                        f"{name} with sides on the lines between the cells, which are height / resolution = "
                        f"{spacing:g} apart, got one at {value:g}; move it or change the resolution"
                    )
        elif one.radius < least - tiny:
            raise ValueError(f"{name} with a radius of at least two cells, {least:g}, got {one.radius:g}")
        if left < least - tiny or right > length - least + tiny or bottom < -tiny or top > height + tiny:
            raise ValueError(
                f"{name} inside of the channel and at least two cells, {least:g}, from inflow and outflow, got "
                f"{left:g} to {right:g} of {length:g}, {bottom:g} to {top:g} of {height:g}"
            )
        below, above = bottom > tiny, top < height - tiny
        if not (below or above):
            raise ValueError(f"a channel that stays open, got {name} from wall to wall: {bottom:g} to {top:g}")
        if isinstance(one, Disk) and not (below and above):
            raise ValueError(f"{name} off the walls, got a disk that touches one")
        for is_off, room in ((below, bottom), (above, height - top)):
            if is_off and room < least - tiny:
                raise ValueError(f"{name} on a wall or at least two cells, {least:g}, away from it, got {room:g}")
        for earlier in range(number):
            room = gap(one, obstacles[earlier])
            if room <= tiny:
                raise ValueError(f"obstacles that do not touch, got obstacles.{earlier} and {number} that do")
            if room < least - tiny:
                raise ValueError(
                    f"obstacles at least two cells, {least:g}, apart, got obstacles.{earlier} and {number} with "
                    f"{room:g} between them"
                )


class SquareLattice:
    """Places for squares in a channel, on a lattice of half their side.

    A square keeps its side away from others, from the walls and the inflow, and twice that from the outflow.

    Attributes:
        most: so many squares fit, whichever places are drawn.
    """

    def __init__(self, length: float, height: float, side: float) -> None:
        self._side = side
        across, upwards = (math.floor(2.0 * size / side + 1e-6) for size in (length, height))
        # Two steps a side. A place is where a square begins.
        self._is_free: Bool[np.ndarray, "across upwards"] = np.zeros((max(across, 1), max(upwards, 1)), dtype=bool)
        self._is_free[2 : max(across - 5, 0), 2 : max(upwards - 3, 0)] = True
        # A square takes up the places that are less than four steps away, along both axes.
        self.most = -(-int(self._is_free.sum()) // 49)

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Block, ...]:
        """Squares one after the other, each on one of the places that are left."""
        is_free, found = self._is_free.copy(), []
        for _ in range(count):
            i, j = np.argwhere(is_free)[rng.integers(is_free.sum())].tolist()
            is_free[max(i - 3, 0) : i + 4, max(j - 3, 0) : j + 4] = False
            half, side = 0.5 * self._side, self._side
            found.append(Block(left=i * half, bottom=j * half, width=side, height=side))
        return tuple(found)
