"""Lifeline: whether a cluster that was named by its address still has what a run on it cannot do without."""

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import ray

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_ANSWER = 1.0  # for a connection
RECONNECT_VARIABLE = "RAY_gcs_rpc_server_reconnect_timeout_s"  # after so many, Ray ends whoever asks a lost GCS
_RAY_SECONDS = 60.0  # as Ray sets it

type Address = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Ends:
    """What a run on a cluster holds on to.

    Attributes:
        gcs: Ray's global control service, which knows all nodes and actors; it may come back.
        raylet: Ray's daemon on the driver's host, with which all actors on that host end.
    """

    gcs: Address
    raylet: Address


def ends_of_cluster() -> Ends | None:
    """Those of the cluster that this process is connected to; None where another process is connected in its stead."""
    if ray.util.client.ray.is_connected():
        return None
    own = ray.get_runtime_context().get_node_id()
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    node = next(node for node in ray.nodes() if node["NodeID"] == own)
    return Ends(gcs=(host.strip("[]"), int(port)), raylet=(node["NodeManagerAddress"], node["NodeManagerPort"]))


def patience_seconds() -> float:
    """How long a silent GCS is waited for [s]: it must be given up before Ray ends this process."""
    told = os.environ.get(RECONNECT_VARIABLE, "")
    return 2.0 / 3.0 * (float(told) if told.replace(".", "", 1).isdigit() else _RAY_SECONDS)


def is_there(address: Address) -> bool | None:
    """Whether something listens at an address: False where that is denied, None where nobody answers."""
    try:
        socket.create_connection(address, timeout=SECONDS_TO_ANSWER).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return None
    return True


class Lifeline:
    """Tries to connect to what a run cannot do without, whenever it is asked and has not just looked.

    Ray says nothing for a minute, in which whoever asks its GCS is stuck, and then ends the process. So everybody who
    is about to ask looks here first. Waits for an answer for a second at most, and only where nothing is denied.
    """

    def __init__(
        self,
        ends: Ends,
        patience: float,
        knock: Callable[[Address], bool | None] = is_there,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ends, self._patience, self._knock, self._clock = ends, patience, knock, clock
        self._looked = clock()
        self._silent_since: float | None = None
        self._is_raylet_gone = False

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked < SECONDS_BETWEEN_LOOKS or self._is_raylet_gone:
            return
        # A daemon of this host that has ended has taken its actors with it: it does not come back.
        self._is_raylet_gone = self._knock(self._ends.raylet) is False
        if self._knock(self._ends.gcs):
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = now
        self._looked = self._clock()

    def silent(self) -> str | None:
        """What does not answer at present, in words; None when all does."""
        self._look()
        if self._silent_since is None:
            return None
        return f"has not answered for {self._clock() - self._silent_since:.0f} s"

    def lost(self) -> str | None:
        """What is given up, in words; None as long as there is hope."""
        self._look()
        host, port = self._ends.gcs
        cluster = f"the Ray cluster at {host}:{port} is lost"
        if self._is_raylet_gone:
            return f"{cluster}: its raylet on this host, at port {self._ends.raylet[1]}, ended (stopped, or killed?)"
        if self._silent_since is not None and self._clock() - self._silent_since >= self._patience:
            silent = self._clock() - self._silent_since
            return f"{cluster}: its GCS has not answered for {silent:.0f} s (stopped, killed, or cut off?)"
        return None

    def actors_answer(self) -> bool:
        """Whether the actors on this host are still there: those of a lost GCS are, for a while."""
        self._look()
        return not self._is_raylet_gone
