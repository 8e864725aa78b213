"""Batches: what reaches the trainer, in which order, when, and how it ends."""

import threading
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from headrace.platform.fields import SampleSchema
from headrace.platform.sample import SampleBatch
from headrace.surrogates.batch import Batch
from headrace.surrogates.datamodule import StoredDataModule, StreamDataModule
from headrace.surrogates.prefetch import Prefetcher


@pytest.fixture
def samples(make_schema: Callable[..., SampleSchema], make_samples: Callable[..., SampleBatch]) -> SampleBatch:
    return make_samples(make_schema((4, 4), num_parameters=1), 10)


def steps_of(data: StreamDataModule | StoredDataModule, steps: range) -> list[Batch]:
    data.plan(steps)
    batches = list(data.train_dataloader())
    data.close()
    return batches


class TestPrefetcher:
    def test_stays_at_most_its_depth_ahead(self) -> None:
        made, third = 0, threading.Event()

        def produce() -> int:
            nonlocal made
            made += 1
            if made == 3:
                third.set()
            return made

        prefetcher = Prefetcher(produce, depth=2)
        assert third.wait(5)
        time.sleep(0.05)
        # Two wait, the third is in the thread's hand.
        assert made == 3
        assert [prefetcher.get(), prefetcher.get()] == [1, 2]
        prefetcher.close()

    def test_passes_on_the_end_and_again(self) -> None:
        items = iter([1, 2])
        prefetcher = Prefetcher(lambda: next(items, None))
        assert [prefetcher.get() for _ in range(4)] == [1, 2, None, None]
        prefetcher.close()

    def test_passes_on_an_error_after_what_came_before(self) -> None:
        def produce() -> Iterator[int]:
            yield 1
            raise OSError("the disk is gone")

        items = produce()
        prefetcher = Prefetcher(lambda: next(items))
        assert prefetcher.get() == 1
        with pytest.raises(OSError, match="the disk is gone"):
            prefetcher.get()
        prefetcher.close()

    def test_close_ends_a_thread_that_waits_for_room(self) -> None:
        before = threading.active_count()
        prefetcher = Prefetcher(lambda: 1, depth=1)
        prefetcher.get()
        prefetcher.close()
        assert threading.active_count() == before

    def test_close_does_not_wait_for_ever_for_a_blocked_producer(self, caplog: pytest.LogCaptureFixture) -> None:
        blocked = threading.Event()
        prefetcher = Prefetcher(lambda: blocked.wait(10) or None, name="stuck")
        prefetcher.close(timeout=0.05)
        assert "thread stuck is still waiting for data" in caplog.text
        blocked.set()


class TestBatch:
    def test_copies_read_only_views_without_a_warning(self, samples: SampleBatch) -> None:
        for array in (samples.inputs, samples.outputs, samples.parameters):
            array.flags.writeable = False
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            batch = Batch.of(samples)
        batch.inputs.zero_()
        assert samples.inputs.any()
        assert np.array_equal(batch.outputs, samples.outputs)


class TestStream:
    def test_pulls_as_many_batches_as_there_are_steps_and_no_more(self, samples: SampleBatch) -> None:
        sizes: list[int] = []
        steps: list[int] = []

        def pull(size: int, step: int) -> SampleBatch:
            sizes.append(size)
            steps.append(step)
            return samples.take(range(size))

        batches = steps_of(StreamDataModule(pull=pull, batch_size=4), range(5))
        assert [len(batch.inputs) for batch in batches] == [4] * 5
        assert sizes == [4] * 5 and steps == [0, 1, 2, 3, 4]

    def test_ends_with_the_stream_and_says_when(self, samples: SampleBatch) -> None:
        stream = iter([samples.take(range(4)), samples.take(range(2))])
        data = StreamDataModule(pull=lambda size, step: next(stream, None), batch_size=4)
        assert [len(batch.inputs) for batch in steps_of(data, range(5))] == [4, 2]
        assert data.batches is not None
        assert (data.batches.samples, data.batches.ended_after) == (6, 2)

    def test_measures_the_time_that_it_waits(self, samples: SampleBatch) -> None:
        def slow(size: int, step: int) -> SampleBatch:
            time.sleep(0.05)
            return samples.take(range(size))

        data = StreamDataModule(pull=slow, batch_size=4)
        began = time.perf_counter()
        steps_of(data, range(4))
        elapsed = time.perf_counter() - began
        assert data.batches is not None and 0.15 < data.batches.wait_seconds <= elapsed

    def test_an_error_of_the_stream_reaches_the_trainer(self, samples: SampleBatch) -> None:
        def pull(size: int, step: int) -> SampleBatch:
            raise ConnectionError("the shard is gone")

        with pytest.raises(ConnectionError, match="the shard is gone"):
            steps_of(StreamDataModule(pull=pull, batch_size=4), range(3))


class TestStored:
    def test_every_epoch_takes_each_row_once_in_a_new_order(self, samples: SampleBatch) -> None:
        data = StoredDataModule(samples=samples, batch_size=4, seed=1)
        dealt = np.concatenate([data.rows(step) for step in range(10)])
        epochs = dealt.reshape(4, 10)
        assert all(sorted(epoch) == list(range(10)) for epoch in epochs.tolist())
        assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4

    def test_ranks_share_the_places_of_a_single_rank_with_their_joint_batch(self, samples: SampleBatch) -> None:
        alone = StoredDataModule(samples=samples, batch_size=6, seed=1)
        ranks = [StoredDataModule(samples=samples, batch_size=3, seed=1, rank=rank, world_size=2) for rank in (0, 1)]
        for step in range(7):
            assert np.array_equal(alone.rows(step), np.concatenate([rank.rows(step) for rank in ranks]))

    def test_the_order_follows_the_seed(self, samples: SampleBatch) -> None:
        rows = [StoredDataModule(samples=samples, batch_size=10, seed=seed).rows(0).tolist() for seed in (1, 1, 2)]
        assert rows[0] == rows[1] != rows[2]

    def test_a_batch_larger_than_the_data_takes_several_epochs(self, samples: SampleBatch) -> None:
        rows = StoredDataModule(samples=samples, batch_size=25).rows(0)
        assert np.bincount(rows, minlength=10).min() >= 2

    def test_goes_on_where_it_was(self, samples: SampleBatch) -> None:
        data = StoredDataModule(samples=samples, batch_size=4)
        whole = steps_of(data, range(6))
        rest = steps_of(data, range(2, 6))
        assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(whole[2:], rest, strict=True))

    def test_no_samples_are_an_error(self, samples: SampleBatch) -> None:
        with pytest.raises(ValueError, match="no stored samples to train on"):
            StoredDataModule(samples=samples.take([]), batch_size=4)
