"""A network for planes alone, on grids whose sides are multiples of 4, that takes noise."""

from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from headrace.platform.fields import SampleSchema
from headrace.surrogates import AbstractSurrogate, Capabilities, Query


class ThrowawayPlane(AbstractSurrogate):
    """Two convolutions on a plane."""

    kind: Literal["throwaway_plane"] = "throwaway_plane"
    width: PositiveInt = 16

    capabilities: ClassVar[Capabilities] = Capabilities(dims=(2,), resolution="free", multiple_of=4, noise=2)

    def build(self, schema: SampleSchema) -> nn.Module:
        return _Convolutions(self, schema)


class _Convolutions(nn.Module):
    def __init__(self, spec: ThrowawayPlane, schema: SampleSchema) -> None:
        super().__init__()
        self.outputs = (len(schema.times), schema.num_output_channels)
        self.lift = nn.Conv2d(schema.num_input_channels, spec.width, 3, padding="same")
        self.scalars = nn.Linear(schema.num_parameters + 2, spec.width)
        self.project = nn.Conv2d(spec.width, self.outputs[0] * self.outputs[1], 1)

    def forward(self, inputs: Tensor, parameters: Tensor, query: Query) -> Tensor:
        assert query.time is None and query.points is None and query.noise is not None
        scalars = self.scalars(torch.cat([parameters, query.noise], dim=1))[:, :, None, None]
        found = self.project(nn.functional.silu(self.lift(inputs) + scalars))
        return found.reshape(len(inputs), *self.outputs, *inputs.shape[2:])
