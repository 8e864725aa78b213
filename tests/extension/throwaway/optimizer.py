"""Plain gradient descent with momentum."""

from collections.abc import Iterable
from typing import Literal

import torch

from headrace.surrogates import AbstractOptimizer


class ThrowawayDescent(AbstractOptimizer):
    """Gradient descent with momentum."""

    kind: Literal["throwaway_descent"] = "throwaway_descent"

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.5)
