"""Layout: which arrays of a file are which fields, and what their axes mean."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.frozen import Frozen
from headrace.platform.spec import Spec

ATTRIBUTE = "headrace_layout"
"""Where an exported file says its layout: an attribute of its root, or a key of its dictionary; JSON."""

SAMPLE, TIME, CHANNEL = "sample", "time", "channel"
SPECIAL = (SAMPLE, TIME, CHANNEL)
"""Names of axes that mean something; every other name is that of a grid axis."""

type AxisName = Annotated[str, Field(min_length=1)]
Role = Literal["input", "output", "state", "parameter"]


class FieldLayout(Spec):
    """One field, and where it stands.

    Attributes:
        name: what the field is called in the data set.
        role: `input` and `output` as they are; a `state` is given at all times: its first time is the input, its later
            ones are the output; a `parameter` has no grid.
        array: the array of the file, by its path in it; None: it is called like the field.
        axes: what the axes of the array mean, by name (see `Layout.axes`); None: as the layout or the file says.
        channels: which entries of the channel axis are this field's components, when the array holds several fields;
            None: all of them.
        unit: of its values; None: as the file says, and "1" where it does not.
    """

    name: str = Field(min_length=1)
    role: Role
    array: str | None = None
    axes: tuple[AxisName, ...] | None = None
    channels: tuple[int, ...] | None = None
    unit: str | None = None

    @property
    def source(self) -> str:
        """The array's path in the file, without a leading slash."""
        return (self.name if self.array is None else self.array).strip("/")


