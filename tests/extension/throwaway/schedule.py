"""A schedule that goes down along a straight line."""

from typing import Literal

from headrace.surrogates import AbstractSchedule


class ThrowawayLine(AbstractSchedule):
    """From the peak down to nearly nothing."""

    kind: Literal["throwaway_line"] = "throwaway_line"

    def factor(self, step: int, steps: int) -> float:
        return 1.0 - step / steps
