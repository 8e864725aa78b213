"""LossWeighted: more samples of the levels whose training loss is large for what they cost."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float32
from pydantic import Field

from headrace.platform.sample import Request
from headrace.platform.samplers.mixture import Mixture
from headrace.platform.samplers.sampler import AbstractSampler, SamplerContext
from headrace.platform.spec import Count


class LossWeighted(AbstractSampler):
    """Levels in proportion to weight x (mean loss of late / CPU seconds a sample) ^ sharpness, with a floor.

    A simple rule, and a first one: it takes a large loss for a sample worth having. That is wrong where the loss is
    large because nothing can be learned, and where an easy level teaches what a hard one needs. Until each level has
    been observed and priced, and again after the coordinator was restarted, levels are drawn by the mix.

    Attributes:
        floor: the share of samples that are drawn by the mix whatever the losses say, so that no level is forgotten.
        sharpness: 0 draws by the mix; 1 in proportion; large values take the best level alone, down to the floor.
        memory: how many of the latest losses of a level, roughly, its mean is over.
        by_cost: whether losses are divided by costs: a dear level must have a larger loss to be drawn as often.
    """

    kind: Literal["loss_weighted"] = "loss_weighted"
    floor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    sharpness: Annotated[float, Field(ge=0.0, le=10.0)] = 1.0
    memory: Count = 1000
    by_cost: bool = True

    def build(self, context: SamplerContext) -> "Weighing":
        """Put it to work."""
        return Weighing(self, context)


class Weighing:
    """`LossWeighted` at work: a mean loss and a mean cost of each level."""

    def __init__(self, spec: LossWeighted, context: SamplerContext) -> None:
        self._spec, self._context = spec, context
        self._losses: dict[str, _Mean] = {name: _Mean(spec.memory) for name in context.levels}
        self._seconds: dict[str, _Mean] = {name: _Mean(spec.memory) for name in context.levels}

    @property
    def weights(self) -> dict[str, float]:
        """The probability with which the next sample is of each level."""
        total = sum(self._context.mix[name] for name in self._losses)
        mix = {name: self._context.mix[name] / total for name in self._losses}
        scores = {name: mix[name] * self._score(name) for name in mix}
        sum_of_scores = sum(scores.values())
        if not sum_of_scores > 0.0 or not np.isfinite(sum_of_scores):
            return mix
        floor = self._spec.floor
        return {name: floor * mix[name] + (1.0 - floor) * scores[name] / sum_of_scores for name in mix}

    def _score(self, level: str) -> float:
        means = [self._losses, self._seconds] if self._spec.by_cost else [self._losses]
        if any(mean.value is None for each in means for mean in each.values()):
            return 1.0  # of all levels: not every one is known yet
        loss, seconds = self._losses[level].value or 0.0, self._seconds[level].value or 0.0
        return float((loss / max(seconds, 1e-9) if self._spec.by_cost else loss) ** self._spec.sharpness)

    def decide(self, indices: Sequence[int]) -> list[Request]:
        """A level for each, drawn by the weights of now."""
        mixture = Mixture(self.weights)
        seed, split = self._context.seed, self._context.split
        return [Request(index=index, level=mixture.level(seed, split, index)) for index in map(int, indices)]

    def observe(self, requests: Sequence[Request], losses: Float32[np.ndarray, " batch"]) -> None:
        """Move the mean losses of the levels; a loss that is not finite says nothing."""
        for request, loss in zip(requests, losses.tolist(), strict=True):
            if request.level in self._losses and np.isfinite(loss):
                self._losses[request.level].add(loss, 1)

    def price(self, level: str, count: int, cpu_seconds: float) -> None:
        """Move the mean cost of a level."""
        if level in self._seconds and count:
            self._seconds[level].add(cpu_seconds / count, count)


class _Mean:
    """Of all that came while it is little, then of what came lately: older values fade."""

    def __init__(self, memory: int) -> None:
        self._memory, self._count = memory, 0
        self.value: float | None = None

    def add(self, value: float, count: int) -> None:
        """Take so many values whose mean is `value`."""
        self._count += count
        share = min(1.0, count / min(self._count, self._memory))
        self.value = value if self.value is None else self.value + share * (value - self.value)
