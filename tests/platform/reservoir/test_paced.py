"""PacedReservoir: its batches are a function of the step."""

from collections.abc import Mapping

import numpy as np
import pytest

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.reservoir.paced import PacedReservoir, StreamStopped
from headrace.platform.reservoir.reservoir import Reservoir
from headrace.platform.sample import SampleBatch

SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="a"),),
    outputs=(FieldSpec(name="u"),),
    domain=Grid(shape=(2, 2), extent=(1.0, 1.0), periodic=(False, False)),
)
FAILED = (3, 17, 40)
STEPS, SIZE = 60, 4


class Log:
    """The samples 0 to 99 but for a few that failed; notes how many are asked for at a time, and may be stopped."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.stopped_before: int | None = None

    def read(self, indices: np.ndarray) -> SampleBatch:
        self.asked.append(len(indices))
        if self.stopped_before is not None and (indices >= self.stopped_before).any():
            raise StreamStopped
        found = indices[~np.isin(indices, FAILED)]
        return SampleBatch(
            indices=found,
            inputs=np.broadcast_to(found[:, None, None, None], (len(found), 1, 2, 2)).astype(np.float32),
            outputs=np.zeros((len(found), 1, 1, 2, 2), np.float32),
            parameters=np.zeros((len(found), 0), np.float32),
        )


def build() -> Reservoir:
    return Reservoir(SCHEMA, capacity=24, policy="reservoir", watermark=8, max_uses=6, seed=5)


def paced(log: Log, rows: int = 16, saved: Mapping[int, Mapping[str, np.ndarray]] | None = None) -> PacedReservoir:
    def newest() -> tuple[int, Mapping[str, np.ndarray]] | None:
        return max(saved.items()) if saved else None

    return PacedReservoir(build, np.arange(100), num_batches=STEPS, read=log.read, rows=rows, checkpoint=newest)


def batches(reservoir: PacedReservoir, steps: range) -> list[list[int]]:
    found = []
    for step in steps:
        batch = reservoir.batch(step, SIZE)
        assert batch is not None and np.array_equal(batch.inputs[:, 0, 0, 0], batch.indices)
        found.append(batch.indices.tolist())
    return found


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    return batches(paced(Log()), range(STEPS))


def test_all_samples_but_the_failed_ones_are_served_evenly_over_the_steps(expected: list[list[int]]) -> None:
    served = {index for batch in expected for index in batch}
    # A sample that came with the last steps may never be drawn.
    assert served.isdisjoint(FAILED) and len(served) > 75
    newest = [max(max(batch) for batch in expected[: step + 1]) for step in range(STEPS)]
    # 8 before the first step, then 92 in 60 steps.
    assert all(top <= 8 + 92 * step / STEPS + 1 for step, top in enumerate(newest))
    assert max(expected[0]) < 9 and newest[STEPS // 2] > 40


def test_reading_in_larger_pieces_changes_nothing(expected: list[list[int]]) -> None:
    for rows in (1, 7, 200):
        log = Log()
        assert batches(paced(log, rows), range(STEPS)) == expected
        assert max(log.asked) >= min(rows, 100)


def test_going_on_from_a_checkpoint_gives_the_very_same_batches(expected: list[list[int]]) -> None:
    first = paced(Log())
    batches(first, range(33))
    # Training has done 30 steps; three batches more are under way.
    state = first.state(30)
    assert batches(paced(Log(), saved={30: state}), range(30, STEPS)) == expected[30:]
    # Nor does saving disturb, nor a state that was taken just after a resume.
    second = paced(Log(), saved={30: state})
    batches(second, range(30, 31))
    assert batches(paced(Log(), saved={31: second.state(31)}), range(31, STEPS)) == expected[31:]


def test_ranks_that_start_again_before_the_last_batch_get_the_same_ones(expected: list[list[int]]) -> None:
    first = paced(Log())
    batches(first, range(20))
    saved = {20: first.state(20)}
    reservoir = paced(Log(), saved=saved)
    batches(reservoir, range(20, 41))
    assert batches(reservoir, range(25, STEPS)) == expected[25:], "from a checkpoint before it"
    assert batches(reservoir, range(5, 15)) == expected[5:15], "from the start, the checkpoint lies behind"


def test_a_new_shard_catches_up_with_its_rank(expected: list[list[int]]) -> None:
    assert batches(paced(Log()), range(37, STEPS)) == expected[37:]
    first = paced(Log())
    batches(first, range(30))
    log = Log()
    assert batches(paced(log, saved={30: first.state(30)}), range(37, STEPS)) == expected[37:]


def test_a_stopped_stream_is_said_and_can_be_asked_again(expected: list[list[int]]) -> None:
    log = Log()
    log.stopped_before = 50
    reservoir = paced(log, rows=1)
    served: list[list[int]] = []
    with pytest.raises(StreamStopped):
        for step in range(STEPS):
            served += batches(reservoir, range(step, step + 1))
    assert 20 < len(served) < 40
    log.stopped_before = None
    assert served + batches(reservoir, range(len(served), STEPS)) == expected


def test_it_ends_when_the_uses_are_spent() -> None:
    def tight() -> Reservoir:
        return Reservoir(SCHEMA, capacity=24, policy="fifo", watermark=8, seed=5)

    reservoir = PacedReservoir(tight, np.arange(30), num_batches=7, read=Log().read, rows=16)
    sizes = [len(batch.indices) if (batch := reservoir.batch(step, SIZE)) is not None else 0 for step in range(9)]
    assert sizes == [4, 4, 4, 4, 4, 4, 4, 0, 0], "28 samples: 30 without 2 that failed"
