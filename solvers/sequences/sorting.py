"""In which order to solve a data set, so that a method that recycles meets alike systems one after the other.

The idea and both algorithms are those of "Accelerating data generation for neural operators via Krylov subspace
recycling" (SKR; Wang et al., ICLR 2024): greedy nearest neighbours by the Frobenius distance of the coefficient fields
(Algorithm 2), and, for sets too large for that, low frequencies of the fields, cut into chunks along a Hilbert curve,
greedy inside each chunk (appendix).

We differ in three points. Distances are taken between low-frequency cosine coefficients, an isometry of the thinned
fields when all are kept. The curve runs through the principal components of these, not through the frequencies
themselves. And the walk through a chunk begins at the point nearest to where the last one ended.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

Order = Literal["auto", "greedy", "hilbert", "none"]
"""How a sequence is sorted; `auto` sorts for methods that recycle, exactly up to `GREEDY_LIMIT` systems."""

GREEDY_LIMIT = 10_000
"""Systems up to which `auto` walks greedily through all of them: about two seconds."""

# Distances are compared, not reported: 32 points a side tell neighbours apart.
_POINTS = 32
# Features of a field in a large set, and of each field of a small one: 1e5 of the former take 26 MB, 1e4 of the latter
# 41 MB.
_FEW, _MANY = 64, 1024
# What the curve runs through, and how finely it tells places apart. Random fields have no few leading directions: with
# more dimensions, the curve's neighbours are neighbours in more of them (tests/benchmarks/sorting.py).
_CURVE_DIMENSIONS, _CURVE_BITS = 4, 8
# Points of a chunk: the walk costs the square of it, and its first steps are its shortest.
_CHUNK = 4096
# Coordinates in which every distance is computed; in most they suffice to see that it is not the least.
_LEADING = 16


def solving_order(
    fields: Iterable[Float[np.ndarray, "..."]], count: int, order: Literal["auto", "greedy", "hilbert"]
) -> Int64[np.ndarray, " systems"]:
    """The order in which to solve systems with these coefficient fields; each field is looked at once and let go.

    Args:
        fields: one array for each system, all of one shape, in a stream.
        count: how many there are.
        order: `greedy`, `hilbert`, or `auto` for the former up to `GREEDY_LIMIT` systems.

    Returns:
        The positions of the fields in the stream, in the order to solve in.

    Raises:
        ValueError: the fields have different shapes, or there are more or fewer than `count`.
    """
    greedy = order == "greedy" or (order == "auto" and count <= GREEDY_LIMIT)
    features = features_of(fields, count, _MANY if count <= GREEDY_LIMIT else _FEW)
    return greedy_order(features) if greedy else hilbert_order(features)


def features_of(
    fields: Iterable[Float[np.ndarray, "..."]], count: int, most: int = _MANY
) -> Float32[np.ndarray, "systems features"]:
    """Low-frequency cosine coefficients of a stream of fields, low frequencies first.

    A field of more than 32 points along an axis is first thinned to at most that many; of it the orthonormal cosine
    transform (DCT-II) keeps the lowest frequencies. The distance of two thinned fields is that of their features when
    none is dropped, and never less.

    Args:
        fields: one array for each system, all of one shape.
        count: how many there are.
        most: features of each to keep.

    Raises:
        ValueError: the fields have different shapes, or there are more or fewer than `count`.
    """
    features = np.empty((count, 0), dtype=np.float32)
    shape: tuple[int, ...] | None = None
    number = 0
    for field in fields:
        if shape is None:
            shape = field.shape
            thinned = _thinned(field)
            kept = _lowest(thinned.shape, most)
            features = np.empty((count, len(kept)), dtype=np.float32)
        elif field.shape != shape:
            raise ValueError(f"field {number} has shape {field.shape}, the first one has {shape}; expected one shape")
        if number < count:
            features[number] = _spectrum(_thinned(field), most).ravel()[kept]
        number += 1
    if number != count:
        raise ValueError(f"expected {count} fields, got {number}")
    return features


def greedy_order(features: Float[np.ndarray, "systems ..."]) -> Int64[np.ndarray, " systems"]:
    """Start at the first system and always go on to the nearest that is left, by the Euclidean distance of features.

    Algorithm 2 of Wang et al. (2024). Exact, without a matrix of distances: time grows with the square of the number
    of systems, memory linearly.
    """
    points = _principal(_flat(features))
    return _walk(points, np.arange(len(points)), points[0]) if len(points) else np.zeros(0, dtype=np.int64)


def hilbert_order(features: Float[np.ndarray, "systems ..."], chunk: int = _CHUNK) -> Int64[np.ndarray, " systems"]:
    """Cut the systems into chunks along a Hilbert curve through their leading principal components; greedy in each.

    The appendix of Wang et al. (2024); see the module for where we differ.

    Args:
        features: of each system.
        chunk: systems of a chunk.
    """
    points = _principal(_flat(features))
    along = np.argsort(hilbert_index(_cells(points[:, :_CURVE_DIMENSIONS])), kind="stable")
    parts: list[Int64[np.ndarray, " chunk"]] = []
    for start in range(0, len(points), chunk):
        last = parts[-1][-1] if parts else along[0]
        parts.append(_walk(points, along[start : start + chunk], points[last]))
    return np.concatenate(parts) if parts else along


def hilbert_index(
    cells: Int64[np.ndarray, "points dimensions"], bits: int = _CURVE_BITS
) -> Int64[np.ndarray, " points"]:
    """How far along the Hilbert curve the cells of a cube of edge 2^bits lie.

    J. Skilling, "Programming the Hilbert curve", AIP Conf. Proc. 707 (2004): undo the turns of the sub-cubes from the
    coarsest to the finest bit, take the Gray code, read the bits across the dimensions.

    Args:
        cells: integer coordinates from 0 to 2^bits - 1.
        bits: at most 63 / dimensions.
    """
    x = cells.T.copy()
    num_dimensions = len(x)
    for bit in range(bits - 1, 0, -1):
        low = (1 << bit) - 1
        for axis in range(num_dimensions):
            turned = (x[axis] >> bit) & 1 == 1
            swap = np.where(turned, 0, (x[0] ^ x[axis]) & low)
            x[0] ^= np.where(turned, low, swap)
            x[axis] ^= swap
    for axis in range(1, num_dimensions):
        x[axis] ^= x[axis - 1]
    parity = np.zeros_like(x[0])
    for bit in range(bits - 1, 0, -1):
        parity ^= np.where((x[-1] >> bit) & 1 == 1, (1 << bit) - 1, 0)
    x ^= parity
    index = np.zeros_like(x[0])
    for bit in range(bits - 1, -1, -1):
        for axis in range(num_dimensions):
            index = (index << 1) | ((x[axis] >> bit) & 1)
    return index


def path_length(
    features: Float[np.ndarray, "systems ..."], order: Sequence[int] | Int64[np.ndarray, " systems"]
) -> float:
    """The sum of the distances between systems that are solved one after the other."""
    flat = _flat(features)
    order = np.asarray(order)
    length = 0.0
    for start in range(0, len(order) - 1, _CHUNK):
        part = flat[order[start : start + _CHUNK + 1]].astype(np.float64)
        length += float(np.linalg.norm(np.diff(part, axis=0), axis=1).sum())
    return length


def in_shuffled_runs(
    order: Int64[np.ndarray, " systems"], length: int, rng: np.random.Generator
) -> Int64[np.ndarray, " systems"]:
    """The same order, cut into runs of neighbours that follow each other at random.

    For data that is trained on while it is solved: a sorted data set would show the network one corner of the
    parameters after the other. Every run is worth a lease; the one that is shorter stays at the end.
    """
    whole = len(order) // length * length
    runs = order[:whole].reshape(-1, length)
    return np.concatenate([runs[rng.permutation(len(runs))].ravel(), order[whole:]])


def _flat(features: Float[np.ndarray, "systems ..."]) -> Float[np.ndarray, "systems features"]:
    return features.reshape(len(features), math.prod(features.shape[1:]))


def _principal(features: Float[np.ndarray, "systems features"]) -> Float32[np.ndarray, "systems features"]:
    """The features with the lowest ones turned into their principal axes, largest variance first.

    Distances stay what they are. The others are left as they come, by frequency: turning them all costs more than the
    walk gains.
    """
    points = np.array(features, dtype=np.float32)
    if len(points):
        points -= points.mean(axis=0, dtype=np.float64).astype(np.float32)
        lowest = points[:, :_FEW]
        _, axes = np.linalg.eigh((lowest.T @ lowest).astype(np.float64))
        points[:, :_FEW] = lowest @ axes[:, ::-1].astype(np.float32)
    return points


def _walk(
    points: Float32[np.ndarray, "systems features"],
    part: Int64[np.ndarray, " chunk"],
    start: Float32[np.ndarray, " features"],
) -> Int64[np.ndarray, " chunk"]:
    """Those of the points that are named, from nearest to nearest, beginning near `start`."""
    from headrace.solvers.sequences.sorting_kernels import greedy_walk

    order = np.empty(len(part), dtype=np.int64)
    leading, others = np.ascontiguousarray(points[part, :_LEADING]), np.ascontiguousarray(points[part, _LEADING:])
    greedy_walk(leading, others, part.copy(), start.copy(), order)
    return order


def _cells(points: Float32[np.ndarray, "points dimensions"]) -> Int64[np.ndarray, "points dimensions"]:
    """Coordinates in the curve's cube, in one scale for all axes: stretching one would call far points near."""
    low, high = points.min(axis=0, initial=0.0), points.max(axis=0, initial=0.0)
    edge = float((high - low).max(initial=0.0)) or 1.0
    scaled = (points - low).astype(np.float64) / edge * (1 << _CURVE_BITS)
    return np.minimum(scaled.astype(np.int64), (1 << _CURVE_BITS) - 1)


