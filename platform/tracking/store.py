"""What Headrace asks of MLflow: opening a run, its parameters, its model, each for a store that is named."""

import contextlib
import getpass
import itertools
import json
import logging
import os
import posixpath
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.platform import provenance
from headrace.platform.tracking.address import artifact_folder, is_server, sqlite_file, without_password
from headrace.platform.tracking.models import ModelSpec, model_name, register, signature_of

log = logging.getLogger(__name__)

# MLflow takes seconds to import: it is imported where it is first needed, never by a command that does not track.
if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

# Limits of MLflow's stores (mlflow.utils.validation); beyond them a whole batch is refused.
MAX_KEY_LENGTH = 250
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000
MAX_DIGEST_LENGTH = 36
PARAMS_PER_BATCH = 100
# Makes MLflow's pages show what matters in training rather than what matters with language models.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


@dataclass(frozen=True, kw_only=True)
class Destination:
    """An open run in a store; what it calls its metrics depends on who began it (see `chart_name`)."""

    client: "MlflowClient"
    uri: str
    experiment_id: str
    run_id: str
    numbered: bool = True  # whether names of metrics are those of `chart_name`


@dataclass(frozen=True, kw_only=True)
class DataSetRecord:
    """A data set as MLflow shows it.

    Attributes:
        name: what it is called.
        context: what it was for: training, validation or test.
        digest: the hash of its content.
        folder: where it lies.
        num_samples: how many samples it has.
        profile: what else there is to say of it.
    """

    name: str
    context: str
    digest: str
    folder: str
    num_samples: int
    profile: Mapping[str, Any] = field(default_factory=dict)


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a nested mapping as (dotted path, text), cut to what MLflow takes; lists stay whole, as JSON."""
    for name, value in config.items():
        path = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, Mapping) and value:
            yield from flatten(value, path)
        elif isinstance(value, list | tuple | Mapping):
            yield key(path), _cut(json.dumps(value, default=str), MAX_PARAM_LENGTH)
        else:
            text = without_password(value) if isinstance(value, str) else str(value)
            yield key(path), _cut(text, MAX_PARAM_LENGTH)


def key(name: str) -> str:
    """A name that MLflow takes: letters, digits, and `_-. :/`, and as a path one that leads down only."""
    path = posixpath.normpath(re.sub(r"[^\w\-. :/]", "_", name)).lstrip("/.")
    return path[:MAX_KEY_LENGTH] or "_"


# MLflow sorts the sections of its page of charts, one for each prefix: what matters first is numbered.
CHARTS_FIRST = {"train": "1 train", "validation": "2 validation", "stream": "3 stream"}


def chart_name(name: str, *, numbered: bool = True) -> str:
    """The name of a metric in MLflow, by which its chart stands where it matters; `train/loss` is `1 train/loss`.

    Args:
        name: of the metric in `metrics.jsonl`.
        numbered: false for a run that an earlier Headrace began, whose curves go on under their old names.
    """
    prefix, slash, rest = name.partition("/")
    return key((CHARTS_FIRST.get(prefix, prefix) if numbered and slash else prefix) + slash + rest)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def origin() -> dict[str, str]:
    """The tags that say which code ran where; the ones that MLflow's pages know have its names."""
    tags = {f"version.{name}": number for name, number in provenance.versions().items()}
    tags["mlflow.source.name"] = "headrace"
    tags["mlflow.source.type"] = "LOCAL"
    with contextlib.suppress(OSError, KeyError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    git = provenance.git_state(Path(__file__).parent)
    if git is not None:
        tags["mlflow.source.git.commit"] = git["commit"]
        tags["git.dirty"] = str(git["dirty"]).lower()
    return tags


def open_run(uri: str, experiment: str, run_name: str, run_id: str | None, tags: Mapping[str, str]) -> Destination:
    """Connect to the store, making it if it is a new SQLite file, and create or reopen the run."""
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(os.environ["MLFLOW_LOGGING_LEVEL"])  # when something imported it before us
    logging.getLogger("alembic").setLevel(logging.WARNING)
    file = sqlite_file(uri)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(uri)
    cut = {key(name): _cut(value, MAX_TAG_LENGTH) for name, value in tags.items()}
    if run_id is not None:
        client.update_run(run_id, status="RUNNING")
        for name, value in cut.items():
            client.set_tag(run_id, name, value)
        earlier = client.get_run(run_id)
        experiment_id = earlier.info.experiment_id
        numbered = not any(name.partition("/")[0] in CHARTS_FIRST for name in earlier.data.metrics)
    else:
        numbered = True
        experiment_id = _experiment_id(client, uri, experiment)
        run_id = client.create_run(experiment_id, run_name=run_name, tags=cut).info.run_id
    return Destination(client=client, uri=uri, experiment_id=str(experiment_id), run_id=str(run_id), numbered=numbered)


def _experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        location = None if is_server(uri) else artifact_folder(uri).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS))
        except MlflowException as error:
            found = client.get_experiment_by_name(name)  # another run may have made it in the meantime
            if found is None:
                raise error
    if found.lifecycle_stage != "active":
        raise ValueError(f'experiment "{name}" was deleted; restore it or name another in tracking.experiment')
    return str(found.experiment_id)


