"""`headrace resume`: after SIGKILL of the driver, and when there is nothing to go on with."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from click.testing import CliRunner, Result

from headrace.pipelines.cli import main
from headrace.pipelines.recipe.config import load
from headrace.pipelines.run_dir import MetricsLog, RunDir
from headrace.pipelines.running.session import Session
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.joint_checkpoint import newest
from headrace.platform.ledger.ledger import Ledger


def headrace(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def wait_for(what: str, seconds: float, process: subprocess.Popen[str], said: Path) -> None:
    """Wait until a step of training is in the metrics and a whole checkpoint on the disk."""
    deadline = time.monotonic() + seconds
    log = Path("run/metrics.jsonl")
    while not (log.is_file() and what in log.read_text() and newest(Path("run/checkpoints")) is not None):
        assert process.poll() is None and time.monotonic() < deadline, said.read_text()
        time.sleep(0.2)


@pytest.mark.timeout(400, func_only=True)
def test_a_run_whose_driver_was_killed_goes_on_and_loses_nothing(in_folder: Path, finished: Any) -> None:
    program = str(Path(sys.executable).with_name("headrace"))
    said = in_folder / "said.txt"
    with said.open("w") as log:
        process = subprocess.Popen(
            [program, "run", *finished.arguments, "resources.solvers.actors=1", "--out", "run"],
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
    wait_for("train/loss", 200, process, said)
    children = psutil.Process(process.pid).children(recursive=True)
    name_of = {child: child.name() for child in children}
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # Ray's own agents notice a minute later; whoever could still write must be gone.
    writers = [child for child in children if "Agent" not in name_of[child]]
    _, alive = psutil.wait_procs(writers, timeout=30)
    assert not alive
    before = newest(Path("run/checkpoints"))
    assert before is not None and 0 < before.step < 600
    assert json.loads(Path("run/run.json").read_text())["status"] == "running"
    lines = len(Path("run/metrics.jsonl").read_text().splitlines())

    done = headrace("resume", "run", "tracking.enabled=false", "resources.solvers.actors=2", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["status"] == "finished" and result["errors"]["all"]["relative_l2"]["mean"] < 1
    assert result["training"]["steps"] == 600
    with Ledger.open("run/ledger.sqlite", read_only=True) as ledger:
        for split in ledger.splits:
            counts, stored = ledger.counts(split), StoredSamples.open(Path("run/data") / split)
            assert counts.stored + counts.failed + counts.waiting + counts.leased == counts.planned
            assert stored.indices.tolist() == sorted(np.concatenate([*ledger.committed(split).values()]).tolist())
    metrics = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    later = [line["step"] for line in metrics[lines:] if "train/loss" in line]
    assert before.step < min(later) <= before.step + 20 and max(later) == 600
    # Killed in the middle, with another number of solvers, and the same weights as if it had never been stopped.
    whole, parts = (
        torch.load(path / "checkpoints/last.pt", weights_only=True)["weights"] for path in (finished.path, Path("run"))
    )
    assert whole.keys() == parts.keys() and len(whole) > 5
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    # The clock of the run goes on too.
    assert metrics[lines]["seconds"] >= metrics[lines - 2]["seconds"]

    done = headrace("resume", "run", "--json")
    assert done.exit_code == 0 and "run is finished: nothing to do" in done.stdout


def begun(folder: Path, command: str = "generate") -> Path:
    """A run that was cut off before it did anything."""
    session = Session(load("smoke", ["tracking.enabled=false"], "generate"), command, folder / "run")
    session._lock.close()
    return session.run.path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "with a run.json in it"),
        (
            ["run", "data.samples=3"],
            "data.samples=3 is not to be changed; expected keys of resources and tracking only",
        ),
        (["run", "tracking.urj=3"], 'Did you mean "uri"?'),
        (["damaged"], "the JSON of a run"),
        (["other"], "expected run, generate or train"),
    ],
)
def test_what_cannot_be_resumed_is_said_with_status_2(in_folder: Path, arguments: list[str], words: str) -> None:
    begun(in_folder)
    for name, text in (("damaged", "{"), ("other", '{"command": "evaluate"}')):
        (in_folder / name).mkdir()
        (in_folder / name / "run.json").write_text(text)
    done = headrace("resume", *arguments)
    assert done.exit_code == 2, done.output
    assert words in " ".join(done.stderr.split())


def test_a_run_that_another_process_works_on_is_left_alone(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.platform.ledger.file._LOCK_SECONDS", 0.2)
    run = begun(in_folder)
    with Ledger.create(run / "ledger.sqlite", {"train": 1, "validation": 1, "test": 1}):
        done = headrace("resume", "run")
    said = " ".join(done.stderr.split())
    assert done.exit_code == 2 and f"in the hands of process {os.getpid()} on {socket.gethostname()}, since" in said


@pytest.mark.parametrize("command", ["generate", "train"])
def test_a_run_whose_driver_lives_is_left_alone(in_folder: Path, command: str) -> None:
    lock = RunDir.open(begun(in_folder, command)).claim()
    done = headrace("resume", "run")
    assert done.exit_code == 2 and "expected a run that nobody works on" in " ".join(done.stderr.split())
    lock.close()


def test_metrics_go_on_behind_the_last_whole_line(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    path = run.metrics
    assert run.last_seconds == 0.0
    log = MetricsLog(path, time.time() - 5.0)
    log.write({"a": 1.0})
    log.close()
    with path.open("a") as file:
        file.write('{"seconds": 99')
    assert 5.0 <= run.last_seconds < 60.0
    log = MetricsLog(path, time.time() - 7.0)
    log.write({"a": 2.0})
    log.close()
    assert [json.loads(line)["a"] for line in path.read_text().splitlines()] == [1.0, 2.0]
