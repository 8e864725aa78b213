"""What pilot samples settle before a run starts: grids and steps by an accuracy, costs for a budget."""

import time
from dataclasses import dataclass

from rich.console import Console

from headrace.pipelines.recipe.config import RunConfig
from headrace.pipelines.running.budget import cost_of, with_costs
from headrace.pipelines.running.label_errors import label_errors
from headrace.pipelines.running.numerics import with_numerics
from headrace.solvers.evolution.accuracy import Choice
from headrace.solvers.evolution.threads import torch_threads
from headrace.solvers.label_error import LabelError


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What pilots have settled.

    Attributes:
        config: leaves nothing open.
        choices: the grids and steps that were chosen.
        label_errors: how far the labels of each level are from the truth.
        seconds: wall time of the pilots [s].
    """

    config: RunConfig
    choices: list[Choice]
    label_errors: list[LabelError]
    seconds: float


def settled(config: RunConfig, console: Console) -> Settled:
    """Settle what the recipe leaves to pilots.

    Pilots are solved on as many threads as the run's solvers have: what they cost is what it will cost.

    Raises:
        InputError: see `with_numerics` and `with_costs`.
    """
    began = time.monotonic()
    data = config.data
    if data is None or (data.accuracy is None and data.budget is None and data.label_error is None):
        return Settled(config=config, choices=[], label_errors=[], seconds=0.0)
    with torch_threads(config.resources.solvers.threads):
        sized, choices = with_numerics(config, console)
        priced = with_costs(sized, console)
        errors = label_errors(priced, console)
    # Those of a run that is gone on with are in its recipe: nothing was solved for it now.
    has_piloted = choices or priced.data != sized.data or any(one.cpu_seconds for one in errors)
    seconds = time.monotonic() - began if has_piloted else 0.0
    return Settled(config=priced, choices=choices, label_errors=errors, seconds=seconds)


def measured(config: RunConfig, console: Console) -> tuple[Settled, dict[str, float]]:
    """What pilots settle, and what a whole sample of each level costs [CPU s].

    Raises:
        InputError: see `with_numerics` and `with_costs`.
    """
    found = settled(config, console)
    config = found.config
    assert config.data is not None
    if config.data.budget is not None:
        return found, dict(config.data.costs)
    with torch_threads(config.resources.solvers.threads):
        return found, {level: cost_of(config, level) for level in config.data.mix}
