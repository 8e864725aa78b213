"""`headrace status`: what a run's folder tells while another process works on it."""

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headrace.pipelines.cli import main
from headrace.pipelines.recipe.config import load
from headrace.pipelines.report.status import status
from headrace.pipelines.run_dir import RunDir
from headrace.pipelines.running.session import Session
from headrace.platform.ledger.ledger import Ledger


def headrace(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run at work: some stored, some leased, one failed; metrics whose last line is being written."""
    session = Session(load("smoke", ["tracking.enabled=false"], "run"), "run", tmp_path / "run")
    with Ledger.create(session.run.ledger, {"train": 10, "validation": 2}) as ledger:
        lease = ledger.lease("solver-7", "train", 6, 60.0)
        assert lease is not None
        ledger.commit("train", "shard-0", lease.id, [0, 1, 1])
        ledger.fail("train", 2, "hard", "no convergence", 1.0, 1.0)
    session.record({"stream/samples_per_second": 0.0, "stream/pace": 12.5, "stream/fill": 0.25})
    session.record({"train/loss": 0.5, "validation/relative_l2": 0.3, "validation/relative_l2/hard": 0.4}, step=20)
    session.record({"train/loss": 0.25}, step=30)
    with session.run.metrics.open("a") as file:
        file.write('{"seconds": 1e9, "train/lo')
    return session.run.path


def test_status_as_json(run: Path) -> None:
    found = json.loads(headrace("status", run, "--json").stdout.splitlines()[-1])
    assert found["status"] == "running" and found["step"] == 30
    assert found["splits"]["train"] == {
        "planned": 10, "leased": 3, "stored": 2, "failed": 1, "duplicates": 1, "waiting": 4,
    }  # fmt: skip
    assert found["leases"] == {"solver-7": 3}
    assert found["failures"] == [{"split": "train", "index": 2, "reason": "no convergence"}]
    assert found["metrics"]["train/loss"] == 0.25 and found["metrics"]["stream/pace"] == 12.5
    assert found["validation"] == {"all": 0.3, "hard": 0.4}


def test_status_for_a_person(run: Path) -> None:
    words = " ".join(headrace("status", run).stdout.split())
    for part in (
        "running",
        "solver-7 3",
        "step 30",
        "samples / s over a minute 12.5",
        "all 0.3000, hard 0.4000",
        "no convergence",
    ):
        assert part in words, part


def test_a_run_whose_process_is_gone_is_said_to_be_killed(tmp_path: Path) -> None:
    session = Session(load("smoke", ["tracking.enabled=false"], "run"), "run", tmp_path / "run")
    session._lock.close()
    done = headrace("status", session.run.path, "--follow")
    words = " ".join(done.stdout.split())
    assert done.exit_code == 0 and "killed" in words and "headrace resume" in words


def test_following_ends_with_the_run(run: Path) -> None:
    summary = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**summary, "status": "failed", "reason": "the disk is full"}))
    done = headrace("status", run, "--follow")
    assert done.exit_code == 0 and "the disk is full" in done.stdout


def test_a_run_that_has_not_planned_yet_has_a_status(tmp_path: Path) -> None:
    Session(load("smoke", ["tracking.enabled=false"], "run"), "run", tmp_path / "run")
    assert headrace("status", tmp_path / "run").exit_code == 0
    assert headrace("status", tmp_path / "nowhere").exit_code == 2


def test_scale_leaves_a_note_for_the_process_that_works_on_the_run(run: Path) -> None:
    done = headrace("scale", run, "solvers=5", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["solvers"] == 5
    assert RunDir(run).read_scale() == 5
    RunDir(run).scale.write_text("{")
    assert RunDir(run).read_scale() is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("solvers=0", "scale is solvers=0; expected solvers=NUMBER, from 1"),
        ("workers=3", "scale is workers=3"),
        ("solvers=many", "expected solvers=NUMBER"),
    ],
)
def test_what_cannot_be_scaled_is_said_with_status_2(run: Path, change: str, words: str) -> None:
    done = headrace("scale", run, change)
    assert done.exit_code == 2 and words in " ".join(done.stderr.split())
    assert RunDir(run).read_scale() is None


def test_a_run_at_rest_or_without_solvers_is_not_scaled(tmp_path: Path) -> None:
    session = Session(load("smoke", ["tracking.enabled=false"], "run"), "run", tmp_path / "rests")
    session._lock.close()
    done = headrace("scale", tmp_path / "rests", "solvers=5")
    assert done.exit_code == 2 and "headrace resume" in " ".join(done.stderr.split())
    replay = load("smoke", ["tracking.enabled=false", "stream.mode=replay", "stream.recording=x"], "run")
    for name, config, command in (
        ("replays", replay, "run"),
        ("trains", load("smoke", ["tracking.enabled=false"], "train"), "train"),
    ):
        Session(config, command, tmp_path / name)
        done = headrace("scale", tmp_path / name, "solvers=5")
        assert done.exit_code == 2 and "expected a run in which solvers work" in " ".join(done.stderr.split())


def test_the_throughput_of_a_run_that_has_ended_is_that_of_its_work(tmp_path: Path) -> None:
    session = Session(load("smoke", ["tracking.enabled=false"], "run"), "run", tmp_path / "run")
    began = time.time()
    # Ten samples a second for ten seconds, then a long training in which nothing is solved.
    for second in range(0, 200, 2):
        stored = min(10 * second, 100)
        pace = 10.0 if second <= 10 else 0.0649
        session.record({"stream/stored": stored, "stream/pace": pace, "stream/solvers": 2.0}, at=began + second)
    session.record({"train/samples_per_second": 3.0, "train/wait_share": 0.0}, step=40)
    assert status(session.run)["metrics"]["stream/pace"] == 0.0649, "of a run at work, of the last minute"
    session.note(status="finished", training={"samples_per_second": 80.0, "wait_share": 0.25})
    session.write_summary()

    found = status(session.run)["metrics"]
    assert found["stream/mean_pace"] == pytest.approx(10.0)
    assert found.keys().isdisjoint({"stream/pace", "stream/solvers"})
    assert (found["train/samples_per_second"], found["train/wait_share"]) == (80.0, 0.25)
    assert "samples / s while they were solved 10" in " ".join(headrace("status", session.run.path).stdout.split())
