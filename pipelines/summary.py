"""RunSummary: what a run came to, as `run.json` keeps it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headrace.platform.errors import InputError

FORMAT = 2
"""Of `run.json`. A file without a number is of format 1, which has the same keys."""


class _Section(BaseModel):
    """Part of a summary. What another version of Headrace added is kept as it is; what it lacks has its default."""

    model_config = ConfigDict(frozen=True, extra="allow")

    def to_json(self) -> dict[str, object]:
        """As plain values: what was said, and no defaults for what was not."""
        return self.model_dump(exclude_unset=True)


class SampleCounts(_Section):
    """How many samples are planned, are stored, failed, and came twice."""

    planned: int = 0
    stored: int = 0
    failed: int = 0
    duplicates: int = 0


class FailedSample(_Section):
    """A sample that failed: which one, by what seed, and why."""

    split: str = ""
    index: int = -1
    seed: int | None = None
    level: str = ""
    reason: str = ""


class LevelCost(_Section):
    """What the solvers spent on the samples of a difficulty level, failed ones included; how many by each method.

    `whole_samples` counts trajectories where samples are parts of them; `measured_for` stands for all that decides what
    a sample costs (see `headrace.pipelines.running.estimate`).
    """

    samples: int = 0
    whole_samples: float = 0.0
    failed: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    iterations: int = 0
    methods: dict[str, int] = {}
    measured_for: str = ""


class TrainingOutcome(_Section):
    """What training came to (see `headrace.surrogates.fit.FitResult`), and on how many ranks."""

    steps: int = 0
    planned_steps: int = 0
    zero_targets: int = 0
    ranks: int = 1
    seconds: float = 0.0
    samples_seen: int = 0
    parameters: int = 0
    stopped: str = ""


class UsedData(_Section):
    """A data set that took part without having been made by the run.

    Attributes:
        path: where it lay.
        samples: how many it held.
        grid: the number of points along each axis; of a mesh, of its points.
        levels: number of samples of each difficulty level.
        content_hash: of its samples, see `StoredSamples.content_hash`.
        problem: the spec of the problem that made it; None where that is not known.
        imported_from: the file that it was made from, where it came from another program.
        format: of that file.
    """

    path: str = ""
    samples: int = 0
    grid: list[int] = []
    levels: dict[str, int] = {}
    content_hash: str = ""
    problem: dict[str, object] | None = None
    imported_from: str | None = None
    format: str | None = None


class TrackedAs(_Section):
    """The run of the tracking server."""

    uri: str | None = None
    run_id: str | None = None
    url: str | None = None


class RunSummary(_Section):
    """What a run is, and what it came to.

    Attributes:
        format: of the file; see `FORMAT`.
        name: of the recipe.
        command: run, generate or train.
        run_id: the name of the run's folder.
        status: running, finished, failed or interrupted.
        reason: why it failed.
        started: when, in ISO 8601.
        resumed: when it was gone on with.
        seconds: since it started, at the last writing [s].
        phases: wall time by phase [s].
        samples: of all splits together.
        splits: the same for each split.
        failures: the first of the samples that failed.
        cost: what the solvers spent, by level.
        solving: how methods were chosen, and what second tries there were.
        scouts: training samples that came first, from all over the planned order; see `headrace.platform.scouts`.
        numerics: the grids and steps that were chosen.
        label_errors: the discretisation error of each level's samples, as `headrace.solvers.label_error.LabelError` has
            it, and what it was measured for.
        training: what training came to.
        errors: held-out errors by level, `all` among them; null for one that is not finite.
        notes: what to know before relying on these numbers.
        sample_schema: what a sample looks like; `schema` in the file.
        data_folder: where the data come from that were trained on.
        data_sets: what they are, by their role: `train`, `validation`, and each test set by its name.
        recording: the run whose stream was used again.
        tracking: the run of the tracking server.
        versions: of the libraries.
        plug_ins: the packages that kinds of the recipe come from, each with its version and those kinds.
        git: the commit, and whether there were changes beside it.
        machine: what it ran on.
    """

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    format: int = 1
    name: str = ""
    command: str = ""
    run_id: str = ""
    status: str = ""
    reason: str | None = None
    started: str = ""
    resumed: list[str] = []
    seconds: float = 0.0
    phases: dict[str, float] = {}
    samples: SampleCounts = SampleCounts()
    splits: dict[str, SampleCounts] = {}
    failures: list[FailedSample] = []
    cost: dict[str, LevelCost] = {}
    solving: dict[str, object] = {}
    scouts: int = 0
    numerics: list[dict[str, object]] = []
    label_errors: dict[str, dict[str, object]] = {}
    training: TrainingOutcome | None = None
    errors: dict[str, dict[str, object]] = {}
    notes: list[str] = []
    sample_schema: dict[str, object] | None = Field(default=None, alias="schema")
    data_folder: str | None = None
    data_sets: dict[str, UsedData] = {}
    recording: str | None = None
    tracking: TrackedAs = TrackedAs()
    versions: dict[str, object] = {}
    plug_ins: list[str] = []
    git: dict[str, object] | None = None
    machine: dict[str, object] = {}

    def to_json(self) -> dict[str, object]:
        """As `run.json` says it."""
        return self.model_dump(exclude_unset=True, by_alias=True)

    def changed(self, **changes: object) -> Self:
        """The summary with other values under some of its keys."""
        return type(self).model_validate(self.to_json() | changes)


def as_summary(found: object, place: Path) -> RunSummary:
    """A summary from the JSON of a file.

    Raises:
        InputError: a newer version of Headrace wrote it.
        ValueError: it is not the JSON of a run.
    """
    if not isinstance(found, Mapping):
        raise ValueError(f"a {type(found).__name__}, and not the mapping of a run")
    version = found.get("format", 1)
    if isinstance(version, int) and version > FORMAT:
        raise InputError.single(
            str(place), f"of format {version}", f"format {FORMAT} at most", "A newer Headrace wrote it: install that."
        )
    try:
        return RunSummary.model_validate(found)
    except ValidationError as error:
        [first, *_] = error.errors()
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def read_summary(path: Path) -> RunSummary:
    """The summary of a file.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: a newer version of Headrace wrote it.
        ValueError: it is not the JSON of a run.
    """
    return as_summary(json.loads(path.read_text(encoding="utf-8")), path)
