"""The store: what was appended is read back bit for bit, while it is written, after SIGKILL and after torn writes."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import zarr

from headrace.platform import files
from headrace.platform.dataset.writer import SampleStore, StoredSamples, read_manifest, write_dataset, write_manifest
from headrace.platform.errors import InputError, TakenOver
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.sample import Provenance, SampleBatch
from headrace.platform.spec import Spec, spec_hash

SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="permeability", unit="m^2"), FieldSpec(name="source", components=2)),
    outputs=(FieldSpec(name="pressure", unit="Pa"),),
    parameters=(FieldSpec(name="reynolds"), FieldSpec(name="inflow", components=2)),
    domain=Grid(shape=(5, 7), extent=(1.0, 1.4), periodic=(False, True)),
    times=(0.5, 1.0),
)
STEADY = SampleSchema(
    inputs=(FieldSpec(name="a"),),
    outputs=(FieldSpec(name="u"),),
    domain=Grid(shape=(16,), extent=(1.0,), periodic=(True,)),
)


def samples(*indices: int, schema: SampleSchema = SCHEMA, salt: int = 0, provenance: bool = True) -> SampleBatch:
    """Sample i holds random numbers seeded with (salt, i)."""

    def draw(*shape: int) -> np.ndarray:
        return np.stack([np.random.default_rng([salt, i]).normal(size=shape) for i in indices]).astype(np.float32)

    grid = schema.domain.shape
    return SampleBatch(
        indices=np.array(indices, dtype=np.int64),
        inputs=draw(schema.num_input_channels, *grid),
        outputs=draw(len(schema.times), schema.num_output_channels, *grid),
        parameters=draw(schema.num_parameters),
        provenance=tuple(origin(i) for i in indices) if provenance else (),
    )


def origin(index: int) -> Provenance:
    return Provenance(
        spec_hash="0123456789abcdef",
        seed=2**63 - 1,  # more digits than a float64 holds
        index=index,
        level=("smooth", "medium", "rough")[index % 3],
        solver="multigrid" if index % 2 else "direct",
        status="converged",
        relative_residual=1e-9 * (index + 1),
        num_iterations=index,
        wall_seconds=0.25 * index,
        cpu_seconds=0.5 * index,
        version="0.1.0",
    )


def assert_same(a: SampleBatch, b: SampleBatch) -> None:
    for name in ("indices", "inputs", "outputs", "parameters"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype and x.shape == y.shape, name
        assert x.tobytes() == y.tobytes(), name
    assert a.provenance == b.provenance


def make(
    directory: Path, number: int = 0, rows_per_chunk: int | None = 4, schema: SampleSchema = SCHEMA
) -> SampleStore:
    return SampleStore.create(
        directory / f"shard-{number}.zarr", schema, {"split": "train"}, rows_per_chunk=rows_per_chunk
    )


def test_samples_come_back_bit_for_bit_sorted_by_index(tmp_path: Path):
    with make(tmp_path) as store:
        for indices in ([9, 3], [0], [7, 5, 1, 2, 8, 4, 6]):
            store.append(samples(*indices))
    stored = StoredSamples.open(tmp_path)
    assert len(stored) == 10 and stored.schema == SCHEMA and stored.metadata == {"split": "train"}
    assert stored.indices.tolist() == list(range(10))
    assert_same(stored.read_all(), samples(*range(10)))
    assert_same(stored.batch([7, 0, 7, 2]), samples(7, 0, 7, 2))
    assert_same(stored.batch(np.array([-1])), samples(9))
    assert stored.levels == tuple(origin(i).level for i in range(10))
    batches = list(stored.batches(4))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert_same(batches[1], samples(4, 5, 6, 7))


@pytest.mark.parametrize(
    "schema",
    [SCHEMA, STEADY, dataclasses.replace(SCHEMA, inputs=())],
    ids=["times and parameters", "steady, none", "parameters and no inputs"],
)
def test_every_size_of_message_and_chunk(tmp_path: Path, schema: SampleSchema):
    """Messages shorter, equal and longer than a chunk, in one shard after the other."""
    index = 0
    for number, rows_per_chunk in enumerate((1, 3, 4)):
        with make(tmp_path, number, rows_per_chunk, schema) as store:
            for count in (1, 2, 3, 4, 5, 9, 0):
                store.append(samples(*range(index, index + count), schema=schema) if count else samples(0).take([]))
                index += count
    assert_same(StoredSamples.open(tmp_path).read_all(), samples(*range(index), schema=schema))


def test_a_short_message_pads_its_chunk(tmp_path: Path):
    with make(tmp_path, rows_per_chunk=4) as store:
        store.append(samples(5, 6))
        store.append(samples(7, 8, 9, 10, 11))
    group = zarr.open_group(tmp_path / "shard-0.zarr", mode="r")
    assert group["index"][:].tolist() == [5, 6, -1, -1, 7, 8, 9, 10, 11, -1, -1, -1]
    assert {group[name].shape[0] for name in ("inputs", "outputs", "parameters", "provenance", "index")} == {12}
    assert not group["inputs"][2:4].any()
    assert group["provenance"].attrs["columns"][2] == "level"
    level = int(group["provenance"][4, 2])
    assert group.attrs["headrace"]["names"]["level"][level] == origin(7).level


def test_no_chunk_is_ever_rewritten(tmp_path: Path):
    def chunks() -> dict[Path, tuple[int, int]]:
        found = {file: file.stat() for file in tmp_path.rglob("c.*")}
        return {file: (stat.st_ino, stat.st_mtime_ns) for file, stat in found.items()}

    with make(tmp_path, rows_per_chunk=4) as store:
        before: dict[Path, tuple[int, int]] = {}
        for start in range(0, 20, 3):
            store.append(samples(start, start + 1, start + 2))
            assert before.items() <= chunks().items() and len(chunks()) == len(before) + 5
            before = chunks()
    with SampleStore.open_append(store.path) as store:
        store.append(samples(30))
    assert before.items() <= chunks().items()


def test_chunks_are_of_the_size_of_a_message(tmp_path: Path):
    def rows(size: int) -> int:
        schema = dataclasses.replace(STEADY, domain=Grid(shape=(size, size), extent=(1.0,) * 2, periodic=(False,) * 2))
        with SampleStore.create(tmp_path / f"shard-{size}.zarr", schema, {}) as store:
            assert store.rows_per_chunk == 1 or store.rows_per_chunk * schema.sample_nbytes <= 2**19
            return store.rows_per_chunk

    assert [rows(size) for size in (8, 33, 128, 512)] == [64, 60, 4, 1]


def test_it_can_be_read_while_it_is_written(tmp_path: Path):
    with make(tmp_path) as store:
        with pytest.raises(InputError, match="without a single sample"):
            StoredSamples.open(tmp_path)
        stored = StoredSamples.open(tmp_path, allow_empty=True)
        assert len(stored) == 0 and stored.levels == () and len(stored.read_all()) == 0
        for start in range(0, 12, 3):
            store.append(samples(start, start + 1, start + 2))
            assert stored.refresh() == 3 and stored.refresh() == 0
            assert_same(stored.read_all(), samples(*range(start + 3)))
            assert len(stored.levels) == start + 3
    assert stored.refresh() == 0
    assert_same(stored.read_all(), StoredSamples.open(tmp_path).read_all())


def test_new_shards_are_found_on_refresh(tmp_path: Path):
    with make(tmp_path, 1) as store:
        store.append(samples(4, 5))
    stored = StoredSamples.open(tmp_path)
    with make(tmp_path, 0) as store:
        store.append(samples(0, 4, salt=1))
    assert stored.refresh() == 1
    assert stored.indices.tolist() == [0, 4, 5]
    # The first shard by name wins, also when it was found last: as for whoever opens the set now.
    assert_same(stored.read_all(), StoredSamples.open(tmp_path).read_all())
    assert_same(stored.batch([1]), samples(4, salt=1))


def test_the_first_of_two_deliveries_is_read(tmp_path: Path):
    with make(tmp_path, 10) as late, make(tmp_path, 2) as early:
        late.append(samples(0, 1, 2, salt=10))
        early.append(samples(2, 3, salt=2))
        early.append(samples(3, 4, salt=3))
    stored = StoredSamples.open(tmp_path)
    assert stored.indices.tolist() == [0, 1, 2, 3, 4]
    for position, salt in enumerate((10, 10, 2, 2, 3)):
        assert_same(stored.batch([position]), samples(position, salt=salt))


def test_names_that_come_later_are_known_to_readers(tmp_path: Path):
    with make(tmp_path) as store:
        store.append(samples(0))
        stored = StoredSamples.open(tmp_path)
        new = dataclasses.replace(origin(1), level="rare", solver="gcrodr")
        store.append(dataclasses.replace(samples(1), provenance=(new,)))
        stored.refresh()
        assert stored.levels == ("smooth", "rare") and stored.batch([1]).provenance == (new,)


def test_samples_without_provenance(tmp_path: Path):
    with make(tmp_path) as store:
        store.append(samples(0, 1, provenance=False))
        store.append(samples(2))
    stored = StoredSamples.open(tmp_path)
    assert stored.levels == ("unknown", "unknown", "rough")
    unknown = stored.batch([1]).provenance[0]
    assert (unknown.index, unknown.solver, unknown.num_iterations) == (1, "unknown", 0)
    assert np.isnan(unknown.relative_residual)


def test_appending_goes_on_after_reopening(tmp_path: Path):
    with make(tmp_path) as store:
        store.append(samples(0, 1, 2))
    with SampleStore.open_append(store.path) as store:
        assert store.schema == SCHEMA and store.rows_per_chunk == 4
        store.append(samples(3, 4))
    assert_same(StoredSamples.open(tmp_path).read_all(), samples(*range(5)))


def test_arrays_grow_over_many_appends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("headrace.platform.dataset.writer.GROW_CHUNKS", 8)
    with make(tmp_path, rows_per_chunk=1, schema=STEADY) as store:
        for start in range(0, 66, 6):
            store.append(samples(*range(start, start + 6), schema=STEADY))
    assert_same(StoredSamples.open(tmp_path).read_all(), samples(*range(66), schema=STEADY))
    assert zarr.open_group(store.path, mode="r")["index"].shape == (66,)


def test_a_set_of_many_chunks_is_read_in_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs end at gaps, where torn chunks may lie, and after some chunks; nothing is lost at the seams."""
    monkeypatch.setattr("headrace.platform.dataset.reader._RUN_CHUNKS", 3)
    with make(tmp_path, rows_per_chunk=2, schema=STEADY) as store:
        for start in range(0, 40, 10):
            store.append(samples(*range(start, start + 10), schema=STEADY))
            store._next += start % 3  # as appends that failed leave it
    assert_same(StoredSamples.open(tmp_path).read_all(), samples(*range(40), schema=STEADY))


