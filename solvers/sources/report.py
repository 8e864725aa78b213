"""SourceReport: what a source's solving has come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.solvers.systems.selection_report import SelectionReport

# Second tries that a report names; it counts them all.
_NAMED = 50


@dataclass(kw_only=True)
class SourceReport:
    """What solving has come to so far; times in seconds.

    Attributes:
        samples: how many were solved.
        failed: how many could not be, by any method.
        rescued: how many needed a second try.
        rescues: the first of these: index, level, seed and the reasons.
        warm_up_seconds: imports, compilation and the first, thrown-away solve; in no sample's cost.
        methods: samples and seconds of each method.
        selection: what choosing among methods came to; None when there was nothing to choose.
    """

    samples: int = 0
    failed: int = 0
    rescued: int = 0
    rescues: list[dict[str, str | int]] = field(default_factory=list)
    warm_up_seconds: float = 0.0
    methods: dict[str, dict[str, float]] = field(default_factory=dict)
    selection: SelectionReport | None = None

    def note_sample(self, method: str, seconds: float) -> None:
        """Count a sample."""
        self.samples += 1
        counted = self.methods.setdefault(method, {"samples": 0, "seconds": 0.0})
        counted["samples"] += 1
        counted["seconds"] += seconds

    def note_rescue(self, index: int, level: str, seed: int, reason: str) -> None:
        """Count a sample that needed a second try, whether it helped or not; the first are named."""
        self.rescued += 1
        if len(self.rescues) < _NAMED:
            self.rescues.append({"index": index, "level": level, "seed": seed, "reason": reason})

    @classmethod
    def merged(cls, reports: "Sequence[SourceReport]") -> "SourceReport":
        """One report of several sources that worked on one run."""
        whole = cls(selection=SelectionReport.merged(r.selection for r in reports if r.selection is not None))
        for report in reports:
            whole.samples += report.samples
            whole.failed += report.failed
            whole.rescued += report.rescued
            whole.rescues = (whole.rescues + report.rescues)[:_NAMED]
            whole.warm_up_seconds += report.warm_up_seconds
            for name, counted in report.methods.items():
                kept = whole.methods.setdefault(name, {"samples": 0, "seconds": 0.0})
                kept["samples"] += counted["samples"]
                kept["seconds"] += counted["seconds"]
        return whole

    def to_json(self) -> dict[str, object]:
        """The report as plain values."""
        return {
            "samples": self.samples,
            "failed": self.failed,
            "rescued": self.rescued,
            "rescues": self.rescues,
            "warm_up_seconds": self.warm_up_seconds,
            "methods": self.methods,
            "selection": self.selection.to_json() if self.selection else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SourceReport":
        """What `to_json` wrote."""
        chosen = value["selection"]
        return cls(**{**value, "selection": SelectionReport.from_json(chosen) if chosen else None})
