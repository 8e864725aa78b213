"""What a sample is made of: the grid, the named fields on it, and the schema that a surrogate is sized by."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float


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
        inputs: fields given on the grid, in channel order.
        outputs: fields to predict, in channel order.
        parameters: scalars given with each sample.
        domain: where the fields live.
        times: output times; one entry when steady.
    """

    inputs: tuple[FieldSpec, ...]
    outputs: tuple[FieldSpec, ...]
    parameters: tuple[FieldSpec, ...] = ()
    domain: Grid
    times: tuple[float, ...] = (0.0,)

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

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form; `from_json` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SampleSchema":
        """The schema that `to_json` wrote.

        Raises:
            ValueError: a key is missing or unknown.
        """
        try:
            domain = data["domain"]
            return cls(
                inputs=tuple(FieldSpec(**spec) for spec in data["inputs"]),
                outputs=tuple(FieldSpec(**spec) for spec in data["outputs"]),
                parameters=tuple(FieldSpec(**spec) for spec in data["parameters"]),
                domain=Grid(
                    shape=tuple(domain["shape"]),
                    extent=tuple(domain["extent"]),
                    periodic=tuple(domain["periodic"]),
                    location=domain["location"],
                ),
                times=tuple(data["times"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a sample schema: {error}") from error