def _thinned(field: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    # The axes of a mesh field are its points, thousands along one axis: as many as two axes of 32 have.
    most = _POINTS if field.ndim > 1 else _POINTS**2
    return field[tuple(slice(None, None, -(-n // most)) for n in field.shape)]


def _spectrum(field: Float[np.ndarray, "..."], most: int) -> Float64[np.ndarray, "..."]:
    """The lowest cosine coefficients along every axis, enough of each for the `most` lowest of all."""
    for axis, n in enumerate(field.shape):
        # Frequencies of equal height fill a corner of the cube; no axis needs more of them than this.
        field = np.moveaxis(np.tensordot(_cosines(n, min(n, _side(field.ndim, most))), field, axes=(1, axis)), 0, axis)
    return np.asarray(field, dtype=np.float64)


def _side(ndim: int, most: int) -> int:
    return max(int(np.ceil(2.0 * most ** (1.0 / ndim))), 2)


@functools.lru_cache(maxsize=16)
def _lowest(shape: tuple[int, ...], most: int) -> Int64[np.ndarray, " features"]:
    """Where in `_spectrum` the lowest frequencies stand, by the square of their wave number."""
    sides = [min(n, _side(len(shape), most)) for n in shape]
    height = sum(np.ix_(*[(np.arange(side) / n) ** 2 for side, n in zip(sides, shape, strict=True)]), np.zeros(()))
    kept = np.argsort(height.ravel(), kind="stable")[:most]
    kept.setflags(write=False)
    return kept


@functools.lru_cache(maxsize=16)
def _cosines(num_points: int, num_waves: int) -> Float64[np.ndarray, "waves points"]:
    """The first rows of the orthonormal DCT-II."""
    matrix = np.cos(np.pi / num_points * np.outer(np.arange(num_waves), np.arange(num_points) + 0.5))
    matrix *= np.sqrt(2.0 / num_points)
    matrix[0] *= np.sqrt(0.5)
    matrix.setflags(write=False)
    return matrix
