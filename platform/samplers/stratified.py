"""Stratified: as many samples of each level as its weight says, for sets that errors are measured on."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float32

from headrace.platform.sample import Request
from headrace.platform.samplers.sampler import AbstractSampler, SamplerContext
from headrace.platform.seeding import generator


def shares(mix: Mapping[str, float], count: int) -> dict[str, int]:
    """How many of so many samples each level gets: its share rounded down, the rest to the largest remainders.

    Hamilton's method; of equal remainders the one that comes first in the mix is served. A level gets none where its
    share is below one sample and others have larger remainders.
    """
    total = sum(mix.values())
    quotas = {name: count * weight / total for name, weight in mix.items()}
    found = {name: int(quota) for name, quota in quotas.items()}
    # Rounding must not decide between remainders that are equal.
    rest = sorted(quotas, key=lambda name: -round(quotas[name] - found[name], 9))
    for name in rest[: count - sum(found.values())]:
        found[name] += 1
    return found


class Stratified(AbstractSampler):
    """Levels in the numbers that `shares` gives them, in an order that seed and split fix; parameters are drawn.

    Drawn one by one, 8 samples of two equal levels are all of one of them in one run of 128; and of 128 samples the
    share of a third comes to anything from 22 to 46 %.
    """

    decides_late: ClassVar[bool] = False

    kind: Literal["stratified"] = "stratified"

    def build(self, context: SamplerContext) -> "Stratifying":
        """Put it to work.

        Raises:
            ValueError: nobody says how many samples there are.
        """
        return Stratifying(context)


class Stratifying:
    """A stratified set at work; it learns nothing."""

    def __init__(self, context: SamplerContext) -> None:
        if context.count is None:
            raise ValueError(f"to stratify {context.split} it must be known how many samples it has")
        counts = shares(context.mix, context.count)
        levels = np.repeat(np.arange(len(counts)), list(counts.values()))
        order = generator(context.seed, context.split, "strata").permutation(context.count)
        self._names, self._levels = tuple(counts), levels[order]

    def decide(self, indices: Sequence[int]) -> list[Request]:
        """The level of each."""
        return [Request(index=index, level=self._names[self._levels[index]]) for index in map(int, indices)]

    def observe(self, requests: Sequence[Request], losses: Float32[np.ndarray, " batch"]) -> None:
        """Nothing."""

    def price(self, level: str, count: int, cpu_seconds: float) -> None:
        """Nothing."""


STRATIFIED = Stratified()
"""What held-out samples always are."""
