"""How much does training online gain over training on a fixed set of simulations, at equal gradient steps?

Case A, the heat equation of Meyer et al. (ICML 2023) scaled down: u_t = Δu on the unit square, 32 x 32 interior points,
the initial temperature and those of the four walls uniform in [100, 500], 100 implicit Euler steps of 0.01. A network
of 6 scalars (five temperatures and the time) learns the field at that time; every step of a simulation is a row.

- offline-N: N simulations, all of their steps, in epochs; the budget is in the name.
- online: solvers run 10 simulations at a time, whose steps arrive in turn, and feed a `Reservoir` in this process. One
  fresh row comes for each that is trained on (`online`), or for every four (`online-reuse-4`); `fifo` serves the rows
  in the order of arrival, once.

All take the same number of steps from the same initial weights, and are judged on the same 50 held-out simulations.

    python tests/benchmarks/online_vs_offline.py [--seeds 0 1 2] [--cases online offline-25] [--steps 4000]

The last line is one JSON object.
"""

import argparse
import itertools
import json
import multiprocessing
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from _machine import ran_on
from _online import Judge, Stream
from jaxtyping import Float
from torch import Tensor

from headrace.platform.fields import Domain, FieldSpec, Grid, SampleSchema
from headrace.platform.reservoir.spec import ReservoirSpec
from headrace.platform.sample import SampleBatch
from headrace.platform.seeding import generator
from headrace.solvers import HeatWithWalls
from headrace.solvers.evolution.evolution import Draw
from headrace.surrogates import MLP, TrainingSpec
from headrace.surrogates.datamodule import AbstractDataModule, StoredDataModule, StreamDataModule
from headrace.surrogates.fit import fit
from headrace.surrogates.losses import AbstractLoss, RelativeL2
from headrace.surrogates.optimizers import AdamW
from headrace.surrogates.schedules import AbstractSchedule, Cosine, Staircase

POINTS, NUM_TIMES, DT = 32, 100, 0.01
COLDEST, HOTTEST = 100.0, 500.0
NUM_HELD_OUT = 50
AT_A_TIME = 10
BATCH = 32
CASES = ("offline-10", "offline-25", "offline-100", "fifo", "online-reuse-4", "online")
SOLVER = HeatWithWalls(resolution=POINTS, integrator="implicit_euler", horizon=NUM_TIMES * DT, snapshots=NUM_TIMES)
SCHEMA = SampleSchema(
    inputs=(),
    outputs=(FieldSpec(name="temperature", unit="K"),),
    parameters=tuple(FieldSpec(name=name) for name in ("initial", "west", "east", "south", "north", "time")),
    domain=Grid(shape=(POINTS, POINTS), extent=(1.0, 1.0), periodic=(False, False), location="cells"),
)


def responses() -> Float[np.ndarray, "temperatures time x y"]:
    """The temperature at all steps for each of the five temperatures at 1 and the others at 0.

    The scheme is linear, so every simulation is a sum of these.
    """
    names = ("start", "west", "east", "south", "north")
    draws = [
        Draw(
            scalars=dict.fromkeys(names, 0.0) | {one: 1.0, "diffusivity": 1.0},
            fields={"temperature": np.full((1, POINTS, POINTS), float(one == "start"))},
        )
        for one in names
    ]
    return np.stack([snapshot.state[:, 0] for snapshot in SOLVER.follow(draws, DT)], axis=1)