def test_a_chunk_that_cannot_be_decoded_is_named(tmp_path: Path):
    with make(tmp_path, rows_per_chunk=4) as store:
        store.append(samples(0, 1))
    os.truncate(store.path / "inputs" / "c.0.0.0.0", 30)
    stored = StoredSamples.open(tmp_path)
    for read in (stored.read_all, lambda: stored.batch([0])):
        with pytest.raises(InputError, match=r"shard-0.zarr: inputs is not readable \(.*\); expected whole chunks"):
            read()


_WRITER = """
    import sys
    sys.path.insert(0, sys.argv[2])
    import test_store
    store = test_store.SampleStore.open_append(sys.argv[1])
    start = int(sys.argv[3])
    while True:
        count = 1 + start % 6
        store.append(test_store.samples(*range(start, start + count)))
        start += count
        print(start, flush=True)
"""


def test_what_was_appended_survives_sigkill(tmp_path: Path):
    """A writer killed in the middle of its work, twice: each acknowledged sample is there, none is torn."""
    make(tmp_path, rows_per_chunk=4).close()
    program = [
        sys.executable,
        "-c",
        textwrap.dedent(_WRITER),
        str(tmp_path / "shard-0.zarr"),
        str(Path(__file__).parent),
    ]
    acknowledged = 0
    for appends in (7, 11):
        with subprocess.Popen([*program, str(acknowledged)], stdout=subprocess.PIPE, text=True) as writer:
            for _ in range(appends):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout.read().split("\n")[:-1]:
                acknowledged = int(line)
        stored = StoredSamples.open(tmp_path)
        assert set(range(acknowledged)) <= set(stored.indices.tolist())
        assert_same(stored.read_all(), samples(*stored.indices))
    assert acknowledged >= 18
    with SampleStore.open_append(tmp_path / "shard-0.zarr") as store:
        store.append(samples(10**6))
    assert StoredSamples.open(tmp_path).indices[-1] == 10**6


