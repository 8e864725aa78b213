"""Three hosts: links that are cut for a while, for good, or slow; a host that dies. The run goes on, each sample once.

The hosts are network namespaces of this machine with a folder in common, each with a Ray of its own; the driver is on
the head. Where they cannot be made, these tests are skipped and say why. `HEADRACE_TEST_HOSTS=all` runs those that take
minutes, too.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


def _network() -> ModuleType:
    spec = importlib.util.spec_from_file_location("headrace_test_network", HERE / "network.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


network = _network()
REASON = network.why_not()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.timeout(420),
    pytest.mark.skipif(REASON is not None, reason=f"no hosts can be made: {REASON}"),
]
takes_minutes = pytest.mark.skipif(
    os.environ.get("HEADRACE_TEST_HOSTS") != "all", reason="takes minutes: set HEADRACE_TEST_HOSTS=all"
)

ENVIRONMENT = {
    # A node is taken for dead after about eight seconds without an answer. Ray's own settings are a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}
# A node that hears nothing of the head finds out within six seconds, and ends itself ten later; else after minutes.
ENDS_ITSELF = {
    "RAY_grpc_client_keepalive_time_ms": "3000",
    "RAY_grpc_client_keepalive_timeout_ms": "3000",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
}
# Half a minute is not long enough to take a node for dead, nor for a node to end itself. TCP sends again what was not
# acknowledged after twice the time that it waited before, so what Ray sends over an open connection arrives up to half
# a minute after the link is mended, or finds that the other end closed the connection: Ray's own five checks are over.
AS_DOCUMENTED = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "3000",
    "RAY_health_check_timeout_ms": "10000",
    "RAY_health_check_failure_threshold": "10",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "60",
}


class Run:
    """A cluster on three hosts, and a stream on it; see `hosts.py`."""

    def __init__(self, folder: Path, samples: int, ranks: int = 1, **environment: str) -> None:
        # Short: the paths of Ray's sockets are limited.
        self._ray_folder = tempfile.TemporaryDirectory(prefix="hr", dir="/tmp", ignore_cleanup_errors=True)
        self._environment = {**os.environ, **ENVIRONMENT, **environment}
        self._environment.pop("RAY_ADDRESS", None)
        self.folder, self.hosts = folder, network.Network(2)
        self.lines: list[str] = []
        self.others: list[str] = []
        try:
            self._start_ray(0, "--head", "--port", "6379", "--include-dashboard", "false", "--num-cpus", "0")
            joining = ("--address", f"{network.HEAD}:6379", "--num-cpus", "1")
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda host: self._start_ray(host, *joining), (1, 2)))
            script = [sys.executable, str(HERE / "hosts.py"), str(folder), f"{network.HEAD}:6379"]
            self._driver = subprocess.Popen(
                self.hosts.command(0, [*script, str(samples), str(ranks)]),
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        except BaseException:
            self.close()
            raise
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _start_ray(self, host: int, *arguments: str) -> None:
        ray = str(Path(sys.executable).with_name("ray"))
        where = ["--node-ip-address", self.hosts.addresses[host], "--temp-dir", f"{self._ray_folder.name}/{host}"]
        for _ in range(3):  # a machine that has much else to do takes too long for Ray
            done = subprocess.run(
                self.hosts.command(host, [ray, "start", *arguments, *where, "--disable-usage-stats"]),
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            if done.returncode == 0:
                return
            self.hosts.kill(host)
        raise RuntimeError(f"Ray did not start on host {host}: {done.stdout}{done.stderr}")

    def _read(self) -> None:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            # Warnings stand between the progress lines.
            (self.lines if re.search(r" · \d+/\d+ samples · ", line) else self.others).append(line.rstrip())

    @property
    def stored(self) -> int:
        """How many samples the newest line counts."""
        counts = re.search(r" · (\d+)/\d+ samples · ", self.lines[-1]) if self.lines else None
        return int(counts[1]) if counts else 0

    def wait_for(self, words: str, seconds: float, *, gone: bool = False) -> str:
        """The newest line, once it says something, or does not say it any more."""
        deadline = time.monotonic() + seconds
        while not self.lines or (words in self.lines[-1]) == gone:
            if time.monotonic() > deadline or self._driver.poll() is not None:
                raise AssertionError(f"{'still' if gone else 'never'} said: {words}\n{self._said()}")
            time.sleep(0.1)
        return self.lines[-1]

    def wait_for_more(self, samples: int, seconds: float) -> None:
        """Until so many more are stored."""
        wanted, deadline = self.stored + samples, time.monotonic() + seconds
        while self.stored < wanted:
            if time.monotonic() > deadline or self._driver.poll() is not None:
                raise AssertionError(f"stuck at {self.stored}, not {wanted}\n{self._said()}")
            time.sleep(0.1)

    def finish(self, seconds: float) -> dict[str, object]:
        """What it came to, once no sample is slow any more."""
        (self.folder / "hurry").touch()
        assert self._driver.wait(seconds) == 0, self._said()
        self._reader.join(5)
        return dict(json.loads(self.others[-1]))

    def _said(self) -> str:
        return "\n".join([*self.lines[-30:], *self.others[-30:]])

    def close(self) -> None:
        """End everything that runs on the hosts, and the hosts."""
        self.hosts.close()
        self._ray_folder.cleanup()


def whole(samples: int, found: dict[str, object]) -> None:
    """Nothing lost, nothing twice: in the ledger and in the logs."""
    expected = {
        "stored": samples,
        "failed": 0,
        "leases": 0,
        "ledger_is_in_logs": True,
        "every_sample_once": True,
        "values_are_right": True,
    }
    assert {key: found[key] for key in expected} == expected, found


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    started: list[Run] = []
    yield started
    for run in started:
        run.close()


def test_a_link_that_is_cut_for_good(tmp_path: Path, runs: list[Run]) -> None:
    runs.append(run := Run(tmp_path, 1500))
    run.wait_for("solved/s", 120)
    run.wait_for_more(40, 60)
    run.hosts.cut(1)
    run.wait_for(f"host {run.hosts.addresses[1]} is out of reach", 15)
    run.wait_for_more(40, 60)
    run.wait_for(f"host {run.hosts.addresses[1]} is lost", 60)
    found = run.finish(120)
    whole(1500, found)
    assert found["rows_in_logs"] == found["trained_on"] == 1500 and found["trained_on_twice"] == 0


@takes_minutes
def test_a_slow_link_a_cut_of_half_a_minute_and_a_host_that_dies(tmp_path: Path, runs: list[Run]) -> None:
    runs.append(run := Run(tmp_path, 8000, **AS_DOCUMENTED))
    run.wait_for("solved/s", 120)
    run.hosts.slow_down(1, 0.25)
    run.wait_for_more(100, 60)
    assert "out of reach" not in run.lines[-1]
    run.hosts.slow_down(1, 0.0)
    began = time.monotonic()
    run.hosts.cut(2)
    run.wait_for(f"host {run.hosts.addresses[2]} is out of reach", 15)
    run.wait_for_more(100, 60)
    time.sleep(max(0.0, began + 30.0 - time.monotonic()))
    run.hosts.mend(2)
    run.wait_for("out of reach", 30, gone=True)
    run.wait_for_more(100, 60)
    run.hosts.kill(1)
    run.wait_for_more(100, 90)
    run.wait_for(f"host {run.hosts.addresses[1]} is lost", 120)
    found = run.finish(200)
    whole(8000, found)
    assert found["rows_in_logs"] == found["trained_on"] == 8000 and found["trained_on_twice"] == 0


@takes_minutes
def test_a_shard_beyond_a_cut_is_waited_for_and_followed(tmp_path: Path, runs: list[Run]) -> None:
    runs.append(run := Run(tmp_path, 3000, ranks=2, **ENDS_ITSELF))
    run.wait_for("solved/s", 120)
    run.wait_for_more(40, 60)
    places = next(json.loads(line)["shards"] for line in run.others if line.startswith('{"shards"'))
    shard, host = next((n, run.hosts.addresses.index(place)) for n, place in enumerate(places) if place != network.HEAD)
    run.hosts.cut(host)
    run.wait_for(f"host {run.hosts.addresses[host]} is out of reach", 15)
    said = run.wait_for(f"shard {shard} has not answered for", 30)
    assert f"shard-{shard}.zarr is in the hands of process " in said
    run.wait_for(f"host {run.hosts.addresses[host]} is lost", 60)
    run.wait_for(f"shard {shard} has not answered for", 150, gone=True)
    # Without a checkpoint its successor knows what is stored, and not what was trained on.
    whole(3000, run.finish(180))
