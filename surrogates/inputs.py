"""The arrays that a trained surrogate is given: checked against its schema before anything is computed."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

from headrace.platform.arrays import as_float32, real_numbers, require_finite
from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, SampleSchema, field_text
from headrace.surrogates.capabilities import Capabilities
from headrace.surrogates.seen import channel_names
from headrace.surrogates.strategy import AbstractStrategy


def checked_arrays(
    inputs: object,
    parameters: object | None,
    schema: SampleSchema,
    capabilities: Capabilities,
    logarithmic: Sequence[str] = (),
) -> tuple[Shaped[np.ndarray, "batch channels_in *grid"], Shaped[np.ndarray, "batch num_parameters"]]:
    """Inputs and parameters as arrays, as they are; the network can take each number in single precision.

    Args:
        inputs: the fields, "batch channels_in *grid".
        parameters: the scalars of each sample, "batch num_parameters".
        schema: the surrogate's.
        capabilities: what its network declares.
        logarithmic: input fields of which it takes the logarithm.

    Raises:
        InputError: they do not fit the schema, or are no finite real numbers.
    """
    fields = real_numbers(inputs, "inputs")
    shape, axes = fields.shape, len(schema.domain.shape)
    if fields.ndim != axes + 2:
        expected = f"{axes + 2} axes (batch, channels, {axes} of the grid)"
        raise InputError.single("inputs", f"of shape {shape}", expected)
    if shape[1] != schema.num_input_channels:
        raise InputError.single(
            "inputs",
            f"of shape {shape}",
            f"{schema.num_input_channels} on axis 1",
            f"Inputs have {shape[1]} channels, the schema has {schema.num_input_channels} "
            f"({described(schema.inputs)}). Is the checkpoint from another problem?",
        )
    if 0 in shape[2:]:
        raise InputError.single("inputs", f"of shape {shape}", "at least one point along every axis of the grid")
    if wanted := capabilities.resolution_mismatch(shape[2:], schema.domain.shape):
        raise InputError.single("inputs", f"of shape {shape}", wanted)
    scalars = None if parameters is None else real_numbers(parameters, "parameters")
    if scalars is None or scalars.shape != (len(fields), schema.num_parameters):
        raise InputError.single(
            "parameters",
            "missing" if scalars is None else f"of shape {scalars.shape}",
            f"shape {(len(fields), schema.num_parameters)} ({described(schema.parameters) or 'there are none'})",
        )
    for channel, name in enumerate(channel_names(schema.inputs)):
        require_finite(fields[:, channel], f"inputs ({name})", place)
    for channel, name in enumerate(channel_names(schema.parameters)):
        require_finite(scalars[:, channel], f"parameters ({name})", place)
    owners = [field.name for field in schema.inputs for _ in range(field.components)]
    for channel, name in enumerate(owners):
        # Cast: what single precision rounds to 0 has no logarithm either.
        if name in logarithmic and not (as_float32(fields[:, channel]) > 0).all():
            raise InputError.single(f"inputs ({name})", "", "positive values", "The network takes its logarithm.")
    return fields, scalars


def chosen_times(times: object, schema: SampleSchema, strategy: AbstractStrategy) -> tuple[float, ...]:
    """The output times that are asked for, as the surrogate knows them.

    Raises:
        InputError: it does not predict at one of them.
    """
    asked = real_numbers(times, "times")
    if asked.ndim != 1 or not len(asked):
        raise InputError.single("times", f"of shape {asked.shape}", "a list of at least one time")
    require_finite(asked, "times", lambda index: f"at place {index[0]}")
    known = np.array(schema.times)
    nearest = np.abs(asked[:, None] - known).argmin(1)
    is_known = np.isclose(asked, known[nearest], rtol=1e-5, atol=1e-6 * float(np.abs(known).max()))
    if not is_known.all() and not strategy.any_time:
        kind = type(strategy).model_fields["kind"].default
        raise InputError.single(
            "times",
            f"{asked[~is_known][0]:g}",
            f"some of {', '.join(f'{time:g}' for time in known)}",
            f"Strategy {kind} predicts at these alone; time_conditioned predicts at any.",
        )
    pairs = zip(asked.tolist(), known[nearest].tolist(), is_known.tolist(), strict=True)
    return tuple(float(same if found else time) for time, same, found in pairs)


def place(index: tuple[int, ...]) -> str:
    """Where an index of "batch *grid" is, in words."""
    sample, *point = index
    return f"in sample {sample}" + (f", point {tuple(point)}" if point else "")


def described(fields: Sequence[FieldSpec]) -> str:
    """Fields in words: names, components, units."""
    return ", ".join(map(field_text, fields))
