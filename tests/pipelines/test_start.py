"""How a command starts: what it need not import, it does not; what it says first; and how Ctrl-C ends it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

# What takes a tenth of a second or more to import, and what brings such things along.
HEAVY = (
    "torch",
    "pytorch_lightning",
    "ray",
    "mlflow",
    "zarr",
    "numcodecs",
    "fsspec",
    "requests",
    "scipy",
    "numba",
    "h5py",
    "matplotlib",
    "pyamg",
    "dolfinx",
)

LOOK = f"""
import json, sys
from headrace.pipelines.cli import main
try:
    main(sys.argv[1:], prog_name="headrace")
finally:
    print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)
"""


@pytest.mark.parametrize("command", [["check", "smoke"], ["check", "darcy_fno"], ["list"], ["schema"], ["--help"]])
def test_commands_that_only_look_import_nothing_heavy(command: list[str]) -> None:
    # In a process of its own: this one has imported most of them.
    done = subprocess.run([sys.executable, "-c", LOOK, *command], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert json.loads(done.stderr.splitlines()[-1]) == []


PROGRAM = "from headrace.pipelines.entry import main; main()"


def started(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        start_new_session=True,
        # Who runs the tests in the background has them ignore Ctrl-C, and all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def interrupted(process: subprocess.Popen[str]) -> str:
    """Press Ctrl-C; what the process says on its way out."""
    children = psutil.Process(process.pid).children(recursive=True)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    try:
        _, words = process.communicate(timeout=60)
    finally:
        process.kill()
    assert time.monotonic() - began < 10.0
    assert process.returncode == 130
    assert "Traceback" not in words
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    return words


class TestFirstWords:
    @pytest.mark.parametrize("command", [["run", "smoke"], ["generate", "smoke", "--out", "new"]])
    def test_they_come_before_anything_heavy_is_imported(self, command: list[str], tmp_path: Path) -> None:
        process = started(*command, folder=tmp_path)
        assert process.stdout is not None
        assert process.stdout.readline() == "reading the recipe\n"
        assert psutil.Process(process.pid).cpu_times().user < 1.0
        interrupted(process)

    def test_help_is_help_alone(self, tmp_path: Path) -> None:
        out, _ = started("run", "--help", folder=tmp_path).communicate(timeout=60)
        assert out.startswith("Usage:")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0])
def test_ctrl_c_ends_a_run_whenever_it_comes(seconds: float, tmp_path: Path) -> None:
    """On a cluster of its own: the whole group of processes gets the signal, as from a terminal."""
    process = started("run", "smoke", "training.steps=100000", "--out", "run", folder=tmp_path)
    time.sleep(seconds)
    interrupted(process)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["starting the trainer", "the trainer imports torch", "step 10"])
def test_ctrl_c_ends_a_training_on_stored_data(phase: str, finished: Any, tmp_path: Path) -> None:
    arguments = ("train", "smoke", "training.steps=100000", "--data", str(finished.path), "--out", "run")
    process = started(*arguments, folder=tmp_path)
    assert process.stdout is not None
    while phase not in process.stdout.readline():
        assert process.poll() is None
    words = interrupted(process)
    assert "interrupted; what was stored is safe" in words
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"
