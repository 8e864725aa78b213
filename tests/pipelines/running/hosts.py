"""A stream on the hosts of a cluster, with a trainer that only reads; `test_hosts.py` runs this on one of them.

Samples come slowly until there is a file `hurry` in the folder, so that there is time to disturb them.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
from rich.console import Console

from headrace.pipelines.recipe.config import load
from headrace.pipelines.running.online import StreamWatch
from headrace.pipelines.running.progress import RunProgress
from headrace.pipelines.running.session import Session
from headrace.platform.cluster.cluster import connected
from headrace.platform.cluster.resources import ResourcePlan, ResourcesSpec
from headrace.platform.dataset.reader import StoredSamples, shard_indices, shard_paths
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.ledger.ledger import Ledger
from headrace.platform.reservoir.spec import ReservoirSpec
from headrace.platform.sample import Failure, Provenance, Request, Sample
from headrace.platform.samplers.sampler import SamplerContext
from headrace.platform.stream.plan import StreamPlan
from headrace.platform.stream.stream import Stream, StreamFeed

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="a"),),
    outputs=(FieldSpec(name="u"),),
    domain=Grid(shape=(8, 8), extent=(1.0, 1.0), periodic=(False, False)),
)


@dataclass(frozen=True)
class Slow:
    """Sample i holds the number i, after a while."""

    hurry: Path

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
            time.sleep(0.001 if self.hurry.exists() else 0.05)
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


class Reader(threading.Thread):
    """A training rank that takes every batch of its shard."""

    def __init__(self, feed: StreamFeed, number: int) -> None:
        super().__init__(daemon=True)
        self._feed, self._number = feed, number
        self.taken: list[int] = []

    def run(self) -> None:
        reader = self._feed.claim(self._number, "")
        step = 0
        while (batch := reader.pull(4, step)) is not None:
            self.taken += batch.indices.tolist()
            step += 1


def main(folder: Path, address: str, samples: int, ranks: int) -> None:
    config = load("smoke", ["tracking.enabled=false"], "generate")
    resources = ResourcePlan(
        num_solvers=2,
        solver_cpus=1.0,
        solver_gpus=0.0,
        solver_threads=1,
        num_ranks=ranks,
        rank_cpus=0.0,
        rank_gpus=0.0,
        rank_threads=1,
        placement="spread",
    )
    RunProgress.seconds_between_lines = 1.0
    console = Console(width=1000, force_terminal=False)
    with RunProgress(console) as progress, connected(ResourcesSpec(address=address)):
        session = Session(config, "generate", folder / "run")
        run = session.run
        Ledger.create(run.ledger, {"train": samples, "validation": 0, "test": 0}).close()
        plan = StreamPlan(
            run_dir=run.path,
            checkpoint_dir=run.checkpoints,
            sources=dict.fromkeys(("train", "validation", "test"), Slow(folder / "hurry")),
            sequence_length=8,
            message_bytes=4 * SCHEMA.sample_nbytes,
            message_seconds=0.3,
            credits=2,
            lease_seconds=600.0,
            reservoir=ReservoirSpec(kind="fifo", capacity=64, watermark=8),
            num_ranks=ranks,
            seed=0,
        )
        stream = Stream(plan, run.ledger, resources)
        watch = StreamWatch(stream, session, progress, resources)
        readers = [Reader(stream.feed(), number) for number in range(ranks)]
        for reader in readers:
            reader.start()
        alive = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        print(json.dumps({"shards": [alive[node] for node in ray.get([one.node.remote() for one in stream.shards])]}))
        progress.update(phase="streaming")
        while stream.poll(0.2):
            watch.look()
        while any(reader.is_alive() for reader in readers):
            stream.poll(0.2)
            watch.look()
        watch.look(final=True)
        stream.stop()
        with Ledger.open(run.ledger, read_only=True) as ledger:
            counts = ledger.counts("train")
            committed = {shard: indices.tolist() for shard, indices in ledger.committed("train").items()}
            still_out = len(ledger.leases())
        logged = {path.stem: shard_indices(path).tolist() for path in shard_paths(run.data("train"))}
        inputs = StoredSamples.open(run.data("train")).read_all().inputs[:, 0, 0, 0]
        taken = sorted(index for reader in readers for index in reader.taken)
        found = {
            "stored": counts.stored,
            "failed": counts.failed,
            "duplicates": counts.duplicates,
            "leases": still_out,
            "rows_in_logs": sum(map(len, logged.values())),
            "ledger_is_in_logs": all(set(indices) <= set(logged[shard]) for shard, indices in committed.items()),
            "every_sample_once": sorted(sum(committed.values(), [])) == list(range(samples)),
            "values_are_right": bool(np.array_equal(inputs, np.arange(samples))),
            "trained_on": len(taken),
            "trained_on_twice": len(taken) - len(set(taken)),
        }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("address")
    parser.add_argument("samples", type=int)
    parser.add_argument("ranks", type=int)
    main(**vars(parser.parse_args()))
