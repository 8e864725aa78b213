"""What went astray: which samples a loss that is not finite belongs to, and what is odd about their fields."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headrace.platform.fields import FieldSpec, SampleSchema
from headrace.surrogates.batch import Batch

MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is kept of a step until its loss is looked at: a few numbers a sample, on the device.

    Attributes:
        step: finished optimiser steps with it.
        losses: of each sample.
        indices: of the samples.
        levels: their levels; none where they came without.
        inputs: least and largest value of every input channel.
        outputs: the same of every output channel.
    """

    step: int
    losses: Float[Tensor, " batch"]
    indices: Int64[Tensor, " batch"]
    levels: tuple[str, ...]
    inputs: Float[Tensor, "2 batch channels_in"]
    outputs: Float[Tensor, "2 batch channels_out"]

    @classmethod
    def of(cls, step: int, batch: Batch, losses: Float[Tensor, " batch"]) -> "Seen":
        """Of a step: two passes over the fields, beside the hundreds that a network makes; it waits for nobody."""
        return cls(
            step=step,
            losses=losses.detach(),
            indices=batch.indices,
            levels=batch.levels,
            inputs=_ranges(batch.inputs.flatten(2)),
            outputs=_ranges(batch.outputs.transpose(1, 2).flatten(2)),
        )


def _ranges(values: Tensor) -> Float[Tensor, "2 batch channels"]:
    # NaN is the least and the largest of what holds it.
    if not values.shape[1]:
        return values.new_zeros(2, len(values), 0)
    return torch.stack(list(torch.aminmax(values, dim=2)))


def astray(seen: Sequence[Seen], schema: SampleSchema, log: Sequence[str]) -> str:
    """The first step of some whose loss is not finite, in words: its samples, their levels, and what is odd in them.

    Args:
        seen: steps, the earliest first.
        schema: names the fields.
        log: names of the inputs that are taken the logarithm of.

    Returns:
        Nothing when all these losses are finite: then another rank's are not.
    """
    for one in seen:
        rows = torch.nonzero(~torch.isfinite(one.losses.cpu()))[:, 0].tolist()
        if rows:
            break
    else:
        return ""
    indices = one.indices.tolist()
    named = [f"{indices[row]}" + (f" (level {one.levels[row]})" if one.levels else "") for row in rows[:MOST_NAMED]]
    more = f" and {len(rows) - MOST_NAMED} more" if len(rows) > MOST_NAMED else ""
    whose = f"at step {one.step} that of {len(rows)} of {len(indices)} samples is not: {', '.join(named)}{more}"
    low, high = one.inputs.double().cpu().tolist()
    out_low, out_high = one.outputs.double().cpu().tolist()
    for row in rows:
        odd = [
            *_odd(schema.inputs, low[row], high[row], "input", log),
            *_odd(schema.outputs, out_low[row], out_high[row], "output", ()),
        ]
        if odd:
            return f"{whose}. Of sample {indices[row]} {' and '.join(odd)}: leave such samples out"
    ranges = [
        f"{name} from {min(lows[c] for lows in lows_of):.3g} to {max(highs[c] for highs in highs_of):.3g}"
        for fields, lows_of, highs_of in ((schema.inputs, low, high), (schema.outputs, out_low, out_high))
        for c, name in enumerate(_channels(fields))
    ]
    return (
        f"{whose}. Their fields are finite ({', '.join(ranges)} in that batch), so it is the training that went "
        "astray: try a smaller training.optimizer.learning_rate or training.gradient_clip, or a shorter rollout"
    )


def _channels(fields: Sequence[FieldSpec]) -> list[str]:
    return [field.name for field in fields for _ in range(field.components)]


def _odd(
    fields: Sequence[FieldSpec], low: Sequence[float], high: Sequence[float], kind: str, log: Sequence[str]
) -> list[str]:
    found = []
    for name, least, largest in zip(_channels(fields), low, high, strict=True):
        if not (math.isfinite(least) and math.isfinite(largest)):
            found.append(f"the {kind} {name} is not finite")
        elif name in log and least <= 0.0:
            found.append(f"the {kind} {name} falls to {least:.3g}, and training.normalization.log takes its logarithm")
    return found