def test_fields_are_on_the_disk_before_their_index_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[Path] = []
    with make(tmp_path, rows_per_chunk=2) as store:
        store.append(samples(0))
        before = set(store.path.rglob("c.*"))

        def record(path: Path) -> None:
            assert path.exists()
            if path.parent.name in ("inputs", "outputs", "parameters", "provenance"):
                assert set(store.path.glob("index/c.*")) <= before, "the index came first"
            synced.append(path)

        with monkeypatch.context() as patch:
            patch.setattr("headrace.platform.dataset.writer.sync", record)
            store.append(samples(1, 2, 3, 4, 5))
    new = set(store.path.rglob("c.*")) - before
    # A chunk is synced under its first name, renamed when it is whole, and its directory synced.
    scratch = {path: path.with_name(f"{path.name}.partial") for path in new}
    assert len(new) == 5 * 3 and set(scratch.values()) <= set(synced)
    first_of_index = min(synced.index(scratch[path]) for path in new if path.parent.name == "index")
    assert all(synced.index(scratch[path]) < first_of_index for path in new if path.parent.name != "index")
    for name in ("inputs", "outputs", "parameters", "provenance", "index"):
        last_chunk = max(synced.index(scratch[path]) for path in new if path.parent.name == name)
        assert store.path / name in synced[last_chunk:]
    assert synced.index(store.path / "provenance") < first_of_index


