"""Models in MLflow: what their signature says, how they are stored and registered, and where one that is named lies."""

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, SampleSchema
from headrace.platform.tracking.address import MLFLOW_DEFAULTS, resolve_address, sqlite_file, without_password

# As in `store.py`: MLflow takes seconds to import.
if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

MODEL_FILE = "MLmodel"
FLAG = "outside_training"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What MLflow is told of a model.

    Attributes:
        name: its name under the run, and in the registry.
        schema: what it takes and gives.
        example: one sample of what it takes, by name.
        free_grid: whether it takes other grids than the schema's.
        takes_noise: whether a seed makes a difference.
        loader_module: a module of Headrace or of another installed package with `_load_pyfunc(path)`.
        requirements: packages that it needs, beside Headrace.
        alias: under which it is registered; None for no registration.
    """

    name: str
    schema: SampleSchema
    example: Mapping[str, np.ndarray]
    free_grid: bool = True
    takes_noise: bool = False
    loader_module: str = "headrace.surrogates.served"
    requirements: Sequence[str] = field(default_factory=tuple)
    alias: str | None = None


def is_model_uri(text: str) -> bool:
    """Whether a text names a model of MLflow."""
    return text.startswith(("models:/", "runs:/"))


def is_alias(name: str) -> bool:
    """Whether MLflow takes a name as an alias: not one that it takes as a version."""
    return bool(re.fullmatch(r"[A-Za-z0-9_-]+", name)) and not re.fullmatch(r"latest|v\d+", name, re.IGNORECASE)


def input_names(schema: SampleSchema) -> dict[str, FieldSpec]:
    """What a model is given, by name: fields, then parameters; one that is called as a field is `parameter_NAME`."""
    fields = {spec.name: spec for spec in schema.inputs}
    scalars = {(f"parameter_{spec.name}" if spec.name in fields else spec.name): spec for spec in schema.parameters}
    return {**fields, **scalars}


def signature_of(schema: SampleSchema, *, free_grid: bool, takes_noise: bool = False) -> "ModelSignature":
    """Name, type and shape of everything that goes in and comes out: any number of samples.

    Args:
        schema: what the model takes and gives.
        free_grid: whether there may be any number of points along each axis.
        takes_noise: whether it may be told a seed.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    grid = tuple(-1 if free_grid else size for size in schema.domain.shape)
    single = np.dtype(np.float32)

    def components(spec: FieldSpec) -> tuple[int, ...]:
        return (spec.components,) if spec.components > 1 else ()

    scalars = list(input_names(schema).items())[len(schema.inputs) :]
    given = [TensorSpec(single, (-1, *components(spec), *grid), spec.name) for spec in schema.inputs]
    given += [TensorSpec(single, (-1, *components(spec)), name) for name, spec in scalars]
    times = (-1,) if len(schema.times) > 1 else ()
    said = [TensorSpec(single, (-1, *times, *components(spec), *grid), spec.name) for spec in schema.outputs]
    said.append(TensorSpec(np.dtype(np.bool_), (-1,), FLAG))
    params = []
    if times:
        params.append(ParamSpec("times", DataType.double, list(schema.times), (-1,)))
    if takes_noise:
        params.append(ParamSpec("seed", DataType.long, 0))
    return ModelSignature(inputs=Schema(given), outputs=Schema(said), params=ParamSchema(params) if params else None)


def model_name(name: str) -> str:
    """A name that MLflow takes for a model under a run."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "model"


def register(client: "MlflowClient", name: str, model_id: str, run_id: str, alias: str) -> int:
    """Make a model the newest version of a registered one, and the one that its alias means; returns the version.

    Raises:
        ValueError: the store refuses, and will again.
    """
    from mlflow.exceptions import MlflowException

    # Where the files lie, and not models:/ID: the registry would look that up in the store of the environment.
    source = client.get_logged_model(model_id).artifact_location
    try:
        with contextlib.suppress(MlflowException):  # it is there; if it cannot be made, the next line says so
            client.create_registered_model(name)
        version = client.create_model_version(name, source, run_id=run_id, model_id=model_id).version
        client.set_registered_model_alias(name, alias, str(version))
    except MlflowException as error:
        if error.get_http_status_code() >= 500:
            raise
        reason = str(error).partition("\n")[0]
        raise ValueError(f"it could not be registered as {name}@{alias}: {reason}") from error
    return int(version)


def find_model(uri: str, tracking_uri: str | None = None) -> Path:
    """The folder of a model that is in a store: downloaded, unless it lies on this machine.

    Args:
        uri: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `models:/MODEL_ID` or `runs:/RUN_ID/NAME`.
        tracking_uri: the store; default: `MLFLOW_TRACKING_URI`, else `runs/mlflow.db`.

    Raises:
        InputError: the store is not there or has no such model.
    """
    store = resolve_address(tracking_uri)
    file = sqlite_file(store)
    if file is not None and not file.is_file():
        advice = "Set MLFLOW_TRACKING_URI, or pass tracking_uri."
        raise InputError.single(uri, "", f"a model in the tracking store {file}", f"There is no such file. {advice}")
    for name, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)  # read when MLflow is imported
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    client = MlflowClient(tracking_uri=store, registry_uri=store)
    try:
        place = _location(client, uri)
        return Path(download_artifacts(artifact_uri=place, tracking_uri=store, registry_uri=store))
    except InputError:
        raise
    except Exception as error:  # MLflow raises its own, requests' and the drivers' errors
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError.single(uri, "", f"a model in the tracking store {without_password(store)}", reason) from error


def _location(client: "MlflowClient", uri: str) -> str:
    """Where the files of a model are."""
    scheme, _, rest = uri.partition(":/")
    rest = rest.strip("/")
    if scheme == "runs":
        run_id, _, name = rest.partition("/")
        outputs = client.get_run(run_id).outputs
        models = [client.get_logged_model(one.model_id) for one in (outputs.model_outputs if outputs else ())]
        found = [model for model in models if not name or model.name == name]
        if not found or (not name and len(found) > 1):
            names = ", ".join(sorted(model.name for model in models)) or "none"
            raise InputError.single(uri, "", "a model of that run, as in runs:/RUN_ID/NAME", f"It has: {names}.")
        return str(found[-1].artifact_location)
    name, at, alias = rest.partition("@")
    if at:
        version = client.get_model_version_by_alias(name, alias)
    elif "/" in rest:
        name, _, number = rest.rpartition("/")
        version = client.get_model_version(name, number)
    elif rest.startswith("m-"):
        return str(client.get_logged_model(rest).artifact_location)
    else:
        raise InputError.single(uri, "", "models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN_ID/NAME")
    if version.model_id:
        return str(client.get_logged_model(version.model_id).artifact_location)
    return str(client.get_model_version_download_uri(version.name, version.version))


def data_folder(folder: Path) -> Path:
    """The file or folder that the loader of a model is given.

    Raises:
        InputError: the model is not one of a loader.
    """
    try:
        flavors = yaml.safe_load((folder / MODEL_FILE).read_text(encoding="utf-8"))["flavors"]
        return folder / str(flavors["python_function"]["data"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError.single(str(folder), "a model of another kind", "one that Headrace logged") from error
