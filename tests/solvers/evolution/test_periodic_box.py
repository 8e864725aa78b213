"""A box whose spectra hold only the waves that products leave true, against one whose spectra hold all."""

import numpy as np
import pytest
import torch
from torch import Tensor

from headrace.solvers.evolution.periodic_box import PeriodicBox


def all_waves(box: PeriodicBox, spectrum: Tensor, whole: PeriodicBox) -> Tensor:
    """A spectrum of kept waves among zeros, put together wave by wave."""
    found = torch.zeros((*spectrum.shape[: -box.dim], *whole.spectrum_shape), dtype=spectrum.dtype)
    numbers = [
        np.rint(k.flatten().numpy() * length / (2.0 * np.pi)).astype(int)
        for k, length in zip(box.wave_numbers, box.extent, strict=True)
    ]
    for place in np.ndindex(*box.spectrum_shape):
        wave = tuple(int(along[i]) for along, i in zip(numbers, place, strict=True))
        if all(abs(k) < n / 3.0 for k, n in zip(wave, box.shape, strict=True)):
            found[(..., *wave)] = spectrum[(..., *place)]  # a negative number counts from the end
        else:
            assert not spectrum[(..., *place)].any(), "what fills up a row is 0"
    return found


@pytest.mark.parametrize("shape", [(16,), (9,), (24,), (8, 16), (16, 15), (12, 9, 10)])
def test_kept_waves_are_those_below_a_third_of_the_points(shape: tuple[int, ...]) -> None:
    extent = tuple(1.0 + 0.5 * axis for axis in range(len(shape)))
    box, whole = PeriodicBox(shape, extent, degree=2), PeriodicBox(shape, extent)
    field = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 2, *shape)))
    full = whole.forward(field)
    mask = torch.ones(())
    for k, n, length in zip(whole.wave_numbers, shape, extent, strict=True):
        mask = mask * (k.abs() * length / (2.0 * np.pi) < n / 3.0 - 1e-9)
    assert box.spectrum_shape[-1] % 8 == 0
    kept = box.forward(field)
    torch.testing.assert_close(all_waves(box, kept, whole), full * mask, rtol=1e-13, atol=1e-12)
    # Twice, as the second time finds the first one's buffers.
    for _ in range(2):
        torch.testing.assert_close(box.backward(kept), whole.backward(full * mask), rtol=1e-13, atol=1e-13)
        kept = 2.0 * kept
        full = 2.0 * full
    smooth = whole.backward(full * mask)
    for ik, all_ik in zip(box.derivatives, whole.derivatives, strict=True):
        slope = whole.backward(all_ik * whole.forward(smooth))
        torch.testing.assert_close(box.backward(ik * box.forward(smooth)), slope, rtol=1e-12, atol=1e-11)
    torch.testing.assert_close(
        box.backward(box.laplacian * box.forward(smooth)),
        whole.backward(whole.laplacian * whole.forward(smooth)),
        rtol=1e-12,
        atol=1e-9,
    )


@pytest.mark.parametrize("shape", [(16,), (16, 15), (12, 9, 10)])
def test_real_and_conjugate_spectra_are_spectra(shape: tuple[int, ...]) -> None:
    box = PeriodicBox(shape, tuple(1.0 for _ in shape), degree=2)
    kept = box.forward(torch.from_numpy(np.random.default_rng(0).normal(size=(2, *shape))))
    mirrored = box.backward(kept.conj())  # the field at -x
    again = (
        box.backward(kept)
        .flip(dims=tuple(range(1, mirrored.ndim)))
        .roll((1,) * len(shape), dims=tuple(range(1, mirrored.ndim)))
    )
    torch.testing.assert_close(mirrored, again, rtol=0.0, atol=1e-13)
    torch.testing.assert_close(box.backward(kept.real), box.backward(kept.real + 0j), rtol=0.0, atol=1e-15)
