"""Batches of samples: stacked, counted, and cut."""

import numpy as np
import pytest

from headrace.platform.sample import Provenance, Sample, SampleBatch


def sample(index: int) -> Sample:
    rng = np.random.default_rng(index)
    return Sample(
        inputs=rng.normal(size=(2, 3, 4)).astype(np.float32),
        outputs=rng.normal(size=(5, 1, 3, 4)).astype(np.float32),
        parameters=rng.normal(size=(1,)).astype(np.float32),
        provenance=Provenance(
            spec_hash="0" * 16,
            seed=0,
            index=index,
            level="smooth",
            solver="direct",
            status="converged",
            relative_residual=1e-12,
            num_iterations=0,
            wall_seconds=0.1,
            cpu_seconds=0.1,
            version="0.1.0",
        ),
    )


def test_a_batch_keeps_the_order_of_its_samples():
    samples = [sample(index) for index in (7, 2, 5)]
    batch = SampleBatch.stack(samples)
    assert len(batch) == 3 and batch.indices.tolist() == [7, 2, 5] and batch.indices.dtype == np.int64
    for row, one in enumerate(samples):
        np.testing.assert_array_equal(batch.inputs[row], one.inputs)
        np.testing.assert_array_equal(batch.outputs[row], one.outputs)
        np.testing.assert_array_equal(batch.parameters[row], one.parameters)
        assert batch.provenance[row] is one.provenance
    assert batch.inputs.dtype == batch.outputs.dtype == batch.parameters.dtype == np.float32


def test_stacking_and_taking_copy():
    one = sample(0)
    batch = SampleBatch.stack([one, sample(1)])
    part = batch.take([0])
    one.inputs[:] = 0
    batch.outputs[:] = 0
    assert batch.inputs[0].any() and part.outputs.any()
    assert not np.shares_memory(part.inputs, batch.inputs)


def test_taking_picks_rows_in_any_order_and_repeats():
    batch = SampleBatch.stack([sample(index) for index in range(4)])
    part = batch.take([3, 0, 3])
    assert part.indices.tolist() == [3, 0, 3]
    assert [provenance.index for provenance in part.provenance] == [3, 0, 3]
    np.testing.assert_array_equal(part.outputs, batch.outputs[[3, 0, 3]])
    assert len(batch.take([])) == 0 and batch.take([]).inputs.shape == (0, 2, 3, 4)
    with pytest.raises(IndexError):
        batch.take([4])


def test_a_batch_without_provenance_can_be_cut():
    batch = SampleBatch.stack([sample(0), sample(1)])
    bare = SampleBatch(indices=batch.indices, inputs=batch.inputs, outputs=batch.outputs, parameters=batch.parameters)
    assert bare.take([1]).provenance == () and bare.take([1]).indices.tolist() == [1]


def test_the_size_of_a_message():
    assert SampleBatch.stack([sample(0), sample(1)]).nbytes == 2 * (8 + 4 * (2 * 12 + 5 * 12 + 1))
