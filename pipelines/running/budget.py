"""How many samples of each level a budget of solver seconds buys: measured before a run starts, kept in its recipe."""

from rich.console import Console

from headrace.pipelines.recipe.checks import supply_faults
from headrace.pipelines.recipe.config import RunConfig
from headrace.pipelines.running.progress import RunProgress
from headrace.platform.errors import Fault, InputError
from headrace.platform.frozen import FrozenMap
from headrace.platform.sample import Failure
from headrace.platform.seeding import generator

# Pilots are solved in rounds, each twice as large as the one before, until one has taken this long or has so many.
_FEWEST, _MOST, _ENOUGH_SECONDS = 4, 64, 2.0


def with_costs(config: RunConfig, console: Console) -> RunConfig:
    """A configuration whose `data.costs` has every level, when `data.budget` asks for it.

    A few pilot samples of each level, apart from those of the data set, are solved and thrown away. Levels that have a
    cost already, as those of a run that is gone on with, keep it.

    Raises:
        InputError: no pilot of some level could be solved, or the budget does not buy what the training needs.
    """
    data = config.data
    if data is None or data.budget is None or not config.solves:
        return config
    costs = dict(data.costs)
    with RunProgress(console) as progress:
        for level in data.mix:
            if level not in costs:
                progress.update(phase=f"measuring what a sample of level {level} costs")
                costs[level] = cost_of(config, level)
    config = config.model_copy(update={"data": data.model_copy(update={"costs": FrozenMap(costs)})})
    if config.training is None or config.stream.mode != "online":
        return config
    num = config.planned()["train"]
    if faults := list(supply_faults(num, config.stream, config.training, config.resources)):
        told = ", ".join(f"{level} {seconds:.3g} s" for level, seconds in costs.items())
        bought = f"The budget buys {num} training samples; one costs: {told}."
        short = Fault(where="data.budget", value=f"{data.budget:g}", expected="enough for the training", advice=bought)
        raise InputError([*faults, short])
    return config


def cost_of(config: RunConfig, level: str) -> float:
    """CPU seconds that a stored sample of a level costs, the failed ones included.

    Raises:
        InputError: none could be solved.
    """
    seed = int(generator(config.seed, "pilot", "cost", level).integers(2**62))
    spec = config.source("test").model_copy(update={"mix": FrozenMap({level: 1.0}), "seed": seed})
    source = spec.build()
    list(source.solve(spec.requests([0])))  # imports, compiles
    count, first = _FEWEST, 1
    while True:
        results = list(source.solve(spec.requests(range(first, first + count))))
        seconds = sum(
            result.cpu_seconds if isinstance(result, Failure) else result.provenance.cpu_seconds for result in results
        )
        failures = [result for result in results if isinstance(result, Failure)]
        if seconds > _ENOUGH_SECONDS or count >= _MOST:
            if len(failures) == count:
                raise InputError.single(
                    "data.budget",
                    f"{count} pilot samples of level {level}, all failed",
                    "levels that can be solved",
                    failures[0].reason,
                )
            return seconds / (count - len(failures))
        first, count = first + count, 2 * count
