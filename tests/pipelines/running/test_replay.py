"""`stream.mode: replay` and `stream.recording`: streams of earlier runs, used again or gone on with."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from headrace.pipelines.cli import main
from headrace.pipelines.run_dir import RunDir
from headrace.pipelines.running.recording import Recording
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.ledger.ledger import Ledger
from headrace.platform.sample import Request


def headrace(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def recorded(finished: Any) -> Path:
    """The folder of a run whose stream is used again."""
    path: Path = finished.path
    return path


def test_what_the_sampler_of_a_recording_decided_is_taken_over(tmp_path: Path) -> None:
    recorded, run = RunDir(tmp_path / "recorded"), RunDir(tmp_path / "run")
    decided = {index: Request(index=index, level="rough", parameters={"k": 0.5}) for index in (2, 0, 7)}
    with Ledger.create(recorded.ledger, {"train": 8, "test": 2}) as ledger:
        ledger.decide("train", list(decided.values()))
    Ledger.create(run.ledger, {"train": 6, "test": 2}).close()
    Recording(path=recorded.path, sets={}, planned={}).copy_decisions(run)
    with Ledger.open(run.ledger, read_only=True) as ledger:
        assert ledger.decided("train") == {index: decided[index] for index in (0, 2)}, "7 is not planned here"
        assert ledger.decided("test") == {}
    Recording(path=tmp_path / "data without a ledger", sets={}, planned={}).copy_decisions(run)


@pytest.mark.timeout(300, func_only=True)
def test_a_recorded_stream_trains_another_surrogate(recorded: Path, in_folder: Path) -> None:
    done = headrace(
        "run", "smoke", "stream.mode=replay", f"stream.recording={recorded}", "stream.replay_order=shuffled",
        "surrogate.width=4", "tracking.enabled=false", "--out", "again", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["training"]["steps"] == 40 and 0 < result["errors"]["all"]["relative_l2"]["mean"] < 1
    assert result["samples"] == {"planned": 120, "stored": 120, "failed": 0, "duplicates": 0}
    for split in ("train", "test"):
        ours, theirs = StoredSamples.open(Path("again/data") / split), StoredSamples.open(recorded / "data" / split)
        assert ours.content_hash() == theirs.content_hash()
    assert headrace("evaluate", "again").exit_code == 0


@pytest.mark.timeout(300, func_only=True)
def test_an_unfinished_recording_is_gone_on_with(ray_cluster: None, in_folder: Path) -> None:
    done = headrace("run", "smoke", "stream.mode=generate", "data.samples=30", "tracking.enabled=false", "--out", "few")
    assert done.exit_code == 0, done.output
    before = {one.index: one for one in StoredSamples.open("few/data/train").provenance()}
    done = headrace("run", "smoke", "stream.recording=few", "tracking.enabled=false", "--out", "more", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["samples"]["stored"] == 120 and result["samples"]["duplicates"] == 0
    after = {one.index: one for one in StoredSamples.open("more/data/train").provenance()}
    assert sorted(after) == list(range(96)) and sorted(before) == list(range(30))
    # With its seconds: it is the very solve, and not another one of the same sample.
    assert all(after[index] == sample for index, sample in before.items())
    assert len(StoredSamples.open("few/data/train")) == 30, "the recording is left as it was"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stream.mode=replay"], "stream.recording is missing; expected an earlier run"),
        (["stream.mode=generate", "stream.recording=x"], "headrace resume RUN"),
        (["stream.mode=replay", "stream.recording=nowhere"], "It lacks train, validation, test"),
        (["stream.mode=replay", "stream.recording={0}", "data.problem.resolution=33"], "samples as the recipe's"),
        (["stream.mode=replay", "stream.recording={0}", "training.batch_size=60", "resources.trainers.ranks=2"],
         "data.samples is 96; expected at least 120"),
        (["stream.recording={0}", "seed=1"], "seed is 1; expected that of"),
        (["stream.recording={0}", "data.samples=40"], "expected at least 96: the recording holds the sample 95"),
        (["stream.recording={0}/data"], "whose recipe says what its samples are"),
        (["deterministic=true"], "a method whose solutions do not depend on what it solved before"),
        (["deterministic=true", "solver.method={{kind: cg, preconditioner: stale}}"], "do not depend on what it"),
    ],
)  # fmt: skip
def test_what_cannot_be_replayed_is_said_with_status_2(
    recorded: Path, in_folder: Path, arguments: list[str], words: str
) -> None:
    done = headrace("run", "smoke", *(argument.format(recorded) for argument in arguments), "--out", "new")
    assert done.exit_code == 2, done.output
    assert words in " ".join(done.stderr.split())
    assert not Path("new").exists(), "nothing may be left behind"


def test_the_ranks_of_a_deterministic_run_stay_as_many(recorded: Path, in_folder: Path) -> None:

    shutil.copytree(recorded, "run")
    summary = json.loads(Path("run/run.json").read_text())
    Path("run/run.json").write_text(json.dumps({**summary, "status": "running"}))
    done = headrace("resume", "run", "resources.trainers.ranks=2")
    assert done.exit_code == 2 and "which samples a rank gets is fixed" in " ".join(done.stderr.split())


def test_a_ledger_that_is_older_than_the_checkpoint_is_refused(recorded: Path, in_folder: Path) -> None:

    from headrace.platform.ledger.ledger import Ledger

    shutil.copytree(recorded, "run")
    summary = json.loads(Path("run/run.json").read_text())
    Path("run/run.json").write_text(json.dumps({**summary, "status": "running"}))
    Path("run/training.json").unlink()
    for path in Path("run").glob("ledger.sqlite*"):
        path.unlink()
    Ledger.create("run/ledger.sqlite", {"train": 96, "validation": 8, "test": 16}).close()
    done = headrace("resume", "run")
    assert done.exit_code == 2 and "a ledger at least as new as the checkpoint" in " ".join(done.stderr.split())


def test_two_shards_of_a_recording_come_row_by_row(tmp_path: Path) -> None:
    from headrace.platform.dataset.reader import recorded_order
    from headrace.platform.dataset.writer import SampleStore
    from headrace.platform.fields import FieldSpec, Grid, SampleSchema
    from headrace.platform.sample import SampleBatch

    schema = SampleSchema(
        inputs=(FieldSpec(name="a"),),
        outputs=(FieldSpec(name="u"),),
        domain=Grid(shape=(2, 2), extent=(1.0, 1.0), periodic=(False, False)),
    )
    for number, indices in ((0, [9, 4, 7]), (3, [1, 4, 0, 8])):
        with SampleStore.create(tmp_path / f"shard-{number}.zarr", schema, {}) as store:
            store.append(
                SampleBatch(
                    indices=np.array(indices),
                    inputs=np.zeros((len(indices), 1, 2, 2), np.float32),
                    outputs=np.zeros((len(indices), 1, 1, 2, 2), np.float32),
                    parameters=np.zeros((len(indices), 0), np.float32),
                )
            )
    assert recorded_order(tmp_path).tolist() == [9, 1, 4, 7, 0, 8]
    assert recorded_order(tmp_path, without={"shard-0"}).tolist() == [1, 4, 0, 8]
    assert recorded_order(tmp_path / "nowhere").tolist() == []
