"""A run from its folder to its summary: what `run`, `generate` and `train` have in common."""

import logging
import os
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headrace.pipelines.recipe.config import SPLITS, Command, RunConfig, Split
from headrace.pipelines.run_dir import MetricsLog, RunDir, write_json
from headrace.pipelines.running.estimate import cost_key, estimate, shortages, warnings
from headrace.pipelines.running.label_errors import measured_for
from headrace.pipelines.running.pilots import Settled
from headrace.pipelines.summary import FORMAT, FailedSample, RunSummary, SampleCounts, TrackedAs
from headrace.platform import provenance
from headrace.platform.dataset.manifest import write_manifest
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.errors import ClusterLost, InputError, RunFailed, is_disk_full, storage_refusal
from headrace.platform.fields import SampleSchema
from headrace.platform.files import Lock, write_synced
from headrace.platform.ledger.ledger import Ledger
from headrace.platform.sample import Failure, Provenance
from headrace.platform.spec import plug_ins_of
from headrace.platform.tracking.tracker import Tracker, check_reachable
from headrace.solvers.sources.report import SourceReport

log = logging.getLogger(__name__)

CONNECTING = "finding a cluster, before the start"  # the phase in which Ray comes up
RESERVE_NBYTES = 512 * 1024  # of the disk, for the last words of a run


def preflight(config: RunConfig, out: "Path | Earlier | None") -> None:
    """Look, before anything starts, whether a run could write its results.

    Raises:
        InputError: the tracking server does not answer, or the output folder is taken or cannot be written.
    """
    faults = check_reachable(config.tracking)
    if not isinstance(out, Earlier):
        faults = [*faults, *RunDir.unusable(out)]
    if faults:
        raise InputError(faults)


def require_room(config: RunConfig, out: "Path | Earlier | None") -> None:
    """Look whether the disk and the memory can hold what is asked for; warns where only compression makes it fit.

    Of a budget that is not priced yet, the held-out samples alone count.

    Raises:
        InputError: they cannot.
    """
    if isinstance(out, Earlier) or config.data is None:
        return  # some of it is there
    found = estimate(config, out)
    if faults := shortages(found, config):
        raise InputError(faults)
    for warning in warnings(found):
        log.warning("%s", warning)


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """A run that was cut off and is gone on with: its folder, its summary as it was left, and the claim to it."""

    run: RunDir
    lock: Lock
    summary: RunSummary

    @property
    def seconds(self) -> float:
        """How long it had run, as far as it is known [s]."""
        return max(self.summary.seconds, self.run.last_seconds)