def newest_steps(to: Destination) -> dict[str, int]:
    """The newest step that the run has of each metric of training; others have seconds for steps."""
    of_training = tuple(chart_name(f"{prefix}/", numbered=to.numbered) + "/" for prefix in ("train", "validation"))
    names = [name for name in to.client.get_run(to.run_id).data.metrics if name.startswith(of_training)]
    return {name: max(one.step for one in to.client.get_metric_history(to.run_id, name)) for name in names}


def tag(to: Destination, name: str, value: str) -> None:
    """Set a tag of the run, cut to what MLflow takes."""
    to.client.set_tag(to.run_id, name, _cut(value, MAX_TAG_LENGTH))


def log_parameters(to: Destination, config: Mapping[str, Any]) -> None:
    """Store every leaf of a nested configuration."""
    from mlflow.entities import Param

    parameters = [Param(name, value) for name, value in flatten(config)]
    for batch in itertools.batched(parameters, PARAMS_PER_BATCH):
        to.client.log_batch(to.run_id, params=batch)


def start_monitor(to: Destination) -> "SystemMetricsMonitor":
    """Start MLflow's thread that samples this machine every 10 s."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    # Resuming counts on from the last stored step, for a run that is reopened.
    monitor = SystemMetricsMonitor(to.run_id, tracking_uri=to.uri, resume_logging=True)
    monitor.start()
    return monitor


def store_model(to: Destination, created: list[str], checkpoint: Path, spec: ModelSpec) -> None:
    """What `mlflow.pyfunc.log_model` does, for a run that is named rather than globally active; and registration.

    The fluent function takes store and run from process-wide settings, and changes `MLFLOW_TRACKING_URI` with them.

    Args:
        to: the run.
        created: what of it is done, for a second try after a failure: the model's id, then its registered version.
        checkpoint: the file given to `_load_pyfunc` of the loader module.
        spec: the model.
    """
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    if not created:
        name = model_name(spec.name)
        created.append(to.client.create_logged_model(to.experiment_id, name, source_run_id=to.run_id).model_id)
    model = to.client.get_logged_model(created[0])
    description = Model(
        artifact_path=model.artifact_location, model_uuid=model.model_id, model_id=model.model_id, run_id=to.run_id
    )
    with tempfile.TemporaryDirectory(prefix="headrace-") as scratch:
        folder = Path(scratch, "model")
        # Requirements are given, not inferred: inference would load the model in a new process, for many seconds.
        requirement = f"headrace=={provenance.versions(['headrace'])['headrace']}"
        mlflow.pyfunc.save_model(
            str(folder),
            mlflow_model=description,
            pip_requirements=[requirement, *spec.requirements],
            data_path=str(checkpoint),
            loader_module=spec.loader_module,
            signature=signature_of(spec.schema, free_grid=spec.free_grid, takes_noise=spec.takes_noise),
            input_example={name: np.asarray(values, dtype=np.float32) for name, values in spec.example.items()},
        )
        to.client.log_model_artifacts(model.model_id, str(folder))
    to.client.finalize_logged_model(model.model_id, "READY")
    to.client.log_outputs(to.run_id, [LoggedModelOutput(model.model_id, step=0)])
    if spec.alias is not None and len(created) == 1:
        version = register(to.client, spec.name, model.model_id, to.run_id, spec.alias)
        created.append(str(version))
        log.info("registered models:/%s/%d, which is models:/%s@%s now", spec.name, version, spec.name, spec.alias)


def log_dataset(to: Destination, data: DataSetRecord) -> None:
    """Note a data set among those of a run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    found = Dataset(
        name=data.name,
        digest=data.digest[:MAX_DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": data.folder}),
        schema=None,
        profile=json.dumps({"num_samples": data.num_samples, **data.profile}),
    )
    context = InputTag("mlflow.data.context", data.context)
    to.client.log_inputs(to.run_id, datasets=[DatasetInput(found, [context])])
