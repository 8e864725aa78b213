"""Joined: several optimisers that look like one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer


class Joined(Optimizer):
    """Optimisers of different weights, as one: schedules scale the groups of all, and one state is kept of all.

    Attributes:
        parts: the optimisers; their groups and states are those of the whole, not copies.
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        """Take over the groups of the parts, in their order.

        Raises:
            ValueError: there is no part, or two have a weight in common.
        """
        self.parts = tuple(parts)
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every part; the closure is called once, before."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state of optimisers joined in the same way."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        first = 0
        for part in self.parts:
            count = len(part.param_groups)
            part.param_groups = self.param_groups[first : first + count]
            part.state = self.state
            first += count
