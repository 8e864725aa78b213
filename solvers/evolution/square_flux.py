"""SquareFlux: steps of u_t = L u + c (u²)_x in one dimension, compiled as a whole for a CPU."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Complex, Complex128, Float64
from torch import Tensor

from headrace.solvers.evolution import square_flux_kernels as kernels
from headrace.solvers.evolution.etdrk4 import ETDRK4
from headrace.solvers.evolution.periodic_box import PeriodicBox
from headrace.solvers.evolution.stockham import LANES, roots_of

Rows = Complex[Tensor, "batch 1 row"]


@dataclass(frozen=True, kw_only=True)
class _Tables:
    """What a grid's transforms need, and the flux.

    Attributes:
        flux: of each kept wave.
        roots: see `square_flux_kernels.advance`.
        turns: see there.
    """

    flux: Float64[np.ndarray, " waves"]
    roots: Float64[np.ndarray, "six roots"]
    turns: Float64[np.ndarray, "two waves"]

    @classmethod
    def of(cls, box: PeriodicBox, strength: float) -> Self:
        """Those of a box that drops what products falsify."""
        (points,), length = box.shape, box.shape[0] // 2
        turns = np.exp(2j * np.pi * np.arange(length) / points)
        # The points' values come unscaled, and their squares once more; ½ comes from the real transform.
        waves = box.wave_numbers[0].numpy()[: box.num_waves]
        return cls(
            flux=0.5 * strength * waves / float(points) ** 2,
            roots=roots_of(length),
            turns=np.stack([turns.real, turns.imag]),
        )


class SquareFlux:
    """Steps of a batch of u_t = L u + c (u²)_x on a periodic interval of 2^k points.

    A step, with its four times two transforms, is one pass through the cache for eight samples side by side, or one.
    What a sample comes to does not depend on the others, to the last bit.

    Args:
        box: of the waves that a product of two does not falsify.
        strength: c.
    """

    def __init__(self, box: PeriodicBox, strength: float) -> None:
        self._tables = _Tables.of(box, strength)
        self._num_waves = box.num_waves
        self._factors: dict[tuple[float, int, int], list[tuple[np.ndarray, np.ndarray]]] = {}

    @staticmethod
    def suits(box: PeriodicBox) -> bool:
        """Whether a box is one of these: on a CPU, in double precision, along one axis of 2^k points."""
        points = box.shape[0]
        return (
            box.dim == 1
            and box.device.type == "cpu"
            and box.dtype == torch.float64
            and points >= 8
            and points & (points - 1) == 0
        )

    def advance(self, coefficients: ETDRK4, v: Rows, num_steps: int) -> Rows:
        """V so many steps later."""
        later = v.clone(memory_format=torch.contiguous_format)
        rows: Complex128[np.ndarray, "batch row"] = later.numpy()[:, 0]
        key = (coefficients.step, *v.shape[:1], len(coefficients.full))
        if key not in self._factors:
            self._factors[key] = [self._parts_of(coefficients, part) for part in _tiles(len(rows))]
        waves = self._num_waves
        for part, (re, im) in zip(_tiles(len(rows)), self._factors[key], strict=True):
            lanes, mine = _lanes_of(part), rows[part, :waves]
            parts = [_tiled(values, lanes) for values in (mine.real, mine.imag)]
            kernels.advance(*parts, re, im, self._tables.flux, self._tables.roots, self._tables.turns, num_steps)
            mine.real, mine.imag = (_untiled(values, lanes, len(mine)) for values in parts)
        return later

    def _parts_of(self, coefficients: ETDRK4, part: slice) -> tuple[np.ndarray, np.ndarray]:
        """The factors of a part of a batch, in its tiles: real and imaginary parts."""
        lanes, c = _lanes_of(part), coefficients
        found: tuple[list[np.ndarray], list[np.ndarray]] = [], []
        for factor in (c.full, c.half, c.stage, c.first, c.middle, c.last):
            values = factor.resolve_conj().numpy()[:, 0, : self._num_waves]
            mine = values[part] if len(values) > 1 else np.repeat(values, lanes, axis=0)
            for whole, one in zip(found, (mine.real, mine.imag), strict=True):
                whole.append(_tiled(one, lanes))
        re, im = (np.stack(parts) for parts in found)
        return re, im if im.any() else np.empty((6, 0, 0))


def _tiles(count: int) -> Iterator[slice]:
    """The parts of a batch: whole tiles, what is left over, or a single one."""
    whole = count // LANES * LANES
    if count - whole != 1:
        yield slice(0, count)
        return
    if whole:
        yield slice(0, whole)
    yield slice(whole, count)


def _lanes_of(part: slice) -> int:
    """Samples of a tile of a part: what is left over goes alone, or fills a tile up."""
    return 1 if part.stop - part.start == 1 else LANES


def _tiled(rows: Float64[np.ndarray, "rows waves"], lanes: int) -> Float64[np.ndarray, "tiles waves_lanes"]:
    """Rows side by side in tiles, the last one filled up with zeros."""
    count, waves = rows.shape
    num_tiles = -(-count // lanes)
    found = np.zeros((num_tiles * lanes, waves))
    found[:count] = rows
    return np.ascontiguousarray(found.reshape(num_tiles, lanes, waves).transpose(0, 2, 1)).reshape(num_tiles, -1)


def _untiled(
    tiles: Float64[np.ndarray, "tiles waves_lanes"], lanes: int, count: int
) -> Float64[np.ndarray, "rows waves"]:
    """The rows of tiles again."""
    found: Float64[np.ndarray, "rows waves"] = (
        tiles.reshape(len(tiles), -1, lanes).transpose(0, 2, 1).reshape(-1, tiles.shape[1] // lanes)[:count]
    )
    return found
