"""Does training from the stream cost throughput, compared with the same batches from memory?

The same surrogate is trained with the same steps twice, in turn: from a reservoir shard in an actor of its own, through
Ray's object store, and from a reservoir of the same seed in this process. Equal seeds give equal batches, so the losses
must agree; only the way of the batches differs. The solvers have finished before: they are not the bottleneck.
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

import ray
import torch

from headrace.platform.cluster import start_embedded
from headrace.platform.fields import SampleSchema
from headrace.platform.ledger import Ledger
from headrace.platform.provenance import machine
from headrace.platform.reservoir_spec import ReservoirSpec
from headrace.platform.resources import Capacity, ResourcesSpec, fit_resources
from headrace.platform.sample import SampleBatch
from headrace.platform.stored import StoredSamples
from headrace.platform.stream import Stream
from headrace.platform.stream_plan import StreamPlan
from headrace.solvers.source import SolverSource
from headrace.surrogates import FNO
from headrace.surrogates.datamodule import StreamDataModule
from headrace.surrogates.fit import fit
from headrace.surrogates.training import TrainingSpec

NUM_SAMPLES = 512


def train(
    pull: Callable[[int, int], SampleBatch | None], schema: SampleSchema, steps: int, batch_size: int
) -> dict[str, float]:
    """Train and return samples per second after the first steps, the share of time spent waiting, and the last loss."""
    moments: list[tuple[float, int, float]] = []

    def report(step: int | None, metrics: dict[str, float]) -> None:
        if step is not None and "train/loss" in metrics:
            moments.append((time.perf_counter(), step, metrics["train/loss"]))

    training = TrainingSpec(steps=steps, batch_size=batch_size, log_every=10, validate_every=steps)
    result = fit(
        surrogate=FNO(modes=12, width=32),
        training=training,
        schema=schema,
        data=StreamDataModule(pull=pull, batch_size=batch_size),
        report=report,
        num_threads=1,
    )
    (start, first, _), (end, last, loss) = moments[0], moments[-1]
    return {"rate": (last - first) * batch_size / (end - start), "wait_share": result.wait_share, "loss": loss}


def main() -> None:
    """Run the comparison."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--resolution", type=int, default=64)
    arguments.add_argument("--batch-size", type=int, default=32)
    arguments.add_argument("--steps", type=int, default=40)
    arguments.add_argument("--repeats", type=int, default=3)
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
        ways: dict[str, Callable[[int, int], SampleBatch | None]] = {
            "stream": reader.pull,
            "memory": lambda size, step: local.take(size),
        }
        rows = []
        for repeat in range(given.repeats + 1):
            # Turn by turn, and in the other order every second time: drift of the machine hits both.
            for name in sorted(ways, reverse=bool(repeat % 2)):
                row = {"way": name, "repeat": repeat, **train(ways[name], schema, given.steps, given.batch_size)}
                print(row, "(warm-up, not counted)" if repeat == 0 else "", flush=True)
                rows.append(row)
        stream.stop()
    ray.shutdown()
    rates = {name: [row["rate"] for row in rows if row["way"] == name and row["repeat"]] for name in ways}
    ratios = [a / b for a, b in zip(rates["stream"], rates["memory"], strict=True)]
    summary = {
        "benchmark": Path(sys.argv[0]).stem,
        "resolution": given.resolution,
        "batch_size": given.batch_size,
        "samples_per_second": {name: statistics.median(values) for name, values in rates.items()},
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "stream_wait_share": statistics.median([row["wait_share"] for row in rows if row["way"] == "stream"]),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
