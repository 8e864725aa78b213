"""`headrace check`: whether a recipe is right, alone or with the data that it shall train on, and what it takes."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from headrace.pipelines.answers import Answer
from headrace.pipelines.recipe.cautions import cautions
from headrace.pipelines.recipe.config import RunConfig, load, parse, read_recipe, trains_on_stored_data
from headrace.pipelines.run_dir import RunDir
from headrace.pipelines.running.estimate import counted, estimate, shortages, told, warnings
from headrace.pipelines.running.label_errors import known_label_errors, too_large
from headrace.pipelines.running.label_errors import told as told_errors
from headrace.pipelines.running.numerics import with_needed
from headrace.pipelines.running.pilots import measured
from headrace.platform.errors import InputError
from headrace.solvers.label_error import LabelError


def check_recipe(
    recipe: str,
    overrides: Sequence[str],
    console: Console,
    *,
    data: Path | None = None,
    out: Path | None = None,
    pilots: bool = False,
) -> Answer:
    """Look for everything that is wrong with a recipe; start nothing.

    Args:
        recipe: a file, or the name of one that comes with Headrace. One without a section `data:` is checked as
            `headrace train` would carry it out.
        overrides: `KEY=VALUE`.
        console: where progress is shown.
        data: the folder of stored data that it shall be trained on.
        out: the folder that the run would go to.
        pilots: solve a few samples, thrown away, to learn what all will cost.

    Returns:
        In a few words what it would do, and take.

    Raises:
        InputError: with all that is wrong.
    """
    if data is not None:
        # Reading data sets takes libraries that a check of a recipe alone does not wait for.
        from headrace.pipelines.running.training_data import TrainingData

        config = load(recipe, overrides, "train")
        found = TrainingData.open(config, data)
        return _right(recipe, config, f"{found.usable} samples of {found.train}, scored on {', '.join(found.tests)}")
    if trains_on_stored_data(parse(read_recipe(recipe), recipe, overrides)):
        config = load(recipe, overrides, "train")
        return _right(recipe, config, f"for stored data: headrace train {recipe} --data DIR")
    config, costs = with_needed(load(recipe, overrides)), None
    labels: Sequence[LabelError] = ()
    unusable = RunDir.unusable(out) if out is not None else []
    if faults := [*unusable, *shortages(estimate(config, out), config)]:
        raise InputError(faults)
    if pilots:
        piloted, costs = measured(config, console)
        config, labels = piloted.config, piloted.label_errors
    assert config.data is not None
    labels = labels or known_label_errors(config)
    taken, cautioned = estimate(config, out, costs), [*cautions(config), *too_large(labels, config.data.label_error)]
    first = _right(recipe, config, counted(taken, config.data.budget))
    return Answer(
        words=[*first.words, *told(taken), *([f"labels   {told_errors(labels)}"] if labels else [])],
        warnings=[*warnings(taken), *(f"caution: {one}" for one in cautioned)],
        data={"recipe": recipe, "faults": [], "cautions": cautioned, "estimate": taken.to_json()}
        | ({"label_errors": [one.to_json() for one in labels]} if labels else {}),
    )


def _right(recipe: str, config: RunConfig, what: str) -> Answer:
    return Answer(words=[f"{recipe} is right: {config.name}, {what}"], data={"recipe": recipe, "faults": []})