class Session:
    """Opens a run's folder and tracking, takes its metrics, and always leaves a summary behind."""

    def __init__(self, config: RunConfig, command: Command, out: Path | Earlier | None) -> None:
        """Open the folder.

        Args:
            config: the recipe.
            command: what is done: run, generate or train.
            out: the folder to make, None for one below `runs/`; or the run to go on with.
        """
        self.config = config
        earlier = out if isinstance(out, Earlier) else None
        self.run = earlier.run if earlier else RunDir.create(config.name, out if isinstance(out, Path) else None)
        self._lock = earlier.lock if earlier else self.run.claim()
        # What was asked of the process before is not asked of this one.
        self.run.scale.unlink(missing_ok=True)
        # A run that was cut off is as old as it had become.
        self._started = time.time() - (earlier.seconds if earlier else 0.0)
        self._began = time.monotonic() - (earlier.seconds if earlier else 0.0)
        self._phases: dict[str, float] = dict(earlier.summary.phases) if earlier else {}
        self._accounted = 0.0
        if earlier is None:
            write_synced(self.run.recipe, config.to_yaml(command))
        plug_ins = plug_ins_of(config)
        self.summary = RunSummary(
            format=FORMAT,
            name=config.name,
            command=command,
            run_id=self.run.path.name,
            status="running",
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            samples=SampleCounts(planned=0, stored=0, failed=0, duplicates=0),
            errors={},
            versions=provenance.versions([*provenance.PACKAGES, *(one.package for one in plug_ins)]),
            plug_ins=[str(one) for one in plug_ins],
            git=provenance.git_state(Path(__file__).parent),
            machine=provenance.machine(),
        )
        with self.run.reserve.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE_NBYTES)
        tracked_as = None
        if earlier is not None:
            before = earlier.summary
            tracked_as = before.tracking.run_id
            self.note(started=before.started, resumed=[*before.resumed, self.summary.started])
            if before.scouts:
                self.note(scouts=before.scouts)
            if before.numerics:
                self.note(numerics=before.numerics)
            if before.label_errors:
                self.note(label_errors=before.label_errors)
            if tracked_as is not None:
                self.note(tracking=before.tracking)
        self.write_summary()
        self._metrics = MetricsLog(self.run.metrics, self._started)
        self._untracked: list[tuple[dict[str, float], int | None, float]] = []
        # A new MLflow database takes seconds to make; the actors start meanwhile.
        self._tracker = ThreadPoolExecutor(1, "start-tracking").submit(
            Tracker.start,
            config.tracking,
            run_name=self.run.path.name,
            config=config.asked(command),
            tags={
                "headrace.command": command,
                "headrace.folder": str(self.run.path),
                **{f"version.{one.package}": one.version for one in plug_ins},
            },
            recipe_text=config.to_yaml(command),
            run_id=tracked_as,
        )

    @property
    def tracker(self) -> Tracker:
        """The tracking run; waits until it is open.

        Raises:
            InputError: the store refuses.
        """
        tracker = self._tracker.result()
        known = TrackedAs(uri=tracker.uri, run_id=tracker.run_id, url=tracker.url)
        if self.summary.tracking != known:
            # At once: a run that is killed goes on under the same name.
            self.note(tracking=known)
            self.write_summary()
        untracked, self._untracked = self._untracked, []
        for metrics, step, seconds in untracked:
            tracker.log_metrics(metrics, step=step, seconds=seconds)
        return tracker

    def describe(self, schema: SampleSchema, pilots: Settled) -> None:
        """Note what the samples look like, and what pilots have found out and how long they took."""
        self.note(schema=schema.to_json())
        if pilots.choices:
            self.note(numerics=[choice.to_json() for choice in pilots.choices])
        if pilots.label_errors:
            self.note(label_errors=measured_for(self.config, pilots.label_errors))
            self.record({f"label_error/{one.level}": one.worst for one in pilots.label_errors if one.worst is not None})
        if pilots.seconds > 0.0:
            self.account("pilot samples, before the start", pilots.seconds)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the block's wall time under a name [s], without that of phases inside of it."""
        started, before = time.monotonic(), self._accounted
        try:
            yield
        finally:
            self.account(name, time.monotonic() - started - (self._accounted - before))

    def account(self, name: str, seconds: float) -> None:
        """Count wall time under a name [s]."""
        self._accounted += seconds
        self._phases[name] = self._phases.get(name, 0.0) + seconds

    def record(self, metrics: Mapping[str, float], step: int | None = None, at: float | None = None) -> None:
        """Take metrics at a step, or at a moment when there is no step."""
        seconds = self._metrics.write(metrics, step, at)
        if not self._tracker.done():
            # Nobody waits for it here: whoever watches the run goes on, and it gets this when it is open.
            self._untracked.append((dict(metrics), step, seconds))
            return
        self.tracker.log_metrics(metrics, step=step, seconds=seconds)

    def note_interrupt(self) -> None:
        """Write down at once that the run was interrupted: there may be no time to close it."""
        self.note(status="interrupted")
        self.write_summary()

    def note(self, **changes: object) -> None:
        """Put values into the summary, by its keys; `write_summary` writes them."""
        self.summary = self.summary.changed(**changes)

    def write_summary(self) -> None:
        """Bring `run.json` up to date."""
        phases = {name: round(seconds, 3) for name, seconds in self._phases.items()}
        self.note(seconds=round(time.monotonic() - self._began, 3), phases=phases)
        write_json(self.run.summary, self.summary.to_json())

    def count_samples(self) -> None:
        """Put into the summary how many samples the ledger knows, and what each level has cost."""
        with Ledger.open(self.run.ledger, read_only=True) as ledger:
            counts = {split: ledger.counts(split) for split in SPLITS}
            failures = {str(split): ledger.failures(split) for split in SPLITS}
        keys = ("planned", "stored", "failed", "duplicates")
        self.note(
            samples={key: sum(getattr(split, key) for split in counts.values()) for key in keys},
            splits={name: {key: getattr(split, key) for key in keys} for name, split in counts.items()},
            failures=[
                FailedSample(
                    split=split,
                    index=failure.index,
                    seed=self.config.seed,
                    level=failure.level,
                    reason=failure.reason,
                )
                for split, failed in failures.items()
                for failure in failed
            ][:50],
            cost=self._costs(failures),
        )

    def _costs(self, failures: Mapping[str, Sequence[Failure]]) -> dict[str, dict[str, Any]]:
        """What each level has cost, and for what: a later recipe that asks for the same is told."""
        costs = cost_per_level(self.run, failures)
        if self.config.data is not None:
            for level in costs.keys() & self.config.data.mix.keys():
                costs[level]["measured_for"] = cost_key(self.config, level)
        return costs

    def account_for_solving(self, reports: Mapping[str, Sequence[Mapping[str, object]]]) -> None:
        """Put into the summary and the metrics how the solvers chose their methods, and what second tries there were.

        Args:
            reports: for each split, what the source of each solver reported.
        """
        whole = SourceReport.merged([SourceReport.from_json(one) for each in reports.values() for one in each])
        self.note(solving=whole.to_json())
        metrics = {"solve/rescued": float(whole.rescued), "solve/warm_up_seconds": whole.warm_up_seconds}
        if whole.selection is not None and whole.selection.accepted:
            metrics["solve/regret_seconds"] = whole.selection.regret_seconds
            metrics["solve/regret_share"] = whole.selection.regret_seconds / whole.selection.seconds
        self.record(metrics)

    def seal_data(self, splits: Iterable[Split]) -> None:
        """Write the manifest of every split that holds samples."""
        for split in splits:
            if any(self.run.data(split).glob("shard-*.zarr")):
                try:
                    source = self.config.source(split) if self.config.solves else None
                    write_manifest(self.run.data(split), source, self.summary.label_errors)
                except InputError as error:
                    # A run that failed early has logs without samples; why it failed is what its user wants to read.
                    log.warning("%s gets no manifest: %s", split, error)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Close the run however the block ends: finished, failed with its reason, or interrupted."""
        status = "failed"
        try:
            yield
            status = "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            self.note_interrupt()
            raise
        except Exception as error:
            refusal = storage_refusal(error, str(self.run.path))
            if refusal is not None:
                status = "storage refused"
                reason = self._say_refused(refusal, error)
                self.note(reason=reason)
                raise RunFailed(reason) from error
            if isinstance(error, ClusterLost):
                reason = f"{error}; {self._say_stored()}. Go on with: headrace resume {self.run.path}"
                self.note(reason=reason)
                raise ClusterLost(reason) from error
            self.note(reason=str(error))
            raise
        finally:
            self.note(status="failed" if status == "storage refused" else status)
            self._close(status)

    def _say_refused(self, refusal: str, error: Exception) -> str:
        """What to tell when nothing can be written any more; gives up the reserve, so that it can be told."""
        with suppress(OSError):
            self.run.reserve.unlink(missing_ok=True)
        stored = self._say_stored()
        is_room = is_disk_full(error)
        told, advice = ("", "Make room") if is_room else (f" ({error})", "Make it writable again")
        return (
            f"the disk that holds {self.run.path} {refusal}{told}; {stored}. {advice}, "
            f"then go on with: headrace resume {self.run.path}"
        )

    def _say_stored(self) -> str:
        """How much is safe, in words."""
        # SQLite may want to write before it reads, which not every storage lets it.
        with suppress(InputError, sqlite3.Error, OSError):
            self.count_samples()
            return f"the {self.summary.samples.stored} samples that are stored are safe"
        return "what is stored is safe"

    def _close(self, status: str) -> None:
        try:
            tracker = self.tracker
        except InputError:
            tracker = None  # the run has failed with this very error
        try:
            self.run.reserve.unlink(missing_ok=True)
            self.write_summary()
        except OSError as error:
            if storage_refusal(error) is None:
                raise
            # What failed is on its way to the user; `headrace status` will find that nobody works on the run.
            log.warning("%s does not say how the run ended: %s", self.run.summary, error)
        self._metrics.close()
        try:
            # Drawing takes seconds, which a user who pressed Ctrl-C has not got: `headrace report` draws it later.
            if status not in ("interrupted", "storage refused"):
                # Brings pictures and templates, which nobody waited for until here.
                from headrace.pipelines.report.report import write_report

                write_report(self.run.path)
        finally:
            if tracker is not None:
                for file in (self.run.report, self.run.summary):
                    if file.is_file():
                        tracker.log_file(file)
                tracker.finish(status, timeout=3.0 if status == "interrupted" else 30.0)
            self._lock.close()


def cost_per_level(run: RunDir, failures: Mapping[str, Sequence[Failure]]) -> dict[str, dict[str, Any]]:
    """Solver seconds, iterations and methods per difficulty level over all splits, failed samples included.

    Each part of a trajectory is a sample; `whole_samples` counts trajectories, those that lack parts by the share that
    is there.

    Args:
        run: the run whose stored samples are counted.
        failures: the failed samples of every split.
    """
    cost: dict[str, dict[str, Any]] = defaultdict(
        lambda: {
            "samples": 0,
            "whole_samples": 0.0,
            "failed": 0,
            "cpu_seconds": 0.0,
            "wall_seconds": 0.0,
            "iterations": 0,
            "methods": Counter(),
        }
    )
    for split, failed in failures.items():
        provenance, parts = stored_provenance(run.data(split))
        for level, count in Counter(sample.level for sample in provenance).items():
            cost[level]["whole_samples"] += count / parts
        for sample in provenance:
            entry = cost[sample.level]
            entry["samples"] += 1
            entry["cpu_seconds"] += sample.cpu_seconds
            entry["wall_seconds"] += sample.wall_seconds
            entry["iterations"] += sample.num_iterations
            entry["methods"][sample.solver] += 1
        for failure in failed:
            entry = cost[failure.level]
            entry["failed"] += 1
            entry["cpu_seconds"] += failure.cpu_seconds
            entry["wall_seconds"] += failure.wall_seconds
    return {level: {**entry, "methods": dict(entry["methods"])} for level, entry in sorted(cost.items())}


def stored_provenance(directory: Path) -> tuple[tuple[Provenance, ...], int]:
    """Where the stored samples of a data set came from, empty when nothing is stored; and how many make a whole one."""
    if not any(directory.glob("shard-*.zarr")):
        return (), 1
    stored = StoredSamples.open(directory)
    return stored.provenance(), stored.schema.parts
