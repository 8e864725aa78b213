"""SpectralConv: a convolution whose kernel is given by its lowest Fourier coefficients."""

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from headrace.surrogates.layers.modes import largest_modes

MOST_MODES_BY_MATRIX = 64
"""Of an only axis, on a CPU; beyond, an FFT is faster, whatever the number of points (measured from 64 to 4096)."""


class SpectralConv(nn.Module):
    """Multiplies the Fourier coefficients of all |k_i| < modes_i by a learned complex matrix and drops the others.

        y(x) = Σ_k  W_k  u_k  exp(2πi k·x),   u_k the Fourier coefficients of u    (Eq. 4-5 of Li et al., ICLR 2021)

    The field is real, so the last axis keeps k >= 0 only. The same weights act on a grid of any shape, odd or even; a
    grid too coarse for `modes` uses the frequencies that it resolves.

    Of an n-point axis only `modes` frequencies are wanted, so each axis is transformed by one multiplication with the
    rows of the DFT matrix (n x modes) instead of an FFT. Channels stay last, where matrix products want them. On one
    core, batch 16, width 32 (forward and backward of four layers), this is 1.6-2 times as fast as a pruned FFT: 182
    against 111 samples/s at 32 x 32 with 12 modes, 65 against 33 at 64 x 64 with 16. Of an only axis with more than 64
    modes the matrices are large, and an FFT is used: 3 times as fast with 256 modes of 1024 points.

    Weights are real tensors, so that `double()`, plain optimisers and `torch.load(weights_only=True)` work on them. The
    transforms run in float32 at least, also under autocast.

    Attributes:
        always_by_matrix: use no FFT, whatever it costs; set on what is exported to a format without complex numbers.
    """

    always_by_matrix = False

    def __init__(self, channels_in: int, channels_out: int, modes: Sequence[int]) -> None:
        """Draw small weights: a field with all its energy in the kept modes comes out a tenth as large.

        The spectral part then starts as a correction to the point-wise one it is added to, which trains better:
        relative L2 error .097 against .109 at full size (two-phase Darcy, 16 x 16, 12 epochs of 1000; a thirtieth does
        as well as a tenth).

        Args:
            channels_in: components of the field that comes in.
            channels_out: components of the field that goes out.
            modes: how many frequencies k = 0 .. modes - 1 to keep along each axis, with their negatives.
        """
        super().__init__()
        self.modes = tuple(modes)
        frequencies = (*(2 * m - 1 for m in self.modes[:-1]), self.modes[-1])
        # weight[k_1, ..., k_d, i, 0 or 1, o] is the real or imaginary part of W_k from channel i to channel o.
        self.weight = nn.Parameter(torch.empty(*frequencies, channels_in, 2, channels_out))
        nn.init.normal_(self.weight, std=0.1 / math.sqrt(2 * channels_in))

    def forward(self, field: Float[Tensor, "batch *grid channels_in"]) -> Float[Tensor, "batch *grid channels_out"]:
        """Convolve; every axis is taken as periodic."""
        compute = torch.promote_types(field.dtype, torch.float32)
        with torch.autocast(field.device.type, enabled=False):
            return self._convolve(field.to(compute), self.weight.to(compute)).to(field.dtype)

    def _convolve(self, field: Tensor, weight: Tensor) -> Tensor:
        batch, *points, channels_in = field.shape
        grid = [int(n) for n in points]  # tensors, while TorchScript traces
        is_large = len(grid) == 1 and self.modes[0] > MOST_MODES_BY_MATRIX
        if is_large and field.device.type == "cpu" and not self.always_by_matrix:
            return self._by_fft(field, weight)
        channels_out = weight.shape[-1]
        modes = [min(m, largest_modes(n)) for m, n in zip(self.modes, grid, strict=True)]
        frequencies = [*(2 * m - 1 for m in modes[:-1]), modes[-1]]
        pairs = [
            _dft(n, m, axis == len(grid) - 1, field.dtype, field.device)
            for axis, (n, m) in enumerate(zip(grid, modes, strict=True))
        ]
        total = math.prod(frequencies)

        # Last axis first: (..., n, c) -> (..., re|im, k, c). Every further axis then takes (n, re|im, rest) to
        # (re|im, k, rest): one matrix product on contiguous memory each, with nothing to permute in between.
        spectrum = torch.matmul(pairs[-1][0], field)
        rest = modes[-1] * channels_in
        for axis in range(len(grid) - 2, -1, -1):
            spectrum = torch.matmul(pairs[axis][0], spectrum.reshape(-1, 2 * grid[axis], rest))
            rest *= frequencies[axis]

        kept = _lowest(weight, self.modes, modes).reshape(total, channels_in, 2 * channels_out)
        real, imaginary = _multiplied(spectrum.reshape(batch, 2, total, channels_in).permute(2, 1, 0, 3), kept)
        spectrum = torch.stack([real.transpose(0, 1), imaginary.transpose(0, 1)], dim=1)

        rest = total * channels_out
        for axis in range(len(grid) - 1):
            rest //= frequencies[axis]
            spectrum = torch.matmul(pairs[axis][1], spectrum.reshape(-1, 2 * frequencies[axis], rest))
        return torch.matmul(pairs[-1][1], spectrum.reshape(batch, *grid[:-1], 2 * modes[-1], channels_out))

    def _by_fft(self, field: Tensor, weight: Tensor) -> Tensor:
        """The same on one axis, by a fast transform."""
        batch, n, channels_in = field.shape
        modes = min(self.modes[0], largest_modes(n))
        spectrum = torch.view_as_real(torch.fft.rfft(field, dim=1)[:, :modes]).permute(1, 3, 0, 2)
        kept = _lowest(weight, self.modes, [modes]).reshape(modes, channels_in, -1)
        real, imaginary = _multiplied(spectrum, kept)
        return torch.fft.irfft(torch.complex(real, imaginary).transpose(0, 1), n=n, dim=1)


