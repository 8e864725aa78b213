"""Does training from the stream cost throughput, compared with the same batches from memory?

One training takes its batches by turns, some steps from a reservoir shard in an actor of its own, through Ray's object
store, and as many from a reservoir in this process: a machine whose speed drifts by a tenth in a minute is the same for
two neighbouring turns. The first steps of a turn, whose batches were fetched during the one before, are not counted.
Both reservoirs hold the same samples and policy. The solvers have finished before: they are not the bottleneck.

    python tests/benchmarks/stream_vs_memory.py [--pairs 24] [--turn 10]

The ratio is that of the speeds of two neighbouring turns; given are its median over the pairs, the quartiles, and a
90 % interval of the median by bootstrap. The last line is one JSON object. Needs a free machine: look at the load.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import ray
import torch

from headrace.platform.cluster.cluster import start_embedded
from headrace.platform.cluster.resources import Capacity, ResourcesSpec, fit_resources
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.fields import SampleSchema
from headrace.platform.ledger.ledger import Ledger
from headrace.platform.provenance import machine
from headrace.platform.reservoir.spec import ReservoirSpec
from headrace.platform.sample import SampleBatch
from headrace.platform.stream.plan import StreamPlan
from headrace.platform.stream.stream import Stream
from headrace.solvers.sources.systems import SolverSource
from headrace.surrogates import FNO
from headrace.surrogates.datamodule import StreamDataModule
from headrace.surrogates.fit import fit
from headrace.surrogates.training import TrainingSpec

NUM_SAMPLES = 512
Pull = Callable[[int, int], SampleBatch | None]


UNCOUNTED = 3  # steps of a turn: two batches are fetched ahead, and one is under way


def way_of(step: int, turn: int) -> str:
    """Which way the batch of a step comes: turns in pairs, every second pair the other way round."""
    number = step // turn
    return ("stream", "memory", "memory", "stream")[number % 4]


def train(
    ways: dict[str, Pull], schema: SampleSchema, steps: int, turn: int, batch_size: int
) -> list[dict[str, float]]:
    """Train, and return for each pair of turns the samples per second of both ways."""
    ended: dict[int, float] = {}

    def report(step: int | None, metrics: dict[str, float]) -> None:
        if step is not None and "train/loss" in metrics:
            ended[step] = time.perf_counter()

    training = TrainingSpec(
        steps=steps, batch_size=batch_size, log_every=1, validate_every=steps, checkpoint_every=steps
    )
    fit(
        surrogate=FNO(modes=12, width=32),
        training=training,
        schema=schema,
        data=StreamDataModule(pull=lambda size, step: ways[way_of(step, turn)](size, step), batch_size=batch_size),
        report=report,
        num_threads=1,
    )
    found = []
    for first in range(0, steps, 2 * turn):
        pair = {}
        for start in (first, first + turn):
            # Step s has ended when s + 1 steps are reported.
            seconds = ended[start + turn] - ended[start + UNCOUNTED]
            pair[way_of(start, turn)] = (turn - UNCOUNTED) * batch_size / seconds
        found.append(pair)
    return found


def main() -> None:
    """Run the comparison."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--resolution", type=int, default=64)
    arguments.add_argument("--batch-size", type=int, default=32)
    arguments.add_argument("--turn", type=int, default=10, help="steps of a turn")
    arguments.add_argument("--pairs", type=int, default=24)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print(__doc__)
    print(machine())
    print({name: version(name) for name in ("torch", "ray", "numpy", "pytorch-lightning")}, platform.python_version())

    source = SolverSource.model_validate({"problem": {"kind": "darcy", "resolution": given.resolution}})
    schema = source.schema()
    reservoir = ReservoirSpec(kind="reservoir", capacity=NUM_SAMPLES, watermark=NUM_SAMPLES)
    start_embedded()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger.sqlite"
        Ledger.create(ledger, {"train": NUM_SAMPLES}).close()
        plan = StreamPlan(
            run_dir=Path(folder),
            checkpoint_dir=Path(folder) / "checkpoints",
            sources={"train": source},
            sequence_length=32,
            message_bytes=4 * 1024 * 1024,
            message_seconds=2.0,
            credits=4,
            lease_seconds=600.0,
            reservoir=reservoir,
            seed=0,
        )
        spec = ResourcesSpec.model_validate({"solvers": {"actors": 1}})
        stream = Stream(plan, ledger, fit_resources(spec, Capacity(cpus=(2.0,), gpus=(0.0,))))
        while stream.poll(0.5):
            pass
        reader = stream.feed().claim(0, "")
        stored = StoredSamples.open(Path(folder) / "data" / "train").read_all()
        local = reservoir.build(schema, seed=0)
        local.try_put(stored)
        local.end()
        ways: dict[str, Pull] = {"stream": reader.pull, "memory": lambda size, step: local.take(size)}
        # A pair is thrown away: the first steps of a process are slow.
        steps = 2 * given.turn * (given.pairs + 1)
        pairs = train(ways, schema, steps, given.turn, given.batch_size)[1:]
        stream.stop()
    ray.shutdown()
    for pair in pairs:
        print(f"stream {pair['stream']:6.1f}   memory {pair['memory']:6.1f} samples / s")
    ratios = np.array([pair["stream"] / pair["memory"] for pair in pairs])
    again = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    summary = {
        "benchmark": Path(sys.argv[0]).stem,
        "resolution": given.resolution,
        "batch_size": given.batch_size,
        "pairs": len(pairs),
        "samples_per_second": {name: statistics.median(pair[name] for pair in pairs) for name in ways},
        "ratio_median": float(np.median(ratios)),
        "ratio_quartiles": np.percentile(ratios, [25, 75]).tolist(),
        "ratio_median_90": np.percentile(np.median(again, axis=1), [5, 95]).tolist(),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
