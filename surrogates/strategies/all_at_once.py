"""AllAtOnce: all output times at once."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from headrace.platform.fields import SampleSchema
from headrace.surrogates.batch import Batch
from headrace.surrogates.losses import AbstractLoss
from headrace.surrogates.normalization import NormalizedNetwork, Scales
from headrace.surrogates.strategy import AbstractStrategy


class AllAtOnce(AbstractStrategy):
    """One step of the network gives all output times; the only way for a steady problem."""

    kind: Literal["direct"] = "direct"

    def mismatch(self, schema: SampleSchema) -> str | None:
        """It needs all output times at once."""
        if schema.parts > 1:
            return f"a trajectory comes in {schema.parts} parts, none of which has all output times"
        return None

    def network_schema(self, schema: SampleSchema) -> SampleSchema:
        """The problem's own."""
        return schema

    def scales(self, schema: SampleSchema, batch: Batch) -> Scales:
        """Inputs and outputs as they are."""
        return Scales(batch.inputs, batch.outputs)

    def loss(
        self, model: NormalizedNetwork, schema: SampleSchema, loss: AbstractLoss, batch: Batch
    ) -> Float[Tensor, ""]:
        """The loss over all times."""
        scaled = model.normalizer.in_standard_deviations
        return loss(scaled(model(batch.inputs, batch.parameters)), scaled(batch.outputs), schema.domain)

    def forecast(
        self,
        model: NormalizedNetwork,
        schema: SampleSchema,
        inputs: Float[Tensor, "batch channels_in *grid"],
        parameters: Float[Tensor, "batch num_parameters"],
    ) -> Float[Tensor, "batch time channels_out *grid"]:
        """What the network says."""
        prediction: Float[Tensor, "batch time channels_out *grid"] = model(inputs, parameters)
        return prediction
