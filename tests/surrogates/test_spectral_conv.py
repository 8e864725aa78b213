"""SpectralConv against exact fields and against a plain FFT."""

import itertools
import math

import numpy as np
import pytest
import torch

from headrace.surrogates.layers.modes import largest_modes
from headrace.surrogates.layers.spectral_conv import SpectralConv

# Sums of some hundred terms of order 1 in float64, through two transforms.
EXACT = 1e-12


def identity(channels: int, modes: tuple[int, ...]) -> SpectralConv:
    conv = SpectralConv(channels, channels, modes).double()
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[..., 0, :] = torch.eye(channels, dtype=torch.float64)
    return conv


def wave(shape: tuple[int, ...], frequency: tuple[int, ...], phase: float = 0.7) -> torch.Tensor:
    """cos(2 pi k.x + phase) on the points of the unit box, "1 *grid 1"."""
    x = np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij")
    angle = 2 * math.pi * sum(k * axis for k, axis in zip(frequency, x, strict=True)) + phase
    return torch.from_numpy(np.cos(angle))[None, ..., None]


def by_fft(conv: SpectralConv, field: torch.Tensor) -> torch.Tensor:
    """The same operator written down plainly: the full complex FFT, one frequency after the other."""
    axes = tuple(range(1, field.ndim - 1))
    spectrum = torch.fft.fftn(field, dim=axes)
    result = torch.zeros(*field.shape[:-1], conv.weight.shape[-1], dtype=spectrum.dtype)
    weight = torch.complex(conv.weight[..., 0, :], conv.weight[..., 1, :])
    for k in itertools.product(*(range(1 - m, m) for m in conv.modes[:-1]), range(conv.modes[-1])):
        if any(2 * abs(ki) >= n for ki, n in zip(k, field.shape[1:-1], strict=True)):
            continue
        place = (slice(None), *k)
        # For k_d > 0 the frequency -k holds the conjugate; adding it is taking twice the real part.
        result[place] += (1 if k[-1] == 0 else 2) * (spectrum[place] @ weight[k])
    return torch.fft.ifftn(result, dim=axes).real


@pytest.mark.parametrize(
    "shape", [(15,), (16,), (85,), (151,), (256,), (15, 15), (16, 16), (85, 16), (16, 85), (7, 8, 9)]
)
def test_identity_weights_reproduce_every_frequency_that_the_grid_resolves(shape: tuple[int, ...]) -> None:
    modes = tuple(largest_modes(n) for n in shape)
    conv = identity(1, modes)
    rng = np.random.default_rng(0)
    for corner in [tuple(m - 1 for m in modes), tuple(1 - m for m in modes), tuple(0 for _ in modes)]:
        field = wave(shape, corner)
        assert (conv(field) - field).abs().max() < EXACT
    frequencies = [tuple(int(rng.integers(1 - m, m)) for m in modes) for _ in range(8)]
    field = sum(wave(shape, k, phase=i) for i, k in enumerate(frequencies))
    assert (conv(field) - field).abs().max() < EXACT


def test_frequencies_beyond_the_modes_are_dropped() -> None:
    conv = identity(1, (3, 4))
    kept, dropped = wave((16, 15), (-2, 3)), wave((16, 15), (3, 1)) + wave((16, 15), (1, 4))
    assert (conv(kept + dropped) - kept).abs().max() < EXACT


@pytest.mark.parametrize(
    ("shape", "modes"),
    [
        ((15,), (5,)),
        ((300,), (65,)),
        ((199,), (100,)),
        ((64,), (100,)),
        ((16, 15), (4, 6)),
        ((9, 16), (5, 8)),
        ((6, 7, 8), (3, 2, 4)),
    ],
)
def test_agrees_with_a_plain_fft(shape: tuple[int, ...], modes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    conv = SpectralConv(3, 2, modes).double()
    field = torch.randn(2, *shape, 3, dtype=torch.float64)
    assert torch.allclose(conv(field), by_fft(conv, field), rtol=0, atol=EXACT)


@pytest.mark.parametrize("shape", [(5, 5), (4, 16), (6, 3)])
def test_a_coarser_grid_uses_the_frequencies_that_it_resolves(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    conv = SpectralConv(2, 2, (6, 6)).double()
    field = torch.randn(1, *shape, 2, dtype=torch.float64)
    assert torch.allclose(conv(field), by_fft(conv, field), rtol=0, atol=EXACT)


def test_the_same_weights_give_the_same_function_on_every_grid() -> None:
    torch.manual_seed(0)
    conv = SpectralConv(1, 1, (4, 4)).double()
    on = {n: conv(wave((n, n), (2, -3)) + wave((n, n), (0, 1))) for n in (10, 20, 15, 45)}
    assert torch.allclose(on[10], on[20][:, ::2, ::2], atol=EXACT)
    assert torch.allclose(on[15], on[45][:, ::3, ::3], atol=EXACT)


def test_commutes_with_translations() -> None:
    torch.manual_seed(0)
    conv = SpectralConv(2, 2, (4, 3)).double()
    field = torch.randn(1, 9, 8, 2, dtype=torch.float64)
    assert torch.allclose(conv(field.roll((2, 3), (1, 2))), conv(field).roll((2, 3), (1, 2)), atol=EXACT)


@pytest.mark.parametrize(("shape", "modes"), [((3, 4), (2, 2)), ((7,), (65,)), ((8,), (65,))])
def test_gradients_agree_with_differences(shape: tuple[int, ...], modes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    conv = SpectralConv(2, 1, modes).double()
    field = torch.randn(1, *shape, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda f, w: torch.func.functional_call(conv, {"weight": w}, (f,)), (field, conv.weight)
    )


def test_weights_are_real_and_the_precision_is_at_least_single() -> None:
    conv = SpectralConv(1, 1, (4,))
    assert [p.dtype for p in conv.parameters()] == [torch.float32]
    field = wave((16,), (3,))
    exact = conv.double()(field)
    assert conv.float()(field.float()).dtype == torch.float32
    half = conv.to(torch.bfloat16)(field.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits: weights, input and output are each rounded once to 2^-9, the transforms add nothing.
    assert (half.double() - exact).abs().max() < 4 * 2**-9 * exact.abs().max()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = conv.float()(field.float())
    assert under_autocast.dtype == torch.float32


def test_trains_after_it_ran_in_inference_mode() -> None:
    conv = SpectralConv(1, 1, (3,))
    # A size that no other test has cached.
    field = torch.randn(1, 23, 1)
    with torch.inference_mode():
        conv(field)
    conv(field).sum().backward()
    assert conv.weight.grad is not None and conv.weight.grad.abs().sum() > 0


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu() -> None:
    torch.manual_seed(0)
    conv = SpectralConv(3, 3, (5, 6)).double()
    field = torch.randn(2, 15, 16, 3, dtype=torch.float64)
    assert torch.allclose(conv.cuda()(field.cuda()).cpu(), conv.cpu()(field), atol=EXACT)
