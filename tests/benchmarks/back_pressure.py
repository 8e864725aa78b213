"""Does anything grow, or stop for ever, when the trainer or the solvers are 20 times too slow?

A stream as in `headrace run`, with a source and a trainer that sleep: one way the trainer takes 20 times as long for a
sample as the two solvers do, the other way the solvers take 20 times as long as the trainer would. Every second the
resident memory of each of the stream's processes and the use of Ray's object store are noted. Memory is bounded when
what the processes hold in the last third of the run is what they held in the second third.
"""

import argparse
import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import ray
from _machine import ran_on
from ray._private.internal_api import node_stats

from headrace.platform.cluster.cluster import start_embedded
from headrace.platform.cluster.resources import ResourcePlan
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.ledger.ledger import Ledger
from headrace.platform.reservoir.spec import ReservoirSpec
from headrace.platform.sample import Failure, Provenance, Request, Sample
from headrace.platform.samplers.sampler import SamplerContext
from headrace.platform.stream.plan import StreamPlan
from headrace.platform.stream.stream import Stream

POINTS = 128
BATCH = 16
SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="a"),),
    outputs=(FieldSpec(name="u"),),
    domain=Grid(shape=(POINTS, POINTS), extent=(1.0, 1.0), periodic=(False, False)),
)


@dataclass(frozen=True)
class Sleeping:
    """Fields of noise, after a while; noise does not compress."""

    seconds: float

    def schema(self) -> SampleSchema:
        return SCHEMA

    def build(self) -> "Sleeping":
        return self

    def report(self) -> dict[str, object]:
        return {}

    def sampler_context(self, count: int | None = None) -> SamplerContext:
        return SamplerContext(mix={"noise": 1.0}, axes={"noise": {}}, seed=0, split="train", count=count)

    def solve(self, requests: Sequence[Request]) -> Iterator[Sample | Failure]:
        for request in requests:
            time.sleep(self.seconds)
            noise = np.random.default_rng(request.index).random((2, 1, POINTS, POINTS), dtype=np.float32)
            yield Sample(
                inputs=noise[0],
                outputs=noise[1:],
                parameters=np.zeros(0, np.float32),
                provenance=Provenance(
                    spec_hash="noise",
                    seed=0,
                    index=request.index,
                    level=request.level,
                    solver="sleep",
                    status="converged",
                    relative_residual=0.0,
                    num_iterations=1,
                    wall_seconds=self.seconds,
                    cpu_seconds=0.0,
                    version="0",
                ),
            )


def actors() -> Iterator[tuple[str, int]]:
    """The stream's processes by role, with their resident memory [bytes]; Ray names a worker by its actor's class."""
    for process in psutil.Process().children(recursive=True):
        try:
            title = process.cmdline()[0] if process.cmdline() else ""
            for role in ("Coordinator", "SolverActor", "ReservoirShard"):
                if title.startswith(f"ray::{role}"):
                    memory = process.memory_info()
                    # What a process maps of the object store counts as its own: leave it out.
                    yield role, memory.rss - memory.shared
        except psutil.Error:
            continue


def measure(
    case: str, solver_seconds: float, trainer_seconds: float, seconds: float, capacity: int
) -> dict[str, object]:
    """Run a stream for a while; what it came to."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        Ledger.create(folder / "ledger.sqlite", {"train": 1_000_000}).close()
        plan = StreamPlan(
            run_dir=folder,
            checkpoint_dir=folder / "checkpoints",
            sources={"train": Sleeping(solver_seconds)},
            sequence_length=32,
            message_bytes=1 << 20,
            message_seconds=2.0,
            credits=4,
            lease_seconds=3600.0,
            reservoir=ReservoirSpec(kind="reservoir", capacity=capacity, watermark=BATCH),
            seed=0,
        )
        resources = ResourcePlan(
            num_solvers=2, solver_cpus=0.1, solver_gpus=0.0, solver_threads=1,
            num_ranks=1, rank_cpus=0.1, rank_gpus=0.0, rank_threads=1, placement="pack",
        )  # fmt: skip
        stream = Stream(plan, folder / "ledger.sqlite", resources)
        reader = stream.feed().claim(0, "here")
        stop, steps = threading.Event(), 0

        def train() -> None:
            nonlocal steps
            while not stop.is_set():
                if reader.pull(BATCH, steps) is None:
                    return
                steps += 1
                stop.wait(trainer_seconds)

        thread = threading.Thread(target=train, daemon=True)
        thread.start()
        [node] = ray.nodes()
        held: dict[str, list[int]] = defaultdict(list)
        store: list[float] = []
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            stream.poll(1.0)
            by_role: dict[str, int] = defaultdict(int)
            for role, size in actors():
                by_role[role] = max(by_role[role], size)
            for role, size in by_role.items():
                held[role].append(size)
            stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"]).store_stats
            store.append(stats.object_store_bytes_used / stats.object_store_bytes_avail)
        snapshot = stream.snapshot()
        stop.set()
        stream.stop()
        thread.join(30)
        for actor in (*stream.shards, stream.coordinator):
            ray.kill(actor)
    found: dict[str, object] = {"case": case, "steps": steps, "stored": snapshot.counts["train"].stored}
    for role, sizes in sorted(held.items()):
        third = len(sizes) // 3
        middle, last = max(sizes[third : 2 * third]), max(sizes[2 * third :])
        found[role] = {"middle_mb": round(middle / 1e6, 1), "last_mb": round(last / 1e6, 1)}
    found["object_store_peak"] = round(max(store), 4)
    print(f"{case:<14} {steps:>5} steps, {found['stored']:>6} stored, object store {100 * max(store):.2f} % at most")
    for role in sorted(held):
        print(f"{'':<14} {role:<15} {found[role]}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--capacity", type=int, default=512, help="samples that the reservoir holds")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    hardware = ran_on("ray")
    print(hardware)
    start_embedded(num_cpus=2)
    fast = 0.004  # seconds a sample of one of the two solvers: 500 a second together
    equal = BATCH * fast / 2  # seconds a step for which that is just enough
    cases = [
        measure("slow trainer", fast, 20 * equal, arguments.seconds, arguments.capacity),
        measure("slow solvers", 20 * fast, equal, arguments.seconds, arguments.capacity),
    ]
    ray.shutdown()
    print(
        json.dumps({"benchmark": "back_pressure", "sample_mb": SCHEMA.sample_nbytes / 1e6, "cases": cases, **hardware})
    )


if __name__ == "__main__":
    main()
