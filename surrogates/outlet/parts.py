"""Parts: which array of an exported file holds which values of a sample, along which axes."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.sample import SampleBatch
from headrace.surrogates.intake.layout import CHANNEL, SAMPLE, TIME, FieldLayout, Layout, Role, grid_axes
from headrace.surrogates.intake.origin import INDEX

_NOTHING = slice(0, 0)


@dataclass(frozen=True, kw_only=True)
class Part:
    """An array of a file.

    Attributes:
        path: where it stands in the file.
        name: of the field; of a component that stands apart, its own.
        role: what the field is for; a `state` begins with the input and goes on with the outputs.
        unit: of its values.
        axes: in the file.
        shape: along them, without that of the samples.
        inputs: where its components stand among those of the inputs.
        outputs: the same of the outputs.
        parameters: the same of the parameters.
        fields: what stands along its channel axis, where that is more than one field.
    """

    path: str
    name: str
    role: Role
    unit: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    inputs: slice = _NOTHING
    outputs: slice = _NOTHING
    parameters: slice = _NOTHING
    fields: tuple[FieldSpec, ...] = ()

    @property
    def layout(self) -> tuple[FieldLayout, ...]:
        """How the array is read."""
        if not self.fields:
            return (FieldLayout(name=self.name, role=self.role, array=self.path, axes=self.axes, unit=self.unit),)
        return tuple(
            FieldLayout(
                name=spec.name,
                role=self.role,
                array=self.path,
                axes=self.axes,
                channels=tuple(range(place.start, place.stop)),
                unit=spec.unit,
            )
            for spec, place in _places(self.fields)
        )

    def values(self, batch: SampleBatch) -> np.ndarray:
        """The values of some samples, along the axes."""
        axes: tuple[str, ...] = (SAMPLE, CHANNEL)
        if self.role == "parameter":
            found = batch.parameters[:, self.parameters]
        else:
            axes = (SAMPLE, TIME, CHANNEL, *(axis for axis in self.axes if axis not in (SAMPLE, TIME, CHANNEL)))
            pieces = []
            if self.role in ("input", "state"):
                pieces.append(batch.inputs[:, None, self.inputs])
            if self.role in ("output", "state"):
                pieces.append(batch.outputs[:, :, self.outputs])
            found = np.concatenate(pieces, axis=1) if len(pieces) > 1 else pieces[0]
        order = [axes.index(axis) for axis in self.axes]
        # An axis that the file has not is of length 1 here.
        rest = [number for number in range(len(axes)) if number not in order]
        return found.transpose(*order, *rest).reshape(len(batch), *self.shape)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a data set on a grid is laid out in a file.

    Attributes:
        schema: of its samples.
        grid: where they live.
        axes: names of the grid's axes.
        times: of the entries of the time axis; states begin at 0.
        parts: the arrays, inputs first.
    """

    schema: SampleSchema
    grid: Grid
    axes: tuple[str, ...]
    times: tuple[float, ...]
    parts: tuple[Part, ...]

    @property
    def layout(self) -> Layout:
        """How the file is read."""
        return Layout(
            fields=tuple(field for part in self.parts for field in part.layout),
            grid=self.axes,
            times=self.times,
            extent=self.grid.extent,
            periodic=tuple(axis for axis, wraps in zip(self.axes, self.grid.periodic, strict=True) if wraps),
            location=self.grid.location,
            index=INDEX,
        )


def plan_of(
    schema: SampleSchema, grid: Grid, *, components: Literal["together", "apart"] = "together", vectors: bool = True
) -> Plan:
    """Lay out a data set.

    Fields that are given at the beginning and predicted at all times are one array, a state, if all outputs are such;
    otherwise the time axis is that of the outputs, and what is given and predicted under one name is told apart.

    Args:
        schema: of the samples.
        grid: where they live.
        components: of a field in one array, as its last axis, or each in an array of its own.
        vectors: whether a field with as many components as there are axes stands together whatever `components` says.
    """
    axes = grid_axes(len(grid.shape))
    joins = _joins(schema)
    times = (0.0, *schema.times) if joins else schema.times
    parts: list[Part] = []
    for role, name, spec, places in _wanted(schema, joins=joins):
        is_vector = vectors and spec.components == len(axes) and role != "parameter"
        apart = components == "apart" and spec.components > 1 and not is_vector
        for number in range(spec.components) if apart else (None,):
            has_channel = number is None and spec.components > 1
            along, shape = _axes(role, axes, grid.shape, len(times), spec.components if has_channel else None)
            own = name if number is None else f"{name}_{number}"
            parts.append(
                Part(
                    path=_free(own, {part.path for part in parts}),
                    name=own,
                    role=role,
                    unit=spec.unit,
                    axes=along,
                    shape=shape,
                    inputs=_entry(places.inputs, number),
                    outputs=_entry(places.outputs, number),
                    parameters=_entry(places.parameters, number),
                )
            )
    return Plan(schema=schema, grid=grid, axes=axes, times=times, parts=tuple(parts))


