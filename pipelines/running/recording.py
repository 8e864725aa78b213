"""Recording: the stored samples of an earlier run, taken over by a new one."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.pipelines.recipe.checks import supply_faults
from headrace.pipelines.recipe.config import SPLITS, RunConfig, load
from headrace.pipelines.run_dir import RunDir, data_sets
from headrace.pipelines.running.numerics import with_needed
from headrace.platform.dataset.reader import StoredSamples, shard_paths
from headrace.platform.errors import Fault, InputError
from headrace.platform.fields import SampleSchema
from headrace.platform.files import sync, usable_path
from headrace.platform.ledger.ledger import Ledger
from headrace.solvers.numerics import Numerics

WHERE = "stream.recording"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recording that a recipe can use.

    Attributes:
        path: the run's folder, or one that holds data sets.
        sets: the data set of each split.
        planned: for each split, one more than the largest index in it.
    """

    path: Path
    sets: Mapping[str, Path]
    planned: dict[str, int]

    @classmethod
    def open(cls, config: RunConfig) -> "Recording | None":
        """What the recipe names; None when it names nothing.

        Raises:
            InputError: there is no recording, it is being written, or its samples are others than the recipe's.
        """
        if config.stream.recording is None:
            return None
        path = usable_path(Path(config.stream.recording), WHERE, "an earlier run's folder").absolute()
        if RunDir(path).is_worked_on:
            raise InputError.single(WHERE, str(path), "a run that nobody works on", "Stop it, or wait for its end.")
        found = data_sets(path, WHERE)
        replays = config.stream.mode == "replay"
        missing = [split for split in SPLITS if split not in found] if replays or not found else []
        if missing:
            raise InputError.single(
                WHERE,
                str(path),
                "a folder with the data sets train, validation and test of a run",
                f"It lacks {', '.join(missing)}.",
            )
        sets = {str(split): found[split] for split in SPLITS if split in found}
        stored = {split: StoredSamples.open(directory) for split, directory in sets.items()}
        planned = {split: int(samples.indices[-1]) + 1 for split, samples in stored.items()}
        schemas: dict[str, SampleSchema] = {split: config.source(split).schema() for split in SPLITS}
        faults = [
            Fault(
                where=f"{WHERE}: {split}",
                value=f"with {'; '.join(samples.schema.differences(schemas[split]))}",
                expected="samples as the recipe's",
            )
            for split, samples in stored.items()
            if samples.schema.differences(schemas[split])
        ]
        if replays:
            assert config.training is not None
            faults.extend(supply_faults(len(stored["train"]), config.stream, config.training, config.resources))
        elif different := _differences(config, path):
            faults.extend(different)
        else:
            faults.extend(
                Fault(
                    where=f"data.{'samples' if split == 'train' else split}",
                    value=str(count),
                    expected=f"at least {planned[split]}: the recording holds the sample {planned[split] - 1}",
                )
                for split, count in config.planned().items()
                if planned.get(split, 0) > count
            )
        if faults:
            raise InputError(faults)
        return cls(path=path, sets=sets, planned=planned)

    def copy(self, run: RunDir, first_number: int) -> None:
        """Copy the shards into a run's folder, numbered from `first_number` on.

        The run then has all of its data, whatever becomes of the recording.
        """
        for split, directory in self.sets.items():
            target = run.data(split)
            target.mkdir(parents=True, exist_ok=True)
            for number, shard in enumerate(shard_paths(directory), start=first_number):
                draft = target / f".copied-{number}"
                shutil.rmtree(draft, ignore_errors=True)
                shutil.rmtree(target / f"shard-{number}.zarr", ignore_errors=True)
                shutil.copytree(shard, draft, symlinks=True, ignore=_refuse_links, copy_function=_copy_file)
                draft.rename(target / f"shard-{number}.zarr")
            sync(target)

    def copy_decisions(self, run: RunDir) -> None:
        """Have a new ledger know what the recorded run's sampler decided: the samples that are taken over are that."""
        recorded = RunDir(self.path).ledger
        if not recorded.is_file():
            return
        with Ledger.open(recorded, read_only=True) as earlier, Ledger.open(run.ledger) as ledger:
            for split in ledger.splits:
                decided = earlier.decided(split)
                count = ledger.counts(split).planned
                if decided:
                    ledger.decide(split, [one for index, one in decided.items() if index < count])


def _differences(config: RunConfig, path: Path) -> list[Fault]:
    """Why sample i of the recipe is not sample i of the recorded run."""
    recipe = RunDir(path).recipe
    if not recipe.is_file():
        return [
            Fault(
                where=WHERE,
                value=str(path),
                expected="a run's folder, whose recipe says what its samples are",
                advice="With stream.mode = replay any data sets will do.",
            )
        ]
    recorded = load(str(recipe), command="generate")
    assert config.data is not None and recorded.data is not None
    pairs: dict[str, tuple[object, object]] = {
        "seed": (config.seed, recorded.seed),
        "data.problem": (config.data.problem, recorded.data.problem),
        "data.mix": (config.data.mix, recorded.data.mix),
        "data.sampler": (config.data.sampler, recorded.data.sampler),
        "data.budget": (config.data.budget, recorded.data.budget),
        "data.levels": (config.data.levels, recorded.data.levels),
        "data.accuracy": (config.data.accuracy, recorded.data.accuracy),
    }
    if config.data.budget is not None:
        pairs["data.costs"] = (config.data.costs, recorded.data.costs)
    ours = with_needed(config).data
    assert ours is not None
    if ours.numerics or (config.data.accuracy is None and config.solves):
        # Those that an accuracy chose follow from the rest; a replay that names none takes what was recorded.
        pairs["data.numerics"] = (_finer(ours.numerics), _finer(recorded.data.numerics))
    return [
        Fault(where=where, value=repr(ours), expected=f"that of {recipe}, {theirs!r}, to go on with its samples")
        for where, (ours, theirs) in pairs.items()
        if ours != theirs
    ]


def _finer(numerics: Mapping[str, Numerics]) -> dict[str, Numerics]:
    """The levels that are not solved as the output grid and the equation have it."""
    return {level: one for level, one in numerics.items() if one != Numerics()}


def _refuse_links(folder: str, names: list[str]) -> list[str]:
    """Let a shard hold nothing that lies elsewhere."""
    for name in names:
        path = Path(folder) / name
        if path.is_symlink():
            raise InputError.single(str(path), f"a link to {path.readlink()}", "a file of the recording itself")
    return []


def _copy_file(source: str, target: str) -> None:
    """Copy a file, sharing its blocks where the file system can, and sync it."""
    with open(source, "rb") as old, open(target, "wb") as new:
        left = os.fstat(old.fileno()).st_size
        try:
            while left and (count := os.copy_file_range(old.fileno(), new.fileno(), left)):
                left -= count
        except OSError:
            shutil.copyfileobj(old, new)
        os.fsync(new.fileno())
