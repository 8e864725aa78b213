"""The Ray cluster: connect to one, or start one."""

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
import ray.exceptions
from ray._private import ray_constants
from ray._private.worker import global_worker

from headrace.platform.cluster.lifeline import Lifeline, ends_of_cluster, patience_seconds
from headrace.platform.cluster.resources import Capacity, ResourcePlan, ResourcesSpec, fit_resources
from headrace.platform.errors import ClusterLost, InputError, RunFailed, is_disk_full
from headrace.platform.processes import end_children, uninterruptible

log = logging.getLogger(__name__)

START_ATTEMPTS = 3
DAEMONS = ("gcs_server", "raylet")
MAX_SOCKET_NBYTES = 107 if sys.platform == "linux" else 103  # that the path of a Unix socket may have
SECONDS_BETWEEN_LOOKS = 2.0
_END_AGENTS = """read _
for agent in "$@"; do
  known=$(cat "/proc/${agent%%:*}/stat" 2>/dev/null) || continue
  set -- ${known##*) }
  [ "${20}" = "${agent##*:}" ] && kill -9 "${agent%%:*}"
done"""
_guard: "subprocess.Popen[bytes] | None" = None
_daemons: dict[str, psutil.Process] = {}  # of the embedded cluster of this process
_lifeline: Lifeline | None = None  # to the cluster that was named by its address
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


def starting_phase(spec: ResourcesSpec) -> str:
    """What `connected` is about to do, in words."""
    address = spec.address or os.environ.get("RAY_ADDRESS")
    return f"connecting to the Ray cluster {address}" if address else "starting Ray"


@contextmanager
def connected(spec: ResourcesSpec) -> Iterator[None]:
    """A connection to the cluster that the recipe names, or an embedded one, for as long as the block runs.

    Raises:
        InputError: no cluster answers at the address.
    """
    global _lifeline
    address = spec.address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        yield
        return
    if address:
        _forget_daemons()
        try:
            _set_defaults()
            host, colon, port = address.rpartition(":")
            if colon and port.isdigit() and "//" not in address:
                # Ray itself would try for a minute.
                socket.create_connection((host, int(port)), timeout=5).close()
            ray.init(address=address, **QUIET)
            _silence()
            ends = ends_of_cluster()
            _lifeline = Lifeline(ends, patience_seconds()) if ends is not None else None
        except (OSError, RuntimeError, ray.exceptions.AuthenticationError) as error:
            raise InputError.single(
                "resources.address",
                str(address),
                "the address of a running Ray cluster, and its token in RAY_AUTH_TOKEN or ~/.ray/auth_token",
                f"Start one with `ray start --head`, or leave the address out. ({_first_line(error)})",
            ) from error
    else:
        start_embedded()
    try:
        yield
    finally:
        if _lifeline is None and lost_daemon() is not None:
            # Ray would wait a minute for what is gone.
            end_children()
        ray.shutdown()
        _forget_daemons()


def _set_defaults() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def start_embedded(num_cpus: int | None = None) -> None:
    """Start a cluster in this process's care, on loopback; `ray.shutdown()` ends it.

    Args:
        num_cpus: CPUs that it counts; default: those of the machine.

    When it does not start, none of its processes is left behind.

    Raises:
        InputError: the folder for Ray's sockets has too long a path.
        RunFailed: it did not start.
    """
    _check_socket_path()
    _set_defaults()
    # Ray's node gives its agents half a minute. On a cold disk importing them takes longer, and the next try finds
    # them in the page cache.
    os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")
    # Ray starts workers with niceness 15: whatever else the user does would starve the run on their own machine.
    os.environ.setdefault("RAY_worker_niceness", "0")
    ours = {child.pid for child in psutil.Process().children()}
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            # Ray's own libraries do not bear an interrupt while they connect.
            with _on_loopback(), uninterruptible():
                # "local": else Ray joins what `ray start` has left on this machine, or waits for what is gone.
                ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, **QUIET)
            _note_daemons(ours)
            _silence()
            return
        except BaseException as error:
            # Ray raises a plain Exception when something took too long; an interrupt comes at any line.
            # They would stay until this process ends.
            end_children(besides=ours)
            ray.shutdown()
            if not isinstance(error, Exception):
                raise
            if is_disk_full(error):
                raise RunFailed(
                    f"the embedded Ray cluster did not start: the disk that holds {_temporary_folder()[1]} is full. "
                    "Make room, or set RAY_TMPDIR to a folder elsewhere."
                ) from error
            if isinstance(error, OSError | ValueError | TypeError | ImportError):
                # What is wrong now is wrong a moment later.
                raise RunFailed(f"the embedded Ray cluster cannot start: {_first_line(error)}") from error
            if attempt == START_ATTEMPTS:
                raise RunFailed(
                    f"the embedded Ray cluster did not start in {attempt} attempts: {_first_line(error)} "
                    "Is the machine overloaded? `headrace doctor` looks."
                ) from error
            log.warning("the embedded Ray cluster did not start (%s); trying again", _first_line(error))


def _silence() -> None:
    """Keep Ray from printing what its daemons report, a screen of their logs when one dies: what matters we say.

    As Ray does at its own end, which bears to find it done.
    """
    if global_worker.connected:  # not where another process is connected in this one's stead
        global_worker.threads_stopped.set()
        global_worker.gcs_error_subscriber.close()


