"""PeriodicBox: Fourier space on a periodic box in one to three dimensions, batched in torch."""

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Complex, Float, Shaped
from torch import Tensor


class PeriodicBox:
    """Wave numbers, transforms and derivatives of real fields "..." on a periodic box.

    Transforms are real: the last axis of a spectrum holds half of it. Of an even number of points the highest wave
    number has no sign, and its odd derivatives are taken as 0.

    Args:
        shape: points of each axis.
        extent: length of each axis [m or 1].
        device: where tensors live.
        dtype: of the fields; float64 or float32.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        extent: tuple[float, ...],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.shape, self.extent = shape, extent
        self.device, self.dtype = torch.device(device), dtype
        self._axes = tuple(range(-len(shape), 0))

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def spectrum_shape(self) -> tuple[int, ...]:
        """Of the spectrum of one field."""
        return (*self.shape[:-1], self.shape[-1] // 2 + 1)

    @cached_property
    def wave_numbers(self) -> tuple[Float[Tensor, "..."], ...]:
        """K of each axis [1/m or 1], shaped to broadcast over a spectrum."""
        found = []
        for axis, (points, length) in enumerate(zip(self.shape, self.extent, strict=True)):
            frequencies = torch.fft.rfftfreq if axis == self.dim - 1 else torch.fft.fftfreq
            k = (2.0 * math.pi * points / length) * frequencies(points, dtype=self.dtype, device=self.device)
            found.append(k.reshape(tuple(-1 if other == axis else 1 for other in range(self.dim))))
        return tuple(found)

    @cached_property
    def derivatives(self) -> tuple[Complex[Tensor, "..."], ...]:
        """I k of each axis, 0 where the wave number has no sign."""
        found = []
        for axis, (k, points) in enumerate(zip(self.wave_numbers, self.shape, strict=True)):
            signed = k.clone()
            if points % 2 == 0:
                signed.select(axis, points // 2).zero_()
            found.append(1j * signed)
        return tuple(found)

    @cached_property
    def laplacian(self) -> Float[Tensor, "*spectrum"]:
        """-|k|²."""
        return -sum((k**2 for k in self.wave_numbers), start=torch.zeros((), dtype=self.dtype, device=self.device))

    @property
    def num_points(self) -> int:
        """Of the whole box."""
        return math.prod(self.shape)

    @cached_property
    def coordinates(self) -> tuple[Float[Tensor, "..."], ...]:
        """The coordinate along each axis, shaped to broadcast over a field."""
        found = []
        for axis, (points, length) in enumerate(zip(self.shape, self.extent, strict=True)):
            x = torch.arange(points, dtype=self.dtype, device=self.device) * (length / points)
            found.append(x.reshape(tuple(-1 if other == axis else 1 for other in range(self.dim))))
        return tuple(found)

    def stack_components(self, parts: Sequence[Shaped[Tensor, "..."]]) -> Shaped[Tensor, "batch components ..."]:
        """Fields or spectra of one component each, "batch 1 ..." or without the first two axes, as one tensor."""
        parts = [part if part.ndim == self.dim + 2 else part[None, None] for part in parts]
        batch = max(part.shape[0] for part in parts)
        return torch.cat([part.expand(batch, *part.shape[1:]) for part in parts], dim=1)

    def kept(self, degree: int) -> Float[Tensor, "*spectrum"]:
        """1 for the wave numbers that a product of `degree` fields does not falsify when the others are left out.

        Of n points, waves up to m < n / (degree + 1) alias nothing onto themselves: two thirds of the spectrum for a
        product of two (Orszag 1971), half of it for a product of three.
        """
        mask = torch.ones((), dtype=self.dtype, device=self.device)
        for k, points, length in zip(self.wave_numbers, self.shape, self.extent, strict=True):
            mask = mask * (k.abs() * (length / (2.0 * math.pi)) < points / (degree + 1.0) - 1e-9)
        return mask

    def forward(self, field: Float[Tensor, "..."]) -> Complex[Tensor, "..."]:
        """The spectrum of a real field."""
        return torch.fft.rfftn(field, dim=self._axes)

    def backward(self, spectrum: Complex[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The real field of a spectrum."""
        return torch.fft.irfftn(spectrum, s=self.shape, dim=self._axes)
