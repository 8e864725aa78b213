"""How fast are the ledger, the store and the reservoir, and what does a durable, compressed log cost over plain files?

Run: python tests/benchmarks/store_throughput.py [DIRECTORY on the disk to measure]

Messages of half a megabyte with Darcy-like fields (log-normal permeability, smooth pressure) are made durable singly:
- SampleStore.append: chunks, provenance and index, each synced in its order;
- the peer: np.save of inputs, outputs and index into three new files, each synced, then their directory: durable, but
  without order, provenance, padding, or a layout that other programs read;
- one raw file: the same bytes, written and synced once: what the disk allows.
The three take turns within each repeat, so that a disk that others use slows all of them alike. CPU time is the
process's own and tells the overhead on a machine that is busy otherwise.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from headrace.platform.dataset.writer import SampleStore, StoredSamples
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.ledger.ledger import Ledger
from headrace.platform.provenance import machine
from headrace.platform.reservoir.reservoir import Reservoir
from headrace.platform.sample import Provenance, SampleBatch

REPEATS = 5
MESSAGES = 20  # per repeat, after one to warm up
COMPRESSORS = {
    "none": None,
    "zstd-1": ZstdCodec(level=1),
    "blosc lz4, shuffle": BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
    "blosc lz4, bitshuffle": BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),
    "blosc zstd-1, shuffle": BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
    "blosc zstd-3, shuffle": BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
}


def schema(size: int) -> SampleSchema:
    """A steady scalar problem on a square grid."""
    grid = Grid(shape=(size, size), extent=(1.0, 1.0), periodic=(False, False))
    return SampleSchema(inputs=(FieldSpec(name="permeability"),), outputs=(FieldSpec(name="pressure"),), domain=grid)


def smooth(rng: np.random.Generator, count: int, size: int, power: float) -> np.ndarray:
    """Gaussian fields whose spectrum falls like |k|^-power, of unit variance."""
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(size, 1 / size), np.fft.rfftfreq(size, 1 / size), indexing="ij"))
    shape = (count, *k.shape)
    noise = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    field = np.fft.irfft2((k**2 + 9) ** (-power / 2) * noise, s=(size, size))
    return field / field.std()


def message(start: int, count: int, size: int) -> SampleBatch:
    """Samples `start`, `start + 1`, ... with provenance."""
    rng = np.random.default_rng(start)
    return SampleBatch(
        indices=np.arange(start, start + count),
        inputs=np.exp(smooth(rng, count, size, 3.0)).astype(np.float32)[:, None],
        outputs=smooth(rng, count, size, 5.0).astype(np.float32)[:, None, None],
        parameters=np.empty((count, 0), dtype=np.float32),
        provenance=tuple(
            Provenance(
                spec_hash="0123456789abcdef", seed=0, index=start + row, level="smooth", solver="multigrid",
                status="converged", relative_residual=1e-9, num_iterations=9, wall_seconds=0.01, cpu_seconds=0.01,
                version="0.1.0",
            )
            for row in range(count)
        ),
    )  # fmt: skip


def synced(path: Path, content: np.ndarray | bytes) -> None:
    """Write a file and bring it to the disk."""
    with path.open("wb") as file:
        if isinstance(content, bytes):
            file.write(content)
        else:
            np.save(file, content)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Bring a directory's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


class PlainFiles:
    """The peer: three .npy files a message."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.count = directory, 0
        directory.mkdir()

    def append(self, batch: SampleBatch) -> None:
        """Write and sync a message."""
        self.count += 1
        for name in ("inputs", "outputs", "indices"):
            synced(self.directory / f"{name}-{self.count}.npy", getattr(batch, name))
        sync_directory(self.directory)


