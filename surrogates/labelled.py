"""Predictions for xarray: fields with named axes and coordinates in and out. Imported when somebody has such data."""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import xarray as xr
from jaxtyping import Float32

from headrace.platform.errors import InputError, nearest
from headrace.platform.fields import FieldSpec, Grid, Mesh, SampleSchema
from headrace.surrogates.named import Given, to_names
from headrace.surrogates.seen import Outside

if TYPE_CHECKING:
    from headrace.surrogates.trained import TrainedSurrogate

AXES = ("x", "y", "z")
POINTS = ("point",)
SAMPLE = "sample"
COMPONENT = "component"
TIME = "time"
FLAG = "outside_training"


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What xarray's data say.

    Attributes:
        fields: each field and parameter by name, its axes in the order that a surrogate wants.
        sample: the name of the axis of samples; None for one sample.
        coords: coordinates of the axis of samples and of those of the grid.
    """

    fields: Mapping[str, np.ndarray]
    sample: Hashable | None
    coords: Mapping[Hashable, "xr.DataArray"]


def to_arrays(data: object, schema: SampleSchema) -> Labelled:
    """Fields and parameters of a Dataset; a DataArray is the one input field there is.

    Axes of the grid are called x, y, z, those of a mesh point; the axis of components is called component; the one that
    is left holds the samples. Coordinates along the grid, where there are some, must be those of the surrogate's box.

    Raises:
        InputError: variables, axes or coordinates are not those of the schema.
    """
    if isinstance(data, xr.DataArray):
        if len(schema.inputs) != 1:
            names = ", ".join(spec.name for spec in schema.inputs) or "none"
            raise InputError.single("inputs", "a DataArray", f"a Dataset with the input fields: {names}")
        name = schema.inputs[0].name
        if data.name not in (None, name):
            raise InputError.single(
                "inputs", f'called "{data.name}"', f"the field {name}", nearest(str(data.name), [name])
            )
        data = data.to_dataset(name=name)
    assert isinstance(data, xr.Dataset)
    known = {spec.name: spec for spec in (*schema.inputs, *schema.parameters)}
    # A prediction that is predicted from again brings its flag along.
    given = {str(name): array for name, array in data.data_vars.items() if name != FLAG}
    scalars = {spec.name for spec in schema.parameters} - {spec.name for spec in schema.inputs}
    # A parameter may well be a coordinate: the one along the axis of samples.
    given |= {name: data.coords[name] for name in scalars if name in data.coords}
    for name in given:
        if name not in known:
            raise InputError.single("inputs", f'with "{name}"', f"some of {', '.join(known)}", nearest(name, known))
    samples: set[Hashable] = set()
    fields = {}
    for name, array in given.items():
        fields[name], left = _ordered(name, array, known[name], () if name in scalars else _axes(schema))
        samples |= left
    if len(samples) > 1:
        names = ", ".join(sorted(map(str, samples)))
        raise InputError.single("inputs", f"with the axes {names}", "one axis of samples beside those of the grid")
    sample = samples.pop() if samples else None
    coords: dict[Hashable, xr.DataArray] = {name: data.coords[name] for name in _axes(schema) if name in data.coords}
    if isinstance(schema.domain, Grid):
        _check_coordinates(coords, schema.domain)
    coords |= {name: array for name, array in data.coords.items() if sample is not None and array.dims == (sample,)}
    return Labelled(fields=fields, sample=sample, coords=coords)


def predict(
    model: "TrainedSurrogate",
    data: object,
    parameters: object,
    times: Sequence[float] | None,
    *,
    when_outside: Literal["warn", "refuse", "ignore"],
    batch_size: int | None,
    seed: int,
) -> "xr.Dataset":
    """Predict from xarray's data (see `to_arrays`): output fields with coordinates, units, a flag for each sample."""
    found = to_arrays(data, model.schema)
    chosen = model.chosen_times(times)
    given = model.given(found.fields, parameters)
    outputs = model.predict_given(given, chosen, when_outside=when_outside, batch_size=batch_size, seed=seed)
    outside = model.valid_range.outside(given.inputs, given.parameters, chosen)
    return dataset(model, outputs, given, chosen, outside, found)


