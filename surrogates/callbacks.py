"""What happens beside the steps of training: reports, validation, checkpoints."""

import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from headrace.platform import joint_checkpoint
from headrace.platform.errors import RunFailed
from headrace.platform.sample import SampleBatch
from headrace.platform.seeding import generator
from headrace.surrogates import ranks
from headrace.surrogates.astray import Seen, astray
from headrace.surrogates.batch import Batch
from headrace.surrogates.checkpoint import save_checkpoint
from headrace.surrogates.datamodule import AbstractDataModule
from headrace.surrogates.module import SurrogateModule
from headrace.surrogates.training import TrainingSpec

log = logging.getLogger(__name__)

ReportMetrics = Callable[[int | None, Mapping[str, float]], None]

Observe = Callable[[Int64[np.ndarray, " observed"], Float32[np.ndarray, " observed"]], None]
"""Is told the indices of samples that were trained on, and the loss of each."""


class Progress(Callback):
    """Counts steps, samples and waiting; reports them with the mean loss of all ranks every few steps.

    Attributes:
        step: finished optimiser steps, those before a resume included.
        samples_seen: rows that all ranks took steps with, as of the last report.
        seconds: time spent in training, as of the last report [s].
        wait_seconds: time that a rank waited for its data, mean over ranks, as of the last report [s].
        zero_targets: of the rows, those whose relative loss is guarded, as of the last report.
    """

    def __init__(self, report: ReportMetrics | None, *, data: AbstractDataModule, every: int, start: int) -> None:
        self._report, self._data, self._every = report, data, every
        self.step = start
        self.samples_seen = 0
        self.seconds = 0.0
        self.wait_seconds = 0.0
        self.zero_targets = 0
        self._rows = 0
        self._losses: list[Tensor] = []
        self._seen: list[Seen] = []
        self._began = self._reported = 0.0
        self._learning_rate = 0.0
        self._module: SurrogateModule | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        assert isinstance(pl_module, SurrogateModule)
        self._module = pl_module
        self._began = self._reported = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Note the learning rate that the step uses: the schedule moves it before the step's end is announced."""
        self._learning_rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Mapping[str, Tensor],
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count; report when it is time."""
        self.step += 1
        self._rows += len(batch.inputs)
        # Kept on the device: reading every step's loss would make the host wait for it.
        self._losses.append(outputs["loss"].detach())
        self._seen.append(Seen.of(self.step, batch, outputs["losses"]))
        if self.step % self._every == 0:
            self._send()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report what is left."""
        self._send()

    def require_finite(self) -> None:
        """See that no rank's loss went astray since the last report; every rank must call it.

        Raises:
            RunFailed: one did.
        """
        self._require_finite(ranks.total(self._sum_of_losses().to(ranks.device())).item())

    def _sum_of_losses(self) -> Tensor:
        return torch.stack(self._losses).double().sum() if self._losses else torch.zeros((), dtype=torch.float64)

    def _require_finite(self, loss: float) -> None:
        if math.isfinite(loss):
            return
        assert self._module is not None
        found = astray(self._seen, self._module.schema, self._module.training_spec.normalization.log)
        found = found or "it is that of another rank's samples, which that rank names"
        raise RunFailed(f"the loss is not finite at step {self.step}: {found}.")

    def _send(self) -> None:
        """Every rank comes here at the same step: it sums over ranks."""
        now = time.perf_counter()
        waited = self._data.batches.wait_seconds if self._data.batches else 0.0
        counted = self._module.zero_targets if self._module else None
        zero = 0.0 if counted is None else counted.count.item()
        mine = [self._sum_of_losses().item(), len(self._losses), self._rows, waited, zero]
        found = ranks.total(torch.tensor(mine, dtype=torch.float64, device=ranks.device())).tolist()
        loss, count, rows, wait, zero = found
        wait /= ranks.world_size()
        self._require_finite(loss)
        if self._report is not None and ranks.rank() == 0 and count:
            self._report(
                self.step,
                {
                    "train/loss": loss / count,
                    "train/learning_rate": self._learning_rate,
                    "train/samples_per_second": (rows - self.samples_seen) / (now - self._reported),
                    "train/wait_share": min((wait - self.wait_seconds) / (now - self._reported), 1.0),
                },
            )
        self.samples_seen, self.wait_seconds, self.seconds = round(rows), wait, now - self._began
        self.zero_targets = round(zero)
        self._losses.clear()
        self._seen.clear()
        self._reported = now


