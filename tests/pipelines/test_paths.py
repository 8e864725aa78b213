"""Paths that nothing can be at: one sentence and exit status 2, before anything starts, whatever the command."""

import errno
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from headrace.pipelines.cli import main
from headrace.pipelines.run_dir import RunDir
from headrace.platform.errors import InputError
from headrace.platform.files import usable_path

LONG = "n" * 300
BAD = {"long": LONG, "long below": f"folder/{LONG}/x", "file": "file/x", "proc": "/proc/x/y"}
# What each command says of where a path was given, with PATH for the path.
READS = {
    "status": ["status", "PATH"],
    "report": ["report", "PATH"],
    "evaluate": ["evaluate", "PATH"],
    "evaluate --data": ["evaluate", "run", "--data", "PATH"],
    "predict": ["predict", "PATH", "x.npy", "--out", "y.npy"],
    "predict INPUT": ["predict", "run", "PATH", "--out", "y.npy"],
    "resume": ["resume", "PATH"],
    "scale": ["scale", "PATH", "solvers=2"],
    "dashboard": ["dashboard", "PATH"],
    "train --data": ["train", "smoke", "--data", "PATH"],
    "check --data": ["check", "smoke", "--data", "PATH"],
    "export": ["export", "PATH", "--format", "hdf5", "--out", "new"],
    "export of a model": ["export", "PATH", "--format", "onnx", "--out", "new"],
    "import --layout": ["import", "arrays.h5", "--layout", "PATH", "--out", "new"],
    "import": ["import", "PATH", "--format", "hdf5", "--out", "new"],
    "check": ["check", "PATH"],
    "run": ["run", "PATH"],
    "recording": ["run", "smoke", "stream.recording=PATH", "stream.mode=replay", "tracking.enabled=false"],
}
WRITES = {
    "run --out": ["run", "smoke", "tracking.enabled=false", "--out", "PATH"],
    "generate --out": ["generate", "smoke", "tracking.enabled=false", "--out", "PATH"],
    "train --out": ["train", "smoke", "tracking.enabled=false", "--data", "data", "--out", "PATH"],
    "export --out": ["export", "data", "--format", "hdf5", "--out", "PATH"],
    "export of a model --out": ["export", "run", "--format", "onnx", "--out", "PATH"],
    "import --out": ["import", "arrays.h5", "--out", "PATH"],
    "import --as --out": ["import", "arrays.h5", "--as", "train", "--out", "PATH"],
    "predict --out": ["predict", "run", "x.npy", "--out", "PATH.npy"],
}


@pytest.fixture
def place(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the commands need to get as far as the path; starting Ray is an error."""
    import h5py
    import ray

    from headrace.platform.dataset.writer import write_dataset
    from headrace.platform.fields import FieldSpec, Grid, SampleSchema
    from headrace.platform.sample import SampleBatch

    for name in ("folder", "run", "data"):
        (in_folder / name).mkdir()
    (in_folder / "file").write_text("a file")
    (in_folder / "run" / "run.json").write_text("{}")
    np.save("x.npy", np.zeros((1, 1, 17, 17)))
    fields = np.random.default_rng(0).random((16, 1, 17, 17)).astype(np.float32)
    with h5py.File("arrays.h5", "w") as file:
        file["x"] = file["y"] = fields
    grid = Grid(shape=(17, 17), extent=(1.0, 1.0), periodic=(False, False))
    one = (FieldSpec(name="u"),)
    batch = SampleBatch(
        indices=np.arange(16), inputs=fields, outputs=fields[:, None], parameters=np.zeros((16, 0), np.float32)
    )
    for split in ("train", "test"):
        write_dataset(Path("data") / split, SampleSchema(inputs=one, outputs=one, domain=grid), [batch], {})

    def start(*_: Any, **__: Any) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(ray, "init", start)
    return in_folder


def headrace(arguments: list[str], path: str) -> Result:
    return CliRunner().invoke(main, [word.replace("PATH", path) for word in arguments], catch_exceptions=False)


@pytest.mark.parametrize("command", [*READS, *WRITES])
def test_a_path_that_cannot_be_is_answered_in_a_sentence(place: Path, command: str) -> None:
    for kind, path in BAD.items():
        before = sorted(place.rglob("*"))
        done = headrace((READS | WRITES)[command], path)
        assert done.exit_code == 2, (kind, done.output)
        [line] = [
            said for said in done.stderr.splitlines() if said != "train does not use the recipe's data, solver, stream"
        ]
        assert line.startswith("error ") and "Traceback" not in line and "[Errno" not in line, line
        if kind == "long":
            assert "File name too long." in line
        if kind == "file" and "predict" not in command:
            assert f"{place / 'file'} is a file, where a folder should be." in line
        if kind == "proc" and command in WRITES:
            assert "/proc cannot be written" in line or "/proc/x is not there" in line
        assert sorted(found for found in place.rglob("*") if found.name != ".lock") == before, (
            "something is left behind"
        )


def test_a_file_where_a_folder_should_be_is_said(place: Path) -> None:
    done = headrace(["run", "smoke", "--out", "PATH"], "file")
    assert done.exit_code == 2 and "a new or empty folder that can be written. Nothing is overwritten." in done.stderr
    done = headrace(["status", "PATH"], "file")
    assert done.exit_code == 2 and "file is not a run" in done.stderr


def test_what_can_be_made_is_let_through_and_not_made(tmp_path: Path) -> None:
    new = tmp_path / "a" / "b" / "c"
    assert usable_path(new, "--out", "x", new="folder") == new
    assert usable_path(tmp_path, "--out", "x", new="folder") == tmp_path
    assert usable_path(tmp_path / "x.npy", "--out", "x", new="file") == tmp_path / "x.npy"
    assert usable_path(new, "RUN", "x") == new, "who reads it says what is missing"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "new", "words"),
    [
        ("none/x.npy", "file", "none is not there"),
        ("link", "folder", "It is a link to .*nowhere, where nothing is"),
        ("a\0b", None, "It is no path: embedded null byte"),
        ("d/" * 2100 + "x", "folder", "File name too long"),
        ("loop", None, "Too many levels of symbolic links"),
    ],
)
def test_why_a_path_cannot_be_used(tmp_path: Path, path: str, new: Any, words: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match=words):
        usable_path(tmp_path / path, "--out", "a path", new=new)


def test_a_run_on_a_disk_that_cannot_be_written_is_not_gone_on_with(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkdtemp", fail)
    assert RunDir.open(place / "run").path == place / "run"
    for command in (["report", "PATH"], ["evaluate", "PATH"], ["resume", "PATH"], ["scale", "PATH", "solvers=1"]):
        done = headrace(command, "run")
        assert done.exit_code == 2 and "run cannot be written: Read-only file system." in done.stderr, done.output


def test_paths_in_a_recipe_are_looked_at_the_same_way(place: Path) -> None:
    problem = {
        "kind": "external",
        "command": [f"/{LONG}"],
        "outputs": {"u": {}},
        "parameters": {"a": {"low": 0, "high": 1}},
        "grid": {"shape": [6]},
    }
    for changes, words in (
        ({}, "is not there"),
        ({"command": ["true"], "scratch": f"/{LONG}"}, "The folder for scratch"),
    ):
        recipe = {"data": {"problem": {**problem, **changes}, "samples": 9}}
        Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
        done = CliRunner().invoke(main, ["generate", "recipe.yaml", "--out", "new"], catch_exceptions=False)
        assert done.exit_code == 2 and words in done.stderr, done.output
