"""`headrace check`: whether a recipe is right, alone or with the stored data that it shall train on."""

from collections.abc import Sequence
from pathlib import Path

from headrace.pipelines.recipe.config import load, parse, read_recipe, trains_on_stored_data


def check_recipe(recipe: str, overrides: Sequence[str] = (), data: Path | None = None) -> str:
    """Look for everything that is wrong with a recipe; start nothing.

    Args:
        recipe: a file, or the name of one that comes with Headrace. One without a section `data:` is checked as
            `headrace train` would carry it out.
        overrides: `KEY=VALUE`.
        data: the folder of stored data that it shall be trained on.

    Returns:
        In a few words what it would do.

    Raises:
        InputError: with all that is wrong.
    """
    if data is not None:
        # Reading data sets takes libraries that a check of a recipe alone does not wait for.
        from headrace.pipelines.running.training_data import TrainingData

        config = load(recipe, overrides, "train")
        found = TrainingData.open(config, data)
        return f"{config.name}, {found.usable} samples of {found.train}, scored on {', '.join(found.tests)}"
    if trains_on_stored_data(parse(read_recipe(recipe), recipe, overrides)):
        config = load(recipe, overrides, "train")
        return f"{config.name}, for stored data: headrace train {recipe} --data DIR"
    config = load(recipe, overrides)
    assert config.data is not None
    is_known = config.data.num_training is not None
    planned = config.planned() if is_known else f"as many samples as {config.data.budget:g} solver seconds buy"
    return f"{config.name}, {planned}"
