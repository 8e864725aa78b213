"""RelativeL2: the L2 norm of the error over that of the truth."""

from typing import ClassVar, Literal

from headrace.surrogates.loss import AbstractLoss, Loss, LossContext
from headrace.surrogates.losses.of_metric import OfMetric
from headrace.surrogates.metrics import relative_l2


class RelativeL2(AbstractLoss):
    """Mean of ||u - v||_2 / ||v||_2: every sample counts alike, whatever its size."""

    kind: Literal["relative_l2"] = "relative_l2"

    is_relative: ClassVar[bool] = True

    def build(self, context: LossContext) -> Loss:
        """The metric `relative_l2`."""
        return OfMetric(relative_l2, context)
