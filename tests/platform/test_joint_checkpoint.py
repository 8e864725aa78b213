"""Joint checkpoints: whole or passed over."""

import json
from pathlib import Path

import numpy as np
import pytest

from headrace.platform.joint_checkpoint import newest, prune, reservoir_name, seal, stem, write_arrays


def write(folder: Path, step: int, *, sealed: bool = True) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{stem(step)}.pt").write_bytes(b"weights" * step)
    write_arrays(folder / reservoir_name(step, 0), {"indices": np.arange(step)})
    if sealed:
        seal(folder, step, {"ledger_version": 7})


def test_the_newest_sealed_checkpoint_is_found_with_its_files(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    write(tmp_path, 9)
    write(tmp_path, 1_000_000)  # seven digits: the number counts, not the name's order
    found = newest(tmp_path)
    assert found is not None and found.step == 1_000_000
    assert found.model.read_bytes() == b"weights" * 1_000_000
    path = found.reservoir(0)
    assert path is not None and len(np.load(path)["indices"]) == 1_000_000
    assert found.reservoir(1) is None and found.ledger_version == 7


def test_one_that_was_never_sealed_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2, sealed=False)
    found = newest(tmp_path)
    assert found is not None and found.step == 1


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "manifest", "escape", "future"])
def test_a_damaged_one_is_passed_over_with_a_warning(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    model, manifest = tmp_path / f"{stem(2)}.pt", tmp_path / f"{stem(2)}.manifest.json"
    if harm == "flip":
        model.write_bytes(b"Weights" * 2)
    elif harm == "cut":
        model.write_bytes(b"weights")
    elif harm == "remove":
        (tmp_path / reservoir_name(2, 0)).unlink()
    elif harm == "manifest":
        manifest.write_text(manifest.read_text()[:40])
    else:
        content = json.loads(manifest.read_text())
        if harm == "future":
            content["format"] = 99
        else:
            (tmp_path.parent / "elsewhere").write_bytes(b"")
            content["files"] = {"../elsewhere": ""}
        manifest.write_text(json.dumps(content))
    found = newest(tmp_path)
    assert found is not None and found.step == 1
    assert "cannot be used" in caplog.text and manifest.name in caplog.text


def test_pruning_keeps_the_newest_and_leaves_other_files(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        write(tmp_path, step)
    (tmp_path / "last.pt").write_bytes(b"")
    (tmp_path / ".step-000004.pt.77").write_bytes(b"half")
    prune(tmp_path, 2)
    kept = sorted(path.name for path in tmp_path.iterdir())
    endings = ("manifest.json", "pt", "reservoir-0.npz")
    assert kept == ["last.pt", *(f"{stem(step)}.{ending}" for step in (3, 4) for ending in endings)]
