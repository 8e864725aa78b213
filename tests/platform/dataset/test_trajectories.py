"""Trajectories that are stored in parts, read whole."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from headrace.platform.dataset.trajectories import whole
from headrace.platform.dataset.writer import SampleStore, StoredSamples, write_manifest
from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.sample import Provenance, SampleBatch

WHOLE = SampleSchema(
    inputs=(FieldSpec(name="u"), FieldSpec(name="mask")),
    outputs=(FieldSpec(name="u"),),
    parameters=(FieldSpec(name="viscosity"),),
    domain=Grid(shape=(4,), extent=(1.0,), periodic=(True,)),
    times=(0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
)
PARTS = WHOLE.in_parts(2)


def value(trajectory: int, time: int) -> float:
    return 100.0 * trajectory + time


def part(index: int) -> SampleBatch:
    """Part index % 3 of trajectory index // 3: at time k its state is k more than 100 times its number."""
    trajectory, number = divmod(index, 3)
    times = np.arange(2 * number + 1, 2 * number + 3)
    inputs = np.stack([np.full(4, value(trajectory, 2 * number)), np.full(4, trajectory)])
    outputs = np.stack([np.full((1, 4), value(trajectory, time)) for time in times])
    provenance = Provenance(
        spec_hash="s",
        seed=0,
        index=index,
        level="easy",
        solver="toy",
        status="integrated",
        relative_residual=[np.nan, 1e-3, 1e-4][number],
        num_iterations=10 + number,
        wall_seconds=1.0,
        cpu_seconds=0.5,
        version="0",
    )
    return SampleBatch(
        indices=np.array([index]),
        inputs=inputs[None].astype(np.float32),
        outputs=outputs[None].astype(np.float32),
        parameters=np.full((1, 1), trajectory, np.float32),
        provenance=(provenance,),
    )


def stored(folder: Path, *shards: list[int], schema: SampleSchema = PARTS) -> StoredSamples:
    for number, indices in enumerate(shards):
        with SampleStore.create(folder / f"shard-{number}.zarr", schema, {}, rows_per_chunk=2) as store:
            for index in indices:
                store.append(part(index))
    return StoredSamples.open(folder)


def test_parts_in_any_order_and_shard_become_trajectories(tmp_path: Path) -> None:
    samples = stored(tmp_path, [2, 6, 0, 7], [8, 1, 4, 3])  # 5 is missing: trajectory 1 broke
    assert samples.indices[samples.is_whole].tolist() == [0, 1, 2, 6, 7, 8]
    assert write_manifest(tmp_path).incomplete == 2
    found = whole(samples)
    assert found.schema == WHOLE and len(found) == 2 and found.indices.tolist() == [0, 2]
    batch = found.read_all()
    for row, trajectory in enumerate((0, 2)):
        expected = [value(trajectory, time) for time in range(1, 7)]
        np.testing.assert_array_equal(batch.outputs[row, :, 0, 0], expected)
        np.testing.assert_array_equal(batch.inputs[row, :, 0], [value(trajectory, 0), trajectory])
        assert batch.parameters[row, 0] == trajectory
        provenance = batch.provenance[row]
        assert (provenance.index, provenance.num_iterations, provenance.wall_seconds) == (trajectory, 33, 3.0)
        assert provenance.relative_residual == pytest.approx(1e-3)
    one, other = found.batches(1)
    np.testing.assert_array_equal(np.concatenate([one.outputs, other.outputs]), batch.outputs)


def test_a_data_set_without_a_whole_trajectory_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected at least one whole trajectory"):
        whole(stored(tmp_path, [0, 4, 5]))


def test_samples_that_are_whole_stay_as_they_are(tmp_path: Path) -> None:
    schema = dataclasses.replace(PARTS, parts=1)
    samples = stored(tmp_path, [3, 1], schema=schema)
    assert whole(samples) is samples and samples.is_whole.all()


def test_a_schema_says_how_it_can_be_cut() -> None:
    assert PARTS.parts == 3 and PARTS.times == (0.5, 1.0)
    assert SampleSchema.from_json(PARTS.to_json()) == PARTS
    without = {name: entry for name, entry in WHOLE.to_json().items() if name != "parts"}
    assert SampleSchema.from_json(without) == WHOLE, "as it was written before there were parts"
    assert WHOLE.indivisible(4) == "6 output times are no multiple of 4"
    steady = dataclasses.replace(WHOLE, times=(0.0,))
    assert steady.indivisible(1) == "the output times are not evenly spaced from 0 on"
    with pytest.raises(ValueError, match="u is an output and no input"):
        dataclasses.replace(WHOLE, inputs=WHOLE.inputs[1:]).in_parts(2)
