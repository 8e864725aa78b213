"""TrainingSpec: how a surrogate is trained."""

from typing import Literal

from pydantic import PositiveFloat

from headrace.platform.fields import SampleSchema
from headrace.platform.spec import Count, Spec, kind_of
from headrace.surrogates.losses import AnyLoss, RelativeL2
from headrace.surrogates.normalization import NormalizationSpec
from headrace.surrogates.optimizers import AdamW, AnyOptimizer
from headrace.surrogates.schedules import AnySchedule, OneCycle
from headrace.surrogates.strategies import AllAtOnce, AnyStrategy
from headrace.surrogates.surrogate import AbstractSurrogate


class TrainingSpec(Spec):
    """How a surrogate is trained.

    Attributes:
        strategy: what the network learns of a trajectory: all times at once, or the way from one time to the next.
        steps: planned optimiser steps; the schedule spans them.
        batch_size: samples per step and rank.
        loss: what training makes small: its kind and settings.
        optimizer: how weights are changed: its kind and settings.
        schedule: how the learning rate goes over the steps: its kind and settings.
        normalization: how fields are scaled for the network.
        gradient_clip: largest norm of the gradient; null for none.
        validate_every: steps between validations; the last step is always validated.
        checkpoint_every: steps between checkpoints; the last step is always kept.
        keep_checkpoints: how many of the numbered checkpoints stay; the oldest go first.
        log_every: steps between reports of the loss.
        keep_incomplete: whether the parts that were solved of a trajectory before it broke are trained on.
        precision: of weights and arithmetic, as Lightning names it. Spectral layers stay in float32 under bf16-mixed.
    """

    strategy: AnyStrategy = AllAtOnce()
    steps: Count = 1000
    batch_size: Count = 16
    loss: AnyLoss = RelativeL2()
    optimizer: AnyOptimizer = AdamW()
    schedule: AnySchedule = OneCycle()
    normalization: NormalizationSpec = NormalizationSpec()
    gradient_clip: PositiveFloat | None = 1.0
    validate_every: Count = 100
    checkpoint_every: Count = 200
    keep_checkpoints: Count = 3
    log_every: Count = 10
    keep_incomplete: bool = False
    precision: Literal["32-true", "bf16-mixed", "64-true"] = "32-true"

    def mismatch(self, schema: SampleSchema) -> str | None:
        """Why a problem with this schema cannot be trained on this way, or None."""
        reason = self.normalization.mismatch(schema)
        if reason:
            return f"normalization: {reason}"
        if reason := self.strategy.mismatch(schema):
            return f"strategy {self.strategy.kind}: {reason}"
        reason = self.loss.mismatch(schema)
        return f"loss {self.loss.kind}: {reason}" if reason else None

    def network_mismatch(self, surrogate: AbstractSurrogate, schema: SampleSchema) -> str | None:
        """Why a surrogate cannot be trained this way on a problem that can be, or None when it can."""
        if reason := self.strategy.network_mismatch(surrogate.capabilities):
            return f"{kind_of(type(surrogate))}: {reason}"
        return surrogate.mismatch(self.strategy.network_schema(schema, surrogate.capabilities))
