"""`headrace run`: solve, stream, train and evaluate at once.

    driver ----- polls ----->  Stream (coordinator, solver actors, shards)
      |                           ^ leases, commits        | batches
      |                           |                        v
      +-- waits for the end ->  TrainingRanks  <----- ShardReader of each rank
      |                           | metrics
      +-- drains <----------------+

Who waits for whom: a rank waits for its shard's watermark; a solver waits for acknowledgements; the driver waits for
the ranks, half a second at a time, and fetches counts and metrics in between. When the ranks have taken their planned
steps, the driver stops the stream, and what was stored by then is the data set.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from rich.console import Console

from headrace.pipelines.recipe.config import SPLITS, RunConfig
from headrace.pipelines.running.label_errors import say_label_errors
from headrace.pipelines.running.numerics import with_needed
from headrace.pipelines.running.pilots import settled
from headrace.pipelines.running.progress import Pace, RunProgress
from headrace.pipelines.running.rank import StreamedData, TrainingJob, train_on_rank
from headrace.pipelines.running.recording import Recording
from headrace.pipelines.running.session import CONNECTING, Earlier, Session, preflight, require_room
from headrace.pipelines.running.train import SECONDS_TO_START, is_trained, watch_ranks
from headrace.pipelines.running.training_data import described
from headrace.platform.cluster.cluster import (
    connected,
    fit_into_cluster,
    require_daemons,
    shortage,
    silent_gcs,
    starting_phase,
)
from headrace.platform.cluster.hosts import HostWatch
from headrace.platform.cluster.resources import ResourcePlan
from headrace.platform.cluster.training_ranks import TrainingRanks
from headrace.platform.errors import RunFailed
from headrace.platform.ledger.ledger import Ledger
from headrace.platform.ledger.recovery import recover
from headrace.platform.scouts import scouts_of
from headrace.platform.seeding import generator
from headrace.platform.stream.plan import StreamPlan
from headrace.platform.stream.stream import Stream
from headrace.solvers.sequences.sorting import in_shuffled_runs

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
SECONDS_BETWEEN_RECORDS = 2.0


def preflight_stream(config: RunConfig, out: Path | Earlier | None) -> None:
    """See, before anything starts, that a run can write its results and use the recording that it names.

    Raises:
        InputError: see `preflight` and `Recording.open`.
    """
    preflight(config, out)
    require_room(config, out)
    if not isinstance(out, Earlier):
        Recording.open(config)


def start_stream(config: RunConfig, session: Session, resources: ResourcePlan, *, trains: bool) -> Stream:
    """Plan the samples in the ledger, unless the run is gone on with and has one, and start the actors."""
    if not session.run.ledger.is_file() and trains and config.training is not None:
        # Kept: the order of a replay must stay what it was when the run is gone on with.
        session.note(scouts=config.training.normalization.samples * config.source("train").schema().parts)
        session.write_summary()
    plan = StreamPlan(
        run_dir=session.run.path,
        checkpoint_dir=session.run.checkpoints,
        sources={split: config.source(split) for split in SPLITS},
        sequence_length=config.solver.sequence_length,
        message_bytes=config.stream.message_bytes,
        message_seconds=config.stream.message_seconds,
        credits=config.stream.credits,
        lease_seconds=config.stream.lease_seconds,
        reservoir=config.stream.reservoir if trains else None,
        seed=config.seed,
        num_ranks=resources.num_ranks,
        num_batches=config.training.steps if trains and config.training else 1,
        solves=config.solves,
        paced=trains and config.is_paced,
        replay=config.stream.replay_order,
        keeps_incomplete=config.training is not None and config.training.keep_incomplete,
        sampler=config.sampler("train"),
        scouts=session.summary.scouts,
    )
    if not session.run.ledger.is_file():
        with session.phase("plan"):
            planned = {str(split): count for split, count in config.planned().items()}
            recording = Recording.open(config)
            if recording is not None:
                session.note(recording=str(recording.path))
                recording.copy(session.run, first_number=resources.num_ranks)
                if not config.solves:
                    session.note(data_sets=described(recording.sets))
                    planned = recording.planned
            orders = lease_orders(config, shuffled=trains, scouts=plan.scouts) if config.solves else {}
            Ledger.create(session.run.ledger, planned, orders=orders).close()
            if recording is not None:
                recording.copy_decisions(session.run)
                recover(session.run.ledger, {split: session.run.data(split) for split in planned})
    return Stream(plan, session.run.ledger, resources)


def lease_orders(config: RunConfig, *, shuffled: bool, scouts: int = 0) -> dict[str, Int64[np.ndarray, " samples"]]:
    """For each split that is sorted, the order in which its samples are leased.

    Args:
        config: the recipe.
        shuffled: lease the runs of neighbours in random order, for a network that is trained meanwhile: each lease is
            still sorted, and what arrives together comes from everywhere.
        scouts: training samples that come first, from all over the order, when it is shuffled: the scales that the
            network's fields are normalised with are learned from so many, and then frozen.
    """
    orders = {}
    for split, count in config.planned().items():
        order = config.source(split).planned_order(count, config.sampler(split))
        if order is not None:
            if shuffled:
                length, rng = config.solver.sequence_length, generator(config.seed, split, "runs")
                first, rest = scouts_of(order, scouts if split == "train" else 0, rng)
                # The first ones are sorted among themselves: whoever solves them loses little.
                order = np.concatenate([in_shuffled_runs(part, length, rng) for part in (first, rest)])
            orders[str(split)] = order
            log.info("sorted %d samples of %s", count, split)
    return orders


def _means(shards: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The means over shards; a level that a shard has not met yet has a share of 0 there."""
    keys = dict.fromkeys(key for shard in shards for key in shard)
    return {key: sum(shard.get(key, 0.0) for shard in shards) / len(shards) for key in keys}


