"""A storage that takes nothing more ends a run with words, a summary, and what is stored safe."""

import errno
import json
import os
from pathlib import Path

import pytest

from headrace.pipelines.recipe.config import load
from headrace.pipelines.running.session import RESERVE_NBYTES, Session
from headrace.platform.errors import RunFailed, is_disk_full
from headrace.platform.ledger.ledger import Ledger


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(load("smoke", ["tracking.enabled=false"], "generate"), "generate", tmp_path / "run")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "c.0.0"),
        RunFailed("solver-0 failed: [Errno 28] No space left on device"),
        RunFailed("the stream failed: database or disk is full"),
    ],
)
def test_a_full_disk_is_told_with_what_is_safe_and_what_to_do(session: Session, error: Exception) -> None:
    with Ledger.create(session.run.ledger, {"train": 10, "validation": 1, "test": 1}) as ledger:
        ledger.commit("train", "shard-0", None, [1, 2, 3])
    assert session.run.reserve.stat().st_size == RESERVE_NBYTES
    with pytest.raises(RunFailed) as raised, session.guarded():
        raise error
    words = str(raised.value)
    assert f"the disk that holds {session.run.path} is full" in words
    assert "the 3 samples that are stored are safe" in words
    assert f"headrace resume {session.run.path}" in words
    summary = json.loads(session.run.summary.read_text())
    assert summary["status"] == "failed" and summary["reason"] == words and summary["samples"]["stored"] == 3
    assert not session.run.reserve.exists()


@pytest.mark.parametrize(
    ("number", "words", "advice"),
    [
        (errno.EROFS, "can only be read (mounted read-only?)", "Make it writable again"),
        (errno.EACCES, "may not be written by this user", "Make it writable again"),
        (errno.EPERM, "may not be written by this user", "Make it writable again"),
        (errno.EIO, "fails (input/output error)", "Make it writable again"),
        (errno.EDQUOT, "has no room left in this user's quota", "Make room"),
    ],
)
def test_so_is_any_other_refusal_of_the_storage(session: Session, number: int, words: str, advice: str) -> None:
    # As it comes from another process: its words alone are left.
    cause = OSError(number, os.strerror(number), str(session.run.checkpoints / "step-000100.pt"))
    with pytest.raises(RunFailed) as raised, session.guarded():
        raise RunFailed(f"training failed: rank 0: {cause}")
    told = str(raised.value)
    assert f"the disk that holds {session.run.path} {words}" in told and f"{advice}, then go on with" in told
    assert json.loads(session.run.summary.read_text())["reason"] == told


def test_a_folder_that_cannot_be_written_at_all_ends_in_the_same_words(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(session.run.summary))

    monkeypatch.setattr("headrace.pipelines.running.session.write_json", refused)
    with (
        pytest.raises(RunFailed, match="can only be read .*Make it writable again, then go"),
        session.guarded(),
    ):
        refused()
    assert json.loads(session.run.summary.read_text())["status"] == "running"


def test_what_may_not_be_done_elsewhere_is_not_the_storages_refusal(session: Session) -> None:
    with pytest.raises(RunFailed, match="solver-0 failed"), session.guarded():
        raise RunFailed("solver-0 failed: [Errno 13] Permission denied: '/opt/solver/bin/solve'")


def test_other_errors_stay_what_they_are(session: Session) -> None:
    assert not is_disk_full(PermissionError("not yours"))
    with pytest.raises(ZeroDivisionError), session.guarded():
        raise ZeroDivisionError
    assert json.loads(session.run.summary.read_text())["status"] == "failed"
    assert not session.run.reserve.exists()
