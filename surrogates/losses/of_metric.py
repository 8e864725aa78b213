"""OfMetric: a metric as a loss."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float

from headrace.platform.fields import Domain
from headrace.platform.lazy_torch import Tensor
from headrace.surrogates.batch import Batch
from headrace.surrogates.loss import LossContext


@dataclass(frozen=True)
class OfMetric:
    """A metric of fields whose every channel is divided by its standard deviation.

    So channels of different units weigh alike; a relative metric of a single channel is the same in physical units.
    Its denominator is guarded as that of any metric is (`headrace.surrogates.metrics.FLOOR`).

    Attributes:
        metric: takes prediction, truth, domain and scale; gives one value for each sample.
        context: of the run.
    """

    metric: Callable[[Tensor, Tensor, Domain, Tensor | None], Tensor]
    context: LossContext

    def __call__(
        self, prediction: Float[Tensor, "batch time channels_out *grid"], batch: Batch
    ) -> Float[Tensor, " batch"]:
        """The metric of every sample."""
        scaled = self.context.scales.in_standard_deviations
        scale = self.context.field_scale(batch.outputs)
        return self.metric(scaled(prediction), scaled(batch.outputs), self.context.schema.domain, scale)
