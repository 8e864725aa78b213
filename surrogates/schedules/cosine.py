"""Cosine: a warm-up, then down along a half cosine."""

import math
from typing import Literal

from pydantic import Field

from headrace.surrogates.schedule import AbstractSchedule
from headrace.surrogates.schedules.curves import half_cosine


class Cosine(AbstractSchedule):
    """A short linear warm-up, then down along a half cosine (Loshchilov and Hutter, ICLR 2017, Eq. 5, no restart).

    Attributes:
        warmup: share of the steps of the warm-up.
        end: share of the peak that the last step uses.
    """

    kind: Literal["cosine"] = "cosine"
    warmup: float = Field(default=0.02, ge=0, lt=1)
    end: float = Field(default=0.0, ge=0, le=1)

    def factor(self, step: int, steps: int) -> float:
        """The share of the peak learning rate at a step."""
        rise = math.ceil(self.warmup * steps)
        if step < rise:
            return (step + 1) / rise
        return half_cosine(1.0, self.end, (step - rise) / max(steps - 1 - rise, 1))
