"""OneCycle: up and down once."""

from typing import Literal

from pydantic import Field

from headrace.surrogates.schedule import AbstractSchedule
from headrace.surrogates.schedules.curves import half_cosine


class OneCycle(AbstractSchedule):
    """Up along a half cosine, then down along another (Smith and Topin 2019), without cycling the momentum.

    Attributes:
        warmup: share of the steps that go up.
        start: share of the peak that the first step uses.
        end: share of the peak that the last step uses.
    """

    kind: Literal["one_cycle"] = "one_cycle"
    warmup: float = Field(default=0.3, ge=0, lt=1)
    start: float = Field(default=0.04, ge=0, le=1)
    end: float = Field(default=1e-5, ge=0, le=1)

    def factor(self, step: int, steps: int) -> float:
        """The share of the peak learning rate at a step."""
        last, top = max(steps - 1, 1), self.warmup * max(steps - 1, 1)
        if step < top:
            return half_cosine(self.start, 1.0, step / top)
        return half_cosine(1.0, self.end, (step - top) / (last - top))
