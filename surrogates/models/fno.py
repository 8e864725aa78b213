"""FNO: the Fourier neural operator."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from headrace.platform.fields import Grid, SampleSchema, require_grid
from headrace.surrogates.capabilities import Capabilities
from headrace.surrogates.layers.spectral_conv import SpectralConv, largest_modes
from headrace.surrogates.query import NOTHING, Query
from headrace.surrogates.surrogate import AbstractSurrogate


class FNO(AbstractSurrogate):
    """Fourier neural operator of Li et al. (ICLR 2021): lift, Fourier layers, project.

        v_0 = P(a, x, p);    v_{l+1} = gelu(K_l v_l + W_l v_l);    u = Q(v_L)

    with K_l a `SpectralConv`, W_l and P linear at each point and Q a two-layer perceptron; the last layer has no gelu.
    Where we differ: the positions x are given along non-periodic axes only, so on a periodic box the network commutes
    with translations; the scalars p join the lift as channels that are constant in space; and |k| < modes is kept on
    every axis, where the paper's code also keeps k = -modes on all but the last.

    Good values: width 32 and 12 modes for a 2-D problem on 32-64 points a side.

    Attributes:
        modes: frequencies |k| < modes are kept, per axis or the same for all; at most half the points of an axis.
        width: channels of the hidden fields.
        layers: Fourier layers.
        projection_width: hidden channels of Q.
        padding: zeros appended to every non-periodic axis, as a share of its points, so that its ends do not meet.
    """

    kind: Literal["fno"] = "fno"
    modes: PositiveInt | tuple[PositiveInt, ...] = 12
    width: PositiveInt = 32
    layers: PositiveInt = 4
    projection_width: PositiveInt = 64
    padding: float = Field(default=0.0, ge=0, le=1)

    capabilities: ClassVar[Capabilities] = Capabilities(resolution="free")

    def build(self, schema: SampleSchema) -> nn.Module:
        """The network, with fresh weights.

        Raises:
            ValueError: the schema's grid cannot carry the modes (see `mismatch`).
        """
        if reason := self.mismatch(schema):
            raise ValueError(reason)
        return _FourierOperator(self, schema, require_grid(schema.domain), self._modes(len(schema.domain.shape)))

    def mismatch(self, schema: SampleSchema) -> str | None:
        """Why this is no problem for it, or the modes do not fit the schema's grid; or None."""
        if reason := super().mismatch(schema):
            return reason
        domain = require_grid(schema.domain)
        shape = domain.shape
        if isinstance(self.modes, tuple) and len(self.modes) != len(shape):
            return f"modes has {len(self.modes)} entries, the grid {_times(shape)} has {len(shape)} axes"
        extra = _padding(self.padding, shape, domain.periodic)
        padded = [n + more for n, more in zip(shape, extra, strict=True)]
        for axis, (modes, n) in enumerate(zip(self._modes(len(shape)), padded, strict=True)):
            if modes > largest_modes(n):
                return (
                    f"modes {modes} is too large for axis {axis} of a {_times(shape)} grid: the largest that fits is "
                    f"{largest_modes(n if isinstance(self.modes, tuple) else min(padded))}, half the points"
                )
        return None

    def _modes(self, num_axes: int) -> tuple[int, ...]:
        return self.modes if isinstance(self.modes, tuple) else (self.modes,) * num_axes


class _FourierOperator(nn.Module):
    """The network of `FNO`. Inside, fields are channels-last: "batch *grid width"."""

    def __init__(self, spec: FNO, schema: SampleSchema, domain: Grid, modes: tuple[int, ...]) -> None:
        super().__init__()
        self.domain = domain
        self.outputs = (len(schema.times), schema.num_output_channels)
        self.padding = spec.padding
        num_positions = sum(not wraps for wraps in domain.periodic)
        # Linear in the concatenation (inputs, positions, parameters), but each part is broadcast after its product.
        self.lift = nn.Linear(schema.num_input_channels, spec.width)
        self.lift_positions = nn.Linear(num_positions, spec.width, bias=False) if num_positions else None
        num_parameters = schema.num_parameters
        self.lift_parameters = nn.Linear(num_parameters, spec.width, bias=False) if num_parameters else None
        self.spectral = nn.ModuleList(SpectralConv(spec.width, spec.width, modes) for _ in range(spec.layers))
        self.pointwise = nn.ModuleList(nn.Linear(spec.width, spec.width) for _ in range(spec.layers))
        self.project = nn.Sequential(
            nn.Linear(spec.width, spec.projection_width),
            nn.GELU(),
            nn.Linear(spec.projection_width, self.outputs[0] * self.outputs[1]),
        )

    def forward(
        self,
        inputs: Float[Tensor, "batch channels_in *grid"],
        parameters: Float[Tensor, "batch num_parameters"],
        query: Query = NOTHING,
    ) -> Float[Tensor, "batch time channels_out *grid"]:
        """Predict all output times at once."""
        batch, _, *grid = inputs.shape
        v = self.lift(inputs.movedim(1, -1))
        if self.lift_positions is not None:
            v = v + self.lift_positions(_positions(self.domain, grid, v.device).to(v.dtype))
        if self.lift_parameters is not None:
            v = v + self.lift_parameters(parameters).reshape(batch, *(1 for _ in grid), -1)

        extra = _padding(self.padding, grid, self.domain.periodic)
        if any(extra):
            v = functional.pad(v, (0, 0, *(end for n in reversed(extra) for end in (0, n))))
        for layer, (spectral, pointwise) in enumerate(zip(self.spectral, self.pointwise, strict=True)):
            v = spectral(v) + pointwise(v)
            if layer < len(self.spectral) - 1:
                v = functional.gelu(v)
        if any(extra):
            v = v[(slice(None), *(slice(n) for n in grid))]
        return self.project(v).movedim(-1, 1).reshape(batch, *self.outputs, *grid)


def _times(shape: Sequence[int]) -> str:
    return "x".join(str(n) for n in shape)


def _padding(share: float, shape: Sequence[int], periodic: Sequence[bool]) -> list[int]:
    """Points to append along each axis."""
    return [0 if wraps else round(share * n) for n, wraps in zip(shape, periodic, strict=True)]


def _positions(domain: Grid, shape: Sequence[int], device: torch.device) -> Float[Tensor, "*grid axes"]:
    """Coordinates in [0, 1] along the non-periodic axes, on a grid of any shape."""
    offset, shrink = (0.0, 1) if domain.location == "nodes" else (0.5, 0)
    axes = [(torch.arange(n, device=device) + offset) / max(n - shrink, 1) for n in shape]
    mesh = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x for x, wraps in zip(mesh, domain.periodic, strict=True) if not wraps], dim=-1)
