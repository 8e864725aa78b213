"""ZeroTargets: a relative loss that counts the targets which say nothing of what is large."""

from jaxtyping import Float

from headrace.platform.lazy_torch import Tensor, torch
from headrace.surrogates.batch import Batch
from headrace.surrogates.loss import Loss, LossContext
from headrace.surrogates.metrics import is_zero


class ZeroTargets:
    """A relative loss, and how many targets it was handed whose denominator is guarded (see `metrics.FLOOR`).

    Attributes:
        count: of them so far, on the device; a sample that is used again counts again.
    """

    def __init__(self, loss: Loss, context: LossContext) -> None:
        self._loss, self._context = loss, context
        self.count = torch.zeros((), dtype=torch.int64, device=context.device)

    def __call__(
        self, prediction: Float[Tensor, "batch time channels_out *grid"], batch: Batch
    ) -> Float[Tensor, " batch"]:
        """The loss."""
        truth = self._context.scales.in_standard_deviations(batch.outputs)
        self.count += is_zero(truth, self._context.field_scale(truth)).sum()
        return self._loss(prediction, batch)