def test_chunks_are_what_zarr_itself_would_have_written(tmp_path: Path):
    batch = samples(0, 1, 2)
    with make(tmp_path, rows_per_chunk=4) as store:
        store.append(batch)
        group = zarr.open_group(store.path, mode="r+")
        for name, chunk in {
            "inputs": "c.0.0.0.0",
            "outputs": "c.0.0.0.0.0",
            "parameters": "c.0.0",
            "index": "c.0",
        }.items():
            ours = (store.path / name / chunk).read_bytes()
            group[name][:3] = batch.indices if name == "index" else getattr(batch, name)
            assert (store.path / name / chunk).read_bytes() == ours


@pytest.mark.parametrize("survived", [0, 1, 2, 4, 8, 12, 14, 15])
def test_an_append_that_fails_can_be_repeated(tmp_path: Path, survived: int, monkeypatch: pytest.MonkeyPatch):
    """The disk is full from some sync on: what is seen is whole, nothing at all before the index."""
    store = make(tmp_path)
    store.append(samples(0, 1))
    calls = []

    def fill_up(path: Path) -> None:
        calls.append(path)
        if len(calls) > survived:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("headrace.platform.dataset.writer.sync", fill_up)
        with pytest.raises(OSError, match="No space left"):
            store.append(samples(2, 3, 4, 5, 6))
    stored = StoredSamples.open(tmp_path)
    # Before the first index: the new level's name (2 syncs), 8 chunks, 4 directories; with the index the first chunk.
    assert stored.indices.tolist() == ([0, 1] if survived < 15 else [0, 1, 2, 3, 4, 5])
    assert_same(stored.read_all(), samples(*stored.indices))
    store.append(samples(2, 3, 4, 5, 6))
    store.close()
    stored.refresh()
    assert_same(stored.read_all(), samples(*range(7)))
    with SampleStore.open_append(store.path) as store:
        store.append(samples(7))
    assert_same(StoredSamples.open(tmp_path).read_all(), samples(*range(8)))


@pytest.mark.parametrize("left", [0, 16], ids=["empty", "half"])
def test_chunks_that_a_power_cut_tore_are_ignored_and_swept(tmp_path: Path, left: int):
    with make(tmp_path, rows_per_chunk=4) as store:
        store.append(samples(0, 1))
        store.append(samples(2, 3))
    for name in ("index/c.1", "inputs/c.1.0.0.0"):
        os.truncate(store.path / name, left)
    (store.path / "outputs" / "c.2.0.0.0.0.partial").write_bytes(b"torn")
    assert_same(StoredSamples.open(tmp_path).read_all(), samples(0, 1))
    with SampleStore.open_append(store.path) as store:
        assert not list(store.path.rglob("*.partial")) and not list(store.path.rglob("c.1*"))
        store.append(samples(2, 4))
    assert_same(StoredSamples.open(tmp_path).read_all(), samples(0, 1, 2, 4))
    assert zarr.open_group(store.path, mode="r")["inputs"][:].shape[0] == 8  # plain Zarr reads it all, too


def test_one_writer_at_a_time(tmp_path: Path):
    with (
        make(tmp_path) as store,
        pytest.raises(InputError, match=rf"in the hands of process {os.getpid()} on .*; expected a shard that no"),
    ):
        SampleStore.open_append(store.path)
    SampleStore.open_append(store.path).close()