def _note_daemons(before: Set[int]) -> None:
    """Remember which of the processes that have come since an embedded cluster cannot do without."""
    _forget_daemons()
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if process.pid not in before and process.name() in DAEMONS:
                _daemons[process.name()] = process
    _end_agents_with_this_process()


def _forget_daemons() -> None:
    global _guard, _lifeline
    _daemons.clear()
    _lifeline = None
    if _guard is not None:
        _guard.kill()
        _guard.wait()
        _guard = None


def _end_agents_with_this_process() -> None:
    """Have Ray's agents ended when this process is killed: by themselves they outlive it by half a minute.

    A shell waits for the end of a pipe whose other end this process alone holds, and ends them if each is still who it
    was: the number of a process that ended may be another one's by then.
    """
    global _guard
    with suppress(KeyError, OSError, psutil.NoSuchProcess):
        agents = [f"{child.pid}:{_ticks(child.pid)}" for child in _daemons["raylet"].children()]
        command = ["/bin/sh", "-c", _END_AGENTS, "headrace-guard", *agents]
        _guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def _ticks(pid: int) -> str:
    """When a process began, as Linux counts it."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()[19]


def lost_daemon() -> str | None:
    """What has ended that the cluster cannot do without, in words; None as long as all goes well.

    Ray itself takes up to a minute to notice, and then ends this process, or prints pages.
    """
    if _lifeline is not None:
        return _lifeline.lost()
    for name, process in _daemons.items():
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                continue
        return f"the embedded Ray cluster broke: its {name}, process {process.pid}, ended (killed, or out of memory?)"
    return None


def silent_gcs() -> str | None:
    """That Ray's GCS does not answer at present, in words; whoever asks it then is stuck. None when it does."""
    return _lifeline.silent() if _lifeline is not None else None


def actors_answer() -> bool:
    """Whether it is of use to ask the actors on this host, now that a daemon may have ended."""
    return _lifeline.actors_answer() if _lifeline is not None else lost_daemon() is None


def require_daemons() -> None:
    """See that the cluster is whole.

    Raises:
        ClusterLost: it is not.
    """
    lost = lost_daemon()
    if lost is not None:
        raise ClusterLost(lost)


def _temporary_folder() -> tuple[str, str]:
    """Where Ray puts its session, and the variable that says so, as Ray reads them."""
    for name in ("RAY_TMPDIR", "TMPDIR"):
        if os.environ.get(name):
            return name, os.environ[name]
    return "RAY_TMPDIR", "/tmp"


def _check_socket_path() -> None:
    """See that the sockets that Ray makes in its session's folder have paths that the system allows."""
    name, folder = _temporary_folder()
    below = f"/ray/session_2000-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
    most = MAX_SOCKET_NBYTES - len(below)
    if len(os.fsencode(folder.rstrip("/"))) > most:
        raise InputError.single(
            name,
            folder,
            f"a folder whose path has at most {most} bytes: Ray's sockets lie below it, and the system allows "
            f"{MAX_SOCKET_NBYTES} for the whole path of a socket",
            "Set RAY_TMPDIR=/tmp, or to another short path.",
        )


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let Ray's processes listen on loopback alone: an embedded cluster is nobody else's business.

    Ray takes 127.0.0.1 as an address to mean the machine's own one, and listens everywhere, unless it was told that
    there will be one node only, which has a switch for other systems than Linux: in this process a constant, in those
    that it starts a variable.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        del os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def fit_into_cluster(
    spec: ResourcesSpec, tell: Callable[[str], None], *, solves: bool = True, trains: bool = True
) -> ResourcePlan:
    """Fit a run into the cluster that this process is connected to; see `fit_resources`.

    Args:
        spec: what the run may use, and how long it may wait for it.
        tell: is told what is waited for.
        solves: whether there are solvers.
        trains: whether there are training ranks.

    Raises:
        InputError: the cluster has too little, now and for `spec.wait_seconds`.
    """
    deadline = time.monotonic() + spec.wait_seconds
    while True:
        try:
            plan = fit_resources(spec, _capacity(), solves=solves, trains=trains)
        except InputError as error:
            if time.monotonic() >= deadline:
                raise
            tell(f"waits for nodes to join: {error.faults[0]}")
            time.sleep(SECONDS_BETWEEN_LOOKS)
        else:
            tell("")
            return plan


def shortage(cpus: float, gpus: float = 0.0) -> str | None:
    """What the cluster has and what of it is free, in words, where that is too little for an actor.

    None where there is room for it: its process is being started, however long that takes. On an embedded cluster there
    always is, since all parts of the run were fitted into it. None, too, where nobody can be asked.
    """
    if _daemons or silent_gcs() is not None:
        return None
    total, free = ray.cluster_resources(), ray.available_resources()
    return short_of({"CPU": cpus, "GPU": gpus}, total, free)


def short_of(needs: Mapping[str, float], total: Mapping[str, float], free: Mapping[str, float]) -> str | None:
    """What there is and what of it is free, in words, where that is too little; None where it is enough."""
    if all(free.get(key, 0.0) >= need - 1e-9 for key, need in needs.items()):
        return None
    parts = [f"{total[key]:g} {key}s, {free.get(key, 0.0):.2g} free" for key in ("CPU", "GPU") if total.get(key)]
    return f"the cluster has {' and '.join(parts) or 'nothing'}"


def _capacity() -> Capacity:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Capacity(
        cpus=tuple(float(node.get("CPU", 0.0)) for node in nodes),
        gpus=tuple(float(node.get("GPU", 0.0)) for node in nodes),
    )