class Layout(Spec):
    """How arrays are to be read as samples. What is None is not said; nothing that is not said is guessed.

    Axes are named: `sample`, `time`, `channel`, and any other name is that of a grid axis. An array that lacks an axis
    holds for all of it: without `sample` for every sample, without a grid axis along all of it. `channel` may stand
    several times (the entries of a tensor): they are counted row by row.

    Attributes:
        fields: in channel order: the inputs of a sample are its input and state fields in this order, its outputs the
            output and state fields.
        axes: of the arrays whose fields do not say their own.
        grid: the grid axes in order; None: as the first field on the whole grid has them.
        times: of the entries of the time axis; or the path of an array that holds them. Those of a state begin with its
            first time, and become differences to it.
        dt: distance of the times, in place of `times`: states begin at 0, outputs at `dt`.
        coordinates: paths of arrays with the coordinates along each grid axis, from which follow `extent` and
            `location` where they are not said.
        extent: length of each grid axis [m, or 1 when dimensionless].
        periodic: names of the grid axes that wrap around, or `all`; empty: none does.
        location: whether values stand at `nodes` (both ends of an axis that does not wrap are points) or in `cells`.
        index: path of an array with the index of each sample; None: they are numbered.
        split: names of data sets and their shares of the samples, drawn by trajectory.
        seed: of that draw.
        units: of fields by name: those that the file itself names.
        axes_of: of the arrays of fields by name: the same.
    """

    fields: tuple[FieldLayout, ...] = ()
    axes: tuple[AxisName, ...] | None = None
    grid: tuple[AxisName, ...] | None = None
    times: tuple[float, ...] | str | None = None
    dt: float | None = None
    coordinates: tuple[str, ...] | None = None
    extent: tuple[float, ...] | None = None
    periodic: tuple[str, ...] | None = None
    location: Literal["nodes", "cells"] | None = None
    index: str | None = None
    split: Frozen[Mapping[str, float]] | None = None
    seed: int = 0
    units: Frozen[Mapping[str, str]] | None = None
    axes_of: Frozen[Mapping[str, tuple[AxisName, ...]]] | None = None

    @field_validator("split")
    @classmethod
    def _names(cls, split: Mapping[str, float] | None) -> Mapping[str, float] | None:
        for name in split or {}:
            if not re.fullmatch(r"\w[\w.-]*", name):
                raise ValueError(f"names of letters, digits, _, . and -, got {name!r}")
        return split

    @field_validator("extent")
    @classmethod
    def _lengths(cls, extent: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if extent is not None and min(extent, default=1.0) <= 0:
            raise ValueError("lengths above 0")
        return extent

    @field_validator("dt")
    @classmethod
    def _step(cls, dt: float | None) -> float | None:
        if dt is not None and dt <= 0:
            raise ValueError("a distance above 0")
        return dt

    @model_validator(mode="after")
    def _consistent(self) -> "Layout":
        if self.times is not None and self.dt is not None:
            raise ValueError("times or dt, not both")
        for kind in (("input", "state"), ("output", "state"), ("parameter",)):
            names = [field.name for field in self.fields if field.role in kind]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"each field once, got {twice[0]} as {' and '.join(kind)} several times")
        if self.split is not None and not (
            all(share > 0 for share in self.split.values()) and abs(sum(self.split.values()) - 1) < 1e-6
        ):
            raise ValueError(f"shares above 0 that add up to 1, got {', '.join(map(str, self.split.values()))}")
        return self

    def over(self, below: "Layout | None") -> "Layout":
        """This layout, completed by what another one says."""
        if below is None:
            return self
        said = {name: getattr(self, name) for name in self.model_fields_set if getattr(self, name) is not None}
        if "times" in said or "dt" in said:
            below = below.model_copy(update={"times": None, "dt": None})
        if self.axes is not None and not self.fields:
            # What the file says of arrays with as many axes is what the user says otherwise.
            fields = [
                field.model_copy(update={"axes": None}) if len(field.axes or ()) == len(self.axes) else field
                for field in below.fields
            ]
            below = below.model_copy(update={"fields": tuple(fields)})
        if self.axes_of is not None and not self.fields:
            axes = self.axes_of
            fields = [field.model_copy(update={"axes": axes.get(field.name, field.axes)}) for field in below.fields]
            below = below.model_copy(update={"fields": tuple(fields)})
        return below.model_copy(update=said)

    def to_json(self) -> str:
        """The text that an exported file keeps as its attribute `headrace_layout`."""
        return json.dumps(self.model_dump(mode="json", exclude_none=True))

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> "Layout":
        """The layout that `to_json` wrote.

        Raises:
            InputError: it is damaged; `where` says of which file.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            value = f"not readable ({'.'.join(map(str, first['loc']))}: {first['msg']})"
            raise InputError.single(f"{where}: {ATTRIBUTE}", value, "the JSON of a layout") from error


def grid_axes(num_axes: int) -> tuple[str, ...]:
    """What the axes of a grid are called where nobody named them: x, y, z."""
    return ("x", "y", "z")[:num_axes] if num_axes <= 3 else tuple(f"x{axis}" for axis in range(num_axes))


def layout_of(schema: SampleSchema, axes: Mapping[str, tuple[str, ...]], arrays: Mapping[str, str]) -> Layout:
    """The layout of a file that holds each field of a schema on a grid as an array of its own.

    Args:
        schema: of the data set; on a grid, its grid axes are called x, y, z.
        axes: of the arrays by role: `input`, `output` and `parameter`, and `state` when the fields that are input and
            output were joined in one array.
        arrays: paths by "role/name"; those left out are called like the field.

    Raises:
        ValueError: the schema is on a mesh.
    """
    if not isinstance(schema.domain, Grid):
        raise ValueError(f"the samples live on {schema.domain!r}, expected a grid")
    names = grid_axes(len(schema.domain.shape))

    def field(spec: FieldSpec, role: Role) -> FieldLayout:
        path = arrays.get(f"{role}/{spec.name}")
        return FieldLayout(name=spec.name, role=role, array=path, axes=axes[role], unit=spec.unit)

    outputs = {spec.name for spec in schema.outputs} if "state" in axes else set()
    inputs = {spec.name for spec in schema.inputs}
    return Layout(
        fields=(
            *(field(spec, "state" if spec.name in outputs else "input") for spec in schema.inputs),
            *(field(spec, "output") for spec in schema.outputs if spec.name not in inputs or "state" not in axes),
            *(field(spec, "parameter") for spec in schema.parameters),
        ),
        grid=names,
        times=(0.0, *schema.times) if outputs & inputs else schema.times,
        extent=schema.domain.extent,
        periodic=tuple(name for name, wraps in zip(names, schema.domain.periodic, strict=True) if wraps),
        location=schema.domain.location,
    )
