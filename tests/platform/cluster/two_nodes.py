"""A stream on a cluster of two nodes, one of which is removed in the middle; `test_two_nodes.py` runs this."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# A node that is gone is noticed within seconds instead of half a minute.
os.environ |= {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
}
import ray
from ray.cluster_utils import Cluster

from headrace.platform.cluster.resources import ResourcePlan
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.ledger.ledger import Ledger
from headrace.platform.reservoir.spec import ReservoirSpec
from headrace.platform.sample import Failure, Provenance, Request, Sample
from headrace.platform.samplers.sampler import SamplerContext
from headrace.platform.stream.plan import StreamPlan
from headrace.platform.stream.stream import Stream

SAMPLES = 1200
SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="a"),),
    outputs=(FieldSpec(name="u"),),
    domain=Grid(shape=(8, 8), extent=(1.0, 1.0), periodic=(False, False)),
)


@dataclass(frozen=True)
class Slow:
    """Sample i holds the number i, after a while."""

    def schema(self) -> SampleSchema:
        return SCHEMA

    def build(self) -> "Slow":
        return self

    def report(self) -> dict[str, object]:
        return {}

    def sampler_context(self, count: int | None = None) -> SamplerContext:
        return SamplerContext(mix={"easy": 1.0}, axes={"easy": {}}, seed=0, split="train", count=count)

    def solve(self, requests: Sequence[Request]) -> Iterator[Sample | Failure]:
        for index in (request.index for request in requests):
            time.sleep(0.02)
            yield Sample(
                inputs=np.full((1, 8, 8), index, np.float32),
                outputs=np.full((1, 1, 8, 8), 2 * index, np.float32),
                parameters=np.zeros(0, np.float32),
                provenance=Provenance(
                    spec_hash="slow",
                    seed=0,
                    index=index,
                    level="easy",
                    solver="slow",
                    status="converged",
                    relative_residual=0.0,
                    num_iterations=1,
                    wall_seconds=0.02,
                    cpu_seconds=0.0,
                    version="0",
                ),
            )


def main(folder: Path) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    other = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    Ledger.create(folder / "ledger.sqlite", {"train": SAMPLES}).close()
    plan = StreamPlan(
        run_dir=folder,
        checkpoint_dir=folder / "checkpoints",
        sources={"train": Slow()},
        sequence_length=8,
        message_bytes=4 * SCHEMA.sample_nbytes,
        message_seconds=0.1,
        credits=2,
        lease_seconds=60.0,
        reservoir=ReservoirSpec(kind="reservoir", capacity=2 * SAMPLES),
        seed=0,
    )
    resources = ResourcePlan(
        num_solvers=2,
        solver_cpus=1.0,
        solver_gpus=0.0,
        solver_threads=1,
        num_ranks=1,
        rank_cpus=0.0,
        rank_gpus=0.0,
        rank_threads=1,
        placement="pack",
    )
    stream = Stream(plan, folder / "ledger.sqlite", resources)

    def poll_until(what: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            if not stream.poll(0.2) or time.monotonic() > deadline:
                raise SystemExit(f"it did not come to that: {stream.snapshot()}")

    def workers() -> set[str]:
        with Ledger.open(folder / "ledger.sqlite", read_only=True) as ledger:
            return {lease.worker for lease in ledger.leases()}

    poll_until(lambda: workers() == {"solver-0", "solver-1"}, 60)
    poll_until(lambda: stream.snapshot().counts["train"].stored > 50, 30)
    stored_before = stream.snapshot().counts["train"].stored
    cluster.remove_node(other, allow_graceful=False)
    # Its solver's successor waits for a place; the other one goes on.
    poll_until(lambda: stream.snapshot().waiting == 1, 60)
    poll_until(lambda: stream.snapshot().counts["train"].stored > stored_before + 30, 60)
    cluster.add_node(num_cpus=1)
    poll_until(lambda: stream.snapshot().waiting == 0, 60)
    poll_until(lambda: len(workers()) == 2, 30)
    while stream.poll(0.5):
        pass
    counts = stream.snapshot().counts["train"]
    stored = StoredSamples.open(folder / "data" / "train")
    right = np.array_equal(stored.read_all().inputs[:, 0, 0, 0], np.arange(SAMPLES))
    stream.stop()
    ray.shutdown()
    cluster.shutdown()
    found = {"stored": counts.stored, "failed": counts.failed, "before": stored_before, "right": bool(right)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