class StreamWatch:
    """Looks at a stream now and then: shows it, and records its throughput, fill, reuse and age."""

    def __init__(self, stream: Stream, session: Session, progress: RunProgress, resources: ResourcePlan) -> None:
        self._stream, self._session, self._progress, self._resources = stream, session, progress, resources
        self._last = (time.monotonic(), 0)
        self._pace = Pace()
        self._waiting_since: float | None = None
        self._hosts = HostWatch()
        self._away: set[str] = set()

    def look(self, *, final: bool = False) -> None:
        """Replace solvers that died, fetch a snapshot and pass it on."""
        require_daemons()
        if not final:
            wanted = self._session.run.read_scale()
            if wanted is not None and wanted != self._stream.solvers.wanted:
                log.info("from now on %d solver actors, as `headrace scale` says", wanted)
                self._stream.solvers.scale(wanted)
            self._stream.poll(0.0)
        self._tell_who_is_away()
        snapshot = self._stream.glance()
        if snapshot is None:
            return
        self._tell_who_waits(snapshot.waiting)
        train = snapshot.counts["train"]
        stored = sum(counts.stored for counts in snapshot.counts.values())
        self._progress.update(stored=train.stored, failed=train.failed, planned=train.planned)
        shards = [shard for shard in snapshot.shards if shard]
        mean = _means(shards)
        if shards:
            self._progress.update(fill=mean["fill"], reuse=mean["mean_uses"])
        seconds = time.monotonic() - self._last[0]
        if seconds < SECONDS_BETWEEN_RECORDS and not final:
            return
        rate = (stored - self._last[1]) / seconds
        self._last = (time.monotonic(), stored)
        is_solving = any(counts.stored + counts.failed < counts.planned for counts in snapshot.counts.values())
        pace = self._pace(self._last[0], stored)
        self._progress.update(samples_per_second=pace if is_solving else None)
        metrics = {"stream/samples_per_second": rate, "stream/stored": stored, "stream/failed": train.failed}
        if pace is not None:
            metrics["stream/pace"] = pace
        names = {"fill": "fill", "mean_uses": "reuse", "mean_age_seconds": "age_seconds", "spent": "spent_share"}
        metrics |= {f"stream/{name}": mean[key] for key, name in names.items() if key in mean}
        metrics |= {f"stream/{key}": value for key, value in mean.items() if "/" in key}
        for key in ("distinct", "distinct_held") if shards else ():
            metrics[f"stream/{key}"] = sum(shard[key] for shard in shards)
        metrics |= {"stream/solvers": snapshot.solvers - snapshot.waiting, "stream/solvers_waiting": snapshot.waiting}
        self._session.record(metrics)

    def _tell_who_is_away(self) -> None:
        """Say which hosts are out of reach, and which parts of the stream do not answer."""
        self._progress.tell_waits("the cluster's GCS", silent_gcs() or "")
        hosts = self._hosts.look()
        self._progress.tell_waits("host" if len(hosts) == 1 else "hosts", ", ".join(hosts))
        self._progress.tell_waits("hosts" if len(hosts) == 1 else "host", "")
        silent = self._stream.silent()
        for who in self._away - silent.keys():
            self._progress.tell_waits(who, "")
        for who, what in silent.items():
            self._progress.tell_waits(who, what)
        self._away = set(silent)

    def _tell_who_waits(self, waiting: int) -> None:
        """Say what solvers that have found no place in the cluster wait for; every actor takes a moment to start."""
        if not waiting:
            self._waiting_since = None
            self._progress.tell_waits("solvers", "")
            return
        self._waiting_since = self._waiting_since or time.monotonic()
        if time.monotonic() - self._waiting_since > SECONDS_TO_START:
            needs = f"{self._resources.solver_cpus:g} CPUs"
            needs += f" and {self._resources.solver_gpus:g} GPUs each" if self._resources.solver_gpus else " each"
            short = shortage(self._resources.solver_cpus, self._resources.solver_gpus)
            words = f"wait, {waiting} of them, for {needs}; {short}" if short else f"start, {waiting} of them"
            self._progress.tell_waits("solvers", words)

    def settle(self, *, seal: bool = True) -> None:
        """Close the stream, and put into the summary what it came to.

        Args:
            seal: write the data sets' manifests, whose hashes take a while; the data can be read without them.
        """
        reports: Mapping[str, Sequence[Mapping[str, object]]] = {}
        try:
            self.look(final=True)
            reports = self._stream.reports()
        except RunFailed as error:
            log.warning("the stream does not answer any more: %s", error)
        self._stream.stop()
        self._stream.close()
        self._hosts.close()
        self._session.count_samples()
        if reports:
            self._session.account_for_solving(reports)
        if seal:
            self._session.seal_data(SPLITS)


