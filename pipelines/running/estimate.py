"""What a recipe will take: room on the disk, memory, solver time. Known before anything starts, or said to be not."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from headrace.pipelines.recipe.config import RunConfig
from headrace.pipelines.report.words import duration, number_of_bytes
from headrace.pipelines.run_dir import RUNS
from headrace.platform.errors import Fault
from headrace.platform.fields import SampleSchema
from headrace.platform.spec import spec_hash
from headrace.solvers.sampled import at_level

# Per row beside the arrays: ten numbers of provenance and the index, eight bytes each.
_ROW_NBYTES = 88
# What compression may save at most, for refusing: Darcy fields keep six sevenths of their bytes, smoother ones less.
_LEAST_SHARE = 0.5
# Numbers in a checkpoint, and in memory while training, for each weight: Adam's two moments, and the gradient.
_SAVED, _HELD = 3, 4
# So many earlier runs are asked what their samples cost, the latest first.
_MOST_RUNS = 50


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a recipe will take.

    Attributes:
        samples: planned ones of each split, each part of a trajectory one; of training samples None where a budget is
            not priced yet.
        sample_nbytes: of the arrays of one [B].
        data_nbytes: of all samples before compression [B]; exact.
        checkpoint_nbytes: of a checkpoint, of which so many are kept, and one model for MLflow [B].
        num_weights: of the network; None where only building it tells, or nothing is trained.
        reservoir_nbytes: of the samples that the reservoir of each training rank holds [B].
        held_out_nbytes: of the validation samples, which each rank holds [B].
        ranks: training processes.
        free_nbytes: on the disk of the folder [B].
        folder: for the results.
        costs: CPU seconds of a whole sample of each level, as far as they are known [s].
        costs_from: where they were measured.
        solver_seconds: CPU seconds of all samples [s]; None where not all levels have a cost. An estimate.
    """

    samples: Mapping[str, int | None]
    sample_nbytes: int
    data_nbytes: int
    checkpoint_nbytes: int
    num_checkpoints: int
    num_weights: int | None
    reservoir_nbytes: int
    held_out_nbytes: int
    ranks: int
    free_nbytes: int
    folder: str
    costs: Mapping[str, float]
    costs_from: str
    solver_seconds: float | None

    @property
    def count(self) -> int:
        """Samples of all splits, as far as they are known."""
        return sum(number or 0 for number in self.samples.values())

    @property
    def disk_nbytes(self) -> int:
        """What is written at most [B]."""
        return self.data_nbytes + self.num_checkpoints * self.checkpoint_nbytes

    @property
    def rank_nbytes(self) -> int:
        """What a training rank holds, without what its network computes in between [B]."""
        return self.reservoir_nbytes + self.held_out_nbytes + _HELD * self.checkpoint_nbytes // _SAVED

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        return {**asdict(self), "disk_nbytes": self.disk_nbytes, "rank_nbytes": self.rank_nbytes}


