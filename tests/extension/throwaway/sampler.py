"""A sampler: the second half of a data set is of the last level."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from headrace.platform.sample import Request
from headrace.platform.samplers.sampler import AbstractSampler, SamplerContext


class ThrowawayHalves(AbstractSampler):
    """First the first level, then the last one."""

    kind: Literal["throwaway_halves"] = "throwaway_halves"

    def build(self, context: SamplerContext) -> "Halves":
        return Halves(context)


class Halves:
    """Goes by the number of samples alone."""

    def __init__(self, context: SamplerContext) -> None:
        self._levels, self._half = context.levels, (context.count or 0) // 2

    def decide(self, indices: Sequence[int]) -> list[Request]:
        return [Request(index=index, level=self._levels[-(index >= self._half)]) for index in indices]

    def observe(self, requests: Sequence[Request], losses: np.ndarray) -> None:
        """Nothing."""

    def price(self, level: str, count: int, cpu_seconds: float) -> None:
        """Nothing."""