def test_a_writer_beyond_a_cut_that_comes_back_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with make(tmp_path) as beyond:
        beyond.append(samples(0, 1))
        # Locks that are local to each machine: another one gets it, too.
        monkeypatch.setattr(files.fcntl, "flock", lambda *_: None)
        with SampleStore.open_append(beyond.path) as store:
            with pytest.raises(TakenOver, match=r"has taken over from process .* and writes no more"):
                beyond.append(samples(2, 3))
            store.append(samples(4, 5))
    found = StoredSamples.open(tmp_path)
    assert found.indices.tolist() == [0, 1, 4, 5]


def test_a_shard_waits_for_its_writer_to_go(tmp_path: Path):
    store = make(tmp_path)
    threading.Timer(0.3, store.close).start()
    SampleStore.open_append(store.path, wait_seconds=10).close()


def test_a_closed_shard_takes_no_more(tmp_path: Path):
    store = make(tmp_path)
    store.close()
    store.close()
    with pytest.raises(ValueError, match="is closed"):
        store.append(samples(0))


def test_batches_that_do_not_fit_are_refused_whole(tmp_path: Path):
    with make(tmp_path) as store:
        good = samples(0, 1)
        bad = {
            "inputs are float64": dataclasses.replace(good, inputs=good.inputs.astype(np.float64)),
            r"outputs are float32 of shape \(2, 1, 1, 5, 7\), the schema has float32 \(2, 2, 1, 5, 7\)": (
                dataclasses.replace(good, outputs=good.outputs[:, :1])
            ),
            r"parameters are float32 of shape \(1, 3\)": dataclasses.replace(good, parameters=good.parameters[:1]),
            "an index is negative: -1": dataclasses.replace(good, indices=np.array([0, -1])),
            "2 samples came with 1 provenances": dataclasses.replace(good, provenance=good.provenance[:1]),
        }
        for words, batch in bad.items():
            with pytest.raises(ValueError, match=words):
                store.append(batch)
        assert len(StoredSamples.open(tmp_path, allow_empty=True)) == 0


def test_a_shard_that_exists_is_not_overwritten(tmp_path: Path):
    make(tmp_path).close()
    with pytest.raises(InputError, match="there already; expected a new shard"):
        make(tmp_path)


def test_a_creation_that_was_cut_off_is_neither_seen_nor_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr("headrace.platform.dataset.writer.sync", lambda path: os.stat(tmp_path / "nowhere" / "missing"))
        with pytest.raises(FileNotFoundError):
            make(tmp_path)
    with pytest.raises(InputError, match="without shards"):
        StoredSamples.open(tmp_path)
    make(tmp_path).close()
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["shard-0.zarr"]
    assert not (tmp_path / ".shard-0.zarr.new").exists()


def test_what_is_not_a_data_set_is_told(tmp_path: Path):
    with pytest.raises(InputError, match=r"nowhere is not there; expected a data set"):
        StoredSamples.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; expected a data set"):
        StoredSamples.open(tmp_path / "file")
    with pytest.raises(InputError, match=r"a directory without shards; expected a data set: a directory that holds"):
        StoredSamples.open(tmp_path)
    make(tmp_path / "train").close()
    make(tmp_path / "test").close()
    with pytest.raises(InputError, match="It holds data sets: test, train; name one of them"):
        StoredSamples.open(tmp_path)
    with pytest.raises(InputError, match=rf"This is one shard; name {tmp_path / 'train'}"):
        StoredSamples.open(tmp_path / "train" / "shard-0.zarr")
    with pytest.raises(InputError, match="is not there; expected a shard"):
        SampleStore.open_append(tmp_path / "shard-9.zarr")


def test_foreign_and_newer_shards_are_told(tmp_path: Path):
    zarr.create_group(tmp_path / "foreign" / "shard-0.zarr")
    with pytest.raises(InputError, match="a Zarr group of something else; expected a shard of Headrace samples"):
        StoredSamples.open(tmp_path / "foreign")
    (tmp_path / "bare" / "shard-0.zarr").mkdir(parents=True)
    with pytest.raises(InputError, match="no readable Zarr group"):
        StoredSamples.open(tmp_path / "bare")
    make(tmp_path / "newer").close()
    group = zarr.open_group(tmp_path / "newer" / "shard-0.zarr")
    group.attrs["headrace"] = {**group.attrs["headrace"], "version": 9}
    with pytest.raises(InputError, match="a shard of format 9; expected .* format 1"):
        StoredSamples.open(tmp_path / "newer")
    make(tmp_path / "damaged").close()
    group = zarr.open_group(tmp_path / "damaged" / "shard-0.zarr")
    group.attrs["headrace"] = {**group.attrs["headrace"], "schema": {"inputs": []}}
    with pytest.raises(InputError, match="a damaged header"):
        StoredSamples.open(tmp_path / "damaged")
    make(tmp_path / "cut").close()
    shutil.rmtree(tmp_path / "cut" / "shard-0.zarr" / "outputs")
    with pytest.raises(InputError, match="without the array outputs"):
        StoredSamples.open(tmp_path / "cut")


