"""What pilot samples settle before a run starts: grids and steps by an accuracy, costs for a budget."""

import time

from rich.console import Console

from headrace.pipelines.recipe.config import RunConfig
from headrace.pipelines.running.budget import cost_of, with_costs
from headrace.pipelines.running.numerics import with_numerics
from headrace.solvers.evolution.accuracy import Choice
from headrace.solvers.evolution.threads import torch_threads


def settled(config: RunConfig, console: Console) -> tuple[RunConfig, list[Choice], float]:
    """A configuration that leaves nothing open, the grids and steps that were chosen, and the wall time of pilots [s].

    Pilots are solved on as many threads as the run's solvers have: what they cost is what it will cost.

    Raises:
        InputError: see `with_numerics` and `with_costs`.
    """
    began = time.monotonic()
    if config.data is None or (config.data.accuracy is None and config.data.budget is None):
        return config, [], 0.0
    with torch_threads(config.resources.solvers.threads):
        sized, choices = with_numerics(config, console)
        priced = with_costs(sized, console)
    # Those of a run that is gone on with are in its recipe: nothing was solved for it now.
    has_piloted = choices or priced.data != sized.data
    return priced, choices, time.monotonic() - began if has_piloted else 0.0


def measured(config: RunConfig, console: Console) -> tuple[RunConfig, dict[str, float]]:
    """A configuration that leaves nothing open, and what a whole sample of each level costs [CPU s], by pilots.

    Raises:
        InputError: see `with_numerics` and `with_costs`.
    """
    config, _, _ = settled(config, console)
    assert config.data is not None
    if config.data.budget is not None:
        return config, dict(config.data.costs)
    with torch_threads(config.resources.solvers.threads):
        return config, {level: cost_of(config, level) for level in config.data.mix}
