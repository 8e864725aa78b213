"""Linear: up along a line, then down along another."""

from typing import Literal

from pydantic import Field

from headrace.surrogates.schedule import AbstractSchedule


class Linear(AbstractSchedule):
    """Up to the peak along a line, then down along a line to nearly nothing.

    A line down is what the theory of the last iterate asks for (Defazio et al., "Optimal linear decay learning rate
    schedules and further refinements", 2023, Corollary 2).

    Attributes:
        warmup: share of the steps that go up.
        end: share of the peak that is left after the last step.
    """

    kind: Literal["linear"] = "linear"
    warmup: float = Field(default=0.3, ge=0, lt=1)
    end: float = Field(default=0.0, ge=0, le=1)

    def factor(self, step: int, steps: int) -> float:
        """The share of the peak learning rate at a step."""
        top = self.warmup * steps
        if step + 1 <= top:
            return (step + 1) / top
        return self.end + (1.0 - self.end) * min((steps - step) / (steps - top), 1.0)
