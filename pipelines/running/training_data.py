"""TrainingData: the stored samples of `headrace train`, looked at before anything starts."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.pipelines.recipe.config import RunConfig
from headrace.pipelines.run_dir import data_sets
from headrace.pipelines.summary import UsedData
from headrace.platform.dataset.manifest import read_manifest
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.errors import Fault, InputError
from headrace.platform.fields import SampleSchema

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Data sets that fit each other and a recipe.

    Attributes:
        folder: that holds them.
        train: the directory of those that are trained on.
        validation: of those that the curves are drawn from.
        tests: of those that the final errors are taken from, by name.
        schema: what a sample looks like; one that comes in parts, when it is whole.
        parts: in how many of them the training samples come.
        usable: how many training samples are used: those of trajectories that broke are left out, unless the recipe
            keeps them.
    """

    folder: Path
    train: Path
    validation: Path
    tests: Mapping[str, Path]
    schema: SampleSchema
    parts: int
    usable: int

    @classmethod
    def open(cls, config: RunConfig, folder: Path) -> "TrainingData":
        """See that a folder holds what the recipe can be trained on.

        Raises:
            InputError: it does not: sets are missing, differ from each other, or do not fit the recipe.
        """
        assert config.training is not None and config.surrogate is not None
        sets = locate_data(folder)
        train, validation = sets.pop("train"), sets.pop("validation")
        stored = StoredSamples.open(train)
        schema = stored.schema if stored.schema.parts == 1 else _whole(stored.schema, train, validation)
        reason = config.training.mismatch(stored.schema)
        reason = reason or config.training.network_mismatch(config.surrogate, schema)
        if reason:
            raise InputError.single("surrogate", config.surrogate.kind, f"a network that can take {train}: {reason}")
        takes = config.surrogate.capabilities.resolution_mismatch
        faults = []
        for path in dict.fromkeys([validation, *sets.values()]):
            held_out = StoredSamples.open(path).schema
            if different := held_out.differences(schema, resolution=False):
                expected = f"samples as those of {train}, up to the number of points"
                faults.append(Fault(where=str(path), value=f"with {'; '.join(different)}", expected=expected))
            elif wanted := takes(held_out.domain.shape, schema.domain.shape):
                value = f"on a grid of {held_out.domain.shape}"
                faults.append(Fault(where=str(path), value=value, expected=f"{wanted}, for {config.surrogate.kind}"))
        if faults:
            raise InputError(faults)
        needed = config.training.batch_size * config.resources.trainers.ranks
        usable = len(stored) if config.training.keep_incomplete else int(stored.is_whole.sum())
        if usable < needed:
            raise InputError.single("training.batch_size", str(needed), f"at most {usable}, the samples of --data")
        return cls(
            folder=folder.resolve(),
            train=train.resolve(),
            validation=validation.resolve(),
            tests={name: path.resolve() for name, path in sets.items()},
            schema=schema,
            parts=stored.schema.parts,
            usable=usable,
        )

    def label_errors(self) -> dict[str, dict[str, object]]:
        """How far the labels that are trained on are from the truth, as far as who made them measured it."""
        manifest = read_manifest(self.train)
        return {} if manifest is None else {level: dict(one) for level, one in manifest.label_errors.items()}

    def described(self) -> dict[str, UsedData]:
        """What took part, by its role: `train`, `validation`, and every test set under its own name."""
        return described({"train": self.train, "validation": self.validation, **self.tests})


def described(sets: Mapping[str, Path]) -> dict[str, UsedData]:
    """Where data sets lie, how many samples they hold, the hash of these, and where they come from.

    The hash is that of the manifest where one was written for as many samples as there are; else it is computed.
    """
    return {role: _described(StoredSamples.open(path)) for role, path in sets.items()}


def _described(stored: StoredSamples) -> UsedData:
    manifest = read_manifest(stored.directory)
    is_current = manifest is not None and manifest.count == len(stored)
    levels: dict[str, int] = {}
    for level in stored.levels:
        levels[level] = levels.get(level, 0) + 1
    kept = stored.metadata
    return UsedData(
        path=str(stored.directory.resolve()),
        samples=len(stored),
        grid=list(stored.schema.domain.shape),
        levels=levels,
        content_hash=manifest.content_hash if manifest is not None and is_current else stored.content_hash(),
        problem=dict(manifest.problem) if manifest is not None and manifest.problem is not None else None,
        imported_from=str(kept["imported_from"]) if "imported_from" in kept else None,
        format=str(kept["format"]) if "format" in kept else None,
    )


def require_same(before: Mapping[str, UsedData], now: Mapping[str, UsedData]) -> None:
    """Make sure that a training goes on with the data that it began with.

    Raises:
        InputError: a data set is another one now.
    """
    faults = [
        Fault(
            where=f"the data set {role}, {found.path}",
            value=f"of {found.samples} samples with the hash {found.content_hash[:16]}",
            expected=f"{before[role].samples} samples with the hash {before[role].content_hash[:16]}, which the run "
            "began with",
            advice="Put them back, or train anew.",
        )
        for role, found in now.items()
        if role in before and before[role].content_hash not in ("", found.content_hash)
    ]
    if faults:
        raise InputError(faults)


def locate_data(directory: Path) -> dict[str, Path]:
    """The data sets to train on by role: `train`, `validation`, and every test set under its own name.

    Without a validation set the first test set draws the curves; nothing is selected by them.

    Raises:
        InputError: there is no training set, more than one of a kind of which one is used, or nothing held out.
    """
    sets = data_sets(directory)
    trains, validations, tests = (
        {name: path for name, path in sets.items() if name.split("_")[0] == split}
        for split in ("train", "validation", "test")
    )
    if not trains or not tests:
        raise InputError.single(
            "--data",
            str(directory),
            "a folder with data sets named train and test (or train_16, test_16, ...)",
            f"Found: {', '.join(sets) or 'none'}. `headrace generate` and `headrace import` write such folders.",
        )
    name = _only(directory, trains, "train")
    resolution = name.removeprefix("train")
    own = f"validation{resolution}"
    if validations:
        validation = validations[own if own in validations else _only(directory, validations, "validation")]
    else:
        validation = next(iter(tests.values()))
        log.info(
            "no validation set in %s: the curves use %s, by which nothing is selected", directory, next(iter(tests))
        )
    return {"train": trains[name], "validation": validation, **tests}


def _only(directory: Path, found: Mapping[str, Path], split: str) -> str:
    """The only one of some data sets, or the one that is called as its split is.

    Raises:
        InputError: one cannot tell which is meant.
    """
    if split in found:
        return split
    if len(found) > 1:
        raise InputError.single(
            "--data",
            f"{directory}, which holds {' and '.join(found)}",
            f"one {split} set: nothing tells which of them is meant",
            f"Rename the one to use to {split}, or keep the others elsewhere.",
        )
    return next(iter(found))


def _whole(part: SampleSchema, train: Path, held_out: Path) -> SampleSchema:
    """What the trajectories look like whose parts are trained on: those that are held out.

    Raises:
        InputError: the held-out ones are others.
    """
    whole = StoredSamples.open(held_out).schema
    if whole.parts > 1 or whole.indivisible(len(part.times)) or whole.in_parts(len(part.times)) != part:
        raise InputError.single(
            str(held_out), f"samples {whole}", f"whole trajectories, of which {train} holds the parts: {part}"
        )
    return whole
