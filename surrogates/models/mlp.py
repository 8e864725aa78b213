"""MLP: a fully connected network from the scalars of a problem, and its input fields if it has any, to its fields."""

import itertools
import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from headrace.platform.fields import SampleSchema
from headrace.platform.lazy_torch import nn
from headrace.platform.spec import Count
from headrace.surrogates.capabilities import Capabilities
from headrace.surrogates.surrogate import AbstractSurrogate


class MLP(AbstractSurrogate):
    """Fully connected network: h_{l+1} = act(W_l h_l + b_l), and a last linear layer to all points and times at once.

    For problems that a few scalars describe: wall temperatures, a Reynolds number, the time. It knows nothing of the
    grid, so it fits any grid and any mesh, and runs on no other than its own. Input fields are flattened and join the
    scalars, none is left out; but each of their points has `hidden[0]` weights, so for problems that are given by
    fields other networks are smaller and better.

    Good values: two hidden layers of 256 for up to 10 scalars and 32-64 points a side.

    Attributes:
        hidden: widths of the hidden layers, one number each.
        activation: the function that follows each hidden layer.
    """

    kind: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (256, 256)
    activation: Literal["gelu", "relu", "silu", "tanh"] = "gelu"

    capabilities: ClassVar[Capabilities] = Capabilities(domains=("grid", "mesh"))

    def build(self, schema: SampleSchema) -> nn.Module:
        """The network, with fresh weights.

        Raises:
            ValueError: the schema has nothing to learn from (see `mismatch`).
        """
        if reason := self.mismatch(schema):
            raise ValueError(reason)
        # torch takes seconds to import: those who only describe a network do not wait for it.
        from headrace.surrogates.models.mlp_network import Perceptron

        return Perceptron(schema, self.hidden, self.activation)

    def mismatch(self, schema: SampleSchema) -> str | None:
        """Why the schema leaves nothing to learn from, or None."""
        if reason := super().mismatch(schema):
            return reason
        if not schema.num_parameters and not schema.num_input_channels:
            return "mlp needs parameters or input fields, the samples have neither: all would be alike"
        return None

    def num_weights(self, schema: SampleSchema) -> int:
        """Those of all layers."""
        points = math.prod(schema.domain.shape)
        said = len(schema.times) * schema.num_output_channels * points
        widths = (schema.num_parameters + schema.num_input_channels * points, *self.hidden, said)
        return sum((before + 1) * after for before, after in itertools.pairwise(widths))
