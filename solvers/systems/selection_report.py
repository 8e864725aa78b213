"""What choosing among methods came to."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(kw_only=True)
class ArmReport:
    """What one method did in a run; times in seconds, of the processor as a rule (see `Auto`).

    Attributes:
        label: the method with its settings.
        systems: what kind of systems it was given, in words; methods are compared on one kind alone.
        solves: systems that it was given.
        accepted: those that it solved; only they are samples.
        seconds: spent on all of them but the cold ones.
        settled: accepted solves but the first, which also sets up what depends on the grid alone.
        settled_seconds: spent on these.
        cold: solves, at most one a process, that imported and compiled what the method needs: not their time but
            the mean of the others counts.
        exploring: solves while another method was thought to be faster.
        exploring_seconds: spent on these.
    """

    label: str
    systems: str = ""
    solves: int = 0
    accepted: int = 0
    seconds: float = 0.0
    settled: int = 0
    settled_seconds: float = 0.0
    cold: int = 0
    exploring: int = 0
    exploring_seconds: float = 0.0

    def add(self, other: "ArmReport") -> None:
        """Put another account of the same method into this one."""
        for name, value in asdict(other).items():
            if name not in ("label", "systems"):
                setattr(self, name, getattr(self, name) + value)

    @property
    def spent(self) -> float:
        """Seconds on all solves, cold ones at the mean."""
        warm = self.solves - self.cold
        return self.seconds + self.cold * (self.seconds / warm if warm else 0.0)

    @property
    def seconds_per_accepted(self) -> float:
        """What a sample costs: settled solves, and the failed ones on top."""
        if not self.accepted:
            return math.inf
        mean = self.settled_seconds / self.settled if self.settled else self.spent / self.solves
        failed = self.solves - self.accepted
        return mean * (1.0 + failed / self.accepted)


@dataclass(kw_only=True)
class SelectionReport:
    """What choosing among methods came to.

    Regret is estimated: the seconds that were spent, less what the method with the least seconds per accepted sample
    would have spent on all systems of a kind at its mean. Methods are measured on different systems of the sequence,
    one that was tried once or twice coarsely, and one that was never tried counts for nothing.

    Attributes:
        strategy: how they were chosen; several are joined by a plus.
        arms: the methods.
        warm_up_seconds: imports and compilation, not part of any other number.
    """

    strategy: str
    arms: list[ArmReport]
    warm_up_seconds: float = 0.0

    @property
    def accepted(self) -> int:
        """Samples that were solved."""
        return sum(arm.accepted for arm in self.arms)

    @property
    def seconds(self) -> float:
        """Spent on all solves, failed ones included."""
        return sum(arm.spent for arm in self.arms)

    @property
    def winner(self) -> str:
        """Which method solved the most samples."""
        return max(self.arms, key=lambda arm: arm.accepted).label if self.arms else ""

    @property
    def best_fixed(self) -> dict[str, ArmReport]:
        """Which method has the least seconds per accepted sample, for each kind of systems that some were solved of."""
        best: dict[str, ArmReport] = {}
        for arm in self.arms:
            held = best.get(arm.systems)
            if arm.accepted and (held is None or arm.seconds_per_accepted < held.seconds_per_accepted):
                best[arm.systems] = arm
        return best

    @property
    def best_fixed_seconds(self) -> float:
        """What these would have spent on all systems of their kinds that were solved."""
        best = self.best_fixed
        return sum(best[arm.systems].seconds_per_accepted * arm.accepted for arm in self.arms if arm.accepted)

    @property
    def regret_seconds(self) -> float:
        """Seconds spent beyond those of the best fixed methods in hindsight; see the class."""
        return self.seconds - self.best_fixed_seconds

    @classmethod
    def merged(cls, reports: "Iterable[SelectionReport]") -> "SelectionReport | None":
        """One account of several solvers that worked on the same data set; None of none."""
        reports = list(reports)
        if not reports:
            return None
        arms: dict[tuple[str, str], ArmReport] = {}
        for report in reports:
            for arm in report.arms:
                held = arms.setdefault((arm.systems, arm.label), ArmReport(label=arm.label, systems=arm.systems))
                held.add(arm)
        return cls(
            strategy="+".join(sorted({report.strategy for report in reports})),
            arms=list(arms.values()),
            warm_up_seconds=sum(report.warm_up_seconds for report in reports),
        )

    def to_json(self) -> dict[str, object]:
        """The account as plain values."""
        best = self.best_fixed
        return {
            "strategy": self.strategy,
            "winner": self.winner,
            "accepted": self.accepted,
            "seconds": self.seconds,
            "best_fixed": {kind: arm.label for kind, arm in best.items()},
            "best_fixed_seconds": self.best_fixed_seconds,
            "regret_seconds": self.regret_seconds,
            "exploring_seconds": sum(arm.exploring_seconds for arm in self.arms),
            "warm_up_seconds": self.warm_up_seconds,
            "methods": [asdict(arm) for arm in self.arms if arm.solves],
        }

    @classmethod
    def from_json(cls, value: dict[str, object]) -> "SelectionReport":
        """What `to_json` wrote."""
        methods = value["methods"]
        assert isinstance(methods, list)
        return cls(
            strategy=str(value["strategy"]),
            arms=[ArmReport(**arm) for arm in methods],
            warm_up_seconds=float(str(value["warm_up_seconds"])),
        )
