"""MLP: a fully connected network from the scalars of a problem, and its input fields if it has any, to its fields."""

import itertools
import math
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from headrace.platform.fields import SampleSchema
from headrace.surrogates.capabilities import Capabilities
from headrace.surrogates.query import NOTHING, Query
from headrace.surrogates.surrogate import AbstractSurrogate

_ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


class MLP(AbstractSurrogate):
    """Fully connected network: h_{l+1} = act(W_l h_l + b_l), and a last linear layer to all points and times at once.

    For problems that a few scalars describe: wall temperatures, a Reynolds number, the time. It knows nothing of the
    grid, so it fits any grid and any mesh, and runs on no other than its own. Input fields are flattened and join the
    scalars, none is left out; but each of their points has `hidden[0]` weights, so for problems that are given by
    fields other networks are smaller and better.

    Good values: two hidden layers of 256 for up to 10 scalars and 32-64 points a side.

    Attributes:
        hidden: widths of the hidden layers.
        activation: what follows each of them.
    """

    kind: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 256)
    activation: Literal["gelu", "relu", "silu", "tanh"] = "gelu"

    capabilities: ClassVar[Capabilities] = Capabilities(domains=("grid", "mesh"))

    def build(self, schema: SampleSchema) -> nn.Module:
        """The network, with fresh weights.

        Raises:
            ValueError: the schema has nothing to learn from (see `mismatch`).
        """
        if reason := self.mismatch(schema):
            raise ValueError(reason)
        return _Perceptron(self, schema)

    def mismatch(self, schema: SampleSchema) -> str | None:
        """Why the schema leaves nothing to learn from, or None."""
        if reason := super().mismatch(schema):
            return reason
        if not schema.num_parameters and not schema.num_input_channels:
            return "mlp needs parameters or input fields, the samples have neither: all would be alike"
        return None


class _Perceptron(nn.Module):
    """The network of `MLP`."""

    def __init__(self, spec: MLP, schema: SampleSchema) -> None:
        super().__init__()
        grid = schema.domain.shape
        self.shape = (len(schema.times), schema.num_output_channels, *grid)
        widths = (schema.num_parameters + schema.num_input_channels * math.prod(grid), *spec.hidden)
        self.hidden = nn.Sequential(
            *(
                layer
                for before, after in itertools.pairwise(widths)
                for layer in (nn.Linear(before, after), _ACTIVATIONS[spec.activation]())
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
        return self.project(self.hidden(given)).reshape(len(given), *self.shape)
