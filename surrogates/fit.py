"""fit: train a surrogate for a number of steps, alone or as one rank of many."""

import contextlib
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.plugins.environments import ClusterEnvironment
from pytorch_lightning.strategies import Strategy

from headrace.platform.errors import InputError
from headrace.platform.fields import SampleSchema
from headrace.surrogates import ranks
from headrace.surrogates.callbacks import (
    Checkpoints,
    Observations,
    Observe,
    Progress,
    ReportMetrics,
    StepSeeds,
    Validation,
)
from headrace.surrogates.checkpoint import Checkpoint, load_checkpoint
from headrace.surrogates.datamodule import AbstractDataModule
from headrace.surrogates.loss import Residual
from headrace.surrogates.module import SurrogateModule
from headrace.surrogates.surrogate import AbstractSurrogate
from headrace.surrogates.training import TrainingSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What training came to.

    Attributes:
        steps: finished optimiser steps, those before a resume included.
        planned_steps: how many there should have been.
        seconds: wall time of this call [s].
        samples_seen: samples that all ranks together took steps with in this call, repeats counted.
        samples_per_second: the same per second of training.
        wait_seconds: time that a rank waited for its own data, mean over ranks [s].
        wait_share: the same as a share of the training time.
        parameters: trained real numbers of the network.
        zero_targets: of the samples seen, those whose target is next to zero beside the data set; only where the loss
            is relative, whose denominator is then guarded (see `headrace.surrogates.metrics.FLOOR`).
        stopped: why training ended.
        checkpoint: the last checkpoint, if a folder was given.
    """

    steps: int
    planned_steps: int
    seconds: float
    samples_seen: int
    samples_per_second: float
    wait_seconds: float
    wait_share: float
    parameters: int
    zero_targets: int
    stopped: str
    checkpoint: Path | None


def fit(
    *,
    surrogate: AbstractSurrogate,
    training: TrainingSpec,
    schema: SampleSchema,
    parts: int = 1,
    data: AbstractDataModule,
    seed: int = 0,
    report: ReportMetrics | None = None,
    checkpoint_dir: Path | None = None,
    resume: Path | None = None,
    num_threads: int | None = None,
    deterministic: bool = False,
    accelerator: str = "auto",
    devices: int | str | None = None,
    strategy: str | Strategy = "auto",
    plugins: ClusterEnvironment | Sequence[ClusterEnvironment] | None = None,
    callbacks: Sequence[Callback] = (),
    observe: Observe | None = None,
    residual: Residual | None = None,
) -> FitResult:
    """Train until the planned steps are done or the data end on any rank.

    With several ranks every rank calls this with the same arguments, except for its data. They start from the same
    weights, stop at the same step, and rank 0 reports and writes.

    Args:
        surrogate: the network's spec.
        training: how to train it.
        schema: what the samples look like; of trajectories that come in parts, whole.
        parts: how many a trajectory comes in.
        data: training batches and validation samples.
        seed: fixes the initial weights, and what networks and losses draw in each step.
        report: called on rank 0 with the finished steps and metrics named `train/...` and `validation/...`.
        checkpoint_dir: where joint checkpoints go, `step-000100.pt` with a manifest, and `last.pt`; None for none.
        resume: a checkpoint to go on from.
        num_threads: threads of torch in this process; None leaves them as they are.
        deterministic: use algorithms whose rounding is always the same, as far as torch has them.
        accelerator: as Lightning names it.
        devices: as Lightning counts them; default: one, or with a strategy what its environment says.
        strategy: as Lightning names it, or the platform's.
        plugins: the platform's cluster environment.
        callbacks: more callbacks for the Lightning trainer.
        observe: is told on every rank, every `log_every` steps and at the end, which samples the rank trained on since
            and the loss of each, in the order of the steps; it is called between steps and should return at once.
        residual: how far fields are from solving the problem's equation, for losses that look at it.

    Raises:
        InputError: the surrogate or the training does not fit the schema, or `resume` is no checkpoint of them.
        RunFailed: the loss is not finite.
        RuntimeError: another rank failed.
    """
    began = time.perf_counter()
    if reason := training.mismatch(schema):
        raise InputError.single("training", "", "one that fits the problem", f"{reason}.")
    if reason := training.network_mismatch(surrogate, schema):
        raise InputError.single("surrogate", "", "one that fits the problem", f"{reason}.")
    module = SurrogateModule(
        surrogate=surrogate, training=training, schema=schema, parts=parts, seed=seed, residual=residual
    )
    start = 0 if resume is None else _resume(module, load_checkpoint(resume, schema=schema), resume)
    data.plan(range(start, max(training.steps, start)))

    progress = Progress(report, data=data, every=training.log_every, start=start)
    validation = Validation(report, samples=data.validation, every=training.validate_every, progress=progress)
    checkpoints = Checkpoints(checkpoint_dir, training=training, progress=progress, data=data)
    told = [Observations(observe, progress=progress, every=training.log_every)] if observe is not None else []
    with _threads(num_threads), _quiet(), torch.random.fork_rng():
        trainer = Trainer(
            max_epochs=1,
            max_steps=training.steps - start,
            accelerator=accelerator,
            devices=devices if devices is not None else 1 if strategy == "auto" else "auto",
            strategy=strategy,
            plugins=list(plugins) if isinstance(plugins, Sequence) else plugins,
            precision=training.precision,
            deterministic="warn" if deterministic else None,
            gradient_clip_val=training.gradient_clip,
            callbacks=[StepSeeds(seed, progress), progress, *told, validation, checkpoints, *callbacks],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
        )
        try:
            trainer.fit(module, datamodule=data)
        finally:
            data.close()

    stopped = f"all {training.steps} steps done"
    if progress.step < training.steps:
        stopped = f"stream exhausted after {progress.step} of {training.steps} steps"
    result = FitResult(
        steps=progress.step,
        planned_steps=max(training.steps, start),
        seconds=time.perf_counter() - began,
        samples_seen=progress.samples_seen,
        samples_per_second=progress.samples_seen / max(progress.seconds, 1e-9),
        wait_seconds=progress.wait_seconds,
        wait_share=progress.wait_seconds / max(progress.seconds, 1e-9),
        parameters=module.num_parameters,
        zero_targets=progress.zero_targets,
        stopped=stopped,
        checkpoint=checkpoints.last,
    )
    if ranks.rank() == 0:
        log.info("training ended: %s, %d samples in %.1f s", stopped, result.samples_seen, result.seconds)
    return result


def _resume(module: SurrogateModule, checkpoint: Checkpoint, path: Path) -> int:
    """Give the module a checkpoint's state; returns the steps that are done."""
    if checkpoint.surrogate != module.surrogate:
        raise InputError.single(
            str(path),
            f"of the surrogate {checkpoint.surrogate.model_dump_json()}",
            f"the recipe's, {module.surrogate.model_dump_json()}",
        )
    if checkpoint.normalization != module.training_spec.normalization:
        raise InputError.single(
            str(path),
            f"normalised by {checkpoint.normalization.model_dump_json()}",
            f"the recipe's, {module.training_spec.normalization.model_dump_json()}",
        )
    if checkpoint.strategy != module.training_spec.strategy:
        raise InputError.single(
            str(path),
            f"of the strategy {checkpoint.strategy.model_dump_json()}",
            f"the recipe's, {module.training_spec.strategy.model_dump_json()}",
        )
    if checkpoint.training != module.training_spec.model_dump(mode="json"):
        log.warning("the checkpoint %s was trained by another training spec; this run's is used from here on", path)
    module.go_on_from(checkpoint)
    return checkpoint.step


@contextlib.contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's remarks on devices, workers and tips out of the run's story; its errors stay."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\..*")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
