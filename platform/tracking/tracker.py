"""MLflow: where a run's configuration, numbers, pictures and model are kept."""

import io
import itertools
import json
import logging
import math
import os
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from pydantic import Field, field_validator

from headrace.platform import provenance
from headrace.platform.errors import Fault, InputError
from headrace.platform.spec import Spec
from headrace.platform.tracking.address import (
    MLFLOW_DEFAULTS,
    check_address,
    is_databricks,
    is_server,
    resolve_address,
    without_password,
)
from headrace.platform.tracking.models import ModelSpec, is_alias
from headrace.platform.tracking.store import (
    DataSetRecord,
    Destination,
    chart_name,
    log_dataset,
    log_parameters,
    newest_steps,
    open_run,
    origin,
    start_monitor,
    store_model,
    tag,
)

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

log = logging.getLogger(__name__)

METRICS_PER_BATCH = 1000
# Rows kept while a store does not answer: some 20 MB, and more than a day of one row a second.
MAX_ROWS_KEPT = 100_000
FLUSH_SECONDS = 2.0
STATUS = {"finished": "FINISHED", "interrupted": "KILLED"}


# Every class can `register` others, which a recipe's `register:` has nothing to do with.
warnings.filterwarnings("ignore", 'Field name "register" in "TrackingSpec" shadows an attribute')


class TrackingSpec(Spec):
    """Where MLflow keeps a run.

    Attributes:
        enabled: false keeps the run's own folder only.
        uri: address of an MLflow server or database; without it `MLFLOW_TRACKING_URI`, else `runs/mlflow.db`.
        experiment: the name under which runs are compared.
        system_metrics: also record CPU, memory, disk, network and GPU use of this machine every 10 s.
        register: an alias, such as champion: the trained model becomes a new version of the registered model that is
            called as the recipe, and the one that `models:/NAME@champion` means. Default: models are not registered.
    """

    enabled: bool = True
    uri: str | None = Field(default=None, min_length=1)
    experiment: str = Field(default="headrace", min_length=1, max_length=500)
    system_metrics: bool = True
    register: str | None = Field(default=None, max_length=255)

    @field_validator("register")
    @classmethod
    def _is_alias(cls, name: str | None) -> str | None:
        if name is not None and not is_alias(name):
            raise ValueError("an alias of letters, digits, - and _, other than latest and v1, v2, ...")
        return name


class Figure(Protocol):
    """Anything that draws itself, such as a Matplotlib figure."""

    def savefig(self, fname: io.BytesIO, *, format: str) -> None:
        """Draw into a buffer."""
        ...


@dataclass(kw_only=True)
class _Upload:
    """A file, picture or model on its way to the store."""

    what: str
    send: Callable[[Destination], None]


def check_reachable(spec: TrackingSpec, where: str = "tracking.uri") -> list[Fault]:
    """What keeps runs from being tracked, found within 5 s and without MLflow's slow import; empty if nothing does."""
    return check_address(spec.uri, where) if spec.enabled else []


