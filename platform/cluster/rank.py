"""What a training rank knows of its group, and what it tells the driver."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, kw_only=True)
class MetricsReport:
    """Metrics of the trainer at a step (None: of no step), with the Unix time of their making [s].

    Attributes:
        time: when.
        step: the step.
        metrics: values by name.
        phase: what the rank does from now on, in words; None where it says nothing about that.
    """

    time: float
    step: int | None
    metrics: dict[str, float]
    phase: str | None = None


@dataclass(frozen=True, kw_only=True)
class RankContext:
    """Where a training rank stands in its group, and where the group meets.

    Attributes:
        rank: which rank this is.
        world_size: how many there are.
        node: the id of the node that it runs on.
        accelerator: what it computes on; the first of those that it sees.
        address: of rank 0, for the others to find it.
        port: on which rank 0 will listen.
        send: takes a report on its way to the driver, without waiting for it.
    """

    rank: int
    world_size: int
    node: str
    accelerator: Literal["cpu", "gpu"]
    address: str
    port: int
    send: Callable[[MetricsReport], None]

    def report(self, step: int | None, metrics: Mapping[str, float]) -> None:
        """Send metrics to the driver without waiting for it."""
        self.send(MetricsReport(time=time.time(), step=step, metrics=dict(metrics)))

    def tell(self, phase: str) -> None:
        """Say what this rank does from now on, for the user to read; what rank 0 says is shown."""
        self.send(MetricsReport(time=time.time(), step=None, metrics={}, phase=phase))


class Ranks(Protocol):
    """Training ranks at work, seen from the driver.

    Attributes:
        needs: what they ask of the machine or the cluster, in words.
        num_started: how many ranks had found their place, those of earlier groups included.
    """

    needs: str
    num_started: int

    def drain(self) -> list[MetricsReport]:
        """The reports since the last call."""
        ...

    def give_up(self, reason: str) -> None:
        """Let no further group take the place of this one when it fails."""
        ...

    def wait(self, seconds: float) -> bool:
        """Wait for the group to end, at most for a while; return whether it has ended.

        Raises:
            RunFailed: a rank failed; the message holds the rank's own error.
        """
        ...


def has_ended(training: Future[None], seconds: float) -> bool:
    """Wait for a training, at most for a while; whether it has ended. What it failed with is raised."""
    try:
        training.result(timeout=seconds)
    except TimeoutError:
        # A training may fail with such an error itself.
        if not training.done():
            return False
        raise
    return True
