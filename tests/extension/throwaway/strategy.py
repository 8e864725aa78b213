"""A strategy with a curriculum: the first half of the times at first, and all of them later."""

from typing import Literal

import torch
from torch import Tensor

from headrace.platform.fields import SampleSchema
from headrace.surrogates import AbstractStrategy, Capabilities, Loss, TrainingStep
from headrace.surrogates.batch import Batch
from headrace.surrogates.normalization import Scales
from headrace.surrogates.normalizer import NormalizedNetwork


class ThrowawayCurriculum(AbstractStrategy):
    """All output times at once, learned from the first ones on."""

    kind: Literal["throwaway_curriculum"] = "throwaway_curriculum"

    def network_schema(self, schema: SampleSchema, capabilities: Capabilities) -> SampleSchema:
        return schema

    def scales(self, schema: SampleSchema, capabilities: Capabilities, batch: Batch) -> Scales:
        return Scales(batch.inputs, batch.outputs)

    def losses(
        self, model: NormalizedNetwork, schema: SampleSchema, loss: Loss, batch: Batch, at: TrainingStep
    ) -> Tensor:
        count = len(schema.times) if at.progress > 0.2 else (len(schema.times) + 1) // 2
        said = model(batch.inputs, batch.parameters, generator=at.generator)
        return loss(said[:, :count], batch._replace(outputs=batch.outputs[:, :count]))

    def forecast(
        self,
        model: NormalizedNetwork,
        schema: SampleSchema,
        inputs: Tensor,
        parameters: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return model(inputs, parameters, generator=generator)