class RawFile:
    """What the disk allows: the bytes of a message in one file."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.count = directory, 0
        directory.mkdir()

    def append(self, batch: SampleBatch) -> None:
        """Write and sync a message."""
        self.count += 1
        synced(self.directory / f"{self.count}.bin", batch.inputs.tobytes() + batch.outputs.tobytes())
        sync_directory(self.directory)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def spread(values: list[float], digits: int = 1) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def appends(root: Path, size: int) -> dict[str, float]:
    """Time of a durable message of half a megabyte, three ways."""
    rows = SampleStore.create(root / f"probe-{size}" / "shard-0.zarr", schema(size), {}).rows_per_chunk
    messages = [message(number * rows, rows, size) for number in range(MESSAGES + 1)]
    megabytes = (messages[0].inputs.nbytes + messages[0].outputs.nbytes) / 1e6
    wall: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    data = root / f"data-{size}"
    for repeat in range(REPEATS):
        ways = {
            "SampleStore": SampleStore.create(data / f"shard-{repeat}.zarr", schema(size), {}),
            "np.save + fsync": PlainFiles(root / f"plain-{size}-{repeat}"),
            "raw file + fsync": RawFile(root / f"raw-{size}-{repeat}"),
        }
        for number, batch in enumerate(messages):
            for name, way in ways.items():
                seconds, cpu_seconds = timed(lambda way=way, batch=batch: way.append(batch))
                if number:
                    wall.setdefault(name, []).append(1e3 * seconds)
                    cpu.setdefault(name, []).append(1e3 * cpu_seconds)
        ways["SampleStore"].close()
    print(f"\n{size} x {size}: messages of {rows} samples, {megabytes:.2f} MB; {REPEATS} x {MESSAGES} messages")
    found = {}
    for name in wall:
        per_repeat = [statistics.mean(wall[name][i * MESSAGES : (i + 1) * MESSAGES]) for i in range(REPEATS)]
        middle = statistics.median(per_repeat)
        print(
            f"  {name:17s} {spread(per_repeat)} ms a message, CPU {statistics.median(cpu[name]):.1f} ms: "
            f"{1e3 * rows / middle:.0f} samples/s, {1e3 * megabytes / middle:.1f} MB/s"
        )
        found[name] = {"ms": middle, "cpu_ms": statistics.median(cpu[name]), "samples_per_second": 1e3 * rows / middle}
    on_disk = sum(file.stat().st_size for file in data.rglob("*") if file.is_file())
    print(f"  on the disk: {on_disk / (REPEATS * (MESSAGES + 1) * megabytes * 1e6):.2f} of the raw bytes")
    reading(data, rows)
    return found


def reading(directory: Path, rows: int) -> None:
    """Time to open a set and to read it, whole and at random."""
    total = rows * (MESSAGES + 1)
    stored = StoredSamples.open(directory)
    opened = [1e3 * timed(lambda: StoredSamples.open(directory))[0] for _ in range(REPEATS)]
    whole = [total / timed(stored.read_all)[0] for _ in range(REPEATS)]
    rng = np.random.default_rng(0)
    picks = [rng.choice(total, 16, replace=False) for _ in range(10 * REPEATS)]
    single = [1e3 * timed(lambda pick=pick: stored.batch(pick))[0] for pick in picks]
    print(
        f"  reading: open {spread(opened)} ms, read_all {spread(whole, 0)} samples/s, 16 at random {spread(single)} ms"
    )


def compression(root: Path, size: int, rows: int) -> None:
    """CPU time and size of a chunk pair by compressor, on a memory file system where there is one."""
    batch = message(0, rows, size)
    print(f"\ncompression of {rows} samples of {size} x {size}, inputs and outputs")
    for name, compressor in COMPRESSORS.items():
        target = Path(tempfile.mkdtemp(dir=root))
        group = zarr.create_group(target / "group.zarr")
        arrays = [
            (
                group.create_array(
                    key, shape=((MESSAGES + 1) * rows, *values.shape[1:]), chunks=values.shape, dtype="float32",
                    compressors=compressor, chunk_key_encoding={"name": "default", "separator": "."},
                ),
                values,
            )
            for key, values in (("inputs", batch.inputs), ("outputs", batch.outputs))
        ]  # fmt: skip
        write, read = [], []
        for number in range(MESSAGES + 1):
            part = slice(number * rows, (number + 1) * rows)
            write.append(1e3 * timed(lambda part=part, a=arrays: [array.__setitem__(part, v) for array, v in a])[1])
            read.append(1e3 * timed(lambda part=part, a=arrays: [array[part] for array, _ in a])[1])
        stored = sum(file.stat().st_size for file in target.rglob("c.*"))
        ratio = stored / ((MESSAGES + 1) * (batch.inputs.nbytes + batch.outputs.nbytes))
        cost = f"write {statistics.median(write[1:]):.1f} ms CPU, read {statistics.median(read[1:]):.1f} ms CPU"
        print(f"  {name:22s} {cost}, size {ratio:.2f}")


def ledger(root: Path) -> dict[str, float]:
    """Leases and durable commits a second, of 16 samples each."""
    commits, leases, size = [], [], 16
    for repeat in range(REPEATS):
        with Ledger.create(root / f"ledger-{repeat}.sqlite", {"train": 10**6}) as book:
            started = time.perf_counter()
            granted = [book.lease("worker", "train", size, 60) for _ in range(200)]
            leases.append(200 / (time.perf_counter() - started))
            started = time.perf_counter()
            for lease in granted:
                book.commit("train", "shard-0", lease.id, lease.indices)
            commits.append(200 / (time.perf_counter() - started))
    print(f"\nledger, {size} samples a call: {spread(leases, 0)} leases/s, {spread(commits, 0)} durable commits/s")
    return {"leases_per_second": statistics.median(leases), "commits_per_second": statistics.median(commits)}


def reservoir(size: int) -> dict[str, float]:
    """Samples a second through a full reservoir, in and out."""
    buffer = Reservoir(schema(size), 2000, "reservoir", 256)
    batch = message(0, 16, size)
    while buffer.try_put(batch) == len(batch):
        continue
    puts, takes = [], []
    for _ in range(200):
        takes.append(16 / timed(lambda: buffer.take(16))[0])
        puts.append(16 / timed(lambda: buffer.try_put(batch))[0])
    print(f"reservoir of 2000, {size} x {size}: take {spread(takes, 0)} samples/s, put {spread(puts, 0)} samples/s")
    return {"takes_per_second": statistics.median(takes), "puts_per_second": statistics.median(puts)}


def main() -> None:
    """Measure and print everything."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        root = Path(name)
        here = machine()
        print(f"{here['cpu']}, {here['cores']} cores, load {os.getloadavg()[0]:.1f}, {platform.platform()}")
        print(", ".join(f"{package} {version(package)}" for package in ("numpy", "zarr", "numcodecs")))
        result: dict[str, object] = {"appends": {size: appends(root, size) for size in (33, 128)}}
        memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else root
        with tempfile.TemporaryDirectory(dir=memory) as fast:
            compression(Path(fast), 33, 60)
            compression(Path(fast), 128, 4)
        result["ledger"] = ledger(root)
        result["reservoir"] = {size: reservoir(size) for size in (33, 128)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