class Observations(Callback):
    """Tells which samples a rank trained on and what their losses were, every few steps.

    Losses stay on the device until they are told, in the steps in which `Progress` has waited for it already.
    """

    def __init__(self, observe: Observe, *, progress: Progress, every: int) -> None:
        self._observe, self._progress, self._every = observe, progress, every
        self._indices: list[Tensor] = []
        self._losses: list[Tensor] = []

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Mapping[str, Tensor],
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Note; tell when it is time."""
        self._indices.append(batch.indices)
        self._losses.append(outputs["losses"])
        if self._progress.step % self._every == 0:
            self._tell()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell what is left."""
        self._tell()

    def _tell(self) -> None:
        if not self._losses:
            return
        indices, losses = torch.cat(self._indices).cpu(), torch.cat(self._losses).float().cpu()
        self._indices.clear()
        self._losses.clear()
        self._observe(indices.numpy(), losses.numpy())


class StepSeeds(Callback):
    """Seeds torch before every step, so that what is drawn in a step is a function of seed, rank and step alone.

    So there is no random state that a checkpoint would have to keep.
    """

    def __init__(self, seed: int, progress: Progress) -> None:
        self._seed, self._progress = seed, progress

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Seed the generators of the host and of the module's device."""
        seed = int(generator(self._seed, "step", ranks.rank(), self._progress.step).integers(2**63))
        if pl_module.device.type == "cpu":
            # What torch.manual_seed does besides is for accelerators: half a millisecond a step, to note its caller.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)


class Validation(Callback):
    """Scores held-out samples every few steps, and at the end."""

    def __init__(
        self, report: ReportMetrics | None, *, samples: SampleBatch | None, every: int, progress: Progress
    ) -> None:
        self._report, self._samples, self._every, self._progress = report, samples, every, progress
        self._done_at = progress.step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Mapping[str, Tensor],
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Score when it is time."""
        if self._progress.step % self._every == 0:
            self._score(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the final weights, unless the last step did."""
        self._score(pl_module)

    def _score(self, module: LightningModule) -> None:
        assert isinstance(module, SurrogateModule)
        step = self._progress.step
        if self._samples is None or not len(self._samples) or self._done_at == step:
            return
        self._done_at = step
        errors = module.validate(self._samples)
        if ranks.rank() == 0:
            log.info("step %d: held-out relative L2 error %.4f", step, errors["validation/relative_l2"])
            lost = [name.rpartition("/")[2] for name, error in errors.items() if not math.isfinite(error)]
            if lost:
                log.warning(
                    "step %d: forecasts of held-out samples blew up (level %s): the error is not finite; a longer "
                    "training.strategy.rollout or a smaller learning rate keeps them stable",
                    step,
                    ", ".join(lost[1:]) or "unknown",
                )
            if self._report is not None:
                self._report(step, errors)


class Checkpoints(Callback):
    """Writes a joint checkpoint every few steps and at the end; the oldest go.

    Every rank has the state of its data written, rank 0 the model; then rank 0 seals them with a manifest.

    Attributes:
        last: the newest model, as `last.pt`; None while there is none.
    """

    def __init__(
        self, folder: Path | None, *, training: TrainingSpec, progress: Progress, data: AbstractDataModule
    ) -> None:
        self._folder, self._training, self._progress, self._data = folder, training, progress, data
        self._done_at = progress.step
        self.last = folder / "last.pt" if folder is not None and (folder / "last.pt").exists() else None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Mapping[str, Tensor],
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Write when it is time."""
        if self._progress.step % self._training.checkpoint_every == 0:
            self._write(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the final state, unless the last step did."""
        self._write(pl_module)

    def _write(self, module: LightningModule) -> None:
        assert isinstance(module, SurrogateModule)
        step = self._progress.step
        if self._folder is None or self._done_at == step:
            return
        self._done_at = step
        # A broken state must not replace a good one.
        self._progress.require_finite()
        self.last = self._folder / "last.pt"
        if ranks.rank() == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
        ranks.wait_for_all()
        facts = self._data.save(self._folder, step)
        module.ranges.share()
        if ranks.rank() == 0:
            save_checkpoint(self._folder / f"{joint_checkpoint.stem(step)}.pt", module.checkpoint(step))
        ranks.wait_for_all()
        if ranks.rank() == 0:
            joint_checkpoint.seal(self._folder, step, facts)
            _name_again(self._folder / f"{joint_checkpoint.stem(step)}.pt", self.last)
            joint_checkpoint.prune(self._folder, self._training.keep_checkpoints)
            log.debug("step %d: wrote a checkpoint to %s", step, self._folder)


def _name_again(path: Path, name: Path) -> None:
    """Make `name` a second name of a file, or a copy where the file system has no hard links; it is always whole."""
    draft = name.with_name(f".{name.name}.new")
    draft.unlink(missing_ok=True)
    try:
        os.link(path, draft)
    except OSError:
        shutil.copyfile(path, draft)
    os.replace(draft, name)
