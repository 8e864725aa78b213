"""The model in MLflow: it loads and predicts what `load` predicts for the schema of every problem; it is registered."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from headrace.platform.errors import InputError
from headrace.platform.fields import Mesh, SampleSchema
from headrace.platform.spec import kind_of
from headrace.platform.tracking.models import FLAG, ModelSpec, input_names, model_name
from headrace.platform.tracking.store import DataSetRecord
from headrace.platform.tracking.tracker import Tracker, TrackingSpec
from headrace.solvers.problems import EVOLUTIONS, PROBLEMS
from headrace.solvers.sampled import AbstractSampled
from headrace.surrogates import load
from headrace.surrogates.checkpoint import Checkpoint, save_checkpoint
from headrace.surrogates.models.fno import FNO
from headrace.surrogates.models.mlp import MLP
from headrace.surrogates.named import Given, by_model_name
from headrace.surrogates.normalizer import Normalizer
from headrace.surrogates.strategies import AllAtOnce, Autoregressive, TimeConditioned
from headrace.surrogates.strategy import AbstractStrategy
from headrace.surrogates.surrogate import AbstractSurrogate
from headrace.surrogates.training import TrainingSpec

SAMPLED = {kind_of(one): one for one in (*PROBLEMS, *EVOLUTIONS)}
STRATEGIES: dict[str, AbstractStrategy] = {
    "burgers": Autoregressive(),
    "heat_in_media": TimeConditioned(),
}


def small(problem: type[AbstractSampled]) -> SampleSchema:
    """The schema of a problem on a small grid, which nothing else here depends on; at three times at most."""
    schema = problem().schema()
    times = schema.times[:3]
    if isinstance(schema.domain, Mesh):
        return dataclasses.replace(schema, times=times)
    shape = tuple(5 + axis for axis in range(len(schema.domain.shape)))
    return dataclasses.replace(schema, times=times, domain=dataclasses.replace(schema.domain, shape=shape))


def surrogate_for(schema: SampleSchema) -> AbstractSurrogate:
    fields = schema.inputs and not isinstance(schema.domain, Mesh)
    return FNO(modes=2, width=2, layers=1) if fields else MLP(hidden=(4,))


def write_untrained(path: Path, schema: SampleSchema, strategy: AbstractStrategy) -> None:
    """A checkpoint of a network as it was drawn: what it predicts is something, and that is all that counts."""
    surrogate, training = surrogate_for(schema), TrainingSpec()
    seen = strategy.network_schema(schema, surrogate.capabilities)
    checkpoint = Checkpoint(
        step=0,
        surrogate=surrogate,
        normalization=training.normalization,
        strategy=strategy,
        training={},
        schema=schema,
        weights=surrogate.build(seen).state_dict(),
        moments=Normalizer(training.normalization, seen).state_dict(),
        optimizer={},
        schedule={},
    )
    save_checkpoint(path, checkpoint)


def inputs_of(schema: SampleSchema, count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((count, schema.num_input_channels, *schema.domain.shape)).astype(np.float32)
    parameters = rng.standard_normal((count, schema.num_parameters)).astype(np.float32)
    return by_model_name(Given(inputs=inputs, parameters=parameters, is_batch=True), schema)


@dataclass(frozen=True)
class Store:
    """An MLflow store with a run that has a model of every problem."""

    uri: str
    run_id: str
    checkpoints: Path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("tracked")
    spec = TrackingSpec(uri=f"sqlite:///{folder}/mlflow.db", system_metrics=False)
    tracker = Tracker.start(spec, run_name="all", config={})
    for kind, problem in SAMPLED.items():
        schema = small(problem)
        path = folder / kind / "last.pt"
        write_untrained(path, schema, STRATEGIES.get(kind, AllAtOnce()))
        free = surrogate_for(schema).capabilities.resolution == "free"
        alias = "champion" if kind == "burgers" else None
        requirements = ("numpy",) if alias else ()
        model = ModelSpec(
            name=kind,
            schema=schema,
            example=inputs_of(schema, 1),
            free_grid=free,
            alias=alias,
            requirements=requirements,
        )
        tracker.log_model(path, model)
    tracker.log_dataset(
        DataSetRecord(
            name="burgers train",
            context="training",
            digest="0" * 64,
            folder="/data",
            num_samples=96,
            profile={"points": "33"},
        )
    )
    tracker.describe("**all**: models of every problem")
    tracker.finish("finished", timeout=100.0)
    assert tracker.run_id is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", spec.uri or "")
        yield Store(spec.uri or "", tracker.run_id, folder)


@pytest.mark.parametrize("kind", SAMPLED)
def test_the_model_of_every_problem_predicts_what_load_does(kind: str, store: Store) -> None:
    """Fault 1: with parameters there was no way to call it."""
    import mlflow

    schema = small(SAMPLED[kind])
    model = mlflow.pyfunc.load_model(f"runs:/{store.run_id}/{kind}")
    given = inputs_of(schema, 3)
    signature = model.metadata.signature
    assert signature.inputs.input_names() == list(given) == list(input_names(schema))
    assert signature.outputs.input_names() == [*(spec.name for spec in schema.outputs), FLAG]
    said = model.predict(given)
    scalars = {spec.name for spec in schema.parameters} - {spec.name for spec in schema.inputs}
    expected = load(store.checkpoints / kind).predict(
        {name: values for name, values in given.items() if name not in scalars},
        {name: given[name] for name in (spec.name for spec in schema.parameters)} if scalars else None,
    )
    for spec in schema.outputs:
        assert np.array_equal(said[spec.name], expected[spec.name])
        declared = signature.outputs.input_dict()[spec.name].shape
        assert len(declared) == said[spec.name].ndim
        assert all(size in (-1, found) for size, found in zip(declared, said[spec.name].shape, strict=True))
    assert said[FLAG].shape == (3,)


def test_times_are_a_parameter_of_the_model(store: Store) -> None:
    import mlflow

    schema = small(SAMPLED["heat_in_media"])
    model, given = mlflow.pyfunc.load_model(f"runs:/{store.run_id}/heat_in_media"), inputs_of(schema, 2)
    at = 0.4 * schema.times[0] + 0.6 * schema.times[1]
    said = model.predict(given, params={"times": [at]})["temperature"]
    assert np.array_equal(said, load(store.checkpoints / "heat_in_media").predict(given, times=[at])["temperature"])
    assert said.shape[1] == 1


def test_what_does_not_fit_is_refused(store: Store) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    model, given = mlflow.pyfunc.load_model(f"runs:/{store.run_id}/burgers"), inputs_of(small(SAMPLED["burgers"]), 2)
    with pytest.raises(MlflowException, match="viscosity"):
        model.predict({"velocity": given["velocity"]})
    with pytest.raises(InputError, match=r"inputs \(velocity\) is nan in sample 0, point \(0,\)"):
        model.predict({**given, "velocity": np.full_like(given["velocity"], np.nan)})


class TestRegistry:
    def test_the_alias_is_the_newest_version(self, store: Store) -> None:
        given = inputs_of(small(SAMPLED["burgers"]), 2)
        expected = load(store.checkpoints / "burgers").predict(given)["velocity"]
        for uri in ("models:/burgers@champion", "models:/burgers/1", f"runs:/{store.run_id}/burgers"):
            model = load(uri, tracking_uri=store.uri)
            assert np.array_equal(model.predict(given)["velocity"], expected), uri
            assert model.source == uri

    def test_a_second_model_takes_the_alias_over(self, store: Store, tmp_path: Path) -> None:
        from mlflow import MlflowClient

        schema = small(SAMPLED["wave"])
        write_untrained(tmp_path / "last.pt", schema, AllAtOnce())
        for _ in range(2):
            tracker = Tracker.start(TrackingSpec(uri=store.uri, system_metrics=False), run_name="two", config={})
            model = ModelSpec(name="wave.v2", schema=schema, example=inputs_of(schema, 1), alias="champion")
            tracker.log_model(tmp_path / "last.pt", model)
            tracker.finish("finished", timeout=60.0)
        client = MlflowClient(store.uri)
        assert client.get_model_version_by_alias("wave.v2", "champion").version == 2
        assert client.get_model_version("wave.v2", "2").run_id == tracker.run_id
        assert load("models:/wave.v2@champion").schema == schema
        assert load(f"runs:/{tracker.run_id}/wave-v2").schema == schema

    @pytest.mark.parametrize(
        ("uri", "words"),
        [
            ("models:/burgers@challenger", "expected a model in the tracking store .*alias challenger"),
            ("models:/burgers/7", "expected a model in the tracking store"),
            ("models:/burgers", "expected models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN_ID/NAME"),
            ("runs:/none/burgers", "expected a model in the tracking store"),
            ("runs:/{run}/heat", "expected a model of that run, .* It has: advection, allen_cahn, "),
        ],
    )
    def test_what_is_not_there_is_said(self, store: Store, uri: str, words: str) -> None:
        with pytest.raises(InputError, match=words):
            load(uri.format(run=store.run_id))

    @pytest.mark.parametrize("alias", ["latest", "v3", "a b", ""])
    def test_what_is_no_alias_is_refused(self, alias: str) -> None:
        with pytest.raises(ValidationError, match="an alias of letters, digits, - and _, other than latest and v1"):
            TrackingSpec(register=alias)


def test_the_run_tells_its_data_and_what_it_is(store: Store) -> None:
    from mlflow import MlflowClient

    run = MlflowClient(store.uri).get_run(store.run_id)
    (found,) = run.inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("burgers train", "0" * 36)
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "training")]
    assert json.loads(found.dataset.profile) == {"num_samples": 96, "points": "33"}
    assert run.data.tags["mlflow.note.content"] == "**all**: models of every problem"


def test_the_requirements_name_headrace_and_what_a_recipe_needs(store: Store) -> None:
    import mlflow

    folder = Path(mlflow.artifacts.download_artifacts(f"runs:/{store.run_id}/burgers"))
    lines = (folder / "requirements.txt").read_text().split()
    assert any(line.startswith("headrace==") for line in lines) and "numpy" in lines


def test_names_of_models_are_those_that_mlflow_takes() -> None:
    assert model_name("darcy_fno-17") == "darcy_fno-17"
    assert model_name("v1.5/a:b") == "v1-5-a-b"
    assert model_name("...") == "model"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_a_server_answers(store: Store) -> None:
    given = inputs_of(small(SAMPLED["burgers"]), 2)
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/burgers@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    log = store.checkpoints / "server.log"
    with log.open("w") as out:
        # MLflow calls uvicorn by its name, as who has activated the environment may.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        environment = {**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": store.uri}
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        body = json.dumps({"inputs": {name: values.tolist() for name, values in given.items()}}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
        )
        deadline = time.monotonic() + 100
        while True:
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    said = json.loads(answer.read())["predictions"]
                break
            except urllib.error.HTTPError as error:
                raise AssertionError(error.read().decode()) from error
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
    finally:
        # All that it started: the server runs its workers in its own session.
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    expected = load(store.checkpoints / "burgers").predict(given)["velocity"]
    np.testing.assert_allclose(said["velocity"], expected, rtol=1e-6, atol=1e-7)
    assert said[FLAG] == [False, False]
