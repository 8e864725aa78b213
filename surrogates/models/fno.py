"""FNO: the Fourier neural operator."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from headrace.platform.fields import SampleSchema, require_grid
from headrace.platform.lazy_torch import nn
from headrace.platform.spec import Count
from headrace.surrogates.capabilities import Capabilities
from headrace.surrogates.layers.modes import appended, largest_modes
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
        layers: number of Fourier layers.
        projection_width: hidden channels of Q.
        padding: zeros appended to every non-periodic axis, as a share of its points, so that its ends do not meet.
    """

    kind: Literal["fno"] = "fno"
    modes: Count | tuple[Count, ...] = 12
    width: Count = 32
    layers: Count = 4
    projection_width: Count = 64
    padding: float = Field(default=0.0, ge=0, le=1)

    capabilities: ClassVar[Capabilities] = Capabilities(resolution="free")

    def build(self, schema: SampleSchema) -> nn.Module:
        """The network, with fresh weights.

        Raises:
            ValueError: the schema's grid cannot carry the modes (see `mismatch`).
        """
        if reason := self.mismatch(schema):
            raise ValueError(reason)
        # torch takes seconds to import: those who only describe a network do not wait for it.
        from headrace.surrogates.models.fno_network import FourierOperator

        return FourierOperator(
            schema,
            require_grid(schema.domain),
            modes=self._modes(len(schema.domain.shape)),
            width=self.width,
            layers=self.layers,
            projection_width=self.projection_width,
            padding=self.padding,
        )

    def mismatch(self, schema: SampleSchema) -> str | None:
        """Why this is no problem for it, or the modes do not fit the schema's grid; or None."""
        if reason := super().mismatch(schema):
            return reason
        domain = require_grid(schema.domain)
        shape = domain.shape
        if isinstance(self.modes, tuple) and len(self.modes) != len(shape):
            return f"modes has {len(self.modes)} entries, the grid {_times(shape)} has {len(shape)} axes"
        extra = appended(self.padding, shape, domain.periodic)
        padded = [n + more for n, more in zip(shape, extra, strict=True)]
        for axis, (modes, n) in enumerate(zip(self._modes(len(shape)), padded, strict=True)):
            if modes > largest_modes(n):
                return (
                    f"modes {modes} is too large for axis {axis} of a {_times(shape)} grid: the largest that fits is "
                    f"{largest_modes(n if isinstance(self.modes, tuple) else min(padded))}, half the points"
                )
        return None

    def num_weights(self, schema: SampleSchema) -> int:
        """Those of the lift, of the Fourier layers with what is linear at each point, and of the projection."""
        domain = require_grid(schema.domain)
        *others, last = self._modes(len(domain.shape))
        given = schema.num_input_channels + 1 + sum(not wraps for wraps in domain.periodic) + schema.num_parameters
        layer = 2 * math.prod(2 * modes - 1 for modes in others) * last * self.width**2 + (self.width + 1) * self.width
        said = len(schema.times) * schema.num_output_channels
        project = (self.width + 1) * self.projection_width + (self.projection_width + 1) * said
        return given * self.width + self.layers * layer + project

    def _modes(self, num_axes: int) -> tuple[int, ...]:
        return self.modes if isinstance(self.modes, tuple) else (self.modes,) * num_axes


def _times(shape: Sequence[int]) -> str:
    return "x".join(str(n) for n in shape)
