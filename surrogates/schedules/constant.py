"""Constant: the peak throughout."""

from typing import Literal

from headrace.surrogates.schedule import AbstractSchedule


class Constant(AbstractSchedule):
    """The peak learning rate throughout, for runs whose end is not planned."""

    kind: Literal["constant"] = "constant"

    def factor(self, step: int, steps: int) -> float:
        """The share of the peak learning rate at a step: 1."""
        return 1.0
