"""Learning-rate schedules over the planned steps: a schedule is its spec, with a method."""

import itertools
import math
from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import Field, model_validator

from headrace.platform.spec import Spec, one_of


class AbstractSchedule(Spec):
    """The spec of a learning-rate schedule over the planned steps."""

    @abstractmethod
    def factor(self, step: int, steps: int) -> float:
        """The share of the peak learning rate that step `step` (from 0) of `steps` uses."""


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
            return _half_cosine(self.start, 1.0, step / top)
        return _half_cosine(1.0, self.end, (step - top) / (last - top))


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
        return _half_cosine(1.0, self.end, (step - rise) / max(steps - 1 - rise, 1))


class Constant(AbstractSchedule):
    """The peak learning rate throughout, for runs whose end is not planned."""

    kind: Literal["constant"] = "constant"

    def factor(self, step: int, steps: int) -> float:
        """The share of the peak learning rate at a step: 1."""
        return 1.0


class Staircase(AbstractSchedule):
    """The peak at first, and at some shares of the steps a fixed factor less.

    Attributes:
        at: where the steps down are, as increasing shares of the planned steps.
        by: what the learning rate is multiplied with at each.
    """

    kind: Literal["staircase"] = "staircase"
    at: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.4, 0.6, 0.8, 0.9)
    by: float = Field(default=0.5, gt=0, le=1)

    @model_validator(mode="after")
    def _in_order(self) -> "Staircase":
        for earlier, later in itertools.pairwise(self.at):
            if later <= earlier:
                raise ValueError(f"increasing shares of the steps in at, got {later:g} after {earlier:g}")
        return self

    def factor(self, step: int, steps: int) -> float:
        """The share of the peak learning rate at a step."""
        return self.by ** sum(step >= share * steps for share in self.at)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


SCHEDULES = (OneCycle, Cosine, Constant, Staircase)
AnySchedule = one_of("headrace.schedules", SCHEDULES)
