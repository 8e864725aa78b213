"""AllAtOnce: all output times at once."""

from typing import Literal

from jaxtyping import Float

from headrace.platform.fields import SampleSchema
from headrace.platform.lazy_torch import Tensor, torch
from headrace.surrogates.batch import Batch
from headrace.surrogates.capabilities import Capabilities
from headrace.surrogates.loss import Loss
from headrace.surrogates.normalization import NormalizedNetwork, Scales
from headrace.surrogates.strategy import AbstractStrategy, TrainingStep


class AllAtOnce(AbstractStrategy):
    """One step of the network gives all output times; the only way for a steady problem."""

    kind: Literal["direct"] = "direct"

    def mismatch(self, schema: SampleSchema) -> str | None:
        """It needs all output times at once."""
        if schema.parts > 1:
            return f"a trajectory comes in {schema.parts} parts, none of which has all output times"
        return None

    def network_schema(self, schema: SampleSchema, capabilities: Capabilities) -> SampleSchema:
        """The problem's own."""
        return schema

    def scales(self, schema: SampleSchema, capabilities: Capabilities, batch: Batch) -> Scales:
        """Inputs and outputs as they are."""
        return Scales(batch.inputs, batch.outputs)

    def losses(
        self, model: NormalizedNetwork, schema: SampleSchema, loss: Loss, batch: Batch, at: TrainingStep
    ) -> Float[Tensor, " batch"]:
        """Over all times."""
        return loss(model(batch.inputs, batch.parameters, generator=at.generator), batch)

    def forecast(
        self,
        model: NormalizedNetwork,
        schema: SampleSchema,
        inputs: Float[Tensor, "batch channels_in *grid"],
        parameters: Float[Tensor, "batch num_parameters"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch time channels_out *grid"]:
        """What the network says."""
        prediction: Float[Tensor, "batch time channels_out *grid"] = model(inputs, parameters, generator=generator)
        return prediction
