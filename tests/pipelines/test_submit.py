"""`headrace submit` against a real cluster: `ray start --head`, a small recipe, its result read from MLflow."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

RAY = str(Path(sys.executable).with_name("ray"))
HEADRACE = str(Path(sys.executable).with_name("headrace"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Cluster:
    address: str
    token: str

    def environment(self, folder: Path, token: str | None) -> dict[str, str]:
        """The environment of a user with this token (None: with none) and a home of their own."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        kept["HOME"] = str(folder)
        return kept | ({"RAY_AUTH_TOKEN": token} if token is not None else {})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head node on loopback with token authentication, ended with all its processes."""
    token = secrets.token_hex(16)
    dashboard = free_port()
    log = tmp_path_factory.mktemp("cluster") / "log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_agent_register_timeout_ms": "120000",
        "RAY_worker_niceness": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    # The temporary folder's name must be short: Ray puts sockets into it.
    command = [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={free_port()}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--num-cpus=3"]
    # The agent's usual port belongs to the other tests' embedded cluster; without its own this one takes no jobs.
    command += [f"--dashboard-agent-listen-port={free_port()}"]
    command += [f"--temp-dir=/tmp/headrace-{secrets.token_hex(3)}", "--disable-usage-stats"]
    with log.open("w") as output:
        head = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{dashboard}"
        deadline = time.monotonic() + 150
        while True:
            try:
                if requests.get(f"{address}/api/version", timeout=2).status_code in (200, 401, 403):
                    break
            except requests.RequestException:
                pass
            assert head.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield Cluster(address=address, token=token)
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)


def submit(cluster: Cluster, folder: Path, token: str | None, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            HEADRACE,
            "submit",
            "smoke",
            "resources.solvers.actors=1",
            *overrides,
            "--address",
            cluster.address,
            "--out",
            str(folder / "run"),
            "--json",
        ],
        env=cluster.environment(folder, token),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.mark.parametrize(("token", "words"), [(None, "no token is set"), ("f" * 32, "is not the cluster's")])
def test_a_missing_or_wrong_token_is_said(cluster: Cluster, tmp_path: Path, token: str | None, words: str) -> None:
    done = submit(cluster, tmp_path, token)
    assert done.returncode == 2, done.stderr
    assert words in " ".join(done.stderr.split()) and "RAY_AUTH_TOKEN" in done.stderr


def test_a_recipe_runs_as_a_job_and_its_result_is_in_mlflow(cluster: Cluster, tmp_path: Path) -> None:
    import mlflow

    store = f"sqlite:///{tmp_path}/mlflow.db"
    done = submit(cluster, tmp_path, cluster.token, "training.steps=20", f"tracking.uri={store}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "streaming and training" in done.stdout, "the job's log is shown"
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "SUCCEEDED"
    client = mlflow.MlflowClient(tracking_uri=store)
    [experiment] = [found for found in client.search_experiments() if found.name == "headrace"]
    [found] = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["training.steps"] == "20"
    assert 0 < found.data.metrics["test/relative_l2"] < 2


def test_a_job_that_fails_there_fails_here(cluster: Cluster, tmp_path: Path) -> None:
    done = submit(cluster, tmp_path, cluster.token, "resources.solvers.actors=500")
    assert done.returncode == 1
    assert "500 solver actors" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "FAILED"
