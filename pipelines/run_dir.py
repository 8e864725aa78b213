"""The folder of a run: where everything is, and how a run is found and written without losing another."""

import contextlib
import itertools
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headrace.pipelines.summary import RunSummary, read_summary
from headrace.platform.errors import Fault, InputError
from headrace.platform.files import Lock, is_locked, lock, usable_path, write_synced
from headrace.platform.yaml_text import read_yaml

RUNS = Path("runs")


@dataclass(frozen=True)
class RunDir:
    """Paths inside a run's folder."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The full recipe, every default written out."""
        return self.path / "recipe.yaml"

    @property
    def levels(self) -> list[str]:
        """The difficulty levels in the order of the recipe's mix; none where no recipe names them."""
        try:
            found = read_yaml(self.recipe.read_text(encoding="utf-8"), str(self.recipe))
        except (OSError, UnicodeDecodeError, InputError):
            return []
        for key in ("data", "mix"):
            found = found.get(key) if isinstance(found, dict) else None
        return list(found) if isinstance(found, dict) else []

    @property
    def summary(self) -> Path:
        """What the run came to."""
        return self.path / "run.json"

    @property
    def reserve(self) -> Path:
        """A file that is given up when the disk is full, so that the run can say so."""
        return self.path / ".reserve"

    @property
    def lock(self) -> Path:
        """A file that the process which works on the run holds locked."""
        return self.path / ".lock"

    def claim(self) -> Lock:
        """Become the process that works on the run, until the lock is closed or the process ends.

        Raises:
            InputError: another one does.
        """
        return lock(self.lock, "a run")

    @property
    def is_worked_on(self) -> bool:
        """Whether a living process works on the run."""
        return is_locked(self.lock)

    @property
    def metrics(self) -> Path:
        """Metrics over time, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def scale(self) -> Path:
        """What `headrace scale` asks of the process that works on the run."""
        return self.path / "scale.json"

    def read_scale(self) -> int | None:
        """How many solver actors are asked for; None when nobody asked, or in words that `headrace scale` has not."""
        try:
            return int(json.loads(self.scale.read_text(encoding="utf-8"))["solvers"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def read_metrics(self) -> list[dict[str, Any]]:
        """The metrics as of now; empty when there are none yet."""
        return read_metrics(self.metrics) if self.metrics.is_file() else []

    @property
    def last_seconds(self) -> float:
        """The time of the latest metrics [s]; 0 when there are none."""
        return max((row["seconds"] for row in self.read_metrics()), default=0.0)

    @property
    def ledger(self) -> Path:
        """Which samples are planned, leased, stored, failed."""
        return self.path / "ledger.sqlite"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint's model."""
        return self.checkpoints / "last.pt"

    @property
    def training(self) -> Path:
        """What training came to, written by rank 0."""
        return self.path / "training.json"

    @property
    def report(self) -> Path:
        """The page that tells of the run."""
        return self.path / "report.html"

    def data(self, split: str) -> Path:
        """The data set directory of a split."""
        return self.path / "data" / split

    @classmethod
    def unusable(cls, out: Path | None) -> list[Fault]:
        """What stands against making a run's folder at `out` (None: below `runs/`); makes nothing."""
        if out is None and RUNS.is_dir() and any(RUNS.iterdir()):
            out = RUNS / "next"
        try:
            usable_path(out or RUNS, "--out", "a new or empty folder that can be written", new="folder")
        except InputError as error:
            return list(error.faults)
        return []

    @classmethod
    def create(cls, name: str, out: Path | None) -> "RunDir":
        """A new folder: `out`, or `runs/NAME-TIME` with a number behind it if that is taken."""
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            return cls(out.resolve())
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        for number in itertools.count(1):
            path = RUNS / (f"{name}-{stamp}" if number == 1 else f"{name}-{stamp}-{number}")
            with contextlib.suppress(FileExistsError):
                path.mkdir(parents=True)
                break
        return cls(path.resolve())

    @classmethod
    def open(cls, path: Path, *, writes: bool = False) -> "RunDir":
        """The folder of an earlier run.

        Args:
            path: the folder.
            writes: whether something shall be written into it.

        Raises:
            InputError: there is no run in it, or it cannot be written.
        """
        expected = "a folder that `headrace run` or `headrace train` made, with a run.json in it"
        run = cls(usable_path(path, "RUN", expected, new="files inside" if writes else None).resolve())
        if not run.summary.is_file():
            raise InputError.single(str(path), "not a run", expected)
        return run

    def read_summary(self) -> RunSummary:
        """The summary.

        Raises:
            InputError: it is not the JSON of a run, or a newer version of Headrace wrote it.
        """
        try:
            return read_summary(self.summary)
        except (OSError, ValueError) as error:
            raise InputError.single(str(self.summary), "unreadable", "the JSON of a run", str(error)) from error


def data_sets(directory: Path, where: str = "--data") -> dict[str, Path]:
    """The data sets in a folder by name; a run's folder, or one that holds data sets, or a data set itself.

    Args:
        directory: the folder; none are in one that is not there.
        where: what it was given as.

    Raises:
        InputError: nothing can be at such a path.
    """
    usable_path(directory, where, "a run's folder, or one with data sets in it")
    base = directory / "data" if (directory / "data").is_dir() else directory
    if any(base.glob("shard-*.zarr")):
        return {base.name: base}
    return {path.name: path for path in sorted(base.glob("*")) if any(path.glob("shard-*.zarr"))}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part; see `finite`."""
    write_synced(path, json.dumps(finite(value), indent=2, default=str, allow_nan=False))


def finite(value: Any) -> Any:
    """A value as JSON can say it: a number that is not finite is null. Python alone would write and read Infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, list | tuple) else value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, each with `seconds` since the start of the run.

    A line that is no JSON object with a time is left out: a process writes it, or was killed while it did. So is one
    of a step that was done again later, after a resume or by a new group of ranks: the weights come from the last time.

    Raises:
        FileNotFoundError: there is no such file.
    """
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            row = json.loads(line)
            rows.append({**row, "seconds": float(row["seconds"])})
    return _last_of_each_step(rows)


def _last_of_each_step(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the steps from which training went back: by what they are of, `train` or `validation`."""
    kept: list[dict[str, Any]] = []
    least: dict[str, float] = {}
    for row in reversed(rows):
        step = row.get("step")
        if isinstance(step, int | float):
            kind = next((name.partition("/")[0] for name in row if name not in ("seconds", "step")), "")
            if step >= least.get(kind, math.inf):
                continue
            least[kind] = step
        kept.append(row)
    return kept[::-1]


def _end_line(path: Path) -> None:
    """Cut off the half of a line that a killed process left."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


class MetricsLog:
    """Appends metrics to `metrics.jsonl`."""

    def __init__(self, path: Path, started: float) -> None:
        """Open the file; `started` is when the run began, in seconds since 1970."""
        _end_line(path)
        self._file = path.open("a", encoding="utf-8")
        self._started = started

    def write(self, metrics: Mapping[str, float], step: int | None = None, at: float | None = None) -> float:
        """Write one line; returns its time since the start of the run [s]."""
        seconds = (time.time() if at is None else at) - self._started
        self._file.write(json.dumps(finite({"seconds": round(seconds, 3), "step": step, **metrics})) + "\n")
        self._file.flush()
        return seconds

    def close(self) -> None:
        """Close the file."""
        self._file.close()
