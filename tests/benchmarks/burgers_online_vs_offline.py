"""What does training online gain over a fixed set of trajectories, for a network that steps in time?

Case B, Burgers' equation: 64 points, viscosities from 0.002 to 0.05 with uniform logarithms, 20 output times up to 1.
An FNO learns the way from one output time to the next and is judged on forecasts from time 0 to 1 of the same 100
held-out trajectories. All are solved on four times the points.

- offline-N: N trajectories in epochs; the budget is in the name.
- online: two fresh trajectories come into a `Reservoir` of 500 in this process for every step of 32; `online-slow` gets
  one for every eight steps.

All take the same number of steps from the same initial weights. The trajectories are solved beforehand, in order: what
solving costs is not compared here, how much each case gets to see is.

    python tests/benchmarks/burgers_online_vs_offline.py [--seeds 0 1 2] [--cases online offline-40] [--steps 2000]

The last line is one JSON object.
"""

import argparse
import functools
import itertools
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from _machine import ran_on
from _online import Judge, Stream

from headrace.platform.reservoir.spec import ReservoirSpec
from headrace.platform.sample import Sample, SampleBatch
from headrace.solvers import Burgers, EvolutionSource, Numerics
from headrace.surrogates import FNO, TrainingSpec
from headrace.surrogates.datamodule import AbstractDataModule, StoredDataModule, StreamDataModule
from headrace.surrogates.fit import fit
from headrace.surrogates.metrics import over_time, per_sample
from headrace.surrogates.strategies import Autoregressive

BATCH, CAPACITY, WATERMARK, NUM_HELD_OUT = 32, 500, 64, 100
FRESH = {"online": 2.0, "online-slow": 0.125}
CASES = ("offline-40", "offline-160", "online-slow", "online")
PROBLEM = Burgers(resolution=64, viscosity={"low": 2e-3, "high": 5e-2, "scale": "log"}, horizon=1.0, snapshots=20)
NUMERICS = Numerics(refinement=4, step=1.0 / 320.0)


@functools.cache
def trajectories(seed: int, split: str, count: int) -> SampleBatch:
    """The first trajectories of a split, in order."""
    torch.set_num_threads(1)
    source = EvolutionSource(problem=PROBLEM, numerics={"default": NUMERICS}, seed=seed, split=split)  # type: ignore[arg-type]
    results = source.samples(range(count))
    # What comes last are samples that needed a shorter step.
    samples = sorted((one for one in results if isinstance(one, Sample)), key=lambda one: one.provenance.index)
    assert len(samples) == count, "some trajectories could not be solved"
    return SampleBatch.stack(samples)


def data_of(case: str, seed: int, steps: int) -> tuple[AbstractDataModule, Callable[[], int]]:
    """The training data of a case, and how many trajectories were used, once training has ended."""
    if case.startswith("offline-"):
        samples = trajectories(seed, "train", int(case.removeprefix("offline-")))
        return StoredDataModule(samples=samples, batch_size=BATCH, seed=seed), lambda: len(samples)
    samples = trajectories(seed, "train", WATERMARK + round(FRESH[case] * steps))
    order = iter(range(len(samples)))
    stream = Stream(
        reservoir=ReservoirSpec(kind="reservoir", capacity=CAPACITY, watermark=WATERMARK),
        schema=EvolutionSource(problem=PROBLEM).schema(),
        seed=seed,
        arriving=lambda count: samples.take(np.fromiter(itertools.islice(order, count), dtype=np.int64)),
        fresh=FRESH[case],
    )
    return StreamDataModule(pull=stream.pull, batch_size=BATCH), lambda: stream.arrived


def train(case: str, seed: int, steps: int, rollout: int) -> dict[str, float | int | str]:
    """Train one network and judge it."""
    began = time.perf_counter()
    data, num_used = data_of(case, seed, steps)
    held_out = trajectories(0, "test", NUM_HELD_OUT)
    solved = time.perf_counter()
    training = TrainingSpec(
        strategy=Autoregressive(rollout=rollout),
        steps=steps,
        batch_size=BATCH,
        validate_every=steps,
        checkpoint_every=steps,
        log_every=steps,
    )
    judge = Judge(held_out)
    fit(
        surrogate=FNO(modes=16, width=24, layers=3),
        training=training,
        schema=EvolutionSource(problem=PROBLEM).schema(),
        data=data,
        seed=seed,
        num_threads=1,
        accelerator="cpu",
        callbacks=[judge],
    )
    grid = PROBLEM.grid
    whole = per_sample(judge.prediction, held_out.outputs, grid, ("relative_l2",))["relative_l2"]
    first = over_time(judge.prediction[:, :1], held_out.outputs[:, :1], grid, ("relative_l2",))["relative_l2"]
    return {
        "case": case,
        "seed": seed,
        "rollout": float(whole.mean()),
        "rollout_p95": float(np.percentile(whole, 95)),
        "one_step": float(first.mean()),
        "trajectories": num_used(),
        "solving_seconds": round(solved - began, 1),
        "training_seconds": round(time.perf_counter() - solved, 1),
    }


def main() -> None:
    """Run the comparison."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    arguments.add_argument("--processes", type=int, default=1, help="trainings at once, of one thread each")
    arguments.add_argument("--steps", type=int, default=2000)
    arguments.add_argument("--rollout", type=int, default=1, help="output times that are followed in a training step")
    given = arguments.parse_args()
    print(__doc__)
    about = ran_on("torch", "numpy", "pytorch-lightning")
    print(about)
    todo = [(case, seed, given.steps, given.rollout) for seed in given.seeds for case in given.cases]
    rows = []
    with ProcessPoolExecutor(given.processes, mp_context=multiprocessing.get_context("spawn")) as processes:
        for row in processes.map(train, *zip(*todo, strict=True)):
            rows.append(row)
            print(row, flush=True)
    summary: dict[str, object] = {
        "benchmark": Path(sys.argv[0]).stem,
        **about,
        "steps": given.steps,
        "rollout": given.rollout,
        "batch_size": BATCH,
        "seeds": given.seeds,
    }
    for figure in ("rollout", "rollout_p95", "one_step"):
        by_case = {case: [float(row[figure]) for row in rows if row["case"] == case] for case in given.cases}
        mean = {case: statistics.mean(values) for case, values in by_case.items()}
        summary[f"{figure}_of_seeds"], summary[f"{figure}_mean"] = by_case, mean
        if "offline-40" in mean:
            summary[f"{figure}_against_offline_40"] = {case: v / mean["offline-40"] - 1 for case, v in mean.items()}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
