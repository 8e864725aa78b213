"""The network of `MLP`."""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headrace.platform.fields import SampleSchema
from headrace.surrogates.query import NOTHING, Query

_ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


class Perceptron(nn.Module):
    """The network of `MLP`."""

    def __init__(self, schema: SampleSchema, hidden: Sequence[int], activation: str) -> None:
        super().__init__()
        grid = schema.domain.shape
        self.shape = (len(schema.times), schema.num_output_channels, *grid)
        widths = (schema.num_parameters + schema.num_input_channels * math.prod(grid), *hidden)
        self.hidden = nn.Sequential(
            *(
                layer
                for before, after in itertools.pairwise(widths)
                for layer in (nn.Linear(before, after), _ACTIVATIONS[activation]())
            )
        )
        self.project = nn.Linear(widths[-1], math.prod(self.shape))

    def forward(
        self,
        inputs: Float[Tensor, "batch channels_in *grid"],
        parameters: Float[Tensor, "batch num_parameters"],
        query: Query = NOTHING,
    ) -> Float[Tensor, "batch time channels_out *grid"]:
        """Predict all output times at once."""
        given = torch.cat([parameters, inputs.flatten(1)], dim=1)
        return self.project(self.hidden(given)).reshape(given.shape[0], *self.shape)