class Tracker:
    """A run in MLflow, or nothing at all when tracking is off: every method may be called either way.

    Who waits for whom: callers append to a buffer and return. One thread sends the buffer every `FLUSH_SECONDS`; it
    sleeps while the buffer is empty and is woken by the first row, or by `finish`, which waits for it. When the store
    fails, that is said once, everything is kept, and the next flush tries again: a run never stops for its tracking.
    """

    def __init__(
        self,
        destination: Destination | None,
        monitor: "SystemMetricsMonitor | None" = None,
        *,
        started: float = 0.0,
        newest: Mapping[str, int] | None = None,
    ) -> None:
        """Called by `start`; `started` is when, in seconds since 1970, `newest` the steps that are stored."""
        self._to = destination
        self._monitor = monitor
        self._started = started
        # The newest training step that the store has of each metric, and the metrics that were not finite.
        self._newest = dict(newest or {})
        self._not_finite: dict[str, int] = {}
        self._rows: deque[tuple[str, float, int, int]] = deque(maxlen=MAX_ROWS_KEPT)
        self._uploads: deque[_Upload] = deque()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._status = "FAILED"
        self._failing = False
        self._sender: threading.Thread | None = None
        if destination is not None:
            self._sender = threading.Thread(target=self._send_until_closed, name="tracking", daemon=True)
            self._sender.start()

    @classmethod
    def start(
        cls,
        spec: TrackingSpec,
        *,
        run_name: str,
        config: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        recipe_text: str = "",
        run_id: str | None = None,
    ) -> Self:
        """Open a run and write down what it is: configuration, recipe, versions, code, machine.

        Args:
            spec: the store.
            run_name: the name shown in MLflow.
            config: nested configuration; each leaf becomes a parameter under its dotted path.
            tags: further tags.
            recipe_text: stored as `recipe.yaml`.
            run_id: an earlier run of the same store to go on with, rather than a new one.

        Raises:
            InputError: the store refuses: its schema is of another MLflow, the experiment was deleted, a driver lacks.
        """
        if not spec.enabled:
            return cls(None)
        began = time.time()
        for name, value in MLFLOW_DEFAULTS.items():
            os.environ.setdefault(name, value)  # read when MLflow is imported, which `open_run` does
        uri = resolve_address(spec.uri)
        try:
            destination = open_run(uri, spec.experiment, run_name, run_id, {**origin(), **(tags or {})})
            if run_id is None:  # parameters of a run cannot change
                log_parameters(destination, config)
            facts = {"versions": provenance.versions(), "machine": provenance.machine()}
            destination.client.log_text(destination.run_id, json.dumps(facts, indent=2), "provenance.json")
            if recipe_text:
                destination.client.log_text(destination.run_id, recipe_text, "recipe.yaml")
            monitor = start_monitor(destination) if spec.system_metrics else None
            newest = newest_steps(destination) if run_id is not None else {}
        except Exception as error:  # drivers, stores and HTTP raise without a common base; all mean "not usable"
            reason = str(error).partition("\n")[0] or type(error).__name__
            shown = without_password(uri)
            raise InputError.single(
                "tracking.uri", f"{shown} ({reason})", "a store that MLflow can use", "Or set tracking.enabled=false."
            ) from error
        log.info("tracking to %s, ready in %.1f s", without_password(uri), time.time() - began)
        return cls(destination, monitor, started=began, newest=newest)

    @property
    def run_id(self) -> str | None:
        """MLflow's name of the run; None when tracking is off."""
        return self._to.run_id if self._to else None

    @property
    def uri(self) -> str | None:
        """The store's address without a password; None when tracking is off."""
        return without_password(self._to.uri) if self._to else None

    @property
    def url(self) -> str | None:
        """The run's page, or the command that opens it; None when tracking is off."""
        if self._to is None:
            return None
        if is_databricks(self._to.uri) or not is_server(self._to.uri):
            return "headrace ui"
        return f"{without_password(self._to.uri)}/#/experiments/{self._to.experiment_id}/runs/{self._to.run_id}"

    def log_metrics(self, metrics: Mapping[str, float], step: int | None, seconds: float) -> None:
        """Record numbers at a training step, or, without one, at whole seconds since the start.

        A step that is done again, after a resume or by a new group of ranks, does not stand twice: the store takes
        nothing back, so what it has of such steps stays. A number that is not finite has no place in the store, which
        would make 1.8e308 of it: the tag `headrace.not_finite` names the metric, and how often it was so.

        Args:
            metrics: numbers by name.
            step: the training step.
            seconds: time since the start of the run [s].
        """
        if self._to is None:
            return
        named = {chart_name(name, numbered=self._to.numbered): float(value) for name, value in metrics.items()}
        fresh = {name: value for name, value in named.items() if step is None or step > self._newest.get(name, -1)}
        if step is not None:
            self._newest.update(dict.fromkeys(fresh, int(step)))
        finite = {name: value for name, value in fresh.items() if math.isfinite(value)}
        for name in fresh.keys() - finite.keys():
            self._not_finite[name] = self._not_finite.get(name, 0) + 1
        if len(finite) < len(fresh):
            said = ", ".join(f"{name} ({count} times)" for name, count in sorted(self._not_finite.items()))
            self._upload("the tag headrace.not_finite", lambda to: tag(to, "headrace.not_finite", said))
        timestamp = int((self._started + seconds) * 1000)
        at = int(seconds) if step is None else int(step)
        rows = [(name, value, timestamp, at) for name, value in finite.items()]
        self._append(lambda: self._rows.extend(rows))

    def log_figure(self, figure: Figure, path: str) -> None:
        """Store a figure as a PNG under the run, at once drawn and later sent."""
        if self._to is None:
            return
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")

        def send(to: Destination) -> None:
            folder, name = os.path.split(path)
            with tempfile.TemporaryDirectory(prefix="headrace-") as scratch:
                file = Path(scratch, name)
                file.write_bytes(buffer.getvalue())
                to.client.log_artifact(to.run_id, str(file), folder or None)

        self._upload(path, send)

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Store a file, as it is when it is sent, in a folder under the run."""
        self._upload(str(path), lambda to: to.client.log_artifact(to.run_id, str(path), folder))

    def log_text(self, text: str, path: str) -> None:
        """Store a text under the run."""
        self._upload(path, lambda to: to.client.log_text(to.run_id, text, path))

    def log_model(self, checkpoint: Path, spec: ModelSpec) -> None:
        """Store a checkpoint as a model that `mlflow.pyfunc.load_model("runs:/RUN_ID/NAME")` loads.

        Args:
            checkpoint: the file given to `_load_pyfunc` of the loader module.
            spec: what it takes and gives, what it is called, and whether it is registered.
        """
        created: list[str] = []  # what of it is done: a second try goes on with the model that the first one made
        self._upload(f"{spec.name} ({checkpoint})", lambda to: store_model(to, created, checkpoint, spec))

    def log_dataset(self, data: DataSetRecord) -> None:
        """Note a data set among those of the run."""
        self._upload(f"the data set {data.name}", lambda to: log_dataset(to, data))

    def describe(self, text: str) -> None:
        """Set the run's description, in Markdown."""
        self._upload("the description", lambda to: to.client.set_tag(to.run_id, "mlflow.note.content", text))

    def finish(self, status: str, timeout: float = 30.0) -> None:
        """Send what is left and close the run; what could not be sent in time is named in a warning.

        Args:
            status: `finished`, `interrupted`, or anything else for failed.
            timeout: how long to wait for the store [s].
        """
        if self._sender is None or self._closing.is_set():
            return
        self._status = STATUS.get(status, "FAILED")
        self._deadline = time.monotonic() + timeout
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
        self._sender.join(timeout)
        if self._rows or self._uploads or self._sender.is_alive():
            unsent = ", ".join(upload.what for upload in self._uploads) or "no files"
            log.warning(
                "tracking at %s did not take %d metrics and %s; the run's folder has them all",
                self.uri,
                len(self._rows),
                unsent,
            )

    def _upload(self, what: str, send: Callable[[Destination], None]) -> None:
        self._append(lambda: self._uploads.append(_Upload(what=what, send=send)))

    def _append(self, append: Callable[[], None]) -> None:
        if self._to is None:
            return
        with self._changed:
            append()
            self._changed.notify_all()

    def _send_until_closed(self) -> None:
        """Body of the sender thread."""
        assert self._to is not None
        while not self._closing.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._rows or self._uploads or self._closing.is_set())
            self._flush(self._to)
            self._closing.wait(FLUSH_SECONDS)
        while not self._flush(self._to) and time.monotonic() + FLUSH_SECONDS < self._deadline:
            time.sleep(FLUSH_SECONDS / 2)
        try:
            if self._monitor is not None:
                self._monitor.finish()
            self._to.client.set_terminated(self._to.run_id, self._status)
        except Exception as error:  # as in `_flush`
            self._complain(error)

    def _flush(self, to: Destination) -> bool:
        """Send all rows and uploads in order; False when something is left because the store failed."""
        from mlflow.entities import Metric

        try:
            while self._rows:
                with self._changed:
                    batch = list(itertools.islice(self._rows, METRICS_PER_BATCH))
                to.client.log_batch(to.run_id, metrics=[Metric(*row) for row in batch])
                self._drop_sent(batch)
            while self._uploads:
                self._send_upload(to, self._uploads[0])
                self._uploads.popleft()
        except Exception as error:  # MLflow raises its own, requests' and the drivers' errors; none may end the run
            self._complain(error)
            return False
        if self._failing:
            self._failing = False
            log.info("tracking at %s answers again; nothing was lost", self.uri)
        return True

    def _drop_sent(self, batch: list[tuple[str, float, int, int]]) -> None:
        """Forget rows that are stored; while they were sent, a full buffer may have pushed some out already."""
        with self._changed:
            sent = set(map(id, batch))
            while self._rows and id(self._rows[0]) in sent:
                self._rows.popleft()

    def _send_upload(self, to: Destination, upload: _Upload) -> None:
        try:
            upload.send(to)
        except (FileNotFoundError, ImportError, TypeError, ValueError) as error:  # no later try can end better
            log.warning("%s is not tracked: %s", upload.what, error)

    def _complain(self, error: Exception) -> None:
        if not self._failing:
            reason = str(error).partition("\n")[0]
            log.warning("tracking at %s fails (%s); the run goes on, and what is kept is sent later", self.uri, reason)
        self._failing = True
