"""SolverTeam: the solver actors of a stream, seen from the driver: started, replaced, more and fewer of them."""

import itertools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from headrace.platform.cluster.cluster import require_daemons
from headrace.platform.cluster.hosts import death_words
from headrace.platform.cluster.resources import ResourcePlan
from headrace.platform.errors import RunFailed
from headrace.platform.ledger.ledger import MAX_LOSSES
from headrace.platform.stream.plan import StreamPlan, solver_name
from headrace.platform.stream.solver_actor import SolverActor

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 5.0
ANSWER_SECONDS = 120.0  # that the coordinator or a shard may take
MAX_DEATHS = MAX_LOSSES + 2  # of solvers in a row, while no sample is stored


def answers(refs: Sequence[ray.ObjectRef]) -> list[Any]:
    """What the coordinator or the shards answer.

    Raises:
        RunFailed: one of them died, or its work failed.
    """
    try:
        return list(ray.get(list(refs), timeout=ANSWER_SECONDS))
    except RayTaskError as error:
        raise RunFailed(f"the stream failed: {error.cause}") from error
    except RayActorError as error:
        require_daemons()
        raise RunFailed(f"the coordinator or a reservoir shard died: {death_words(error)}") from error
    except GetTimeoutError as error:
        raise RunFailed(f"the coordinator or a reservoir shard did not answer within {ANSWER_SECONDS:g} s") from error


@dataclass(frozen=True, kw_only=True)
class _Member:
    name: str
    actor: ActorHandle
    started: ray.ObjectRef


class SolverTeam:
    """Keeps as many solvers at work as are wanted, as long as there is work.

    Waits in `poll`, at most for the time that it is given. A solver that dies is replaced, wherever Ray finds room for
    the next one; until it does, that one is `waiting`.

    Attributes:
        wanted: how many solvers there shall be.
    """

    def __init__(
        self,
        plan: StreamPlan,
        resources: ResourcePlan,
        coordinator: ActorHandle,
        shards: Sequence[ActorHandle],
        first_number: int,
    ) -> None:
        """Start the solvers that the resources say, named from `first_number` on: a name has one bearer, ever."""
        self._plan, self._resources, self._coordinator, self._shards = plan, resources, coordinator, list(shards)
        self._numbers = itertools.count(first_number)
        self._deaths = self._stored = 0
        self._looked = time.monotonic()
        self._members: dict[ray.ObjectRef, _Member] = {}
        self._leaving: set[str] = set()
        self.wanted = resources.num_solvers
        self._fill_up()

    def __len__(self) -> int:
        return len(self._members)

    @property
    def waiting(self) -> int:
        """How many have not found a place in the cluster yet."""
        starting = [member.started for member in self._members.values()]
        return len(starting) - len(ray.wait(starting, num_returns=len(starting), timeout=0)[0]) if starting else 0

    def scale(self, wanted: int) -> None:
        """Have so many solvers from now on; those that are too many finish what they have leased, the newest first."""
        self.wanted = wanted
        staying = [member for member in self._members.values() if member.name not in self._leaving]
        leaving = staying[wanted:]
        self._leaving.update(member.name for member in leaving)
        answers([self._coordinator.dismiss.remote(member.name) for member in leaving])
        self._fill_up()

    def _fill_up(self) -> None:
        for _ in range(self.wanted - len(self._members) + len(self._leaving)):
            self.start_one()

    def start_one(self) -> None:
        """Start a solver."""
        number = next(self._numbers)
        options = {
            "num_cpus": self._resources.solver_cpus,
            "num_gpus": self._resources.solver_gpus,
            "scheduling_strategy": self._resources.solver_strategy,
            "runtime_env": {"env_vars": self._resources.solver_environment},
        }
        actor = ray.remote(SolverActor).options(**options).remote(number, self._plan, self._coordinator, self._shards)
        started = actor.start.remote()
        self._members[actor.run.remote()] = _Member(name=solver_name(number), actor=actor, started=started)

    def poll(self, seconds: float) -> None:
        """Watch them for a while; replace those that died, end those that hang.

        Raises:
            RunFailed: a solver failed in a way that would meet the next one too, or too many died.
        """
        done, _ = ray.wait(list(self._members), timeout=seconds) if self._members else ([], [])
        for ref in done:
            member = self._members.pop(ref)
            left = member.name in self._leaving
            self._leaving.discard(member.name)
            try:
                ray.get(ref)
            except RayTaskError as error:
                raise RunFailed(f"{member.name} failed: {error.cause}") from error
            except RayActorError as error:
                require_daemons()
                # One that cannot be reached may be alive: its successor has its place.
                ray.kill(member.actor)
                self._note_death(member.name, error)
                if not left:
                    self.start_one()
        if time.monotonic() - self._looked > SECONDS_BETWEEN_LOOKS and self._members:
            self._looked = time.monotonic()
            self._end_silent()

    def _note_death(self, name: str, error: RayActorError) -> None:
        [stored] = answers([self._coordinator.release.remote(name)])
        # A sample that kills its solvers is given up after some; what kills all of them has to end the run.
        self._deaths = 1 if stored > self._stored else self._deaths + 1
        self._stored = stored
        if self._deaths > MAX_DEATHS:
            raise RunFailed(
                f"{self._deaths} solver actors died and no sample was stored in between, {name} last: "
                f"{death_words(error)}"
            ) from error
        log.warning("%s died (%s); another takes over its samples", name, death_words(error))

    def _end_silent(self) -> None:
        """End solvers that hang: their samples are other solvers' by now, and `poll` replaces them."""
        [silent] = answers([self._coordinator.silent.remote()])
        for member in self._members.values():
            if member.name in silent:
                log.warning(
                    "%s took more than stream.lease_seconds = %g for a sample and is ended; raise it if samples do",
                    member.name,
                    self._plan.lease_seconds,
                )
                ray.kill(member.actor)

    def stop(self, grace_seconds: float) -> None:
        """End them all: one between two samples ends by itself, one in a long solve is ended."""
        if self._members:
            ray.wait(list(self._members), num_returns=len(self._members), timeout=grace_seconds)
        for member in self._members.values():
            ray.kill(member.actor)
        self._members.clear()