def whole_plan(schema: SampleSchema, grid: Grid, paths: tuple[str, str, str], *, has_times: bool = True) -> Plan:
    """Lay out a data set in one array for all inputs, one for all outputs, and one for all parameters.

    Args:
        schema: of the samples.
        grid: where they live.
        paths: of the three arrays; one that would be empty is left out.
        has_times: whether the outputs have a time axis; only steady ones do without.
    """
    axes = grid_axes(len(grid.shape))
    times = ((TIME, len(schema.times)),) if has_times else ()
    space = tuple(zip(axes, grid.shape, strict=True))
    roles: tuple[Role, ...] = ("input", "output", "parameter")
    parts = []
    for role, path, specs in zip(roles, paths, (schema.inputs, schema.outputs, schema.parameters), strict=True):
        count = sum(spec.components for spec in specs)
        along = (*(times if role == "output" else ()), (CHANNEL, count), *(space if role != "parameter" else ()))
        if count:
            parts.append(
                Part(
                    path=path,
                    name=path,
                    role=role,
                    unit="1",
                    axes=(SAMPLE, *(name for name, _ in along)),
                    shape=tuple(length for _, length in along),
                    fields=specs,
                    inputs=slice(0, count) if role == "input" else _NOTHING,
                    outputs=slice(0, count) if role == "output" else _NOTHING,
                    parameters=slice(0, count) if role == "parameter" else _NOTHING,
                )
            )
    return Plan(schema=schema, grid=grid, axes=axes, times=schema.times, parts=tuple(parts))


def _joins(schema: SampleSchema) -> bool:
    """Whether the outputs are what some inputs become, in the same order."""
    outputs = {spec.name for spec in schema.outputs}
    begun = tuple(spec for spec in schema.inputs if spec.name in outputs)
    return begun == schema.outputs and schema.times[0] > 0.0


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Where the components of a field stand in a sample."""

    inputs: slice = _NOTHING
    outputs: slice = _NOTHING
    parameters: slice = _NOTHING


def _wanted(schema: SampleSchema, *, joins: bool) -> Iterator[tuple[Role, str, FieldSpec, _Places]]:
    """Each field with its role, its name in the file, and where its components stand in a sample."""
    later = {spec.name: place for spec, place in _places(schema.outputs)}
    for spec, place in _places(schema.inputs):
        if joins and spec.name in later:
            yield "state", spec.name, spec, _Places(inputs=place, outputs=later[spec.name])
        else:
            yield "input", spec.name if spec.name not in later else f"{spec.name}_initial", spec, _Places(inputs=place)
    if not joins:
        for spec, place in _places(schema.outputs):
            yield "output", spec.name, spec, _Places(outputs=place)
    for spec, place in _places(schema.parameters):
        yield "parameter", spec.name, spec, _Places(parameters=place)


def _places(specs: Iterable[FieldSpec]) -> Iterator[tuple[FieldSpec, slice]]:
    start = 0
    for spec in specs:
        yield spec, slice(start, start + spec.components)
        start += spec.components


def _entry(place: slice, number: int | None) -> slice:
    """A component of a field, or all of them; of none none."""
    if number is None or place == _NOTHING:
        return place
    return slice(place.start + number, place.start + number + 1)


def _axes(
    role: Role, grid: tuple[str, ...], shape: tuple[int, ...], num_times: int, components: int | None
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The axes of an array, and their lengths without that of the samples."""
    rest: list[tuple[str, int]] = []
    if role in ("output", "state"):
        rest.append((TIME, num_times))
    if role != "parameter":
        rest += zip(grid, shape, strict=True)
    if components is not None:
        rest.append((CHANNEL, components))
    return (SAMPLE, *(name for name, _ in rest)), tuple(length for _, length in rest)


def _free(name: str, taken: set[str]) -> str:
    """A name that every format allows, and nothing else has."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII) or "field"
    reserved = ("headrace", "sample", "time", "x", "y", "z", "parameters")
    plain = f"{plain}_" if plain in reserved else f"f_{plain}" if plain[0].isdigit() else plain
    found, number = plain, 2
    while found in taken:
        found, number = f"{plain}_{number}", number + 1
    return found
