"""A full disk ends a run with words, a summary, and what is stored safe."""

import errno
import json
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
        OSError(errno.EDQUOT, "Disk quota exceeded"),
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


def test_other_errors_stay_what_they_are(session: Session) -> None:
    assert not is_disk_full(PermissionError("not yours"))
    with pytest.raises(ZeroDivisionError), session.guarded():
        raise ZeroDivisionError
    assert json.loads(session.run.summary.read_text())["status"] == "failed"
    assert not session.run.reserve.exists()
