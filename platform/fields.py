"""What a sample is made of: the grid or mesh, the named fields on it, and the schema that a surrogate is sized by."""

import base64
import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float64, Int32


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A uniform grid on a box.

    Attributes:
        shape: points per axis.
        extent: length of each axis [m, or 1 when dimensionless].
        periodic: whether each axis wraps around.
        location: `nodes` (both ends of a non-periodic axis are points) or `cells` (points are cell centres).
    """

    shape: tuple[int, ...]
    extent: tuple[float, ...]
    periodic: tuple[bool, ...]
    location: Literal["nodes", "cells"] = "nodes"

    def __post_init__(self) -> None:
        if not len(self.shape) == len(self.extent) == len(self.periodic):
            raise ValueError(f"shape {self.shape}, extent {self.extent} and periodic {self.periodic} differ in length")

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbouring points per axis, in the unit of `extent`."""
        return tuple(
            length / (n - 1 if self.location == "nodes" and not wraps else n)
            for n, length, wraps in zip(self.shape, self.extent, self.periodic, strict=True)
        )

    def coordinates(self) -> tuple[Float[np.ndarray, " points"], ...]:
        """The coordinate of every point along each axis."""
        offset = 0.5 if self.location == "cells" else 0.0
        return tuple((np.arange(n) + offset) * h for n, h in zip(self.shape, self.spacing, strict=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class Mesh:
    """Points in space, and the simplices (intervals, triangles, tetrahedra) between them. Fields live at the points.

    Two meshes are equal when their points and cells are, in the same order. The arrays are copied and made read-only.

    Attributes:
        points: coordinates [m, or 1 when dimensionless].
        cells: for each simplex the points that are its dim + 1 corners.

    Raises:
        ValueError: the arrays do not make a mesh.
    """

    points: Float64[np.ndarray, "num_points dim"]
    cells: Int32[np.ndarray, "num_cells vertices"]

    def __post_init__(self) -> None:
        points = np.array(self.points, dtype=np.float64, order="C")
        if points.ndim != 2 or not 1 <= points.shape[1] <= 3 or not len(points):
            raise ValueError(f"points have shape {points.shape}, expected (num_points, dim) with dim 1, 2 or 3")
        if not np.isfinite(points).all():
            raise ValueError("some points have coordinates that are not finite numbers")
        given = np.asarray(self.cells)
        cells = np.array(given, dtype=np.int32, order="C")
        if cells.ndim != 2 or cells.shape[1] != points.shape[1] + 1 or given.dtype.kind not in "iu":
            corners = points.shape[1] + 1
            raise ValueError(
                f"cells are {given.dtype} of shape {given.shape}, expected integers of shape (num_cells, {corners}): "
                f"the corners of a simplex in {points.shape[1]} dimensions"
            )
        if cells.size and not (cells.min() >= 0 and cells.max() < len(points)):
            raise ValueError(f"cells name the points {cells.min()} to {cells.max()}, there are 0 to {len(points) - 1}")
        for name, array in (("points", points), ("cells", cells)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a field: one value for each point."""
        return (len(self.points),)

    @property
    def dim(self) -> int:
        """Number of coordinates of a point."""
        return self.points.shape[1]

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of points and cells: equal meshes have equal digests, on every machine."""
        digest = hashlib.sha256(f"{self.points.shape} {self.cells.shape}".encode())
        digest.update(self.points.astype("<f8"))
        digest.update(self.cells.astype("<i4"))
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Mesh) and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Mesh({len(self.points)} points and {len(self.cells)} cells in {self.dim}-D, {self.digest[:12]})"

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form: the little-endian bytes of the arrays in base64, exact and a third of the text."""
        return {
            "kind": "mesh",
            "dim": self.dim,
            "points": base64.b64encode(self.points.astype("<f8").tobytes()).decode("ascii"),
            "cells": base64.b64encode(self.cells.astype("<i4").tobytes()).decode("ascii"),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Mesh":
        """The mesh that `to_json` wrote.

        Raises:
            KeyError: a key is missing.
            TypeError: a value is of another type.
            ValueError: a value is damaged.
        """
        dim = int(data["dim"])
        points = np.frombuffer(base64.b64decode(data["points"], validate=True), dtype="<f8")
        cells = np.frombuffer(base64.b64decode(data["cells"], validate=True), dtype="<i4")
        return cls(points=points.reshape(-1, dim), cells=cells.reshape(-1, dim + 1))


type Domain = Grid | Mesh
"""Where fields live."""


def require_grid(domain: Domain) -> Grid:
    """The domain, which has to be a grid.

    Raises:
        ValueError: it is a mesh.
    """
    if isinstance(domain, Mesh):
        raise ValueError(
            f"the samples live on a mesh ({domain!r}), expected a grid; problems on meshes take output: grid"
        )
    return domain


@dataclass(frozen=True, kw_only=True)
class FieldSpec:
    """One named quantity: its components and unit ("1" when dimensionless)."""

    name: str
    components: int = 1
    unit: str = "1"


@dataclass(frozen=True, kw_only=True)
class SampleSchema:
    """All that a surrogate needs to size itself.

    Attributes:
        inputs: fields given on the grid or mesh, in channel order.
        outputs: fields to predict, in channel order.
        parameters: scalars given with each sample.
        domain: where the fields live. On a mesh the axes that are called `*grid` elsewhere are one: its points.
        times: output times; one entry when steady. Of a part of a trajectory counted from where the part begins.
        parts: how many samples a trajectory comes in, one after the other, of equally many output times each. Sample i
            is part i % parts of trajectory i // parts; its inputs hold the state before it.
    """

    inputs: tuple[FieldSpec, ...]
    outputs: tuple[FieldSpec, ...]
    parameters: tuple[FieldSpec, ...] = ()
    domain: Domain
    times: tuple[float, ...] = (0.0,)
    parts: int = 1

    def in_parts(self, num_times: int) -> "SampleSchema":
        """The schema of trajectories that come in parts of so many output times.

        Raises:
            ValueError: the output times cannot be divided so.
        """
        if (reason := self.indivisible(num_times)) is not None:
            raise ValueError(reason)
        return dataclasses.replace(self, times=self.times[:num_times], parts=len(self.times) // num_times)

    def indivisible(self, num_times: int) -> str | None:
        """Why trajectories cannot come in parts of so many output times, or None when they can."""
        if len(self.times) % num_times:
            return f"{len(self.times)} output times are no multiple of {num_times}"
        if not self.is_evenly_timed:
            return "the output times are not evenly spaced from 0 on"
        names = [spec.name for spec in self.inputs]
        for spec in self.outputs:
            if spec.name not in names:
                return f"{spec.name} is an output and no input: the state before a part would not be known"
        return None

    @property
    def is_evenly_timed(self) -> bool:
        """Whether the output times are evenly spaced from 0 on."""
        times = (0.0, *self.times)
        first = times[1]
        return first > 0.0 and all(abs(b - a - first) <= 1e-6 * times[-1] for a, b in itertools.pairwise(times))

    @property
    def num_input_channels(self) -> int:
        """Components of all input fields together."""
        return sum(spec.components for spec in self.inputs)

    @property
    def num_output_channels(self) -> int:
        """Components of all output fields together."""
        return sum(spec.components for spec in self.outputs)

    @property
    def num_parameters(self) -> int:
        """Components of all parameters together."""
        return sum(spec.components for spec in self.parameters)

    @property
    def sample_nbytes(self) -> int:
        """Bytes of one sample's arrays as stored (float32)."""
        points = math.prod(self.domain.shape)
        channels = self.num_input_channels + len(self.times) * self.num_output_channels
        return 4 * (points * channels + self.num_parameters)

    def differences(self, other: "SampleSchema", *, resolution: bool = True) -> list[str]:
        """What another schema has otherwise, each as `what: that of this one, and not that of the other`.

        Args:
            other: the schema to compare with.
            resolution: whether another number of points along an axis is a difference; other ends are always one.
        """
        found = []
        for kind in ("inputs", "outputs", "parameters"):
            found += _field_differences(kind, getattr(self, kind), getattr(other, kind))
        if self.parts != other.parts:
            found.append(f"parts of a trajectory: {self.parts}, and not {other.parts}")
        if len(self.times) != len(other.times) or not np.allclose(self.times, other.times, rtol=1e-6, atol=0.0):
            found.append(f"times: {_times(self.times)}, and not {_times(other.times)}")
        return found + _domain_differences(self.domain, other.domain, resolution=resolution)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form; `from_json` reads it back."""
        domain = self.domain.to_json() if isinstance(self.domain, Mesh) else dataclasses.asdict(self.domain)
        fields = {
            name: [dataclasses.asdict(spec) for spec in getattr(self, name)]
            for name in ("inputs", "outputs", "parameters")
        }
        return {**fields, "domain": domain, "times": list(self.times), "parts": self.parts}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SampleSchema":
        """The schema that `to_json` wrote.

        Raises:
            ValueError: a key is missing or unknown.
        """
        try:
            return cls(
                inputs=tuple(FieldSpec(**spec) for spec in data["inputs"]),
                outputs=tuple(FieldSpec(**spec) for spec in data["outputs"]),
                parameters=tuple(FieldSpec(**spec) for spec in data["parameters"]),
                domain=_domain_from_json(data["domain"]),
                times=tuple(data["times"]),
                # Written since trajectories come in parts.
                parts=int(data.get("parts", 1)),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not a sample schema: {error}") from error


def field_text(spec: FieldSpec) -> str:
    """A field as one names it: `velocity x 2 [m/s]`."""
    return (
        spec.name
        + (f" x {spec.components}" if spec.components > 1 else "")
        + (f" [{spec.unit}]" if spec.unit != "1" else "")
    )


def _field_differences(kind: str, mine: tuple[FieldSpec, ...], theirs: tuple[FieldSpec, ...]) -> list[str]:
    if [spec.name for spec in mine] != [spec.name for spec in theirs]:
        here, there = (", ".join(map(field_text, specs)) or "none" for specs in (mine, theirs))
        return [f"{kind}: {here}, and not {there}"]
    found = []
    for ours, other in zip(mine, theirs, strict=True):
        if ours.components != other.components:
            found.append(f"components of {ours.name}: {ours.components}, and not {other.components}")
        if ours.unit != other.unit:
            found.append(f"unit of {ours.name}: [{ours.unit}], and not [{other.unit}]")
    return found


def _times(times: tuple[float, ...]) -> str:
    return f"{times[0]:g}" if len(times) == 1 else f"{len(times)} from {times[0]:g} to {times[-1]:g}"


def _domain_differences(mine: Domain, theirs: Domain, *, resolution: bool) -> list[str]:
    if isinstance(mine, Mesh) or isinstance(theirs, Mesh):
        here, there = (repr(one) if isinstance(one, Mesh) else f"a grid of {one.shape}" for one in (mine, theirs))
        return [] if mine == theirs else [f"domain: {here}, and not {there}"]
    if len(mine.shape) != len(theirs.shape):
        return [f"axes of the grid: {len(mine.shape)}, and not {len(theirs.shape)}"]
    found = []
    if resolution and mine.shape != theirs.shape:
        found.append(f"points of the grid: {mine.shape}, and not {theirs.shape}")
    if not np.allclose(mine.extent, theirs.extent, rtol=1e-6, atol=0.0):
        found.append(f"extent: {mine.extent}, and not {theirs.extent}")
    if mine.periodic != theirs.periodic:
        found.append(f"periodic axes: {mine.periodic}, and not {theirs.periodic}")
    if mine.location != theirs.location:
        found.append(f"location of the values: {mine.location}, and not {theirs.location}")
    return found


def _domain_from_json(data: Mapping[str, Any]) -> Domain:
    # Grids were written without a kind before there were meshes.
    if data.get("kind") == "mesh":
        return Mesh.from_json(data)
    return Grid(
        shape=tuple(data["shape"]),
        extent=tuple(data["extent"]),
        periodic=tuple(data["periodic"]),
        location=data["location"],
    )
