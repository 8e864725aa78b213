"""Training: what every rank does, and `headrace train` on stored data."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from headrace.pipelines.recipe.config import RunConfig
from headrace.pipelines.run_dir import RunDir, data_sets, write_json
from headrace.pipelines.running.evaluate import conclude
from headrace.pipelines.running.progress import RunProgress
from headrace.pipelines.running.session import Earlier, Session, preflight
from headrace.platform.allocator import keep_freed_memory
from headrace.platform.cluster.cluster import connected, fit_into_cluster, free_resources
from headrace.platform.cluster.training_ranks import RankContext, TrainingRanks
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.errors import InputError, RunFailed
from headrace.platform.fields import SampleSchema
from headrace.platform.joint_checkpoint import newest
from headrace.platform.stream.stream import StreamFeed
from headrace.surrogates.datamodule import StoredDataModule, StreamDataModule
from headrace.surrogates.fit import fit

SECONDS_TO_START = 60.0  # that an actor or a rank may take before it is said to wait for resources

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StreamedData:
    """Training data that solvers are still making."""

    feed: StreamFeed

    def open(self, context: RankContext, batch_size: int, seed: int) -> StreamDataModule:
        """The data module of a rank; waits for the held-out samples."""
        reader = self.feed.claim(context.rank, context.node)
        return StreamDataModule(
            pull=reader.pull,
            batch_size=batch_size,
            validation=self.feed.held_out("validation"),
            save=reader.save,
            observe=reader.observe if self.feed.is_observed else None,
        )


@dataclass(frozen=True, kw_only=True)
class StoredData:
    """Training data that lie in data set directories."""

    train: Path
    validation: Path
    keeps_incomplete: bool

    def open(self, context: RankContext, batch_size: int, seed: int) -> StoredDataModule:
        """The data module of a rank."""
        stored = StoredSamples.open(self.train)
        samples = stored.read_all()
        return StoredDataModule(
            samples=samples if self.keeps_incomplete else samples.take(np.flatnonzero(stored.is_whole)),
            batch_size=batch_size,
            validation=StoredSamples.open(self.validation).read_all(),
            rank=context.rank,
            world_size=context.world_size,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Everything that a rank needs to know; `schema` and `parts` as in `fit`."""

    config: RunConfig
    schema: SampleSchema
    parts: int
    data: StreamedData | StoredData
    run: RunDir
    num_threads: int


def train_on_rank(context: RankContext, job: TrainingJob) -> None:
    """Train on one rank, from the newest checkpoint on if there is one.

    Rank 0 reports metrics, writes checkpoints and what training came to.
    """
    keep_freed_memory()
    training, surrogate = job.config.training, job.config.surrogate
    assert training is not None and surrogate is not None
    checkpoint = newest(job.run.checkpoints)
    data = job.data.open(context, training.batch_size, job.config.seed)
    result = fit(
        surrogate=surrogate,
        training=training,
        schema=job.schema,
        parts=job.parts,
        data=data,
        seed=job.config.seed,
        report=context.report,
        checkpoint_dir=job.run.checkpoints,
        resume=checkpoint.model if checkpoint else None,
        num_threads=job.num_threads,
        deterministic=job.config.deterministic,
        accelerator=context.accelerator,
        strategy=context.strategy,
        plugins=context.plugins,
        observe=data.observe,
    )
    if context.rank == 0:
        write_json(job.run.training, {**asdict(result), "ranks": context.world_size})


