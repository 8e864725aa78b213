"""What does a step of training cost beside its arithmetic, and what does a prediction cost at which batch?

In processor time on one thread, by turns, medians of several repeats:

- steps of an FNO, and of finite volumes, with the C library's defaults and with what it frees kept: in processes of
  their own, since a library that was told once does no longer adapt its thresholds;
- predictions of an FNO in batches of 1 to 64, the same way;
- a step of `fit` with a tiny network, and the same steps in a plain loop;
- a spectral layer on one axis by matrices and by FFT.

    python tests/benchmarks/training_steps.py [--repeats 5]

The last line is one JSON object.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from _machine import ran_on

from headrace.platform.allocator import keep_freed_memory
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.sample import SampleBatch
from headrace.platform.seeding import generator
from headrace.solvers import ShallowWater
from headrace.surrogates import FNO, MLP, Predictor, TrainingSpec
from headrace.surrogates.datamodule import StoredDataModule
from headrace.surrogates.fit import fit
from headrace.surrogates.layers import spectral_conv
from headrace.surrogates.metrics import relative_l2


def schema(shape: tuple[int, ...], num_parameters: int = 0) -> SampleSchema:
    """One field in, one out."""
    return SampleSchema(
        inputs=(FieldSpec(name="a"),),
        outputs=(FieldSpec(name="u"),),
        parameters=tuple(FieldSpec(name=f"p{i}") for i in range(num_parameters)),
        domain=Grid(shape=shape, extent=(1.0,) * len(shape), periodic=(True,) * len(shape)),
    )


def samples(of: SampleSchema, count: int) -> SampleBatch:
    """Random fields."""
    rng = np.random.default_rng(0)
    shape = of.domain.shape
    return SampleBatch(
        indices=np.arange(count),
        inputs=rng.normal(size=(count, 1, *shape)).astype(np.float32),
        outputs=rng.normal(size=(count, 1, 1, *shape)).astype(np.float32),
        parameters=rng.normal(size=(count, of.num_parameters)).astype(np.float32),
    )


def training_step(of: SampleSchema, surrogate: FNO | MLP, batch: int) -> Callable[[], None]:
    """A step in a plain loop."""
    torch.manual_seed(0)
    network, rows = surrogate.build(of), samples(of, batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    inputs, outputs, parameters = (torch.from_numpy(a) for a in (rows.inputs, rows.outputs, rows.parameters))

    def step() -> None:
        optimizer.zero_grad()
        relative_l2(network(inputs, parameters), outputs, of.domain).mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    return step


def finite_volumes(resolution: int) -> Callable[[], None]:
    """Some steps of shallow water, four samples together."""
    problem = ShallowWater(resolution=resolution)
    problem = problem.overridden({"horizon": problem.horizon / 32.0, "snapshots": 2})
    draws = [problem.draw(generator(0, "benchmark", number)) for number in range(4)]

    def follow() -> None:
        for _ in problem.follow(draws, problem.default_step):
            pass

    return follow


def seconds(work: Callable[[], None], count: int) -> float:
    """Processor time of one."""
    began = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - began) / count


def by_turns(arms: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The median of each arm; the first turn of each is its warm-up."""
    found: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(repeats + 1):
        order = list(arms.items())
        for name, arm in order if turn % 2 else reversed(order):
            value = arm()
            if turn:
                found[name].append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def faults(work: Callable[[], None]) -> int:
    """Page faults of one."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


WORKS: dict[str, Callable[[], Callable[[], None]]] = {
    "fno 64x64, batch 16": lambda: training_step(schema((64, 64)), FNO(modes=16, width=32), 16),
    "fno 32x32, batch 16": lambda: training_step(schema((32, 32)), FNO(modes=12, width=32), 16),
    "fno 16x16, batch 16": lambda: training_step(schema((16, 16)), FNO(modes=6, width=32), 16),
    "shallow water 64x64, 4 together": lambda: finite_volumes(64),
    "shallow water 128x128, 4 together": lambda: finite_volumes(128),
}
PREDICTED = {"16x16": (6, 256), "64x64": (16, 64), "128x128": (16, 64), "1024": (64, 64)}
SIZES = (1, 2, 4, 8, 16, 32, 64)


def in_a_process(*arguments: str) -> dict[str, float]:
    """What this script says of one arm."""
    command = [sys.executable, __file__, *arguments]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def one_arm(name: str, keep: bool) -> dict[str, float]:
    """Processor time and page faults of a step, or processor time of a prediction by batch size."""
    torch.set_num_threads(1)
    if keep:
        keep_freed_memory()
    if name in WORKS:
        work = WORKS[name]()
        for _ in range(3):
            work()
        count = max(3, math.ceil(1.0 / max(seconds(work, 1), 1e-3)))
        result = {"seconds": seconds(work, count), "page_faults": float(faults(work))}
        return {**result, "mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0}
    shape = tuple(int(n) for n in name.split("x"))
    modes, count = PREDICTED[name]
    predict, inputs = predictor(schema(shape), FNO(modes=modes, width=32)), samples(schema(shape), count).inputs
    arms = {
        str(size): lambda size=size: seconds(lambda: predict.predict(inputs, batch_size=size) is None, 1) / count
        for size in SIZES
    }
    return by_turns(arms, 3)


def memory(repeats: int) -> dict[str, dict[str, float]]:
    """Medians of steps with defaults and with freed memory kept."""
    table = {}
    for name in WORKS:
        runs: dict[str, list[dict[str, float]]] = {"default": [], "kept": []}
        for turn in range(repeats):
            for arm in list(runs)[:: 1 if turn % 2 else -1]:
                runs[arm].append(in_a_process("--arm", arm, "--work", name))
        row = {
            f"{key} {arm}": statistics.median(run[key] for run in found)
            for arm, found in runs.items()
            for key in ("seconds", "page_faults", "mebibytes")
        }
        table[name] = row
        print(
            f"{name:34s} {1e3 * row['seconds default']:8.1f} ms, kept {1e3 * row['seconds kept']:8.1f} ms, "
            f"{row['seconds default'] / row['seconds kept']:.2f}x; page faults {row['page_faults default']:.0f} -> "
            f"{row['page_faults kept']:.0f}; peak {row['mebibytes default']:.0f} -> {row['mebibytes kept']:.0f} MiB",
            flush=True,
        )
    return table


def predictions(repeats: int) -> dict[str, dict[str, float]]:
    """Medians of predictions by batch size."""
    table = {}
    for name in PREDICTED:
        for arm in ("default", "kept"):
            runs = [in_a_process("--arm", arm, "--work", name) for _ in range(max(1, repeats // 3))]
            row = {size: statistics.median(run[size] for run in runs) for size in runs[0]}
            table[f"{name} {arm}"] = row
            cells = ", ".join(f"{size}: {1e3 * value:.2f}" for size, value in row.items())
            print(f"predict {name:8s} {arm:8s} ms a sample by batch size {cells}", flush=True)
    return table


def predictor(of: SampleSchema, surrogate: FNO) -> Predictor:
    """One with fresh weights."""
    rows = samples(of, 8)
    with TemporaryDirectory() as folder:
        result = fit(
            surrogate=surrogate,
            training=TrainingSpec(steps=1, batch_size=8),
            schema=of,
            data=StoredDataModule(samples=rows, batch_size=8),
            checkpoint_dir=Path(folder),
            num_threads=1,
        )
        assert result.checkpoint is not None
        return Predictor.from_checkpoint(result.checkpoint)


def fit_seconds(repeats: int) -> dict[str, float]:
    """Processor time of a step of `fit` and of a plain loop, with a network that costs next to nothing."""
    of, surrogate = schema((16,), 1), MLP(hidden=(8,))
    rows = samples(of, 256)

    def run(steps: int) -> float:
        training = TrainingSpec(steps=steps, batch_size=16, validate_every=10**6, checkpoint_every=10**6)
        began = time.process_time()
        data = StoredDataModule(samples=rows, batch_size=16)
        fit(surrogate=surrogate, training=training, schema=of, data=data, num_threads=1)
        return time.process_time() - began

    plain = training_step(of, surrogate, 16)
    return by_turns({"fit": lambda: (run(400) - run(100)) / 300, "plain": lambda: seconds(plain, 300)}, repeats)


def spectral_step(n: int, modes: int, most_by_matrix: int) -> float:
    """Forward and backward of a spectral layer on one axis, batch 16, width 32."""
    spectral_conv.MOST_MODES_BY_MATRIX = most_by_matrix
    torch.manual_seed(0)
    conv, field = spectral_conv.SpectralConv(32, 32, (modes,)), torch.randn(16, n, 32, requires_grad=True)

    def step() -> None:
        conv(field).square().sum().backward()

    step()
    return seconds(step, max(1, 2**16 // (n * modes)) + 4)


def main() -> None:
    """Print tables and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--arm", choices=("default", "kept"), help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args()
    repeats = given.repeats
    if given.arm is not None:
        print(json.dumps(one_arm(given.work, given.arm == "kept")))
        return
    torch.set_num_threads(1)
    print(__doc__)
    found: dict[str, object] = {"ran_on": ran_on("torch", "pytorch-lightning"), "repeats": repeats}
    print(json.dumps(found["ran_on"]))

    found["memory"] = memory(repeats)
    found["predictions"] = predictions(repeats)
    found["tiny"] = fit_seconds(repeats)
    print(", ".join(f"tiny network, {name}: {1e3 * value:.2f} ms a step" for name, value in found["tiny"].items()))

    spectral = {}
    for n, modes in ((256, 64), (1024, 64), (1024, 128), (1024, 256), (4096, 128), (4096, 1024)):
        arms = {
            name: (lambda n=n, modes=modes, most=most: spectral_step(n, modes, most))
            for name, most in (("matrices", 10**9), ("fft", 0))
        }
        medians = by_turns(arms, repeats)
        spectral[f"{modes} of {n}"] = medians
        print(
            f"spectral layer, {modes} modes of {n} points: matrices {1e3 * medians['matrices']:.2f} ms, "
            f"fft {1e3 * medians['fft']:.2f} ms, {medians['matrices'] / medians['fft']:.2f}x"
        )
    found["spectral"] = spectral
    print(json.dumps(found))


if __name__ == "__main__":
    main()
