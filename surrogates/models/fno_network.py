"""The network of `FNO`."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from headrace.platform.fields import Grid, SampleSchema
from headrace.surrogates.layers.modes import appended
from headrace.surrogates.layers.spectral_conv import SpectralConv
from headrace.surrogates.query import NOTHING, Query


class FourierOperator(nn.Module):
    """The network of `FNO`. Inside, fields are channels-last: "batch *grid width"."""

    def __init__(
        self,
        schema: SampleSchema,
        domain: Grid,
        *,
        modes: tuple[int, ...],
        width: int,
        layers: int,
        projection_width: int,
        padding: float,
    ) -> None:
        super().__init__()
        self.domain = domain
        self.outputs = (len(schema.times), schema.num_output_channels)
        self.padding = padding
        num_positions = sum(not wraps for wraps in domain.periodic)
        # Linear in the concatenation (inputs, positions, parameters), but each part is broadcast after its product.
        self.lift = nn.Linear(schema.num_input_channels, width)
        self.lift_positions = nn.Linear(num_positions, width, bias=False) if num_positions else None
        num_parameters = schema.num_parameters
        self.lift_parameters = nn.Linear(num_parameters, width, bias=False) if num_parameters else None
        self.spectral = nn.ModuleList(SpectralConv(width, width, modes) for _ in range(layers))
        self.pointwise = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.project = nn.Sequential(
            nn.Linear(width, projection_width),
            nn.GELU(),
            nn.Linear(projection_width, self.outputs[0] * self.outputs[1]),
        )

    def forward(
        self,
        inputs: Float[Tensor, "batch channels_in *grid"],
        parameters: Float[Tensor, "batch num_parameters"],
        query: Query = NOTHING,
    ) -> Float[Tensor, "batch time channels_out *grid"]:
        """Predict all output times at once."""
        batch, _, *points = inputs.shape
        grid = [int(n) for n in points]  # tensors, while TorchScript traces
        v = self.lift(inputs.movedim(1, -1))
        if self.lift_positions is not None:
            v = v + self.lift_positions(_positions(self.domain, grid, v.device).to(v.dtype))
        if self.lift_parameters is not None:
            v = v + self.lift_parameters(parameters).reshape(batch, *(1 for _ in grid), -1)

        extra = appended(self.padding, grid, self.domain.periodic)
        if any(extra):
            v = functional.pad(v, (0, 0, *(end for n in reversed(extra) for end in (0, n))))
        for layer, (spectral, pointwise) in enumerate(zip(self.spectral, self.pointwise, strict=True)):
            v = spectral(v) + pointwise(v)
            if layer < len(self.spectral) - 1:
                v = functional.gelu(v)
        if any(extra):
            v = v[(slice(None), *(slice(n) for n in grid))]
        return self.project(v).movedim(-1, 1).reshape(batch, *self.outputs, *grid)


def _positions(domain: Grid, shape: Sequence[int], device: torch.device) -> Float[Tensor, "*grid axes"]:
    """Coordinates in [0, 1] along the non-periodic axes, on a grid of any shape."""
    offset, shrink = (0.0, 1) if domain.location == "nodes" else (0.5, 0)
    axes = [(torch.arange(n, device=device) + offset) / max(n - shrink, 1) for n in shape]
    mesh = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x for x, wraps in zip(mesh, domain.periodic, strict=True) if not wraps], dim=-1)
