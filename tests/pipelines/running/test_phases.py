"""Where a run's time went: phases do not overlap, and with what none has counted they make the whole."""

import time
from pathlib import Path

import pytest

from headrace.pipelines.answers import console
from headrace.pipelines.recipe.config import load
from headrace.pipelines.report.report import phases
from headrace.pipelines.running.progress import RunProgress
from headrace.pipelines.running.session import CONNECTING, Session
from headrace.pipelines.running.train import STARTING, watch_ranks
from headrace.pipelines.summary import RunSummary


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(load("smoke", ["tracking.enabled=false"], "run"), "run", tmp_path / "run")


def test_a_phase_does_not_count_those_inside_of_it(session: Session) -> None:
    with session.phase("outer"):
        with session.phase("inner"):
            time.sleep(0.2)
        session.account("told", 0.0)
        time.sleep(0.05)
    session.write_summary()
    spent = session.summary.phases
    assert list(spent) == ["inner", "told", "outer"]
    assert spent["inner"] >= 0.2 and 0.05 <= spent["outer"] < 0.2


def test_starting_is_a_phase_of_its_own(session: Session) -> None:
    class Report:
        metrics, phase, rank = {"train/loss": 1.0}, None, 0

        def __init__(self, step: int) -> None:
            self.step, self.time = step, time.time()

    class Ranks:
        num_started, needs, calls = 1, "", 0

        def wait(self, seconds: float) -> bool:
            self.calls += 1
            time.sleep(0.3 if self.calls == 1 else 0.05)
            return self.calls == 3

        def drain(self) -> list[Report]:
            return [Report(self.calls)]

    session.run.checkpoint.parent.mkdir(parents=True)
    session.run.checkpoint.touch()
    session.run.training.write_text("{}")
    with session.phase("stream and train"), RunProgress(console) as progress:
        watch_ranks(Ranks(), session, progress, 0.1)  # type: ignore[arg-type]
    session.write_summary()
    spent = session.summary.phases
    assert spent[STARTING] >= 0.3 and 0.1 <= spent["stream and train"] < 0.3


def test_the_page_leaves_no_second_out() -> None:
    spent = {STARTING: 20.0, "stream and train": 3.0, CONNECTING: 4.0, "evaluate": 1.5}
    told = phases(RunSummary(seconds=26.0, phases=spent))
    assert list(told)[0] == CONNECTING, "before the run's own clock"
    assert sum(told.values()) - told[CONNECTING] == pytest.approx(26.0)
    assert told["all else: opening, waiting, closing"] == pytest.approx(1.5)
    assert phases(RunSummary(seconds=26.0)) == {}
