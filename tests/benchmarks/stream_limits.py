"""What can one coordinator and one shard sustain? The figures behind docs/scaling.md.

Coordinator, for a million planned samples that are sorted: leases and durable commits a second, in its own process and
asked through Ray by 1 and by 4 solvers, and its memory. Shard: samples and MB a second that `ReservoirShard` takes up
(deserialise, compress, write, sync, commit, reservoir), against `memcpy` of the same arrays and against the same
messages sent to an actor that drops them (Ray's object store alone).

    python tests/benchmarks/stream_limits.py [--seconds 4] [--repeats 3]

Turn by turn; the median of the repeats counts, with the least and the most. The last line is one JSON object.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import ray
from _machine import ran_on

from headrace.platform.cluster.cluster import start_embedded
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.ledger.ledger import Ledger
from headrace.platform.reservoir.spec import ReservoirSpec
from headrace.platform.sample import Provenance, SampleBatch
from headrace.platform.stream.coordinator import Coordinator
from headrace.platform.stream.plan import StreamPlan
from headrace.platform.stream.shard import ReservoirShard

PLANNED = 1_000_000
ROWS = 32


class Nothing:
    """A source that is never built: only its schema counts."""

    def __init__(self, size: int) -> None:
        self._schema = SampleSchema(
            inputs=(FieldSpec(name="permeability"),),
            outputs=(FieldSpec(name="pressure"),),
            domain=Grid(shape=(size, size), extent=(1.0, 1.0), periodic=(False, False)),
        )

    def schema(self) -> SampleSchema:
        return self._schema


class Sink:
    """Takes a message and drops it."""

    def take(self, message: SampleBatch) -> int:
        return len(message)


class Client:
    """Asks for leases and commits them, as a solver and a shard would."""

    def work(self, coordinator: object, name: str, seconds: float) -> int:
        done, last, end = 0, 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            lease = ray.get(coordinator.lease.remote(name, 1, last))  # type: ignore[attr-defined]
            last = lease.id
            ray.get(coordinator.commit.remote("train", "shard-0", lease.id, list(lease.indices)))  # type: ignore[attr-defined]
            done += 1
        return done


def rate(work: Callable[[], object], seconds: float) -> float:
    """How often a second."""
    work()
    number, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        work()
        number += 1
    return number / (time.perf_counter() - began)


def plan(folder: Path, size: int, reservoir: ReservoirSpec | None) -> StreamPlan:
    return StreamPlan(
        run_dir=folder,
        checkpoint_dir=folder / "checkpoints",
        sources={"train": Nothing(size)},  # type: ignore[dict-item]
        sequence_length=ROWS,
        message_bytes=8 * 1024 * 1024,
        message_seconds=2.0,
        credits=4,
        lease_seconds=600.0,
        reservoir=reservoir,
        seed=0,
    )


def ledger_alone(folder: Path, seconds: float) -> dict[str, float]:
    process = psutil.Process()
    order = np.random.default_rng(0).permutation(PLANNED)
    before = process.memory_info().rss
    path = folder / "alone.sqlite"
    began = time.perf_counter()
    ledger = Ledger.create(path, {"train": PLANNED}, orders={"train": order})
    created = time.perf_counter() - began
    leases = []

    def lease() -> None:
        leases.append(ledger.lease("solver-0", "train", ROWS, 600.0))

    leases_a_second = rate(lease, seconds)
    waiting = iter(leases)

    def commit() -> None:
        one = next(waiting)
        assert one is not None
        ledger.commit("train", "shard-0", one.id, one.indices)

    commits_a_second = rate(commit, min(seconds, 0.8 * len(leases) / 400.0))
    memory = process.memory_info().rss - before
    ledger.close()
    return {
        "create_seconds": created,
        "leases": leases_a_second,
        "commits": commits_a_second,
        "memory_mib": memory / 2**20,
    }


def through_ray(folder: Path, clients: int, seconds: float) -> float:
    """Leases and commits of 32 samples, both a second."""
    path = folder / f"ray-{clients}-{time.monotonic_ns()}.sqlite"
    Ledger.create(path, {"train": PLANNED}).close()
    coordinator = ray.remote(Coordinator).options(num_cpus=0).remote(path, plan(folder, 64, None))
    actors = [ray.remote(Client).options(num_cpus=0).remote() for _ in range(clients)]
    ray.get([actor.work.remote(coordinator, f"solver-{k}", 0.5) for k, actor in enumerate(actors)])
    done = ray.get([actor.work.remote(coordinator, f"solver-{k}", seconds) for k, actor in enumerate(actors)])
    for actor in (*actors, coordinator):
        ray.kill(actor)
    return sum(done) / seconds


def message(size: int, first: int) -> SampleBatch:
    rng = np.random.default_rng(first)
    smooth = np.cumsum(np.cumsum(rng.standard_normal((ROWS, 1, size, size)), axis=2), axis=3).astype(np.float32)
    indices = np.arange(first, first + ROWS)
    provenance = tuple(
        Provenance(
            spec_hash="x", seed=0, index=int(index), level="default", solver="multigrid", status="converged",
            relative_residual=1e-9, num_iterations=7, wall_seconds=1e-3, cpu_seconds=1e-3, version="0",
        )
        for index in indices
    )  # fmt: skip
    parameters = np.zeros((ROWS, 0), np.float32)
    return SampleBatch(
        indices=indices, inputs=smooth, outputs=smooth[:, None], parameters=parameters, provenance=provenance
    )


def shard(folder: Path, size: int, messages: int) -> dict[str, float]:
    """Samples a second through a shard, through Ray alone, and by memcpy; one sender, four messages under way."""
    folder = folder / f"shard-{size}-{time.monotonic_ns()}"
    folder.mkdir()
    Ledger.create(folder / "ledger.sqlite", {"train": PLANNED}).close()
    # Everything is evicted by what comes: the trainer is not what is measured.
    running = plan(folder, size, ReservoirSpec(kind="reservoir", capacity=ROWS * (messages + 2), watermark=1))
    name = f"coordinator-{time.monotonic_ns()}"
    coordinator = ray.remote(Coordinator).options(num_cpus=0, name=name).remote(folder / "ledger.sqlite", running)
    actor = ray.remote(ReservoirShard).options(num_cpus=0).remote(0, running, name)
    sink = ray.remote(Sink).options(num_cpus=0).remote()
    made = [message(size, ROWS * k) for k in range(messages + 1)]
    found = {}

    def send(call: Callable[[SampleBatch], ray.ObjectRef]) -> float:
        ray.get(call(made[0]))
        began, under_way = time.perf_counter(), []
        for one in made[1:]:
            if len(under_way) == 4:
                ray.get(under_way.pop(0))
            under_way.append(call(one))
        ray.get(under_way)
        return ROWS * messages / (time.perf_counter() - began)

    found["shard"] = send(lambda one: actor.ingest.remote("train", None, one))
    found["ray"] = send(lambda one: sink.take.remote(one))
    began = time.perf_counter()
    for one in made[1:]:
        one.inputs.copy(), one.outputs.copy()
    found["memcpy"] = ROWS * messages / (time.perf_counter() - began)
    for one_actor in (actor, sink, coordinator):
        ray.kill(one_actor)
    return found


def spread(values: list[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "least": min(values), "most": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--messages", type=int, default=12)
    arguments = parser.parse_args()
    about = ran_on("numpy", "zarr", "ray")
    print("Question: what can one coordinator and one shard sustain?")
    print("Machine: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"Warm-up: one call of each kind. Repeats: {arguments.repeats}.")
    gathered: dict[str, list[float]] = {}
    start_embedded(num_cpus=2)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for _ in range(arguments.repeats):
            for key, value in ledger_alone(folder, arguments.seconds).items():
                gathered.setdefault(f"ledger alone: {key}", []).append(value)
            (folder / "alone.sqlite").unlink()
            for clients in (1, 4):
                found = through_ray(folder, clients, arguments.seconds)
                gathered.setdefault(f"lease and commit through Ray, {clients} clients", []).append(found)
            for size in (64, 129):
                nbytes = 2 * 4 * size**2
                for way, value in shard(folder, size, arguments.messages).items():
                    gathered.setdefault(f"{size}^2, {way}: samples / s", []).append(value)
                    gathered.setdefault(f"{size}^2, {way}: MB / s", []).append(value * nbytes / 1e6)
    result = {name: spread(values) for name, values in gathered.items()}
    for name, values in result.items():
        print(f"  {name:48s} {values['median']:12.1f}  ({values['least']:.1f} to {values['most']:.1f})")
    print(json.dumps({"benchmark": "stream_limits", "machine": about, "results": result}))


if __name__ == "__main__":
    main()
