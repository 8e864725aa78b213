"""Runs scenarios on two ranks over gloo and writes what each rank saw: `python two_ranks.py FOLDER`.

Not a test file: `test_ranks.py` runs it once. The ranks are forked from one process, because importing takes longer
than everything that they do; so nothing here may run a backward pass before the fork.
"""

import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch.optim import Optimizer

from headrace.platform.fields import SampleSchema
from headrace.platform.sample import Provenance, SampleBatch
from headrace.surrogates.datamodule import AbstractDataModule, StoredDataModule, StreamDataModule
from headrace.surrogates.fit import fit
from headrace.surrogates.models.fno import FNO
from headrace.surrogates.training import TrainingSpec

WORLD_SIZE = 2


class Keep(Callback):
    """Writes the state that a rank ends with."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(pl_module.state_dict(), self._path)


class FirstGradient(Callback):
    """Writes the gradient of the first step, as it was before it is clipped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({name: weight.grad for name, weight in pl_module.named_parameters()}, self._path)


def read_samples(folder: Path, name: str) -> SampleBatch:
    """The samples that the test wrote."""
    with np.load(folder / f"{name}.npz") as arrays:
        provenance = [Provenance(**row) for row in json.loads(str(arrays["provenance"]))]
        fields = {key: arrays[key] for key in ("indices", "inputs", "outputs", "parameters")}
    return SampleBatch(**fields, provenance=tuple(provenance))


def scenarios(folder: Path, rank: int) -> dict[str, Callable[[], AbstractDataModule]]:
    """The data of a rank in every scenario."""
    samples, held_out = read_samples(folder, "train"), read_samples(folder, "validation")

    def stream(batches: int, error: Exception | None = None) -> StreamDataModule:
        left = iter(range(batches))

        def pull(size: int, _: int) -> SampleBatch | None:
            step = next(left, None)
            if step is None and error is not None:
                raise error
            return None if step is None else samples.take(range(rank, rank + size))

        return StreamDataModule(pull=pull, batch_size=4, validation=held_out)

    def uneven() -> StreamDataModule:
        """8 rows for one rank and 2 for the other."""
        rows = range(8) if rank == 0 else range(8, 10)
        return StreamDataModule(pull=lambda size, step: samples.take(rows), batch_size=8, validation=held_out)

    return {
        "uneven": uneven,
        "stored": lambda: StoredDataModule(
            samples=samples, batch_size=4, validation=held_out, rank=rank, world_size=WORLD_SIZE, seed=0
        ),
        "dry": lambda: stream(100 if rank == 0 else 3),
        "broken": lambda: stream(100) if rank == 0 else stream(2, ConnectionError("the shard is gone")),
    }


def run_rank(folder: Path, rank: int, port: int) -> None:
    """Run every scenario, one after the other, as one rank."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(WORLD_SIZE),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
    }
    torch.set_num_threads(1)
    seen: dict[str, dict[str, object]] = {}
    for name, data in scenarios(folder, rank).items():
        reports: list[tuple[int | None, dict[str, float]]] = []
        observed: list[int] = []

        def report(step: int | None, metrics: Mapping[str, float], kept: list = reports) -> None:
            kept.append((step, dict(metrics)))

        try:
            result = fit(
                surrogate=FNO.model_validate_json((folder / "surrogate.json").read_text()),
                training=TrainingSpec.model_validate_json((folder / "training.json").read_text()),
                schema=SampleSchema.from_json(json.loads((folder / "schema.json").read_text())),
                data=data(),
                seed=0,
                report=report,
                # Apart, to see which rank writes.
                checkpoint_dir=folder / name / f"rank-{rank}",
                accelerator="cpu",
                devices=WORLD_SIZE,
                strategy=DDPStrategy(process_group_backend="gloo"),
                plugins=[TorchElasticEnvironment()],
                callbacks=[
                    Keep(folder / name / f"weights-{rank}.pt"),
                    FirstGradient(folder / name / f"gradient-{rank}.pt"),
                ],
                observe=lambda indices, _, kept=observed: kept.extend(indices.tolist()),
            )
        except Exception as error:
            seen[name] = {"error": f"{type(error).__name__}: {error}"}
        else:
            seen[name] = {
                "steps": result.steps,
                "samples_seen": result.samples_seen,
                "stopped": result.stopped,
                "reports": reports,
                "observed": observed,
            }
    (folder / f"rank-{rank}.json").write_text(json.dumps(seen))


def main(folder: Path) -> None:
    """Fork the ranks and wait for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=run_rank, args=(folder, rank, port)) for rank in range(WORLD_SIZE)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode or 0) for process in processes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
