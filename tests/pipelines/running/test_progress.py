"""What a user reads while a run goes on."""

import pytest

from headrace.pipelines.running.progress import Pace, RunState
from headrace.pipelines.running.train import wait_words


def test_the_pace_of_batches_is_their_mean() -> None:
    # 64 trajectories every 20 seconds, looked at every 2 seconds: 3.2 a second, at no look 0 or 32.
    pace = Pace()
    found = [pace(float(seconds), 64 * (seconds // 20)) for seconds in range(0, 200, 2)]
    assert found[0] is None and found[1] == 0.0
    # A minute holds three batches; its ends move by a look.
    assert all(one == pytest.approx(3.2, rel=0.1) for one in found[31:])
    # Nothing more comes, and a minute later that is what it says.
    pace(200.0, 64 * 9)
    assert pace(260.0, 64 * 9) == 0.0


@pytest.mark.parametrize(("rate", "words"), [(0.34, "0.3 solved/s"), (186.4, "186 solved/s")])
def test_a_slow_pace_is_not_rounded_to_none(rate: float, words: str) -> None:
    assert words in RunState(samples_per_second=rate).line()
    assert "solved/s" not in RunState().line()


def test_a_rank_that_is_being_started_is_not_said_to_wait_for_what_is_free() -> None:
    assert wait_words("1 rank(s) of 0.66 CPUs", 75.0, "the cluster has 2 CPUs, 0.1 free") == (
        "waits for 1 rank(s) of 0.66 CPUs; the cluster has 2 CPUs, 0.1 free"
    )
    assert wait_words("1 rank(s) of 0.66 CPUs", 75.0, None).startswith("starts 1 rank(s) of 0.66 CPUs, for 75 s so far")
