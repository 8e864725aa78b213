"""TrainingSpec: how a surrogate is trained."""

import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from headrace.platform.fields import SampleSchema
from headrace.platform.spec import Spec, one_of
from headrace.surrogates.losses import AnyLoss, RelativeL2
from headrace.surrogates.normalization import NormalizationSpec


class AbstractOptimizer(Spec):
    """The spec of an optimiser."""

    @abstractmethod
    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of these parameters, at its peak learning rate."""


class AdamW(AbstractOptimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019, Algorithm 2).

    Attributes:
        learning_rate: the peak that the schedule scales.
        weight_decay: share of the weights subtracted per step, times the learning rate.
        betas: memory of the first and second moment.
    """

    kind: Literal["adamw"] = "adamw"
    learning_rate: PositiveFloat = 3e-3
    weight_decay: NonNegativeFloat = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of these parameters, at its peak learning rate."""
        return torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay, betas=self.betas)


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


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


OPTIMIZERS = (AdamW,)
SCHEDULES = (OneCycle, Cosine, Constant)
AnyOptimizer = one_of("headrace.optimizers", OPTIMIZERS)
AnySchedule = one_of("headrace.schedules", SCHEDULES)


class TrainingSpec(Spec):
    """How a surrogate is trained.

    Attributes:
        steps: planned optimiser steps; the schedule spans them.
        batch_size: samples per step and rank.
        loss: what is made small.
        optimizer: how.
        schedule: the learning rate over the steps.
        normalization: how fields are scaled for the network.
        gradient_clip: largest norm of the gradient; null for none.
        validate_every: steps between validations; the last step is always validated.
        checkpoint_every: steps between checkpoints; the last step is always kept.
        keep_checkpoints: how many of the numbered checkpoints stay; the oldest go first.
        log_every: steps between reports of the loss.
        precision: of weights and arithmetic, as Lightning names it. Spectral layers stay in float32 under bf16-mixed.
    """

    steps: PositiveInt = 1000
    batch_size: PositiveInt = 16
    loss: AnyLoss = RelativeL2()
    optimizer: AnyOptimizer = AdamW()
    schedule: AnySchedule = OneCycle()
    normalization: NormalizationSpec = NormalizationSpec()
    gradient_clip: PositiveFloat | None = 1.0
    validate_every: PositiveInt = 100
    checkpoint_every: PositiveInt = 200
    keep_checkpoints: PositiveInt = 3
    log_every: PositiveInt = 10
    precision: Literal["32-true", "bf16-mixed", "64-true"] = "32-true"

    def mismatch(self, schema: SampleSchema) -> str | None:
        """Why a problem with this schema cannot be trained on this way, or None."""
        reason = self.normalization.mismatch(schema)
        return f"normalization: {reason}" if reason else None
