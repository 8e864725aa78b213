"""Which grid and step the equations of a run are solved with: chosen before it starts, and kept in its recipe."""

from rich.console import Console

from headrace.pipelines.recipe.config import RunConfig
from headrace.pipelines.running.progress import RunProgress
from headrace.platform.frozen import FrozenMap
from headrace.solvers.evolution.accuracy import Choice
from headrace.solvers.numerics import Numerics


def with_needed(config: RunConfig) -> RunConfig:
    """A configuration whose `data.numerics` has the built-in levels that need a finer grid; see `points_needed`.

    Levels that have numerics already keep them, and so do all where an accuracy decides.
    """
    data = config.data
    if data is None or data.accuracy is not None or not config.solves:
        return config
    needed = {
        level: Numerics(refinement=refinement)
        for level in data.mix
        if level not in data.numerics
        and level not in data.levels
        and (refinement := data.problem.refinement_needed(level)) > 1
    }
    if not needed:
        return config
    settled = data.model_copy(update={"numerics": FrozenMap({**data.numerics, **needed})})
    return config.model_copy(update={"data": settled})


def with_numerics(config: RunConfig, console: Console) -> tuple[RunConfig, list[Choice]]:
    """A configuration whose `data.numerics` has every level, when `data.accuracy` asks for it.

    Pilot samples are solved here, before anything starts. Levels that have numerics already, as those of a run that is
    gone on with, keep them.

    Raises:
        InputError: some level does not reach the accuracy.
    """
    data = config.data
    if data is None or data.accuracy is None or not config.solves:
        return config, []
    missing = [level for level in data.mix if level not in data.numerics]
    with RunProgress(console) as progress:
        choices = config.source("test").choose_numerics(
            missing, data.accuracy, lambda text: progress.update(phase=f"choosing grid and step: level {text}")
        )
    numerics = {**data.numerics, **{choice.level: choice.numerics for choice in choices}}
    settled = data.model_copy(update={"numerics": FrozenMap(numerics)})
    return config.model_copy(update={"data": settled}), list(choices)
