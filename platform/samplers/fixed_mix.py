"""FixedMix: the level of a sample is drawn by fixed weights, from its index alone."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float32

from headrace.platform.sample import Request
from headrace.platform.samplers.mixture import Mixture
from headrace.platform.samplers.sampler import AbstractSampler, SamplerContext


class FixedMix(AbstractSampler):
    """Levels by the weights of `data.mix`, each a function of seed, split and index; parameters are drawn."""

    decides_late: ClassVar[bool] = False

    kind: Literal["fixed_mix"] = "fixed_mix"

    def build(self, context: SamplerContext) -> "Mixing":
        """Put it to work."""
        return Mixing(context)


class Mixing:
    """A fixed mix at work; it learns nothing."""

    def __init__(self, context: SamplerContext) -> None:
        self._mixture = Mixture(context.mix)
        self._seed, self._split = context.seed, context.split

    def decide(self, indices: Sequence[int]) -> list[Request]:
        """The level of each."""
        return [
            Request(index=index, level=self._mixture.level(self._seed, self._split, index))
            for index in map(int, indices)
        ]

    def observe(self, requests: Sequence[Request], losses: Float32[np.ndarray, " batch"]) -> None:
        """Nothing."""

    def price(self, level: str, count: int, cpu_seconds: float) -> None:
        """Nothing."""


MIXED = FixedMix()
"""What training samples are unless a recipe says otherwise; held-out ones are `STRATIFIED`."""