def run(config: RunConfig, out: Path | Earlier | None, console: Console) -> Session:
    """Carry out a recipe from the first solve to the report; see `Session` for `out`.

    Raises:
        InputError: the tracking server, the output folder or the cluster cannot be used; nothing was started.
        RunFailed: a solver or a rank failed; what was stored is safe and readable.
        KeyboardInterrupt: passed on after the stream was closed and the summary written.
    """
    preflight_stream(config, out)
    # One that is gone on with has them in its recipe, or is from before there were any.
    pilots = settled(config if isinstance(out, Earlier) else with_needed(config), console)
    config = pilots.config
    say_label_errors(pilots.label_errors, config, console)
    require_room(config, out)
    assert config.data is not None and config.training is not None
    with RunProgress(console) as progress, ExitStack() as cluster:
        planned, steps = config.planned()["train"], config.training.steps
        progress.update(phase=starting_phase(config.resources), planned=planned, steps=steps)
        began = time.monotonic()
        cluster.enter_context(connected(config.resources))
        tell = partial(progress.tell_waits, "the run")
        resources = fit_into_cluster(config.resources, tell, solves=config.solves)
        session = Session(config, "run", out)
        session.account(CONNECTING, time.monotonic() - began)
        with session.guarded():
            session.describe(config.schema, pilots)
            if is_trained(session):
                session.count_samples()
            else:
                _stream_and_train(config, session, resources, progress)
            progress.update(phase="evaluating")
            # Brings torch, pictures and tracking, which nobody waited for until here.
            from headrace.pipelines.running.evaluate import conclude

            conclude(session)
    return session


def _stream_and_train(config: RunConfig, session: Session, resources: ResourcePlan, progress: RunProgress) -> None:
    with session.phase("stream and train"):
        progress.update(phase="planning the samples")
        stream = start_stream(config, session, resources, trains=True)
        watch = StreamWatch(stream, session, progress, resources)
        progress.update(phase="starting the solvers and the trainer")
        ranks: TrainingRanks | None = None
        interrupted = False
        try:
            job = TrainingJob(
                config=config,
                schema=config.schema,
                parts=config.source("train").schema().parts,
                data=StreamedData(feed=stream.feed()),
                run=session.run,
                num_threads=resources.rank_threads,
            )
            ranks = TrainingRanks(train_on_rank, job, resources)
            short = partial(shortage, resources.rank_cpus, resources.rank_gpus)
            watch_ranks(ranks, session, progress, POLL_SECONDS, look=watch.look, short=short)
        except KeyboardInterrupt:
            interrupted = True
            session.note_interrupt()
            progress.update(phase="stopping")
            stream.stop()
            if ranks is not None:
                # The ranks take the end of the stream for the end of training, and leave a checkpoint.
                ranks.give_up("the run was interrupted")
                ranks.wait(3.0)
            raise
        finally:
            watch.settle(seal=not interrupted)
