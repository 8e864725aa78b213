"""Manifest: which files belong together to one joint checkpoint, written last, so that a torn one is never loaded."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headrace.platform.files import replacing, write_synced

log = logging.getLogger(__name__)

FORMAT = 1
_ENDING = ".manifest.json"


@dataclass(frozen=True, kw_only=True)
class JointCheckpoint:
    """A checkpoint whose files are all there and whole.

    Attributes:
        folder: where it lies.
        step: finished optimiser steps.
        files: the names of its files.
        ledger_version: the changes that the ledger had seen by then; 0 where there was none.
    """

    folder: Path
    step: int
    files: tuple[str, ...]
    ledger_version: int

    @property
    def model(self) -> Path:
        """Weights, optimiser, schedule and normalisation."""
        return self.folder / f"{stem(self.step)}.pt"

    def reservoir(self, shard: int) -> Path | None:
        """What the reservoir of a shard held and had served; None when there was none."""
        name = reservoir_name(self.step, shard)
        return self.folder / name if name in self.files else None


def stem(step: int) -> str:
    """How the names of a checkpoint's files begin."""
    return f"step-{step:06d}"


def reservoir_name(step: int, shard: int) -> str:
    """The file of a shard's reservoir."""
    return f"{stem(step)}.reservoir-{shard}.npz"


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote; nothing is unpickled.

    Raises:
        ValueError: it holds objects.
    """
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def seal(folder: Path, step: int, facts: Mapping[str, int]) -> None:
    """Declare the files of a step that lie in a folder, all of them synced, to be one checkpoint; durable on return.

    Args:
        folder: where they lie.
        step: finished optimiser steps.
        facts: what else belongs to the checkpoint: `ledger_version`.
    """
    files = {path.name: _digest(path) for path in _files(folder, step)}
    text = json.dumps({"format": FORMAT, "step": step, "facts": facts, "files": files}, indent=1)
    write_synced(folder / f"{stem(step)}{_ENDING}", text + "\n")


def newest(folder: Path) -> JointCheckpoint | None:
    """The newest whole checkpoint; a damaged one is passed over with a warning. None when there is none."""
    for path in sorted(folder.glob(f"step-*{_ENDING}"), key=_step, reverse=True):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            step, files = int(found["step"]), dict(found["files"])
            version = int(found.get("facts", {}).get("ledger_version", 0))
            if found["format"] != FORMAT:
                raise ValueError(f"format {found['format']}, this program reads {FORMAT}")
            for name, digest in files.items():
                # A manifest names its neighbours, and nothing elsewhere.
                if Path(name).name != name or _digest(folder / name) != digest:
                    raise ValueError(f"{name} is not the file that was written")
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the checkpoint %s cannot be used (%s); trying the one before it", path, error)
            continue
        return JointCheckpoint(folder=folder, step=step, files=tuple(files), ledger_version=version)
    return None


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest checkpoints, each one's manifest first; and what belongs to no manifest any more."""
    steps = sorted({_step(path) for path in folder.glob("step-*.*")})
    for step in steps[:-keep]:
        (folder / f"{stem(step)}{_ENDING}").unlink(missing_ok=True)
        for path in _files(folder, step):
            path.unlink(missing_ok=True)
    for draft in folder.glob(".step-*"):  # of a process that was killed
        draft.unlink(missing_ok=True)


def _step(path: Path) -> int:
    digits = path.name.removeprefix("step-").partition(".")[0]
    return int(digits) if digits.isdigit() else -1


def _files(folder: Path, step: int) -> Iterable[Path]:
    return sorted(path for path in folder.glob(f"{stem(step)}.*") if not path.name.endswith(_ENDING))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