def test_shards_of_different_schemas_are_told(tmp_path: Path):
    for number, times in enumerate([(0.5, 1.0), (0.5, 2.0)]):
        with make(tmp_path, number, schema=dataclasses.replace(SCHEMA, times=times)) as store:
            store.append(samples(number))
    with pytest.raises(InputError, match=r"shard-1.zarr: times is \(0.5, 2.0\); expected \(0.5, 1.0\), as in shard-0"):
        StoredSamples.open(tmp_path)


def test_a_manifest_tells_content_not_layout(tmp_path: Path):
    """Order of arrival, chunks and shards do not matter to it; one bit does."""
    one = write_dataset(tmp_path / "one", SCHEMA, [samples(*range(12))], {})
    for number, indices in enumerate([[11, 3, 5, 7], [0, 1, 2, 4, 6, 8, 9, 10, 11]]):
        with make(tmp_path / "two", number, rows_per_chunk=3) as store:
            store.append(samples(*indices))
    assert read_manifest(tmp_path / "two") is None
    two = write_manifest(tmp_path / "two")
    assert one == two == read_manifest(tmp_path / "one") == read_manifest(tmp_path / "two")
    assert (one.count, one.schema, one.levels) == (12, SCHEMA, {"medium": 4, "rough": 4, "smooth": 4})
    changed = samples(*range(12))
    changed.outputs[7, 1, 0, 2, 3] = np.nextafter(changed.outputs[7, 1, 0, 2, 3], np.float32(10))
    assert write_dataset(tmp_path / "changed", SCHEMA, [changed], {}).content_hash != one.content_hash
    fewer = write_dataset(tmp_path / "fewer", SCHEMA, [samples(*range(11))], {})
    assert (fewer.count, fewer.content_hash == one.content_hash) == (11, False)


class Made(Spec):
    """A source as far as a manifest looks at it."""

    class Rod(Spec):
        kind: Literal["rod"] = "rod"
        length: float = 2.0

    problem: Rod = Rod()
    seed: int = 3


def test_a_manifest_tells_which_problem_made_the_data(tmp_path: Path):
    with make(tmp_path, 0) as store:
        store.append(samples(*range(3)))
    written = write_manifest(tmp_path, Made(), {"rough": {"worst": 0.02}})
    found = read_manifest(tmp_path)
    assert found == written and found is not None
    assert found.problem == {"kind": "rod", "length": 2.0}
    assert found.source == {"problem": {"kind": "rod", "length": 2.0}, "seed": 3}
    assert found.source_hash == spec_hash(Made()) and found.label_errors == {"rough": {"worst": 0.02}}


def test_a_manifest_of_before_it_told_the_problem_is_read(tmp_path: Path):
    imported = write_dataset(tmp_path / "set", SCHEMA, [samples(0)], {})
    assert (imported.problem, imported.source_hash) == (None, None)
    path = tmp_path / "set" / "manifest.json"
    old = json.loads(path.read_text())
    del old["source"], old["source_hash"], old["label_errors"]
    path.write_text(json.dumps(old))
    assert read_manifest(tmp_path / "set") == imported


def test_a_damaged_manifest_is_told(tmp_path: Path):
    write_dataset(tmp_path / "set", SCHEMA, [samples(0)], {})
    path = tmp_path / "set" / "manifest.json"
    assert json.loads(path.read_text())["count"] == 1
    path.write_text(path.read_text()[:50])
    with pytest.raises(InputError, match="manifest.json is not readable"):
        read_manifest(tmp_path / "set")


def test_a_data_set_is_written_into_an_empty_directory_only(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty; expected a new or empty directory"):
        write_dataset(tmp_path, SCHEMA, [samples(0)], {})
    with pytest.raises(InputError, match="without a single sample"):
        write_dataset(tmp_path / "new", SCHEMA, [], {})
