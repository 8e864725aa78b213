"""Cautions: what a recipe may do that its author may not expect; it is not wrong, and so no fault."""

import math
from collections.abc import Collection, Iterator

from headrace.pipelines.recipe.config import RunConfig
from headrace.pipelines.recipe.sections import DataSpec, StreamSpec
from headrace.platform.samplers.stratified import shares


def cautions(config: RunConfig) -> list[str]:
    """All of a recipe, for `headrace check` and for the start of a run."""
    return [*_untested(config), *_short(config)]


def _untested(config: RunConfig) -> Iterator[str]:
    data = config.data
    if data is None or not config.solves:
        return
    for split, count in (("validation", data.validation), ("test", data.test)):
        held_out = [level for level, number in shares(data.mix, count).items() if number]
        yield from untested(data, split, held_out)


def untested(data: DataSpec, split: str, held_out: Collection[str]) -> list[str]:
    """That levels of the mix are not among those that a split has; nothing where all are."""
    lacking = [level for level, weight in data.mix.items() if weight > 0.0 and level not in held_out]
    if not lacking:
        return []
    enough = math.ceil(sum(data.mix.values()) / min(data.mix[level] for level in lacking))
    verb, have = ("is", "has") if len(lacking) == 1 else ("are", "have")
    return [
        f"{', '.join(lacking)} {verb} in data.mix and {have} no {split} sample: nothing says how good the network is "
        f"there. data.{split}={enough} or more has some of each level."
    ]


def fed_steps(samples: int, stream: StreamSpec, batch: int) -> int | None:
    """Steps that are fed however fast the solvers are; None where nothing limits them.

    A reservoir drops no sample unused, but a new one pushes out one that was used once already: of the uses that
    `max_uses` allows, only those of the samples that it holds at the end are certain.

    Args:
        samples: training samples of a rank.
        stream: how they come.
        batch: samples in a step of a rank.
    """
    reservoir = stream.reservoir
    if reservoir.kind != "reservoir":
        return samples // batch
    if reservoir.max_uses is None or reservoir.when_used_up == "go_on":
        return None
    kept = min(samples, reservoir.capacity)
    return (samples - kept + kept * reservoir.max_uses) // batch


def _short(config: RunConfig) -> Iterator[str]:
    if config.training is None or config.data is None or config.data.num_training is None:
        return
    if config.stream.mode != "online":
        return
    ranks, training, reservoir = config.resources.trainers.ranks, config.training, config.stream.reservoir
    samples = config.planned()["train"] // ranks
    certain = fed_steps(samples, config.stream, training.batch_size)
    if certain is None or certain >= training.steps:
        return
    yield (
        f"training may end after {certain} of {training.steps} steps: where solvers are faster than training, a new "
        f"sample pushes one out of the full reservoir that was used once, and not stream.reservoir.max_uses = "
        f"{reservoir.max_uses} times. stream.reservoir.when_used_up=go_on, or stream.reservoir.capacity={samples}, "
        "makes all steps certain."
    )