class Simulations:
    """Simulation i of a split, as a function of (seed, split, i) alone."""

    def __init__(self, seed: int, split: str) -> None:
        self._seed, self._split = seed, split
        self._responses = responses().astype(np.float32)
        self._drawn: dict[int, np.ndarray] = {}

    def temperatures(self, index: int) -> Float[np.ndarray, " temperatures"]:
        """Initial temperature and those of the walls [K]."""
        if index not in self._drawn:
            random = generator(self._seed, self._split, "temperatures", index)
            self._drawn[index] = random.uniform(COLDEST, HOTTEST, 5).astype(np.float32)
        return self._drawn[index]

    def rows(self, simulations: Sequence[int], steps: Sequence[int]) -> SampleBatch:
        """One step of a simulation in each row: its index is the simulation's, its last parameter the time."""
        temperatures = np.stack([self.temperatures(index) for index in simulations])
        return SampleBatch(
            indices=np.array(simulations, dtype=np.int64),
            inputs=np.zeros((len(steps), 0, POINTS, POINTS), dtype=np.float32),
            outputs=np.einsum("rk,krxy->rxy", temperatures, self._responses[:, steps])[:, None, None],
            parameters=np.column_stack([temperatures, DT * (1 + np.array(steps))]).astype(np.float32),
        )

    def first(self, count: int) -> SampleBatch:
        """All steps of the first simulations."""
        return self.rows(np.repeat(range(count), NUM_TIMES).tolist(), np.tile(range(NUM_TIMES), count).tolist())

    def arriving(self) -> Iterator[tuple[int, int]]:
        """Simulation and step, as `AT_A_TIME` solvers send them: each sends a step in turn, then starts anew."""
        # The first ones are at different steps, as solvers that have run for a while are.
        running = deque((index, index * NUM_TIMES // AT_A_TIME) for index in range(AT_A_TIME))
        started = AT_A_TIME
        while True:
            simulation, step = running.popleft()
            yield simulation, step
            if step + 1 < NUM_TIMES:
                running.append((simulation, step + 1))
            else:
                running.append((started, 0))
                started += 1


class MeanSquare(AbstractLoss):
    """Mean of (u - v)²: what is judged. Headrace's own losses are relative; this one is as a plug-in would bring it."""

    kind: Literal["mean_square"] = "mean_square"

    def __call__(
        self,
        prediction: Float[Tensor, "batch time channels *grid"],
        truth: Float[Tensor, "batch time channels *grid"],
        grid: Domain,
    ) -> Float[Tensor, ""]:
        """The mean over the batch."""
        return (prediction - truth).square().mean()


LOSSES: dict[str, AbstractLoss] = {"mean_square": MeanSquare(), "relative_l2": RelativeL2()}


SCHEDULES: dict[str, AbstractSchedule] = {"halvings": Staircase(), "cosine": Cosine()}


def data_of(case: str, simulations: Simulations, seed: int) -> tuple[AbstractDataModule, Callable[[], int]]:
    """The training data of a case, and how many rows were made for it, once it has ended."""
    if case.startswith("offline-"):
        samples = simulations.first(int(case.removeprefix("offline-")))
        return StoredDataModule(samples=samples, batch_size=BATCH, seed=seed), lambda: len(samples)
    if case == "fifo":
        spec = ReservoirSpec(kind="fifo", capacity=5000, watermark=AT_A_TIME)
    else:
        spec = ReservoirSpec(kind="reservoir", capacity=5000, watermark=2 * AT_A_TIME)
    fresh, order = BATCH // 4 if case == "online-reuse-4" else BATCH, simulations.arriving()

    def arriving(count: int) -> SampleBatch:
        return simulations.rows(*zip(*itertools.islice(order, count), strict=True))

    stream = Stream(reservoir=spec, schema=SCHEMA, seed=seed, arriving=arriving, fresh=fresh)
    return StreamDataModule(pull=stream.pull, batch_size=BATCH), lambda: stream.arrived


def train(case: str, seed: int, steps: int, activation: str, loss: str, schedule: str) -> dict[str, float | int | str]:
    """Train one network and judge it."""
    data, num_rows = data_of(case, Simulations(seed, "train"), seed)
    training = TrainingSpec(
        steps=steps,
        batch_size=BATCH,
        optimizer=AdamW(learning_rate=1e-3, weight_decay=0.0),
        gradient_clip=None,
        validate_every=steps,
        checkpoint_every=steps,
        log_every=steps,
    ).model_copy(update={"loss": LOSSES[loss], "schedule": SCHEDULES[schedule]})
    held_out = Simulations(0, "validation").first(NUM_HELD_OUT)
    judge = Judge(held_out)
    surrogate = MLP(hidden=(256, 256), activation=activation)  # type: ignore[arg-type]
    began = time.perf_counter()
    fit(
        surrogate=surrogate,
        training=training,
        schema=SCHEMA,
        data=data,
        seed=seed,
        num_threads=1,
        accelerator="cpu",
        callbacks=[judge],
    )
    squared = ((judge.prediction.astype(np.float64) - held_out.outputs) ** 2).mean(axis=(1, 2, 3, 4))
    each = squared.reshape(NUM_HELD_OUT, NUM_TIMES).mean(axis=1) / (HOTTEST - COLDEST) ** 2
    return {
        "case": case,
        "seed": seed,
        "mse": float(each.mean()),
        "mse_p95": float(np.quantile(each, 0.95)),
        "rms_kelvin": float(np.sqrt(each.mean()) * (HOTTEST - COLDEST)),
        "simulations": num_rows() / NUM_TIMES,
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    """Run the comparison."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    arguments.add_argument("--processes", type=int, default=1, help="trainings at once, of one thread each")
    arguments.add_argument("--steps", type=int, default=4000)
    arguments.add_argument("--activation", choices=("gelu", "relu", "silu", "tanh"), default="relu")
    arguments.add_argument("--loss", choices=LOSSES, default="mean_square")
    arguments.add_argument("--schedule", choices=SCHEDULES, default="halvings")
    given = arguments.parse_args()
    print(__doc__)
    about = ran_on("torch", "numpy", "scipy", "pytorch-lightning")
    print(about)
    held_out = Simulations(0, "validation").first(NUM_HELD_OUT)
    variance = float(held_out.outputs.var() / (HOTTEST - COLDEST) ** 2)
    print(f"held-out temperatures: variance {variance:.4f} in units of ({HOTTEST - COLDEST:.0f} K)^2")

    rows = []
    todo = [
        (case, seed, given.steps, given.activation, given.loss, given.schedule)
        for seed in given.seeds
        for case in given.cases
    ]
    with ProcessPoolExecutor(given.processes, mp_context=multiprocessing.get_context("spawn")) as processes:
        for row in processes.map(train, *zip(*todo, strict=True)):
            rows.append(row)
            print(row, flush=True)
    mse = {case: [float(row["mse"]) for row in rows if row["case"] == case] for case in given.cases}
    mean = {case: statistics.mean(values) for case, values in mse.items()}
    summary = {
        "benchmark": Path(sys.argv[0]).stem,
        **about,
        "steps": given.steps,
        "batch_size": BATCH,
        "seeds": given.seeds,
        "activation": given.activation,
        "loss": given.loss,
        "schedule": given.schedule,
        "variance": variance,
        "mse": mse,
        "mse_mean": mean,
        "simulations": {row["case"]: row["simulations"] for row in rows},
    }
    if "offline-25" in mean:
        summary["against_offline_25"] = {case: value / mean["offline-25"] - 1 for case, value in mean.items()}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
