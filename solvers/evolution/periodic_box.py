"""PeriodicBox: Fourier space on a periodic box in one to three dimensions, batched in torch."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial

import torch
from jaxtyping import Complex, Float, Shaped
from torch import Tensor

from headrace.solvers.evolution import periodic_box_kernels as kernels

# The values of a row are a multiple of this, which all vector units divide. What is left over at the end of an array is
# multiplied by other instructions, that may round otherwise; and whose it is would depend on the batch.
_ROW = 8


class PeriodicBox:
    """Wave numbers, transforms and derivatives of real fields "..." on a periodic box.

    Transforms are real: the last axis of a spectrum holds half of it, and a few values after that, which are 0 and fill
    the row up. Of an even number of points the highest wave number has no sign, and its odd derivatives are taken as 0.

    A box for products of `degree` fields has spectra of those waves alone that the products do not falsify when the
    others are left out: of n points the waves up to m < n / (degree + 1) alias nothing onto themselves (Orszag 1971).
    That is 4/9 of a two-dimensional spectrum for products of two. Along each axis come the wave numbers 0 to m, then,
    but for the last axis, -m to -1. The others are 0 where a field is made, and are dropped from what is transformed.

    Every transform is one along a row, of as many rows as there are, so that a field comes to the same whatever fields
    come with it, on a CPU to the last bit. In two dimensions what lies between the transforms of such a box is compiled
    for a CPU, where otherwise a small batch would wait for calls into torch more than for transforms.

    Args:
        shape: points of each axis.
        extent: length of each axis [m or 1].
        degree: how many fields are multiplied at the points; None for spectra of all waves.
        device: where tensors live.
        dtype: of the fields; float64 or float32.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        extent: tuple[float, ...],
        *,
        degree: int | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.shape, self.extent = shape, extent
        self.device, self.dtype = torch.device(device), dtype
        self._axes = tuple(range(-len(shape), 0))
        # The largest wave number below n / (degree + 1).
        self._largest = None if degree is None else tuple(math.ceil(n / (degree + 1.0) - 1e-9) - 1 for n in shape)
        self._half = shape[-1] // 2 + 1 if self._largest is None else self._largest[-1] + 1
        self._row = _ROW * math.ceil(self._half / _ROW)
        self._is_compiled = self._largest is not None and len(shape) == 2 and self.device.type == "cpu"
        self._buffers: dict[tuple[int, ...], tuple[Tensor, tuple[Tensor, ...]]] = {}

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def num_waves(self) -> int:
        """Of the last axis, without what fills a row up."""
        return self._half

    @property
    def spectrum_shape(self) -> tuple[int, ...]:
        """Of the spectrum of one field."""
        if self._largest is None:
            return (*self.shape[:-1], self._row)
        return (*(2 * m + 1 for m in self._largest[:-1]), self._row)

    @cached_property
    def wave_numbers(self) -> tuple[Float[Tensor, "..."], ...]:
        """K of each axis [1/m or 1], shaped to broadcast over a spectrum."""
        found = []
        for axis, (points, length) in enumerate(zip(self.shape, self.extent, strict=True)):
            is_last = axis == self.dim - 1
            if is_last:
                number = torch.arange(self._row)
            elif self._largest is not None:
                m = self._largest[axis]
                number = torch.cat([torch.arange(m + 1), torch.arange(-m, 0)])
            else:
                number = torch.fft.fftfreq(points, 1.0 / points, dtype=self.dtype)
            k = (2.0 * math.pi / length) * number.to(self.device, self.dtype)
            found.append(k.reshape(tuple(-1 if other == axis else 1 for other in range(self.dim))))
        return tuple(found)

    @cached_property
    def derivatives(self) -> tuple[Complex[Tensor, "..."], ...]:
        """I k of each axis, 0 where the wave number has no sign."""
        found = []
        for axis, (k, points) in enumerate(zip(self.wave_numbers, self.shape, strict=True)):
            signed = k.clone()
            if points % 2 == 0 and self._largest is None:
                signed.select(axis, points // 2).zero_()
            found.append(1j * signed)
        return tuple(found)

    @cached_property
    def laplacian(self) -> Float[Tensor, "*spectrum"]:
        """-|k|²."""
        return -sum((k**2 for k in self.wave_numbers), start=torch.zeros((), dtype=self.dtype, device=self.device))

    @cached_property
    def _plane(self) -> "_Plane":
        (num_x, num_y), (m_x, m_y) = self.shape, self._largest or (0, 0)
        return _Plane((num_x, num_y), (2 * m_x + 1, m_y + 1), self._row)

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

    def forward(self, field: Float[Tensor, "..."]) -> Complex[Tensor, "..."]:
        """The spectrum of a real field."""
        if self._is_compiled:
            return self._plane.forward(field)
        spectrum = _along_rows(torch.fft.rfft, field)
        if self._largest is None:
            for axis in self._axes[-2::-1]:
                spectrum = _along(torch.fft.fft, spectrum, axis)
            return torch.nn.functional.pad(spectrum, (0, self._row - self._half))
        # What an axis drops is not transformed along the next.
        spectrum = spectrum.narrow(-1, 0, self._half)
        for axis in self._axes[-2::-1]:
            spectrum = _along(torch.fft.fft, spectrum, axis)
            if axis != self._axes[0]:
                spectrum = torch.cat(self._of_all(spectrum, axis), dim=axis)
        found = spectrum.new_empty((*spectrum.shape[: -self.dim], *self.spectrum_shape))
        inside, beyond = found.split((self._half, self._row - self._half), dim=-1)
        beyond.zero_()
        first = self._axes[0]
        for part, here in zip(self._of_all(spectrum, first), self._of_kept(inside, first), strict=True):
            here.copy_(part)
        return found

    def backward(self, spectrum: Complex[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The real field of a spectrum."""
        if self._is_compiled:
            return self._plane.backward(spectrum)
        spectrum = spectrum.narrow(-1, 0, self._half)
        if self._largest is None:
            for axis in self._axes[:-1]:
                spectrum = _along(torch.fft.ifft, spectrum, axis)
        else:
            for axis in self._axes[:-1]:
                spectrum = _along(torch.fft.ifft, self._padded(spectrum, axis), axis)
            spectrum = self._padded(spectrum, -1)
        return _along_rows(partial(torch.fft.irfft, n=self.shape[-1]), spectrum)

    def _of_all(self, spectrum: Complex[Tensor, "..."], axis: int) -> tuple[Tensor, ...]:
        """The parts of a spectrum with all waves of an axis that are left."""
        assert self._largest is not None
        m = self._largest[axis]
        if axis == -1:
            return (spectrum.narrow(-1, 0, m + 1),)
        return tuple(spectrum.split((m + 1, self.shape[axis] - 2 * m - 1, m), dim=axis)[::2])

    def _of_kept(self, spectrum: Complex[Tensor, "..."], axis: int) -> tuple[Tensor, ...]:
        """The same parts of a spectrum that holds nothing else."""
        assert self._largest is not None
        m = self._largest[axis]
        return (spectrum,) if axis == -1 else tuple(spectrum.split((m + 1, m), dim=axis))

    def _padded(self, spectrum: Complex[Tensor, "..."], axis: int) -> Complex[Tensor, "..."]:
        """The spectrum with zeros for the waves that are left out along an axis; good until the next call."""
        key = (axis, *spectrum.shape)
        if key not in self._buffers:
            shape = list(spectrum.shape)
            shape[axis] = self.shape[axis] // 2 + 1 if axis == -1 else self.shape[axis]
            # The axis that is transformed comes last in memory.
            shape.append(shape.pop(axis))
            zeros = torch.zeros(shape, dtype=spectrum.dtype, device=spectrum.device).movedim(-1, axis)
            self._buffers[key] = zeros, self._of_all(zeros, axis)
        # The zeros between stay what they are: only the others are written, again and again.
        buffer, parts = self._buffers[key]
        for part, here in zip(parts, self._of_kept(spectrum, axis), strict=True):
            part.copy_(here)
        return buffer


class _Plane:
    """Transforms of a plane whose spectra hold kept waves, compiled for a CPU between the transforms of the two axes.

    Args:
        shape: points of both axes.
        kept: waves of both axes that are kept.
        row: values that a row of a spectrum is filled up to.
    """

    def __init__(self, shape: tuple[int, int], kept: tuple[int, int], row: int) -> None:
        (self._num_x, self._num_y), (self._kept_x, self._kept_y), self._row = shape, kept, row
        self._scale = 1.0 / (self._num_x * self._num_y)
        self._rooms: dict[tuple[int, torch.dtype], tuple[Tensor, kernels.Turned, Tensor, kernels.Halves]] = {}

    def forward(self, field: Float[Tensor, "... points_x points_y"]) -> Complex[Tensor, "... kept_x row"]:
        """The spectrum of a real field."""
        halves = torch.fft.rfft(field.contiguous())
        rows = halves.numpy()
        turned, turned_rows, _, half_rows = self._room(halves.dtype, rows.size // (rows.shape[-1] * self._num_x))
        kernels.turn(rows.reshape(half_rows.shape), turned_rows)
        kept = torch.empty((*rows.shape[:-2], self._kept_x, self._row), dtype=halves.dtype)
        kernels.keep(torch.fft.fft(turned).numpy(), kept.numpy().reshape(-1, self._kept_x, self._row))
        return kept

    def backward(self, spectrum: Complex[Tensor, "... kept_x row"]) -> Float[Tensor, "... points_x points_y"]:
        """The real field of a spectrum."""
        # A real one is one, too, and a conjugate may not have been written yet.
        spectrum = spectrum.resolve_conj() if spectrum.is_complex() else torch.complex(spectrum, spectrum.new_zeros(()))
        kept = spectrum.numpy()
        turned, turned_rows, halves, half_rows = self._room(spectrum.dtype, kept.size // (self._kept_x * self._row))
        # Scaled here, where all values are touched anyway, and not after both transforms.
        kernels.pad(kept.reshape(-1, self._kept_x, self._row), self._scale, turned_rows)
        kernels.turn_back(torch.fft.ifft(turned, norm="forward").numpy(), half_rows)
        field = torch.fft.irfft(halves, n=self._num_y, norm="forward")
        return field.view(*kept.shape[:-2], self._num_x, self._num_y)

    def _room(self, dtype: torch.dtype, count: int) -> tuple[Tensor, kernels.Turned, Tensor, kernels.Halves]:
        """Room for "fields kept_y points_x" and "fields points_x half_y", each as a tensor and as an array of it."""
        key = (count, dtype)
        if key not in self._rooms:
            turned = torch.empty((count, self._kept_y, self._num_x), dtype=dtype)
            halves = torch.empty((count, self._num_x, self._num_y // 2 + 1), dtype=dtype)
            self._rooms[key] = turned, turned.numpy(), halves, halves.numpy()
        return self._rooms[key]


def _along(transform: Callable[[Tensor], Tensor], field: Shaped[Tensor, "..."], axis: int) -> Shaped[Tensor, "..."]:
    """Transform along an axis, for which it is moved to the end, in memory too."""
    return _along_rows(transform, field.movedim(axis, -1)).movedim(-1, axis)


def _along_rows(transform: Callable[[Tensor], Tensor], rows: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """Transform along the last axis.

    Of rows that lie behind each other, two or more, the library transforms each in the same way. Of a single one, or
    of rows that do not, it may take another way, and end in other last bits.
    """
    rows = rows.contiguous()
    return transform(rows) if rows.numel() > rows.shape[-1] else transform(torch.stack([rows, rows]))[0]
