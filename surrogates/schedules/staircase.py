"""Staircase: down by a fixed factor at some shares of the steps."""

import itertools
from typing import Annotated, Literal

from pydantic import Field, model_validator

from headrace.surrogates.schedule import AbstractSchedule


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