def dataset(
    model: "TrainedSurrogate",
    outputs: Float32[np.ndarray, "batch time channels_out *grid"],
    given: Given,
    times: Sequence[float],
    outside: Outside,
    found: Labelled | None = None,
) -> "xr.Dataset":
    """A prediction with named axes; coordinates of samples are those of the inputs where they came with some."""
    schema = model.schema
    said = to_names(outputs, schema, is_batch=given.is_batch)
    sample = found.sample if found is not None and found.sample is not None else SAMPLE
    leading: list[Hashable] = [sample] if given.is_batch else []
    time = [TIME] if len(schema.times) > 1 else []
    variables: dict[Hashable, object] = {}
    for spec in schema.outputs:
        dims = [*leading, *time, *([COMPONENT] if spec.components > 1 else []), *_axes(schema)]
        variables[spec.name] = (dims, said[spec.name], {"units": spec.unit})
    flags = outside.samples if given.is_batch else outside.samples[0]
    told = {"reasons": "; ".join(outside.reasons)} if outside else {}
    variables[FLAG] = (leading, flags, {"long_name": "outside of what training saw", **told})
    coords: dict[Hashable, object] = {} if found is None else dict(found.coords)
    if time:
        coords[TIME] = np.array(times)
    if isinstance(schema.domain, Grid):
        grid = dataclasses.replace(schema.domain, shape=given.inputs.shape[2:])
        for name, values in zip(_axes(schema), grid.coordinates(), strict=True):
            coords.setdefault(name, values)
    return xr.Dataset(variables, coords, {"model": model.source, "headrace": model.checkpoint.version})


def _axes(schema: SampleSchema) -> tuple[str, ...]:
    return POINTS if isinstance(schema.domain, Mesh) else AXES[: len(schema.domain.shape)]


def _ordered(
    name: str, array: "xr.DataArray", spec: FieldSpec, axes: tuple[str, ...]
) -> tuple[np.ndarray, set[Hashable]]:
    """A field as "[sample] [component] *grid", and the name of its axis of samples if it has one."""
    missing = [axis for axis in axes if axis not in array.dims]
    own = [COMPONENT] if spec.components > 1 and COMPONENT in array.dims else []
    left = [axis for axis in array.dims if axis not in (*axes, *own)]
    if missing or len(left) > 1 or (spec.components > 1 and not own):
        wanted = [*([COMPONENT] if spec.components > 1 else []), *axes]
        raise InputError.single(
            name,
            f"with the axes {', '.join(map(str, array.dims)) or 'none'}",
            f"{', '.join(wanted) or 'none'}, and one of samples if there are several",
            f"Call them so with rename, as in array.rename({{'{array.dims[-1]}': '{wanted[-1]}'}})."
            if missing and array.dims
            else "",
        )
    ordered = array.transpose(*left, *own, *axes)
    return ordered.values, set(left)


def _check_coordinates(coords: Mapping[Hashable, "xr.DataArray"], domain: Grid) -> None:
    """See that points lie where the surrogate takes them to be: evenly over the box that it was trained on."""
    shape = tuple(
        coords[axis].size if axis in coords else size
        for axis, size in zip(AXES[: len(domain.shape)], domain.shape, strict=True)
    )
    if 0 in shape:
        return  # an empty axis is refused with the fields
    grid = dataclasses.replace(domain, shape=shape)
    for number, (axis, expected) in enumerate(zip(AXES, grid.coordinates(), strict=False)):
        if axis not in coords or coords[axis].dims != (axis,):
            continue
        values = np.asarray(coords[axis].values)
        if values.dtype.kind not in "iuf" or not np.allclose(
            values, expected, rtol=0, atol=1e-3 * abs(grid.spacing[number]) + 1e-12
        ):
            raise InputError.single(
                f"coordinate {axis}",
                f"{values[0]} to {values[-1]} in {len(values)} points",
                f"{expected[0]:.6g} to {expected[-1]:.6g} in equal steps",
                f"The surrogate was trained on an extent of {domain.extent[number]:g} with points at "
                f"{'cell centres' if domain.location == 'cells' else 'nodes'}: rescale, or drop the coordinate.",
            )
