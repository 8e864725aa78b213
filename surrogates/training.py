"""TrainingSpec: how a surrogate is trained."""

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from headrace.platform.fields import SampleSchema
from headrace.platform.spec import Spec
from headrace.surrogates.losses import AnyLoss, RelativeL2
from headrace.surrogates.normalization import NormalizationSpec
from headrace.surrogates.optimizers import AdamW, AnyOptimizer
from headrace.surrogates.schedules import AnySchedule, OneCycle


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
