"""A loss that depends on the size of fields: the mean square."""

from typing import Literal

from torch import Tensor

from headrace.surrogates import AbstractLoss, Loss, LossContext


class ThrowawayMeanSquare(AbstractLoss):
    """The mean square error, in units of each channel's variance."""

    kind: Literal["throwaway_mean_square"] = "throwaway_mean_square"

    def build(self, context: LossContext) -> Loss:
        scaled = context.scales.in_standard_deviations

        def loss(prediction: Tensor, batch: object) -> Tensor:
            return (scaled(prediction) - scaled(batch.outputs)).square().flatten(1).mean(1)

        return loss
