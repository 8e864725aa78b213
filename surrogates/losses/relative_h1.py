"""RelativeH1: the same with gradients."""

from typing import ClassVar, Literal

from headrace.surrogates.loss import AbstractLoss, Loss, LossContext
from headrace.surrogates.losses.of_metric import OfMetric
from headrace.surrogates.metrics import relative_h1


class RelativeH1(AbstractLoss):
    """Mean of ||u - v||_H1 / ||v||_H1: gradients count too, which sharpens fronts and fluxes."""

    kind: Literal["relative_h1"] = "relative_h1"

    is_relative: ClassVar[bool] = True

    def build(self, context: LossContext) -> Loss:
        """The metric `relative_h1`."""
        return OfMetric(relative_h1, context)
