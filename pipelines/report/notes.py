"""What a reader has to know before relying on a run's numbers, in sentences: on the terminal, and on the page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from headrace.pipelines.recipe.sections import StreamSpec
from headrace.pipelines.report.words import count_of, digits, percent
from headrace.pipelines.summary import SampleCounts, TrainingOutcome
from headrace.platform.fields import SampleSchema
from headrace.surrogates.metrics import FLOOR

LABEL_LIMITED = 3.0
"""A surrogate is limited by its labels where its error is no more than so many times theirs."""

BLOWN_UP = 1000.0
"""A forecast is said to blow up where it exceeds the largest value of the data so many times."""

_FLOOR = f"{FLOOR**0.5:.2g} of the field's standard deviation over the data set"


def of_training(training: TrainingOutcome, stream: StreamSpec | None, samples: SampleCounts) -> list[str]:
    """That it took fewer steps than planned, why, and what to change; that targets were zero.

    Args:
        training: what it came to.
        stream: how its samples came; None for stored ones.
        samples: how many there were.
    """
    notes = []
    if training.steps < training.planned_steps:
        took = f"training took {training.steps} of {training.planned_steps} planned steps"
        notes.append(f"{took}: {_why_short(stream, samples)}")
    if training.zero_targets:
        notes.append(
            f"{training.zero_targets} of the {training.samples_seen} targets that were trained on are next to zero: "
            f"their relative loss is taken against {_FLOOR}. Leave them out, or add what makes them differ."
        )
    return notes


def _why_short(stream: StreamSpec | None, samples: SampleCounts) -> str:
    if stream is None:
        return "it was stopped."
    reservoir = stream.reservoir
    ended = f"the stream ended, and no sample had a use left ({samples.stored} stored, {samples.failed} failed). "
    if reservoir.kind != "reservoir":
        return (
            f"{ended}A {reservoir.kind} serves each sample once: raise data.samples, lower training.steps, or set "
            "stream.reservoir.kind=reservoir."
        )
    if reservoir.max_uses is None:
        return f"{ended}Raise data.samples, or lower training.steps."
    return (
        f"{ended}stream.reservoir.max_uses = {reservoir.max_uses} is the most that a sample is used: of the "
        f"{reservoir.capacity} that the reservoir holds, new ones push out such as were used once already. Set "
        f"stream.reservoir.when_used_up=go_on, raise stream.reservoir.capacity (with {samples.planned} nothing is "
        "pushed out) or data.samples, or lower training.steps."
    )


def of_errors(levels: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """That denominators were guarded, from the held-out errors: of all of a set, or of each set."""
    notes = []
    for name, one in levels.items():
        if name != "all" and "all" in levels:
            continue
        flat, zero, count = one.get("flat", 0), one.get("zero", 0), one["count"]
        where = "" if name == "all" else f" of {name}"
        if flat:
            notes.append(
                f"{flat} of {count_of(count, 'held-out sample')}{where} are flat in space at some output time: their "
                f"VRMSE there is over {_FLOOR}, since an error over a field that does not vary has no meaning."
            )
        if zero:
            notes.append(
                f"{zero} of {count_of(count, 'held-out sample')}{where} are next to zero: their relative errors are "
                f"over {_FLOOR}."
            )
    return notes


def of_labels(errors: Mapping[str, Mapping[str, Any]], labels: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where the surrogate is as near to its labels as these are to the truth.

    Args:
        errors: held-out errors by level.
        labels: the discretisation error of each level's labels; see `RunSummary.label_errors`.
    """
    notes = []
    for level, label in labels.items():
        own, of_label = errors.get(level, {}).get("relative_l2"), label.get("median")
        if not isinstance(own, float) or not isinstance(of_label, float) or not own < LABEL_LIMITED * of_label:
            continue
        notes.append(
            f"At {level} the surrogate is limited by its labels: it misses them by {percent(own)}, and they miss the "
            f"solution of the equation by {percent(of_label)} (median of {label['num_pilots']} pilots, against finer "
            f"grids). Its error against the truth may be as large as both together: set data.accuracy for better ones."
        )
    return notes


def of_forecasts(
    prediction: Float[np.ndarray, "batch time channels *grid"],
    truth: Float[np.ndarray, "batch time channels *grid"],
    schema: SampleSchema,
    levels: Sequence[str],
    indices: Sequence[int],
) -> list[str]:
    """That forecasts blew up or are not finite: which, from when, beyond what range, and what to change."""
    largest = np.abs(truth).max(initial=0.0)
    with np.errstate(invalid="ignore"):
        is_lost = ~(np.abs(prediction) <= BLOWN_UP * largest) if largest > 0.0 else ~np.isfinite(prediction)
    at = is_lost.reshape(*is_lost.shape[:3], -1).any(3)  # sample, time, channel
    rows = np.flatnonzero(at.any((1, 2))).tolist()
    if not rows:
        return []
    names = [field.name for field in schema.outputs for _ in range(field.components)]
    by_level = Counter(levels[row] for row in rows)
    first = min(rows, key=lambda row: int(at[row].any(1).argmax()))
    number = int(at[first].any(1).argmax())
    channel = int(at[first, number].argmax())
    low, high = float(truth[:, :, channel].min()), float(truth[:, :, channel].max())
    found = prediction[first, number, channel]
    reached = float(np.abs(found).max())
    worst = digits(reached) if np.isfinite(reached) else "values that are not finite"
    when = f" at time {schema.times[number]:g}" if len(schema.times) > 1 else ""
    word = "forecast" if len(schema.times) > 1 else "prediction"
    steps = len(schema.times) > 1
    advice = (
        "Train it to follow its own predictions (training.strategy.rollout of 2 to 8), for more steps, or on more "
        "samples of that level; ask for a shorter horizon."
        if steps
        else "Train for more steps, with a smaller learning rate, or on more samples of that level."
    )
    return [
        f"{count_of(len(rows), word)} of {len(truth)} blew up ({', '.join(f'{k} {n}' for k, n in by_level.items())}): "
        f"{names[channel]} of sample {indices[first]} ({levels[first]}) reaches {worst}{when}, where the data lie from "
        f"{digits(low)} to {digits(high)}. {advice}"
    ]
