"""Fields and parameters by their names, as a person has them, and as the arrays that a surrogate takes and gives."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Shaped

from headrace.platform.arrays import real_numbers
from headrace.platform.errors import Fault, InputError, nearest
from headrace.platform.fields import FieldSpec, SampleSchema
from headrace.platform.tracking.models import input_names
from headrace.surrogates.inputs import described


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a surrogate is asked to predict from.

    Attributes:
        inputs: the fields.
        parameters: the scalars.
        is_batch: false for one sample that came without a batch axis; here it has one.
    """

    inputs: Shaped[np.ndarray, "batch channels_in *grid"]
    parameters: Shaped[np.ndarray, "batch num_parameters"]
    is_batch: bool


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A field or parameter, "batch components *grid"; with a batch axis of 1 that is to be repeated, or of its own."""

    name: str
    values: Shaped[np.ndarray, "batch components *grid"]
    is_batch: bool


def from_array(inputs: object, parameters: object, schema: SampleSchema) -> Given:
    """From an array of all fields: "batch channels_in *grid", or "batch *grid" where there is one channel.

    "channels_in *grid" is taken, too, where there are several channels: one sample.

    Raises:
        InputError: the shapes do not fit the schema.
    """
    fields = real_numbers(inputs, "inputs")
    if fields.ndim == len(schema.domain.shape) + 1:
        fields = fields[:, None] if schema.num_input_channels == 1 else fields[None]
    scalars = _parameters(parameters, schema)
    rows = len(fields) if fields.ndim else 0
    if isinstance(scalars, list):
        values = _stacked(scalars, _batch_size(scalars, rows))
    else:
        values = scalars
        if values.ndim <= 1:
            values = values.reshape(1, -1)
        if len(values) == 1 and values.ndim == 2:
            values = np.repeat(values, rows, axis=0)
    return Given(inputs=fields, parameters=values, is_batch=True)


def from_names(fields: Mapping[str, object], parameters: object, schema: SampleSchema) -> Given:
    """From fields by name, each "*grid" or "batch *grid", with an axis of components before the grid's if it has some.

    The mapping may hold parameters, too: a number, or one for each sample. What has no batch axis is the same for
    all samples.

    Raises:
        InputError: names are unknown or missing, or shapes do not fit.
    """
    known = [spec.name for spec in schema.inputs]
    scalars = [spec.name for spec in schema.parameters if spec.name not in known]
    faults = [
        Fault(
            where="inputs",
            value=f'with "{name}"',
            expected=f"the fields {', '.join(known) or '(none)'} and the parameters {', '.join(scalars) or '(none)'}",
            advice=nearest(str(name), [*known, *scalars]),
        )
        for name in fields
        if name not in known and name not in scalars
    ]
    missing = [spec for spec in schema.inputs if spec.name not in fields]
    if missing:
        faults.append(Fault(where="inputs", value=f"without {described(missing)}", expected="all of the fields"))
    if faults:
        raise InputError(faults)
    parts = [_field(fields[spec.name], spec, schema) for spec in schema.inputs]
    given = {name: fields[name] for name in scalars if name in fields}
    if given and parameters is None:
        parameters = given
    elif given:
        raise InputError.single("parameters", "given twice", "parameters among the fields, or apart from them")
    rest = _parameters(parameters, schema)
    if not isinstance(rest, list):
        if rest.ndim > 2:
            raise InputError.single("parameters", f"of shape {rest.shape}", "an array (samples, parameters)")
        values = rest if rest.ndim == 2 else rest.reshape(1, -1)
        rest = [_Part(name="parameters", values=values, is_batch=rest.ndim == 2)]
    grids = {part.values.shape[2:] for part in parts}
    if len(grids) > 1:
        shapes = ", ".join(f"{part.name} {part.values.shape[2:]}" for part in parts)
        raise InputError.single("inputs", f"on different grids ({shapes})", "all fields on one grid")
    size = _batch_size([*parts, *rest])
    grid = next(iter(grids), schema.domain.shape)
    inputs = _stacked(parts, size) if parts else np.zeros((size, 0, *grid), dtype=np.float32)
    is_batch = any(part.is_batch for part in (*parts, *rest))
    return Given(inputs=inputs, parameters=_stacked(rest, size), is_batch=is_batch)


def to_names(
    outputs: Float32[np.ndarray, "batch time channels_out *grid"], schema: SampleSchema, *, is_batch: bool
) -> dict[str, Float32[np.ndarray, "..."]]:
    """Each output field: "[batch] [time] [components] *grid".

    It has a batch axis if the inputs had one, one of times if the schema has several, one of components if it has some.
    """
    found, first = {}, 0
    for spec in schema.outputs:
        values = outputs[:, :, first : first + spec.components]
        first += spec.components
        if spec.components == 1:
            values = values[:, :, 0]
        if len(schema.times) == 1:
            values = values[:, 0]
        found[spec.name] = values if is_batch else values[0]
    return found


def by_model_name(given: Given, schema: SampleSchema) -> dict[str, Shaped[np.ndarray, "batch ..."]]:
    """What a model of MLflow is given: each field "batch [components] *grid" and parameter "batch [components]"."""
    found, names = {}, input_names(schema)
    for array, specs in ((given.inputs, schema.inputs), (given.parameters, schema.parameters)):
        first = 0
        for spec in specs:
            name = next(key for key, one in names.items() if one is spec)
            values = array[:, first : first + spec.components]
            found[name] = values if spec.components > 1 else values[:, 0]
            first += spec.components
    return found


def _field(given: object, spec: FieldSpec, schema: SampleSchema) -> _Part:
    values = real_numbers(given, spec.name)
    shape = values.shape
    axes = len(schema.domain.shape)
    own = 1 if spec.components > 1 else 0
    if values.ndim == axes + own:
        values, is_batch = values[None], False
    elif values.ndim in (axes + own + 1, axes + 2):
        is_batch = True
    else:
        one = " ".join([*([f"{spec.components} components"] if own else []), f"{axes} axes of the grid"])
        raise InputError.single(
            spec.name, f"of shape {values.shape}", f"an array ({one}), or with an axis of samples before"
        )
    if values.ndim == axes + 1:
        values = values[:, None]
    if values.shape[1] != spec.components:
        raise InputError.single(spec.name, f"of shape {shape}", f"{spec.components} components")
    return _Part(name=spec.name, values=values, is_batch=is_batch)


def _parameters(given: object, schema: SampleSchema) -> np.ndarray | list[_Part]:
    """An array as it is, or the parts of a mapping."""
    if given is None:
        if schema.parameters:
            raise InputError.single(
                "parameters", "missing", f"shape (samples, {schema.num_parameters}) ({described(schema.parameters)})"
            )
        return np.zeros(0, dtype=np.float32)
    if not isinstance(given, Mapping):
        return real_numbers(given, "parameters")
    names = [spec.name for spec in schema.parameters]
    wrong = sorted({str(name) for name in given} ^ set(names))
    if wrong:
        raise InputError.single(
            "parameters", f"{', '.join(map(str, given)) or 'none'}", f"exactly {', '.join(names) or 'none'}"
        )
    return [_scalar(given[spec.name], spec) for spec in schema.parameters]


def _scalar(given: object, spec: FieldSpec) -> _Part:
    values = real_numbers(given, spec.name)
    shape = values.shape
    own = 1 if spec.components > 1 else 0
    is_batch = values.ndim == own + 1 or (values.ndim == 2 and values.shape[1] == 1 == spec.components)
    if not is_batch and values.ndim != own:
        raise InputError.single(spec.name, f"of shape {values.shape}", "a number, or one for each sample")
    values = values.reshape(len(values) if is_batch else 1, -1)
    if values.shape[1] != spec.components:
        raise InputError.single(spec.name, f"of shape {shape}", f"{spec.components} components")
    return _Part(name=spec.name, values=values, is_batch=is_batch)


def _batch_size(parts: list[_Part], rows: int | None = None) -> int:
    sizes = {len(part.values) for part in parts if part.is_batch} | (set() if rows is None else {rows})
    if len(sizes) > 1:
        counts = ", ".join(f"{part.name} {len(part.values)}" for part in parts if part.is_batch)
        fields = "" if rows is None else f", fields {rows}"
        raise InputError.single("inputs", f"of different numbers of samples ({counts}{fields})", "as many of each")
    return sizes.pop() if sizes else 1


def _stacked(parts: list[_Part], size: int) -> np.ndarray:
    """All components of all parts, one after the other; those without a batch axis are repeated."""
    if not parts:
        return np.zeros((size, 0), dtype=np.float32)
    if len(parts) == 1 and parts[0].is_batch:
        return parts[0].values
    components = [part.values.shape[1] for part in parts]
    shape = (size, sum(components), *parts[0].values.shape[2:])
    whole = np.empty(shape, dtype=np.result_type(*(part.values for part in parts)))
    first = 0
    for part, count in zip(parts, components, strict=True):
        whole[:, first : first + count] = part.values
        first += count
    return whole