def watch_ranks(
    ranks: TrainingRanks,
    session: Session,
    progress: RunProgress,
    poll_seconds: float,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Wait for the ranks; record and show what they report, and call `look` in between.

    Raises:
        RunFailed: a rank failed.
    """
    assert session.config.training is not None
    steps = session.config.training.steps
    first: tuple[float, int] | None = None
    began = time.monotonic()
    ended = False
    while not ended:
        ended = ranks.wait(poll_seconds)
        look()
        reports = ranks.drain()
        is_late = not ranks.num_started and time.monotonic() - began > SECONDS_TO_START
        progress.tell_waits("training", f"waits for {ranks.needs}; {free_resources()}" if is_late else "")
        for report in reports:
            session.record(report.metrics, report.step, report.time)
            if report.step is None:
                continue
            first = first or (report.time, report.step)
            done = report.step - first[1]
            left = (report.time - first[0]) / done * (steps - report.step) if done else None
            progress.update(
                phase="streaming and training",
                step=report.step,
                loss=report.metrics.get("train/loss", progress.state.loss),
                error=report.metrics.get("validation/relative_l2", progress.state.error),
                seconds_left=left,
            )
    if not session.run.checkpoint.is_file():
        raise RunFailed("training ended before its first step: no samples came. See the failures in run.json.")
    session.note(training=json.loads(session.run.training.read_text(encoding="utf-8")))


def is_trained(session: Session) -> bool:
    """Whether an earlier attempt at the run has done all steps of its training."""
    assert session.config.training is not None
    if not session.run.training.is_file():
        return False
    done = json.loads(session.run.training.read_text(encoding="utf-8"))
    if int(done["steps"]) < session.config.training.steps:
        return False
    session.note(training=done)
    return True


def locate_data(directory: Path) -> dict[str, Path]:
    """The data sets to train on by role: `train`, `validation`, and every test set under its own name.

    Without a validation set the first test set draws the curves; nothing is selected by them.

    Raises:
        InputError: there is no training set, or nothing held out.
    """
    sets = data_sets(directory)
    train = next((path for name, path in sets.items() if name.split("_")[0] == "train"), None)
    tests = {name: path for name, path in sets.items() if name.split("_")[0] == "test"}
    if train is None or not tests:
        raise InputError.single(
            "--data",
            str(directory),
            "a folder with data sets named train and test (or train_16, test_16, ...)",
            f"Found: {', '.join(sets) or 'none'}. `headrace generate` and `headrace import` write such folders.",
        )
    if "validation" not in sets:
        log.info(
            "no validation set in %s: the curves use %s, by which nothing is selected", directory, next(iter(tests))
        )
    return {"train": train, "validation": sets.get("validation", next(iter(tests.values()))), **tests}


def _whole(part: SampleSchema, train: Path, held_out: Path) -> SampleSchema:
    """What the trajectories look like whose parts are trained on: those that are held out.

    Raises:
        InputError: the held-out ones are others.
    """
    whole = StoredSamples.open(held_out).schema
    if whole.parts > 1 or whole.indivisible(len(part.times)) or whole.in_parts(len(part.times)) != part:
        raise InputError.single(
            str(held_out), f"samples {whole}", f"whole trajectories, of which {train} holds the parts: {part}"
        )
    return whole


def train(config: RunConfig, data: Path, out: Path | Earlier | None, console: Console) -> Session:
    """Train on stored samples and evaluate on the folder's test sets.

    Raises:
        InputError: the data do not fit the recipe, or the output, tracking server or cluster cannot be used.
        RunFailed: a rank failed.
    """
    assert config.training is not None and config.surrogate is not None
    sets = locate_data(data)
    stored = StoredSamples.open(sets["train"])
    schema = stored.schema
    if schema.parts > 1:
        schema = _whole(schema, sets["train"], sets["validation"])
    reason = config.training.mismatch(stored.schema)
    reason = reason or config.training.network_mismatch(config.surrogate, schema)
    if reason:
        raise InputError.single(
            "surrogate", config.surrogate.kind, f"a network that can take {sets['train']}: {reason}"
        )
    needed = config.training.batch_size * config.resources.trainers.ranks
    usable = len(stored) if config.training.keep_incomplete else int(stored.is_whole.sum())
    if usable < needed:
        raise InputError.single("training.batch_size", str(needed), f"at most {usable}, the samples of --data")
    preflight(config, out)
    with RunProgress(console) as progress, connected(config.resources):
        progress.update(phase="starting", steps=config.training.steps)
        resources = fit_into_cluster(config.resources, partial(progress.tell_waits, "the run"), solves=False)
        session = Session(config, "train", out)
        with session.guarded():
            session.note(
                data_folder=str(data.resolve()),
                samples=session.summary.samples.model_copy(update={"stored": usable}),
                schema=schema.to_json(),
            )
            if not is_trained(session):
                with session.phase("train"):
                    job = TrainingJob(
                        config=config,
                        schema=schema,
                        parts=stored.schema.parts,
                        data=StoredData(
                            train=sets["train"].resolve(),
                            validation=sets["validation"].resolve(),
                            keeps_incomplete=config.training.keep_incomplete,
                        ),
                        run=session.run,
                        num_threads=resources.rank_threads,
                    )
                    ranks = TrainingRanks(train_on_rank, job, resources, session.run.path)
                    watch_ranks(ranks, session, progress, 0.5)
            progress.update(phase="evaluating")
            conclude(session, {name: path for name, path in sets.items() if name not in ("train", "validation")})
    return session
