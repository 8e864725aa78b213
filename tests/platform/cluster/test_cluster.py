"""The embedded cluster is a run's own, whatever else there is, or was, of Ray on the machine."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import ray

from headrace.platform.cluster import cluster
from headrace.platform.cluster.cluster import lost_daemon, short_of, shortage, start_embedded
from headrace.platform.errors import ClusterLost, InputError, RunFailed


@pytest.mark.ray
@pytest.mark.slow
def test_an_embedded_cluster_does_not_join_another() -> None:
    # Ray would take an address from here, or from the file that `ray start` leaves behind when it is killed.
    code = (
        "import ray; from headrace.platform.cluster.cluster import start_embedded; start_embedded(1); "
        "print(len(ray.nodes()))"
    )
    environment = os.environ | {"RAY_ADDRESS": "127.0.0.1:1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0 and done.stdout.strip() == "1", done.stderr[-2000:]


def test_a_socket_path_that_is_too_long_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = "/tmp/" + "long" * 20
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", folder)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("it was tried"))
    with pytest.raises(InputError, match=r"TMPDIR is /tmp/long.*at most \d\d bytes.*Set RAY_TMPDIR=/tmp"):
        start_embedded()
    # Ray takes this one first.
    monkeypatch.setenv("RAY_TMPDIR", folder)
    monkeypatch.setenv("TMPDIR", "/tmp")
    with pytest.raises(InputError, match="RAY_TMPDIR is"):
        start_embedded()


@pytest.mark.parametrize(
    ("error", "attempts", "words"),
    [
        (Exception("The current node timed out during startup."), 3, "in 3 attempts.*overloaded"),
        (ValueError("no such option"), 1, "cannot start: no such option"),
        (OSError(28, "No space left on device"), 1, "disk that holds /tmp is full"),
    ],
)
def test_one_that_does_not_start_leaves_nothing_and_is_tried_again_only_where_that_can_help(
    monkeypatch: pytest.MonkeyPatch, error: Exception, attempts: int, words: str
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    started: list[subprocess.Popen[bytes]] = []

    def init(**_: object) -> None:
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]))
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(RunFailed, match=words):
        start_embedded()
    assert len(started) == attempts
    assert all(process.poll() is not None for process in started)


def test_what_others_have_started_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])

    def init(**_: object) -> None:
        raise ValueError("no such option")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    try:
        with pytest.raises(RunFailed):
            start_embedded()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_what_has_room_does_not_wait_for_any() -> None:
    total = {"CPU": 2.0, "GPU": 1.0}
    assert short_of({"CPU": 0.66, "GPU": 0.0}, total, {"CPU": 0.68}) is None
    words = short_of({"CPU": 0.66, "GPU": 0.0}, total, {"CPU": 0.02, "GPU": 1.0})
    assert words == "the cluster has 2 CPUs, 0.02 free and 1 GPUs, 1 free"
    assert (
        short_of({"CPU": 0.5, "GPU": 1.0}, total, {"CPU": 2.0}) == "the cluster has 2 CPUs, 2 free and 1 GPUs, 0 free"
    )


def test_an_embedded_cluster_always_has_room(ray_cluster: None) -> None:
    assert shortage(100.0) is None and lost_daemon() is None


def test_a_daemon_that_ended_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    child = psutil.Popen(["sleep", "60"])
    monkeypatch.setattr(cluster, "_daemons", {"raylet": child})
    cluster.require_daemons()
    child.kill()
    while child.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    words = rf"its raylet, process {child.pid}, ended \(killed, or out of memory\?\)"
    with pytest.raises(ClusterLost, match=words):
        cluster.require_daemons()
    child.wait()
    assert lost_daemon() is not None


def test_agents_end_with_a_process_that_is_killed_and_others_that_have_their_numbers_do_not() -> None:
    agent, other = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
    told = [f"{agent.pid}:{cluster._ticks(agent.pid)}", f"{other.pid}:1"]
    guard = subprocess.Popen(["/bin/sh", "-c", cluster._END_AGENTS, "guard", *told], stdin=subprocess.PIPE)
    time.sleep(0.2)
    assert agent.poll() is None
    guard.communicate()
    assert agent.wait(5) == -signal.SIGKILL and other.poll() is None
    other.kill()
    other.wait()
