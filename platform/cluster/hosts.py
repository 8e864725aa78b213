"""HostWatch: which hosts of the cluster cannot be reached, long before Ray takes them for dead; and Ray's own words."""

import errno
import selectors
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError

from headrace.platform.cluster.cluster import silent_gcs

SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_TO_ANSWER = 3.0  # for a connection; a link of a quarter of a second each way needs half of one
MEANT_TO_GO = (1, 3, 4)  # Ray's reasons of a node's end: told to, preempted, drained as idle
_ANSWERS = (0, errno.EISCONN, errno.ECONNREFUSED)  # a refusal comes from a host that is there


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of the cluster, as Ray knows it.

    Attributes:
        id: Ray's.
        address: of its host.
        port: that something of Ray listens on.
        is_alive: whether Ray takes it for alive.
        is_meant_to_go: whether it ended as it was told.
    """

    id: str
    address: str
    port: int
    is_alive: bool
    is_meant_to_go: bool = False


def nodes_of_ray() -> list[Node] | None:
    """The nodes of the cluster that this process is connected to, but for its own; None where nobody can be asked."""
    if silent_gcs() is not None:
        return None
    own = ray.get_runtime_context().get_node_id()
    found: Sequence[Mapping[str, Any]] = ray.nodes()
    return [
        Node(
            id=node["NodeID"],
            address=node["NodeManagerAddress"],
            port=node["NodeManagerPort"],
            is_alive=node["Alive"],
            is_meant_to_go=node.get("DeathReason", 0) in MEANT_TO_GO,
        )
        for node in found
        if node["NodeID"] != own
    ]


class HostWatch:
    """Tries now and then to connect to the other hosts of the cluster. Waits for nobody: `look` returns at once.

    Ray takes a node for dead after a minute without an answer, and until then says nothing.
    """

    def __init__(
        self, nodes: Callable[[], list[Node] | None] = nodes_of_ray, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._nodes, self._clock = nodes, clock
        self._looked = -SECONDS_BETWEEN_LOOKS
        self._known: dict[str, Node] = {}
        # By node: the connection that is being made, and when it was begun; and since when it has been out of reach.
        self._trying: dict[str, tuple[socket.socket, float]] = {}
        self._out_of_reach: dict[str, float] = {}
        self._lost: dict[str, float] = {}

    def look(self) -> list[str]:
        """What to tell about hosts that are out of reach or lost, a few words each; nothing when all are there."""
        now = self._clock()
        if now - self._looked >= SECONDS_BETWEEN_LOOKS:
            self._looked = now
            if (nodes := self._nodes()) is not None:
                self._take_note(nodes, now)
        for id_ in list(self._trying):
            self._hear(id_, now)
        words = [
            f"{self._known[id_].address} is out of reach for {now - since:.0f} s"
            for id_, since in self._out_of_reach.items()
        ]
        return words + [
            f"{self._known[id_].address} is lost for {now - since:.0f} s" for id_, since in self._lost.items()
        ]

    def close(self) -> None:
        """Let go of the connections."""
        for id_ in list(self._trying):
            self._give_up(id_)

    def _take_note(self, nodes: Sequence[Node], now: float) -> None:
        there = {node.address for node in nodes if node.is_alive}
        for node in nodes:
            before = self._known.get(node.id)
            if node.is_alive:
                self._known[node.id] = node
                self._try(node, now)
            elif before is not None and before.is_alive:
                self._known[node.id] = node
                self._give_up(node.id)
                since = self._out_of_reach.pop(node.id, now)
                if not node.is_meant_to_go:
                    self._lost[node.id] = since
        # A host that joined again is not lost any more.
        self._lost = {id_: since for id_, since in self._lost.items() if self._known[id_].address not in there}

    def _try(self, node: Node, now: float) -> None:
        if node.id in self._trying:
            return
        family = socket.AF_INET6 if ":" in node.address else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.setblocking(False)
        self._trying[node.id] = (connection, now)
        connection.connect_ex((node.address, node.port))

    def _hear(self, id_: str, now: float) -> None:
        """Take note of what has become of a connection."""
        connection, since = self._trying[id_]
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_WRITE)
            is_settled = bool(selector.select(0))
        if is_settled and connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in _ANSWERS:
            self._out_of_reach.pop(id_, None)
        elif is_settled or now - since > SECONDS_TO_ANSWER:
            self._out_of_reach.setdefault(id_, since)
        else:
            return
        self._give_up(id_)

    def _give_up(self, id_: str) -> None:
        if id_ in self._trying:
            self._trying.pop(id_)[0].close()


def death_words(error: RayActorError) -> str:
    """Why an actor died, in a line of what Ray says in many."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if "creation task" in lines[0]:
        # Its own error, behind the traceback: "package.module.Error: what was wrong".
        kind, colon, words = lines[-1].partition(": ")
        return words if colon and " " not in kind else lines[-1]
    facts = {key: value for key, _, value in (line.strip().partition(": ") for line in lines if line[:1] == "\t")}
    told = [line for line in lines[1:] if line[:1] != "\t"]
    where = f" on {facts['ip']}" if "ip" in facts else ""
    reason = (told or lines)[0].strip()
    return f"process {facts['pid']}{where}: {reason}" if "pid" in facts else reason
