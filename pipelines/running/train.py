"""`headrace train` on stored data; and how the driver watches the ranks of any training."""

import json
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from rich.console import Console

from headrace.pipelines.recipe.config import RunConfig
from headrace.pipelines.running.progress import RunProgress
from headrace.pipelines.running.rank import StoredData, TrainingJob, train_on_rank
from headrace.pipelines.running.session import CONNECTING, Earlier, Session, preflight
from headrace.pipelines.running.training_data import TrainingData, require_same
from headrace.platform.cluster.local_rank import LocalRank, machine_capacity, needs_no_cluster
from headrace.platform.cluster.rank import Ranks
from headrace.platform.cluster.resources import ResourcePlan, fit_resources
from headrace.platform.errors import RunFailed

SECONDS_TO_START = 60.0  # that an actor or a rank may take before it is said to wait for resources

log = logging.getLogger(__name__)


STARTING = "start, until the first steps were told"


def watch_ranks(
    ranks: Ranks,
    session: Session,
    progress: RunProgress,
    poll_seconds: float,
    *,
    look: Callable[[], None] = lambda: None,
    short: Callable[[], str | None] = lambda: None,
    phase: str = "streaming and training",
) -> None:
    """Wait for the ranks; record and show what they report.

    Args:
        ranks: at work, or about to be.
        session: takes their metrics.
        progress: shows them.
        poll_seconds: how long to wait at a time [s].
        look: is called in between.
        short: says what there is too little of for a rank; None where nothing keeps it from starting.
        phase: what they are at, once they do steps.

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
        reports = ranks.drain()
        is_late = not ranks.num_started and time.monotonic() - began > SECONDS_TO_START
        progress.tell_waits("training", wait_words(ranks.needs, time.monotonic() - began, short()) if is_late else "")
        for report in reports:
            if report.phase is not None:
                progress.update(phase=report.phase)
                continue
            session.record(report.metrics, report.step, report.time)
            if report.step is None:
                continue
            if first is None:
                # What came before was starting: processes, imports, the first samples.
                session.account(STARTING, time.monotonic() - began)
                first = (report.time, report.step)
            done = report.step - first[1]
            left = (report.time - first[0]) / done * (steps - report.step) if done else None
            progress.update(
                phase=phase,
                step=report.step,
                loss=report.metrics.get("train/loss", progress.state.loss),
                error=report.metrics.get("validation/relative_l2", progress.state.error),
                seconds_left=left,
            )
        look()
    if not session.run.checkpoint.is_file():
        raise RunFailed("training ended before its first step: no samples came. See the failures in run.json.")
    session.note(training=json.loads(session.run.training.read_text(encoding="utf-8")))


def wait_words(needs: str, seconds: float, shortage: str | None) -> str:
    """What ranks that have not started yet wait for: for room, or only for their own processes."""
    if shortage is not None:
        return f"waits for {needs}; {shortage}"
    return f"starts {needs}, for {seconds:.0f} s so far: is the machine overloaded?"


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


def _placed(
    config: RunConfig, progress: RunProgress, cluster: ExitStack
) -> tuple[ResourcePlan, Callable[[TrainingJob], Ranks], Callable[[], str | None]]:
    """Where the ranks run: what each may use, what starts them, and what says why they cannot.

    Raises:
        InputError: the machine or the cluster has too little, or the cluster does not answer.
    """
    if needs_no_cluster(config.resources):
        here = fit_resources(config.resources, machine_capacity(), solves=False)
        return here, lambda job: LocalRank(train_on_rank, job, here), lambda: None
    # Ray takes a second to import: a training that needs none of it does not wait for it.
    from headrace.platform.cluster.cluster import connected, fit_into_cluster, shortage, starting_phase
    from headrace.platform.cluster.training_ranks import TrainingRanks

    progress.update(phase=starting_phase(config.resources))
    cluster.enter_context(connected(config.resources))
    there = fit_into_cluster(config.resources, partial(progress.tell_waits, "the run"), solves=False)
    return (
        there,
        lambda job: TrainingRanks(train_on_rank, job, there),
        lambda: shortage(there.rank_cpus, there.rank_gpus),
    )


def train(config: RunConfig, data: Path, out: Path | Earlier | None, console: Console) -> Session:
    """Train on stored samples and evaluate on the folder's test sets.

    Raises:
        InputError: the data do not fit the recipe, or the output, tracking server or cluster cannot be used.
        RunFailed: a rank failed.
    """
    assert config.training is not None and config.surrogate is not None
    found = TrainingData.open(config, data)
    preflight(config, out)
    used = found.described()
    if isinstance(out, Earlier):
        require_same(out.summary.data_sets, used)
    with RunProgress(console) as progress, ExitStack() as cluster:
        began = time.monotonic()
        progress.update(phase="looking for a place to train", steps=config.training.steps)
        resources, start, short = _placed(config, progress, cluster)
        session = Session(config, "train", out)
        session.account(CONNECTING, time.monotonic() - began)
        with session.guarded():
            session.note(
                data_folder=str(found.folder),
                data_sets=used,
                label_errors=found.label_errors(),
                samples=session.summary.samples.model_copy(update={"stored": found.usable}),
                schema=found.schema.to_json(),
            )
            if not is_trained(session):
                with session.phase("train"):
                    job = TrainingJob(
                        config=config,
                        schema=found.schema,
                        parts=found.parts,
                        data=StoredData(
                            train=found.train,
                            validation=found.validation,
                            keeps_incomplete=config.training.keep_incomplete,
                        ),
                        run=session.run,
                        num_threads=resources.rank_threads,
                    )
                    progress.update(phase="starting the trainer")
                    ranks: Ranks | None = None
                    try:
                        ranks = start(job)
                        watch_ranks(ranks, session, progress, 0.5, short=short, phase="training")
                    except KeyboardInterrupt:
                        session.note_interrupt()
                        if ranks is not None:
                            ranks.give_up("the run was interrupted")
                        raise
            progress.update(phase="evaluating")
            # Brings torch, pictures and tracking, which nobody waited for until here.
            from headrace.pipelines.running.evaluate import conclude

            conclude(session, found.tests, train=found.train)
    return session
