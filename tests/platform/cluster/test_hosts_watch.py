"""Which hosts are told to be out of reach, with sockets that answer, refuse, or do neither; Ray's words in short."""

import socket
from collections.abc import Iterator

import pytest
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError

from headrace.platform.cluster.hosts import HostWatch, Node, death_words
from headrace.platform.errors import InputError


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.nodes: list[Node] = []
        self.watch = HostWatch(lambda: self.nodes, lambda: self.now)

    def after(self, seconds: float) -> list[str]:
        self.now += seconds
        self.watch.look()  # begins to connect
        return self.watch.look()


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    yield found
    found.watch.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


def node(listener: socket.socket, **changes: object) -> Node:
    facts = {"id": "a", "address": "127.0.0.1", "port": listener.getsockname()[1], "is_alive": True}
    return Node(**{**facts, **changes})


def test_a_host_that_answers_or_refuses_is_there(world: World, listener: socket.socket) -> None:
    world.nodes = [node(listener)]
    assert world.after(0) == world.after(2) == world.after(2) == []
    listener.close()
    assert world.after(2) == world.after(10) == []


def test_a_host_that_does_not_answer_is_out_of_reach_until_it_does(world: World, listener: socket.socket) -> None:
    # A queue that is full drops what comes: nobody answers.
    listener.listen(0)
    fillers = [socket.socket() for _ in range(4)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
    world.nodes = [node(listener)]
    assert world.after(0) == [] and world.after(2) == []
    assert world.after(2) == ["127.0.0.1 is out of reach for 4 s"]
    assert world.after(2) == ["127.0.0.1 is out of reach for 6 s"]
    listener.listen(16)
    listener.accept()[0].close()
    world.after(4)  # a new attempt
    assert world.after(2) == []
    for filler in fillers:
        filler.close()


def test_a_host_that_ray_has_given_up_is_lost_until_it_joins_again(world: World, listener: socket.socket) -> None:
    world.nodes = [node(listener), node(listener, id="b", address="127.0.0.2")]
    assert world.after(0) == []
    world.nodes = [node(listener), node(listener, id="b", address="127.0.0.2", is_alive=False)]
    assert world.after(2) == ["127.0.0.2 is lost for 0 s"]
    assert world.after(30) == ["127.0.0.2 is lost for 30 s"]
    world.nodes.append(node(listener, id="c", address="127.0.0.2"))
    assert world.after(2) == []


def test_a_host_that_was_told_to_go_and_one_of_before_are_not_missed(world: World, listener: socket.socket) -> None:
    world.nodes = [node(listener), node(listener, id="old", address="127.0.0.3", is_alive=False)]
    assert world.after(0) == []
    world.nodes = [node(listener, is_alive=False, is_meant_to_go=True)]
    assert world.after(2) == world.after(2) == []


def test_of_what_ray_says_of_a_death_one_line_is_told() -> None:
    error = InputError.single("/run/shard-0.zarr", "in the hands of process 7 on b", "a shard that nobody works on")
    trace = f"Traceback (most recent call last):\n  File shard.py\nheadrace.platform.errors.InputError: {error}"
    cause = RayTaskError("Shard.__init__", trace, error, ip="10.0.0.1")
    assert death_words(ActorDiedError.from_task_error(cause)) == str(error)
    lines = [
        "The actor died unexpectedly before finishing this task.",
        "\tclass_name: SolverActor",
        "\tpid: 12",
        "\tip: 10.0.0.2",
        "The actor died because its node has died. Node Id: f0",
    ]
    words = "process 12 on 10.0.0.2: The actor died because its node has died. Node Id: f0"
    assert death_words(RayActorError(error_msg="\n".join(lines))) == words
