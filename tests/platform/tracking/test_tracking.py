"""Tracking: what is written is read back by MLflow's own client; a store that fails costs nothing but a warning."""

import http.server
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from sqlalchemy.engine import make_url

from headrace.platform import provenance
from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.tracking import tracker as tracking
from headrace.platform.tracking.address import artifact_folder, sqlite_address, sqlite_file
from headrace.platform.tracking.models import ModelSpec
from headrace.platform.tracking.store import MAX_PARAM_LENGTH, chart_name, flatten, key
from headrace.platform.tracking.tracker import Tracker, TrackingSpec, check_reachable
from headrace.platform.tracking.ui import charts_page, ui_command

LOADER = '''
"""A model that doubles what it is given, after reading the factor from its file."""

class Doubler:
    def __init__(self, path):
        self.factor = float(open(path).read())

    def predict(self, inputs):
        return {"u": self.factor * inputs["a"]}

def _load_pyfunc(path):
    return Doubler(path)
'''


# All that means something in a URL, and what is no ASCII.
ODD = "what?now pct%20dir a#b übung+&;=@"

SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="a", components=3),),
    outputs=(FieldSpec(name="u", components=3),),
    domain=Grid(shape=(4, 5), extent=(1.0, 1.0), periodic=(False, False)),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of one SQLite store for all tests: making its tables takes seconds. In a folder of any name."""
    return sqlite_address(tmp_path_factory.mktemp("store") / ODD / "runs" / "mlflow.db")


@pytest.fixture
def spec(store: str) -> TrackingSpec:
    return TrackingSpec(uri=store, experiment="tests", system_metrics=False)


@pytest.fixture
def answers() -> Iterator[list[tuple[int, str, bytes]]]:
    """A server on `port` of the first entry, which answers as the second one says: (port, content type, body)."""
    said: list[tuple[int, str, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = said[-1]
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    said.append((server.server_port, "", b""))
    yield said
    server.shutdown()
    server.server_close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_everything_written_is_read_back(
    spec: TrackingSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

    (tmp_path / "doubling_loader.py").write_text(LOADER)
    monkeypatch.syspath_prepend(str(tmp_path))
    checkpoint = tmp_path / "last.pt"
    checkpoint.write_text("2.0")
    inputs = np.linspace(0, 1, 2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    figure = Figure()
    figure.add_subplot().plot([0, 1])

    tracker = Tracker.start(
        spec,
        run_name="darcy",
        config={"data": {"problem": {"kind": "darcy", "resolution": 32}, "mix": {}}, "note": "x" * 10_000, "off": None},
        tags={"headrace.command": "run"},
        recipe_text="name: darcy\n",
    )
    for step in range(1500):  # more than one batch
        tracker.log_metrics(
            {"train/loss": 1 / (step + 1), "validation/relative_l2/zwei phasen!": 0.5}, step, 0.01 * step
        )
    tracker.log_metrics({"stream/fill": 0.25}, None, 17.9)
    tracker.log_figure(figure, "pictures/curve.png")
    tracker.log_file(checkpoint, "checkpoints")
    tracker.log_text("well", "notes/how.txt")
    spec_of = ModelSpec(name="darcy.17", schema=SCHEMA, example={"a": inputs[:1]}, loader_module="doubling_loader")
    tracker.log_model(checkpoint, spec_of)
    tracker.finish("finished")

    client = MlflowClient(spec.uri)
    assert tracker.run_id is not None
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "darcy"
    assert run.data.params["data.problem.resolution"] == "32"
    assert run.data.params["data.mix"] == "{}"
    assert len(run.data.params["note"]) == MAX_PARAM_LENGTH
    assert run.data.params["note"].endswith("...")
    assert run.data.tags["headrace.command"] == "run"
    assert run.data.tags["version.numpy"] == np.__version__
    history = client.get_metric_history(tracker.run_id, "1 train/loss")
    assert sorted((row.step, row.value) for row in history) == [(step, 1 / (step + 1)) for step in range(1500)]
    times = {row.step: row.timestamp for row in history}
    assert times[1000] - times[0] == pytest.approx(10_000, abs=2)  # ms, by the clock that the caller gave
    assert run.data.metrics["2 validation/relative_l2/zwei phasen_"] == 0.5
    (fill,) = client.get_metric_history(tracker.run_id, "3 stream/fill")
    assert (fill.step, fill.value) == (17, 0.25)

    files = Path(client.download_artifacts(tracker.run_id, "", str(tmp_path)))
    assert (files / "recipe.yaml").read_text() == "name: darcy\n"
    assert (files / "notes/how.txt").read_text() == "well"
    assert (files / "checkpoints/last.pt").read_text() == "2.0"
    assert (files / "pictures/curve.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((files / "provenance.json").read_text())["machine"] == provenance.machine()
    check_model(spec, tracker.run_id, inputs)
    said = capfd.readouterr()
    assert said.out == ""
    assert "mlflow" not in said.err and "alembic" not in said.err


def check_model(spec: TrackingSpec, run_id: str, inputs: np.ndarray) -> None:
    """The model loads under its run, takes any grid and batch by name, and refuses another number of components."""
    import mlflow
    from mlflow.exceptions import MlflowException

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", str(spec.uri))
        model = mlflow.pyfunc.load_model(f"runs:/{run_id}/darcy-17")
    np.testing.assert_array_equal(model.predict({"a": inputs})["u"], 2 * inputs)
    assert model.predict({"a": np.ones((1, 3, 9, 7), np.float32)})["u"].shape == (1, 3, 9, 7)
    signature = model.metadata.signature
    assert signature.inputs.input_dict()["a"].shape == (-1, 3, -1, -1)
    assert signature.outputs.input_dict()["u"].shape == (-1, 3, -1, -1)
    assert signature.params is None
    with pytest.raises(MlflowException, match="shape"):
        model.predict({"a": np.ones((1, 2, 9, 7), np.float32)})


def test_rows_survive_a_store_that_fails(
    spec: TrackingSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 0.05)
    tracker = Tracker.start(spec, run_name="flaky", config={})
    send, refused = MlflowClient.log_batch, []

    def flaky(self: MlflowClient, run_id: str, **rows: object) -> None:
        if len(refused) < 3:
            refused.append(rows)
            raise ConnectionError("the network is down")
        send(self, run_id, **rows)

    monkeypatch.setattr(MlflowClient, "log_batch", flaky)
    with caplog.at_level(logging.INFO, logger="headrace"):
        began = time.monotonic()
        for step in range(10):
            tracker.log_metrics({"train/loss": float(step)}, step, float(step))
        tracker.log_file(tmp_path / "missing.pt")
        assert time.monotonic() - began < 0.05, "callers do not wait for the store"
        tracker.finish("interrupted")
    run = MlflowClient(spec.uri).get_run(str(tracker.run_id))
    history = MlflowClient(spec.uri).get_metric_history(str(tracker.run_id), "1 train/loss")
    assert sorted(row.value for row in history) == list(range(10))
    assert run.info.status == "KILLED"
    assert len(refused) == 3
    assert caplog.text.count("the network is down") == 1, "said once"
    assert "answers again" in caplog.text
    assert "missing.pt is not tracked" in caplog.text


def test_a_store_that_stays_away_is_named_and_the_run_ends(
    spec: TrackingSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 0.05)
    tracker = Tracker.start(spec, run_name="gone", config={})

    def gone(*_: object, **__: object) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(MlflowClient, "log_batch", gone)
    tracker.log_metrics({"a": 1.0, "b": 2.0}, 1, 0.0)
    began = time.monotonic()
    tracker.finish("failed", timeout=0.5)
    assert time.monotonic() - began < 2.0
    assert "did not take 2 metrics" in caplog.text


def test_a_run_is_gone_on_with(spec: TrackingSpec) -> None:
    from mlflow import MlflowClient

    first = Tracker.start(spec, run_name="twice", config={"seed": 0})
    first.log_metrics({"train/loss": 1.0}, 0, 0.0)
    first.finish("interrupted")
    second = Tracker.start(spec, run_name="twice", config={"seed": 0}, run_id=first.run_id)
    second.log_metrics({"train/loss": 0.5}, 1, 1.0)
    second.finish("finished")
    assert first.run_id == second.run_id
    history = MlflowClient(spec.uri).get_metric_history(str(first.run_id), "1 train/loss")
    assert sorted(row.value for row in history) == [0.5, 1.0]
    assert MlflowClient(spec.uri).get_run(str(first.run_id)).info.status == "FINISHED"


def test_a_deleted_experiment_is_said_before_the_run(spec: TrackingSpec) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(spec.uri)
    client.delete_experiment(client.create_experiment("old"))
    with pytest.raises(InputError, match='experiment "old" was deleted'):
        Tracker.start(TrackingSpec(uri=spec.uri, experiment="old"), run_name="x", config={})


def test_tracking_off_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = TrackingSpec(enabled=False, uri="http://127.0.0.1:9")
    assert check_reachable(spec) == []
    tracker = Tracker.start(spec, run_name="x", config={})
    tracker.log_metrics({"a": 1.0}, 1, 0.0)
    tracker.log_text("a", "b")
    tracker.finish("finished")
    assert (tracker.run_id, tracker.uri, tracker.url) == (None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_the_recipe_goes_before_the_environment_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    resolve = tracking.resolve_address
    assert resolve(None) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000/")
    assert resolve(None) == "http://tracking:5000"
    assert resolve("sqlite:///here.db") == f"sqlite:///{tmp_path}/here.db"


@pytest.mark.parametrize("name", ["what?now", "pct%20dir", "50%", "a#b", "mit leer", "übung", "%3F", "a?b=c&d", ODD])
def test_a_folder_may_have_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    address = tracking.resolve_address(None)
    assert sqlite_file(address) == tmp_path / name / "runs" / "mlflow.db"
    assert tracking.resolve_address(address) == address, "as the run's recipe and `headrace ui --uri` have it"
    assert make_url(address).database == str(tmp_path / name / "runs" / "mlflow.db"), "as SQLAlchemy reads it"
    assert artifact_folder(address) == tmp_path / name / "runs" / "mlartifacts"


def test_a_query_of_a_sqlite_address_stays(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/mlflow.db?timeout=30"
    assert sqlite_file(address) == tmp_path / "mlflow.db" and tracking.resolve_address(address) == address


def test_nothing_is_left_beside_a_store_in_an_odd_folder(store: str, spec: TrackingSpec) -> None:
    Tracker.start(spec, run_name="odd", config={}).finish("finished")
    file = sqlite_file(store)
    assert file is not None and file.is_file()
    assert [path.name for path in file.parent.parent.parent.iterdir()] == [ODD]


def test_a_dead_server_is_said_at_once_with_what_to_do() -> None:
    port = free_port()
    began = time.monotonic()
    (fault,) = check_reachable(TrackingSpec(uri=f"http://127.0.0.1:{port}"))
    assert time.monotonic() - began < 5
    assert fault.where == "tracking.uri"
    assert f"http://127.0.0.1:{port} (Connection refused)" in fault.value
    assert "MLflow server" in fault.expected
    assert f"mlflow server --host 127.0.0.1 --port {port}" in fault.advice
    assert "remove tracking.uri" in fault.advice


def test_a_server_that_hangs_is_said_within_five_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        (fault,) = check_reachable(TrackingSpec(uri=f"http://127.0.0.1:{silent.getsockname()[1]}"))
        assert time.monotonic() - began < 5.5
    assert "no answer" in fault.value


@pytest.mark.parametrize(
    ("status", "kind", "body", "words"),
    [
        (
            403,
            "text/plain",
            b"Invalid Host header - possible DNS rebinding attack detected",
            "--allowed-hosts 127.0.0.1",
        ),
        (401, "text/plain", b"You are not authenticated", "MLFLOW_TRACKING_USERNAME"),
        (200, "text/html", b"<html>It works!</html>", "Something else listens there"),
        (404, "application/json", b"{}", "Something else listens there"),
    ],
)
def test_a_server_that_refuses_is_told_apart(
    answers: list[tuple[int, str, bytes]], status: int, kind: str, body: bytes, words: str
) -> None:
    port = answers[0][0]
    answers.append((status, kind, body))
    (fault,) = check_reachable(TrackingSpec(uri=f"http://127.0.0.1:{port}"))
    assert words in fault.advice


def test_a_server_that_answers_is_fine(answers: list[tuple[int, str, bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{answers[0][0]}")
    answers.append((200, "application/json", b'{"experiments": []}'))
    assert check_reachable(TrackingSpec()) == []


def test_the_environment_is_named_when_it_is_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    (fault,) = check_reachable(TrackingSpec())
    assert "MLFLOW_TRACKING_URI" in fault.where
    assert "unset MLFLOW_TRACKING_URI" in fault.advice


@pytest.mark.parametrize("uri", ["ftp://server/x", "./mlruns", "http:/server", "nonsense", "sqlite://"])
def test_an_address_of_no_kind_is_said(uri: str) -> None:
    (fault,) = check_reachable(TrackingSpec(uri=uri))
    assert fault.value == uri
    assert "sqlite:///FILE" in fault.expected


def test_a_file_that_cannot_be_a_store_is_said(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database at all")
    (fault,) = check_reachable(TrackingSpec(uri=f"sqlite:///{tmp_path}/notes.txt"))
    assert "SQLite file" in fault.expected and "not a database" in fault.value
    (fault,) = check_reachable(TrackingSpec(uri=f"sqlite:///{tmp_path}/notes.txt/mlflow.db"))
    assert str(tmp_path / "notes.txt") in fault.advice
    assert check_reachable(TrackingSpec(uri=f"sqlite:///{tmp_path}/new/mlflow.db")) == []
    assert not (tmp_path / "new").exists(), "a check leaves nothing behind"


def test_a_database_server_that_is_down_is_said_without_its_password() -> None:
    (fault,) = check_reachable(TrackingSpec(uri=f"postgresql://me:secret@127.0.0.1:{free_port()}/mlflow"))
    assert "postgresql://me:***@127.0.0.1" in fault.value
    assert "secret" not in str(fault)
    assert dict(flatten({"tracking": {"uri": "http://me:secret@host:1"}})) == {"tracking.uri": "http://me:***@host:1"}


def test_names_become_what_mlflow_takes() -> None:
    assert key("validation/relative_l2/two-phase") == "validation/relative_l2/two-phase"
    assert key("../../etc") == "etc"
    assert key("a//b/") == "a/b"
    assert key("<b>?") == "_b__"
    assert len(key("x" * 1000)) == 250


def test_pages_are_served_to_this_machine_only(tmp_path: Path) -> None:
    command = ui_command(TrackingSpec(uri=f"sqlite:///{tmp_path}/mlflow.db"), port=5001)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "5001"
    assert command[command.index("--backend-store-uri") + 1] == f"sqlite:///{tmp_path}/mlflow.db"
    assert sys.executable in command
    with pytest.raises(InputError, match="Open http://tracking:5000 in a browser"):
        ui_command(TrackingSpec(uri="http://tracking:5000"))


def test_a_misspelt_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="experimnt"):
        TrackingSpec.model_validate({"experimnt": "x"})


def test_the_state_of_the_code(tmp_path: Path) -> None:
    import subprocess

    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert provenance.git_state(tmp_path) is None
    git("init", "-q")
    assert provenance.git_state(tmp_path) is None
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert provenance.git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "a").write_text("2")
    assert provenance.git_state(tmp_path) == {"commit": commit, "dirty": True}


def test_versions_leave_out_what_is_missing() -> None:
    found = provenance.versions(["numpy", "no-such-package"])
    assert found == {"python": sys.version.split()[0], "numpy": np.__version__}


def test_what_is_not_finite_is_named_and_steps_done_again_stand_once(spec: TrackingSpec) -> None:
    """MLflow would store an infinite number as 1.8e308, and a step twice when a resumed run comes to it again."""
    from mlflow import MlflowClient

    tracker = Tracker.start(spec, run_name="first", config={})
    for step in (10, 20, 30):
        tracker.log_metrics({"train/loss": 1.0 / step}, step, 0.1 * step)
    tracker.log_metrics({"test/vrmse": float("inf"), "test/relative_l2": 0.5}, None, 4.0)
    tracker.log_metrics({"test/vrmse": float("nan")}, None, 5.0)
    tracker.finish("interrupted")

    again = Tracker.start(spec, run_name="first", config={}, run_id=tracker.run_id)
    for step in (20, 30, 40, 30, 40, 50):  # and the ranks died once
        again.log_metrics({"train/loss": 2.0 / step}, step, 10.0 + 0.1 * step)
    again.log_metrics({"test/relative_l2": 0.25}, None, 16.0)
    again.finish("finished")

    client = MlflowClient(spec.uri)
    assert tracker.run_id is not None
    history = client.get_metric_history(tracker.run_id, "1 train/loss")
    expected = [(10, 0.1), (20, 0.05), (30, 1 / 30), (40, 0.05), (50, 0.04)]
    assert sorted((row.step, row.value) for row in history) == expected
    run = client.get_run(tracker.run_id)
    assert run.data.metrics["test/relative_l2"] == 0.25 and "test/vrmse" not in run.data.metrics
    assert run.data.tags["headrace.not_finite"] == "test/vrmse (2 times)"


def test_charts_that_matter_come_first() -> None:
    names = ["solve/regret_share", "stream/stored", "test/relative_l2", "train/loss", "validation/relative_l2/hard"]
    shown = sorted(map(chart_name, names))
    assert [name.partition("/")[0] for name in shown] == ["1 train", "2 validation", "3 stream", "solve", "test"]
    assert chart_name("train/loss", numbered=False) == "train/loss" and chart_name("alone") == "alone"


def test_a_run_of_before_goes_on_under_its_names(spec: TrackingSpec) -> None:
    from mlflow import MlflowClient

    tracker = Tracker.start(spec, run_name="before", config={})
    tracker.finish("interrupted")
    client = MlflowClient(spec.uri)
    client.log_metric(str(tracker.run_id), "train/loss", 1.0, step=0)
    again = Tracker.start(spec, run_name="before", config={}, run_id=tracker.run_id)
    again.log_metrics({"train/loss": 0.5}, 1, 1.0)
    again.finish("finished")
    assert [one.value for one in client.get_metric_history(str(tracker.run_id), "train/loss")] == [1.0, 0.5]
    assert "1 train/loss" not in client.get_run(str(tracker.run_id)).data.metrics


def test_the_pages_open_on_the_charts_of_the_latest_runs(spec: TrackingSpec, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    Tracker.start(spec, run_name="latest", config={}).finish("finished")
    experiment = MlflowClient(spec.uri).get_experiment_by_name("tests")
    query = "workflowType=machine_learning&compareRunsMode=CHART"
    assert (
        charts_page(spec, port=5001) == f"http://127.0.0.1:5001/#/experiments/{experiment.experiment_id}/runs?{query}"
    )
    empty = TrackingSpec(uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert charts_page(empty, "::1") == "http://[::1]:5000/#/experiments?workflowType=machine_learning"
    assert list(tmp_path.iterdir()) == []