def _multiplied(spectrum: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """(re + i im)(Wr + i Wi) for all k at once: rows [re; im] times columns [Wr | Wi], then combine.

    Args:
        spectrum: "k 2 batch channels_in", real and imaginary parts.
        weight: "k channels_in 2*channels_out", real parts and then imaginary ones.

    Returns:
        Real and imaginary parts, "k batch channels_out".
    """
    total, _, batch, channels_in = spectrum.shape
    products = torch.bmm(spectrum.reshape(total, 2 * batch, channels_in), weight).reshape(total, 2, batch, 2, -1)
    return products[:, 0, :, 0] - products[:, 1, :, 1], products[:, 0, :, 1] + products[:, 1, :, 0]


def _lowest(weight: Tensor, stored: Sequence[int], kept: Sequence[int]) -> Tensor:
    """The weights of |k_i| < kept_i, from those of |k_i| < stored_i."""
    for axis, (m, few) in enumerate(zip(stored, kept, strict=True)):
        if few == m:
            continue
        low = weight.narrow(axis, 0, few)
        if axis == len(stored) - 1:
            weight = low
        else:
            weight = torch.cat([low, weight.narrow(axis, 2 * m - few, few - 1)], dim=axis)
    return weight


@functools.lru_cache(maxsize=256)
def _dft(n: int, modes: int, is_last: bool, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Real matrices to the coefficients of |k| < modes of n points, and back.

    The last axis maps n real numbers to (re|im, modes) and back; another axis maps (n, re|im) to (re|im, 2 modes - 1)
    and back, its frequencies in the order 0 .. modes - 1, -(modes - 1) .. -1. The way back inverts the way there on the
    kept frequencies.
    """
    k = np.arange(modes) if is_last else np.concatenate([np.arange(modes), np.arange(1 - modes, 0)])
    # The phase is reduced in integers, so that it stays exact for any n and k.
    phase = 2 * np.pi / n * (np.outer(k, np.arange(n)) % n)
    cos, sin = np.cos(phase), np.sin(phase)
    if is_last:
        # A real field's coefficient at -k is the conjugate of that at k: it is counted by the factor 2.
        scale = np.where(k == 0, 1.0, 2.0)[:, None] / n
        forward = np.concatenate([cos, -sin])
        backward = np.concatenate([cos * scale, -sin * scale]).T
    else:
        # exp(-i phase) and exp(i phase) / n as 2 x 2 real blocks.
        forward = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)]).reshape(2 * len(k), 2 * n)
        backward = np.stack([np.stack([cos.T, -sin.T], 1), np.stack([sin.T, cos.T], 1)], 1) / n
        backward = backward.reshape(2 * n, 2 * len(k))
    # The cache outlives the call: a matrix made in inference mode could never be trained with.
    with torch.inference_mode(False):
        return torch.tensor(forward, dtype=dtype, device=device), torch.tensor(backward, dtype=dtype, device=device)
