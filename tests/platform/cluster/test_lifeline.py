"""Whether a cluster still answers: by a clock and knocks that the tests make, and by real ports."""

import socket
from collections.abc import Iterator

import pytest

from headrace.platform.cluster.lifeline import Ends, Lifeline, is_there, patience_seconds

GCS, RAYLET = ("head", 6379), ("here", 7000)


class World:
    """What answers, and what time it is."""

    def __init__(self) -> None:
        self.now = 100.0
        self.answers: dict[tuple[str, int], bool | None] = {GCS: True, RAYLET: True}
        self.num_knocks = 0
        self.lifeline = Lifeline(Ends(gcs=GCS, raylet=RAYLET), 40.0, self.knock, lambda: self.now)

    def knock(self, address: tuple[str, int]) -> bool | None:
        self.num_knocks += 1
        return self.answers[address]

    def after(self, seconds: float) -> Lifeline:
        self.now += seconds
        return self.lifeline


def test_all_is_well_as_long_as_both_answer() -> None:
    world = World()
    for _ in range(5):
        line = world.after(2.0)
        assert line.silent() is None and line.lost() is None and line.actors_answer()


def test_a_gcs_that_comes_back_is_waited_for() -> None:
    world = World()
    world.answers[GCS] = None
    assert world.after(2.0).silent() == "has not answered for 0 s"
    assert world.after(10.0).silent() == "has not answered for 10 s" and world.lifeline.lost() is None
    world.answers[GCS] = True
    assert world.after(2.0).silent() is None
    world.answers[GCS] = False
    assert world.after(2.0).silent() == "has not answered for 0 s"


def test_a_gcs_that_is_silent_for_too_long_is_given_up_while_actors_still_answer() -> None:
    world = World()
    world.answers[GCS] = False
    assert world.after(2.0).lost() is None
    said = world.after(40.0).lost()
    assert (
        said == "the Ray cluster at head:6379 is lost: its GCS has not answered for 40 s (stopped, killed, or cut off?)"
    )
    assert world.lifeline.actors_answer()


def test_with_the_raylet_go_the_actors() -> None:
    world = World()
    world.answers[RAYLET] = None  # busy, not gone
    assert world.after(2.0).lost() is None
    world.answers[RAYLET] = False
    said = world.after(2.0).lost()
    assert said is not None and "its raylet on this host, at port 7000, ended" in said
    world.answers[RAYLET] = True
    assert world.after(2.0).lost() is not None and not world.lifeline.actors_answer()


def test_it_does_not_knock_more_than_once_a_second() -> None:
    world = World()
    for _ in range(20):
        world.after(0.2).silent()
    assert world.num_knocks <= 2 * 4


def test_patience_ends_before_rays_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_gcs_rpc_server_reconnect_timeout_s", raising=False)
    assert patience_seconds() == pytest.approx(40.0)
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "9")
    assert patience_seconds() == pytest.approx(6.0)
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "soon")
    assert patience_seconds() == pytest.approx(40.0)


@pytest.fixture
def listening() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


def test_a_port_is_there_as_long_as_somebody_listens(listening: tuple[str, int]) -> None:
    assert is_there(listening) is True
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = server.getsockname()
    assert is_there(gone) is False
