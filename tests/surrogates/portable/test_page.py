"""docs/exported-models.md: its commands and programs do as they stand there."""

import contextlib
import io
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from headrace.pipelines.cli import main
from headrace.surrogates.checkpoint import Predictor

PAGE = Path(__file__).resolve().parents[3] / "docs" / "exported-models.md"

pytestmark = pytest.mark.timeout(400)  # of waiting for a processor


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


COMMANDS = [line for block in blocks("shell") for line in block.splitlines()]


@pytest.fixture(scope="module")
def folder(compiled: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's reader stands: a run below, and the compiled model, which the page's command would make anew."""
    folder = tmp_path_factory.mktemp("page")
    checkpoints = folder / "runs" / "burgers" / "checkpoints"
    checkpoints.mkdir(parents=True)
    shutil.copy(compiled.checkpoint, checkpoints / "last.pt")
    (checkpoints.parent / "run.json").write_text("{}")
    shutil.copytree(compiled.folder, folder / "burgers-aoti")
    return folder


def test_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each export, and the program that calls it."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(folder)
    exports = [line for line in COMMANDS if line.startswith("headrace export")]
    assert [line.split("--format ")[1].split()[0] for line in exports] == [
        "onnx",
        "torch-export",
        "torchscript",
        "aoti",
    ]
    for line in exports[:3]:
        done = CliRunner().invoke(main, shlex.split(line)[1:], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    programs = blocks("python")
    assert len(programs) == 3
    for program in programs:
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            exec(program, {})
        assert float(told.getvalue()) <= 1e-6


@pytest.mark.parametrize(
    ("compiler", "language", "file"), [("gcc", "c", "predict.c"), ("gfortran", "fortran", "predict.f90")]
)
def test_programs(compiler: str, language: str, file: str, compiled: Any, folder: Path) -> None:
    if missing := [name for name in ("make", "g++", compiler) if shutil.which(name) is None]:
        pytest.skip(f"no {' and no '.join(missing)}")
    import torch

    library = ["make", "-C", "burgers-aoti", f"TORCH={torch.__path__[0]}", "CXXFLAGS=-O0", "libheadrace_model.so"]
    subprocess.run(library, cwd=folder, check=True, capture_output=True)
    (program,) = blocks(language)
    (folder / file).write_text(program)
    first = next(place for place, line in enumerate(COMMANDS) if line.startswith(f"{compiler} "))
    told = ""
    for line in COMMANDS[first : first + 2]:
        done = subprocess.run(shlex.split(line), cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told = done.stdout
    said = Predictor.from_checkpoint(compiled.checkpoint).predict(np.ones((2, 2, 8, 7)), np.ones((2, 2)))
    np.testing.assert_allclose([float(word) for word in told.split()], [said.flat[0], said.flat[-1]], rtol=2e-6)
