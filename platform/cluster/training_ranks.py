"""TrainingRanks: a group of training processes, one Ray actor each, and what they tell the driver."""

import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from headrace.platform.cluster.cluster import lost_daemon, require_daemons
from headrace.platform.cluster.hosts import death_words
from headrace.platform.cluster.rank import MetricsReport, RankContext, has_ended
from headrace.platform.cluster.resources import MAX_RESTARTS, THREAD_VARIABLES, ResourcePlan
from headrace.platform.errors import HeadraceError, RunFailed, storage_refusal

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_FOR_THE_OTHERS = 2.0  # to say why they failed, when one rank has

type Loop = Callable[[RankContext, Any], None]


class Rank:
    """The actor of one training rank: runs the loop in one thread, and hands out its reports in another.

    Waits for nobody by itself; the loop waits for its data and, where there are several ranks, for the others.
    """

    def __init__(self) -> None:
        self._reports: list[MetricsReport] = []

    def place(self) -> str:
        """The address of this rank's node; the answer says that the cluster has found a place for it."""
        return str(ray.util.get_node_ip_address())

    def free_port(self) -> int:
        """A port of this node that is free now."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return int(probe.getsockname()[1])

    def run(self, loop: Loop, job: object, rank: int, world_size: int, on_gpu: bool, address: str, port: int) -> None:
        """Run the loop to its end."""
        if address.startswith("127."):
            # An embedded cluster: Gloo would otherwise look for the machine's name, and listen where that leads.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        loop(
            RankContext(
                rank=rank,
                world_size=world_size,
                node=str(ray.get_runtime_context().get_node_id()),
                accelerator="gpu" if on_gpu else "cpu",
                address=address,
                port=port,
                send=self._reports.append,
            ),
            job,
        )

    def reports(self) -> list[MetricsReport]:
        """What has been reported since the last call."""
        count = len(self._reports)
        taken = self._reports[:count]
        del self._reports[:count]
        return taken


class TrainingRanks:
    """A group of training ranks, seen from the driver. One that dies takes the group down, and another group starts.

    What Headrace itself finds wrong, a new group would find again, and so it would a storage that takes nothing
    more: those end the training.
    A thread looks after the group, and the main thread keeps the signals.

    Attributes:
        needs: what the group asks of the cluster, in words.
        num_started: how many ranks have found their place, those of earlier groups included.
    """

    def __init__(self, loop: Loop, job: object, plan: ResourcePlan) -> None:
        """Start `loop(context, job)` on every rank."""
        self._loop, self._job, self._plan = loop, job, plan
        gpus = f" and {plan.rank_gpus:g} GPUs" if plan.rank_gpus else ""
        self.needs = f"{plan.num_ranks} rank(s) of {plan.rank_cpus:g} CPUs{gpus}"
        self.num_started = 0
        self._given_up: str | None = None
        self._lock = threading.Lock()
        self._first: ActorHandle | None = None
        self._asked: ray.ObjectRef | None = None
        self._left: list[MetricsReport] = []
        self._future: Future[None] = Future()
        threading.Thread(target=self._look_after, name="training-ranks", daemon=True).start()

    def drain(self) -> list[MetricsReport]:
        """The reports since the last call, as far as rank 0 has found the time to answer."""
        with self._lock:
            found, self._left = self._left, []
            return found + self._fetch(0.0)

    def _fetch(self, seconds: float) -> list[MetricsReport]:
        if self._first is None:
            return []
        if self._asked is None:
            self._asked = self._first.reports.remote()
        if not ray.wait([self._asked], timeout=seconds)[0]:
            return []
        asked, self._asked = self._asked, None
        try:
            return list(ray.get(asked))
        except RayError:
            return []  # it died; whoever looks after the group says so

    def give_up(self, reason: str) -> None:
        """Let no further group take the place of this one when it fails."""
        self._given_up = reason

    def wait(self, seconds: float) -> bool:
        """Wait for the group to end, at most for a while; return whether it has ended.

        Raises:
            RunFailed: a rank failed; the message holds the rank's own error.
            ClusterLost: the embedded cluster broke.
        """
        require_daemons()
        return has_ended(self._future, seconds)

    def _look_after(self) -> None:
        try:
            for attempt in range(1 + MAX_RESTARTS):
                errors = self._one_group()
                if not errors:
                    self._future.set_result(None)
                    return
                require_daemons()
                told = "; ".join(f"rank {rank}: {_cause(error)}" for rank, error in errors.items())
                if attempt == MAX_RESTARTS or any(_would_happen_again(error) for error in errors.values()):
                    raise RunFailed(f"training failed: {told}")
                if self._given_up is not None:
                    raise RunFailed(f"training failed: {self._given_up}")
                log.warning("the training ranks start anew from the newest checkpoint: %s", told)
        except BaseException as error:  # the future carries it to the main thread
            self._future.set_exception(error)

    def _one_group(self) -> dict[int, Exception]:
        """Start a group, and wait until it has ended; what went wrong, by rank."""
        count = self._plan.num_ranks
        group = self._place_group() if count > 1 else None
        actors = [self._start_actor(number, group) for number in range(count)]
        try:
            places = [actor.place.remote() for actor in actors]
            before, waiting = self.num_started, list(places)
            while waiting:
                _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=SECONDS_BETWEEN_LOOKS)
                self.num_started = before + count - len(waiting)
            address, port = ray.get(places[0]), ray.get(actors[0].free_port.remote())
            on_gpu = self._plan.rank_gpus > 0
            # All at once: each waits in its start for all others.
            running = {
                actor.run.remote(self._loop, self._job, number, count, on_gpu, address, port): number
                for number, actor in enumerate(actors)
            }
            with self._lock:
                self._first, self._asked = actors[0], None
            return self._await(running)
        except RayActorError as error:
            return {0: error}
        finally:
            if lost_daemon() is None:
                self._end_group(actors, group)

    def _end_group(self, actors: Sequence[ActorHandle], group: PlacementGroup | None) -> None:
        with self._lock:
            # Twice: what has been asked for may have been answered before the last report came.
            self._left += [*self._fetch(5.0), *self._fetch(5.0)]
            self._first = self._asked = None
        for actor in actors:
            ray.kill(actor)
        if group is not None:
            remove_placement_group(group)

    def _await(self, running: dict[ray.ObjectRef, int]) -> dict[int, Exception]:
        errors: dict[int, Exception] = {}
        left = list(running)
        while left:
            done, left = ray.wait(left, timeout=SECONDS_FOR_THE_OTHERS if errors else None)
            if errors and not done:
                break
            for ref in done:
                try:
                    ray.get(ref)
                except RayError as error:
                    errors[running[ref]] = error
        return errors

    def _place_group(self) -> PlacementGroup:
        return placement_group([self._resources() for _ in range(self._plan.num_ranks)], self._plan.placement.upper())

    def _resources(self) -> dict[str, float]:
        gpus = {"GPU": self._plan.rank_gpus} if self._plan.rank_gpus else {}
        return {"CPU": self._plan.rank_cpus, **gpus}

    def _start_actor(self, number: int, group: PlacementGroup | None) -> ActorHandle:
        options: dict[str, Any] = {
            "num_cpus": self._plan.rank_cpus,
            "num_gpus": self._plan.rank_gpus,
            "max_concurrency": 2,
            "runtime_env": {"env_vars": dict.fromkeys(THREAD_VARIABLES, str(self._plan.rank_threads))},
        }
        if group is not None:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, number)
        return ray.remote(Rank).options(**options).remote()


def _cause(error: Exception) -> object:
    if isinstance(error, RayActorError):
        return f"it died: {death_words(error)}"
    return error.cause if isinstance(error, RayTaskError) else error


def _would_happen_again(error: Exception) -> bool:
    cause = _cause(error)
    return isinstance(cause, HeadraceError) or (isinstance(cause, Exception) and storage_refusal(cause) is not None)
