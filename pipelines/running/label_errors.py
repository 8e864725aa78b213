"""How far the labels of a run are from the truth: measured on pilots before it starts, or known from an earlier run."""

import json
from collections.abc import Mapping, Sequence

from rich.console import Console

from headrace.pipelines.recipe.config import RunConfig
from headrace.pipelines.report.words import duration, percent
from headrace.pipelines.running.estimate import cost_key, latest_summaries
from headrace.pipelines.running.progress import RunProgress
from headrace.platform.errors import InputError
from headrace.solvers.label_error import LabelError

MOST_SECONDS = 10.0
"""CPU time that the pilots of all levels together may take, as the first of them lets expect [s]."""


def label_errors(config: RunConfig, console: Console) -> list[LabelError]:
    """The discretisation error of each level of the mix; none where the recipe asks for none, or nothing is solved.

    What an earlier run below `runs` has measured of the same equation, grid, step, method and tolerance is taken over.
    """
    data = config.data
    if data is None or data.label_error is None or not config.solves:
        return []
    found = _known(config)
    missing = [level for level in data.mix if level not in found]
    if missing:
        source = config.source("test")
        with RunProgress(console) as progress:
            for level in missing:
                found[level] = source.label_error(
                    level,
                    seconds=MOST_SECONDS / len(data.mix),
                    tell=lambda text: progress.update(phase=f"measuring the error of labels: level {text}"),
                )
    return [found[level] for level in data.mix]


def told(errors: Sequence[LabelError]) -> str:
    """Of all levels, in a few words."""
    parts = [
        f"{one.level} not measured ({one.reason})"
        if one.worst is None or one.median is None
        else f"{one.level} {percent(one.median)}, at worst {percent(one.worst)} of {one.num_pilots} pilots"
        for one in errors
    ]
    spent = sum(one.cpu_seconds for one in errors)
    return f"{'; '.join(parts)} (took {duration(spent)} of processor time)"


def say_label_errors(errors: Sequence[LabelError], config: RunConfig, console: Console) -> None:
    """Tell them before a run starts, and warn where they are larger than the recipe allows."""
    if not errors or config.data is None:
        return
    console.print(f"error of labels: {told(errors)}", highlight=False)
    for warning in too_large(errors, config.data.label_error):
        console.print(f"caution: {warning}", style="yellow", highlight=False)


def too_large(errors: Sequence[LabelError], allowed: float | None) -> list[str]:
    """Which labels are worse than a recipe allows, and what to do."""
    if allowed is None:
        return []
    worse = [one for one in errors if one.worst is not None and one.worst > allowed]
    if not worse:
        return []
    levels = ", ".join(f"{one.level} {percent(one.worst or 0.0)}" for one in worse)
    return [
        f"labels miss the solution of their equation by up to {levels} (relative L2, pilots against finer grids), and "
        f"no surrogate that learns them is truer. Allowed is data.label_error={allowed:g}. data.accuracy={allowed:g} "
        f"has them solved on finer grids; or raise the problem's resolution, or allow more."
    ]


def measured_for(config: RunConfig, errors: Sequence[LabelError]) -> dict[str, dict[str, object]]:
    """As `run.json` has them: with what they were measured for, so that a later run of the same need not."""
    return {one.level: {**one.to_json(), "measured_for": cost_key(config, one.level)} for one in errors}


def from_summary(found: Mapping[str, Mapping[str, object]]) -> list[LabelError]:
    """What `measured_for` gave."""
    return [LabelError.from_json(one) for one in found.values()]


def known_label_errors(config: RunConfig) -> list[LabelError]:
    """Those of all levels, if earlier runs have measured each; nothing is solved."""
    if config.data is None or config.data.label_error is None or not config.solves:
        return []
    found = _known(config)
    return [found[level] for level in config.data.mix] if set(config.data.mix) <= set(found) else []


def _known(config: RunConfig) -> dict[str, LabelError]:
    """What earlier runs have measured, the latest first."""
    assert config.data is not None
    keys = {level: cost_key(config, level) for level in config.data.mix}
    found: dict[str, LabelError] = {}
    for path in latest_summaries():
        try:
            entries = json.loads(path.read_text(encoding="utf-8")).get("label_errors", {}).values()
            by_key = {one["measured_for"]: LabelError.from_json(one) for one in entries}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError):
            continue  # of a run that is at work, or of another program
        for level, key in keys.items():
            if level not in found and key in by_key and by_key[key].worst is not None:
                found[level] = LabelError.from_json({**by_key[key].to_json(), "level": level, "cpu_seconds": 0.0})
        if set(found) == set(keys):
            break
    return found