def estimate(config: RunConfig, out: Path | None = None, costs: Mapping[str, float] | None = None) -> Estimate:
    """What a recipe will take, from its schema alone; what samples cost as it was measured before, if it was.

    Args:
        config: the recipe, with a `data` section.
        out: the folder for the results; None for one below `runs`.
        costs: CPU seconds of a whole sample of each level that pilots have just measured.
    """
    assert config.data is not None
    whole, part = config.schema, config.source("train").schema()
    train = None if config.data.num_training is None else config.data.num_training * part.parts
    held_out = config.data.validation + config.data.test
    data = held_out * (whole.sample_nbytes + _ROW_NBYTES) + (train or 0) * (part.sample_nbytes + _ROW_NBYTES)
    ranks, weights, checkpoint, num_checkpoints, reservoir = 0, None, 0, 0, 0
    training = config.training if config.stream.mode != "generate" else None
    if training is not None:
        ranks = config.resources.trainers.ranks
        weights = _num_weights(config, part)
        checkpoint = _SAVED * (weights or 0) * (8 if training.precision == "64-true" else 4)
        num_checkpoints = min(training.keep_checkpoints, training.steps // training.checkpoint_every) + 2
        held = config.stream.reservoir.capacity
        reservoir = part.sample_nbytes * (held if train is None else min(held, train))
    known, told_by = (dict(costs), "pilots, now") if costs is not None else _known_costs(config)
    folder = (out or RUNS).absolute()
    return Estimate(
        samples={"train": train, "validation": config.data.validation, "test": config.data.test},
        sample_nbytes=whole.sample_nbytes,
        data_nbytes=data,
        checkpoint_nbytes=checkpoint,
        num_checkpoints=num_checkpoints,
        num_weights=weights,
        reservoir_nbytes=reservoir,
        held_out_nbytes=config.data.validation * whole.sample_nbytes if ranks else 0,
        ranks=ranks,
        free_nbytes=_free_nbytes(folder),
        folder=str(folder),
        costs=known,
        costs_from=told_by,
        solver_seconds=_solver_seconds(config, known),
    )


def shortages(found: Estimate, config: RunConfig) -> list[Fault]:
    """Why the disk of the results, or the memory of this machine, cannot hold what the recipe asks for."""
    faults = []
    if _LEAST_SHARE * found.disk_nbytes > found.free_nbytes:
        of_network = found.disk_nbytes - found.data_nbytes
        samples = f"{found.count:,} samples of {number_of_bytes(found.sample_nbytes)}"
        faults.append(
            Fault(
                where="data" if found.data_nbytes >= of_network else "surrogate",
                value=f"{number_of_bytes(found.disk_nbytes)} on the disk: {samples}, checkpoints of "
                f"{number_of_bytes(found.checkpoint_nbytes)}",
                expected=f"what {number_of_bytes(found.free_nbytes)}, free for {found.folder}, can hold",
                advice="Lower the number of samples, of output times or of points, or name a folder on another disk."
                if found.data_nbytes >= of_network
                else "Make the network smaller, or name a folder on another disk.",
            )
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # On a cluster each rank has a machine of its own, of which nothing is known here.
    is_here = config.resources.address is None and "RAY_ADDRESS" not in os.environ
    if is_here and found.ranks * found.rank_nbytes > memory:
        largest = "stream.reservoir" if found.reservoir_nbytes > found.rank_nbytes // 2 else "surrogate"
        faults.append(
            Fault(
                where=largest,
                value=f"{number_of_bytes(found.ranks * found.rank_nbytes)} in memory ({_memory(found)})",
                expected=f"what the {number_of_bytes(memory)} of this machine can hold",
                advice="Lower stream.reservoir.capacity, data.validation or the size of the network.",
            )
        )
    return faults


def warnings(found: Estimate) -> list[str]:
    """What may go wrong."""
    if found.free_nbytes < found.disk_nbytes <= found.free_nbytes / _LEAST_SHARE:
        return [
            f"{found.folder} has {number_of_bytes(found.free_nbytes)} free and may need "
            f"{number_of_bytes(found.disk_nbytes)}: only compression can make it fit"
        ]
    return []


def counted(found: Estimate, budget: float | None) -> str:
    """How many samples are planned, in words."""
    names = {"train": "training", "validation": "validation", "test": "test"}
    counts = [f"{number:,} {names[split]}" for split, number in found.samples.items() if number is not None]
    bought = "" if budget is None or found.samples["train"] is not None else f", and what {budget:g} solver seconds buy"
    return f"{', '.join(counts)} samples{bought}"


def told(found: Estimate) -> list[str]:
    """What a recipe will take, in three lines."""
    disk = f"about {number_of_bytes(found.disk_nbytes)} before compression: {found.count:,} samples of "
    disk += number_of_bytes(found.sample_nbytes)
    if found.checkpoint_nbytes:
        disk += f", {found.num_checkpoints} files of {number_of_bytes(found.checkpoint_nbytes)} with the network"
    lines = [f"disk     {disk}; {number_of_bytes(found.free_nbytes)} free for {found.folder}"]
    if found.ranks:
        whole = number_of_bytes(found.rank_nbytes)
        lines.append(f"memory   {whole} for each of {found.ranks} training rank(s): {_memory(found)}")
    if found.solver_seconds is None:
        measure = "`headrace check RECIPE --pilots` measures it"
        lines.append(f"solving  not known: no run in {RUNS} has solved this; {measure}")
    else:
        whole = f"about {duration(found.solver_seconds)} of processor time, an estimate"
        each = ", ".join(f"{level} {duration(seconds)}" for level, seconds in found.costs.items())
        lines.append(f"solving  {whole}: a sample costs {each} ({found.costs_from})" if each else f"solving  {whole}")
    return lines


def cost_key(config: RunConfig, level: str) -> str:
    """Stands for all that decides what a sample of a level costs: equation, grid and step, method, tolerance."""
    assert config.data is not None
    data = config.data
    numerics = data.numerics.get(level)
    how = f"accuracy {data.accuracy}" if data.accuracy else "" if numerics is None else spec_hash(numerics)
    return "/".join(
        (
            spec_hash(at_level(data.problem, data.levels, level)),
            spec_hash(config.solver.method),
            f"{config.solver.rtol:g}",
            how,
        )
    )


def _num_weights(config: RunConfig, schema: SampleSchema) -> int | None:
    assert config.training is not None and config.surrogate is not None
    capabilities = config.surrogate.capabilities
    return config.surrogate.num_weights(config.training.strategy.network_schema(schema, capabilities))


def _memory(found: Estimate) -> str:
    network = "a network of unknown size" if found.num_weights is None else f"{found.num_weights:,} weights"
    return (
        f"reservoir {number_of_bytes(found.reservoir_nbytes)}, validation {number_of_bytes(found.held_out_nbytes)}, "
        f"{network} with gradient and moments; without what the network computes in between"
    )


def _known_costs(config: RunConfig) -> tuple[dict[str, float], str]:
    """What a whole sample of each level costs: as the recipe says, or as the latest run measured that solved such."""
    assert config.data is not None
    if set(config.data.mix) <= set(config.data.costs):
        return {level: config.data.costs[level] for level in config.data.mix}, "data.costs"
    keys = {level: cost_key(config, level) for level in config.data.mix}
    found: dict[str, float] = {}
    told_by: list[str] = []
    for path in latest_summaries():
        try:
            costs = json.loads(path.read_text(encoding="utf-8"))["cost"].items()
            priced = {
                entry["measured_for"]: entry["cpu_seconds"] / entry["whole_samples"]
                for _, entry in costs
                if entry.get("measured_for") and entry["whole_samples"] > 0
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # of a run that is at work, or of another program
        new = {level: priced[key] for level, key in keys.items() if level not in found and key in priced}
        if new:
            found |= new
            told_by.append(str(path.parent))
        if set(found) == set(keys):
            break
    return {level: found[level] for level in keys if level in found}, " and ".join(told_by)


def latest_summaries() -> list[Path]:
    """Those of the runs below `runs`, the latest first."""
    try:
        paths = [(path.stat().st_mtime, path) for path in RUNS.glob("*/run.json")]
    except OSError:
        return []
    return [path for _, path in sorted(paths, reverse=True)[:_MOST_RUNS]]


def _solver_seconds(config: RunConfig, costs: Mapping[str, float]) -> float | None:
    data = config.data
    assert data is not None
    if not config.solves:
        return 0.0
    if not set(data.mix) <= set(costs):
        return None
    mixed = sum(weight * costs[level] for level, weight in data.mix.items()) / sum(data.mix.values())
    if data.budget is not None:
        return data.budget + (data.validation + data.test) * mixed
    return ((data.samples or 0) + data.validation + data.test) * mixed


def _free_nbytes(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
