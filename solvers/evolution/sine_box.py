"""SineBox: the five-point Laplacian between walls, diagonal in sines."""

import math
from functools import cached_property

import numpy as np
from jaxtyping import Float64


class SineBox:
    """The interior points of a box between walls of given values, and the Laplacian of second order there.

    Along an axis of length l with n points these lie at i l / (n + 1), i = 1..n, and the walls at i = 0 and n + 1. The
    Laplacian takes neighbours at distance l / (n + 1), on every axis two. Its matrix has the sines sin(π k i / (n + 1))
    as eigenvectors, which are the basis of DST-I (Strang 1999, "The discrete cosine transform", SIAM Review 41); what
    the walls add does not depend on the points, and is moved to the right-hand side.

    Fields are transformed one by one: several at a time may take another way through the library, and end in other last
    bits.

    Args:
        shape: interior points of each axis.
        extent: distance of the walls along each axis [m or 1].
    """

    def __init__(self, shape: tuple[int, ...], extent: tuple[float, ...]) -> None:
        self.shape = shape
        self._spacing = tuple(length / (n + 1) for n, length in zip(shape, extent, strict=True))

    @cached_property
    def eigenvalues(self) -> Float64[np.ndarray, "*grid"]:
        """Those of minus the Laplacian [1/m² or 1], (2 sin(π k / (2 (n + 1))) / h)² of each axis added up; positive."""
        total = np.zeros((1,) * len(self.shape))
        for axis, (n, h) in enumerate(zip(self.shape, self._spacing, strict=True)):
            one = (2.0 / h * np.sin(np.arange(1, n + 1) * (0.5 * math.pi / (n + 1)))) ** 2
            total = total + one.reshape(tuple(-1 if other == axis else 1 for other in range(len(self.shape))))
        return total

    @cached_property
    def walls(self) -> Float64[np.ndarray, "walls *grid"]:
        """The spectrum of what each wall adds when its value is 1 [1/m² or 1]: the low end of an axis, the high end."""
        found = []
        for axis, h in enumerate(self._spacing):
            for end in (0, -1):
                field = np.zeros(self.shape)
                field[(slice(None),) * axis + (end,)] = h**-2
                found.append(self.forward(field))
        return np.stack(found)

    def forward(self, field: Float64[np.ndarray, "*grid"]) -> Float64[np.ndarray, "*grid"]:
        """The spectrum of a field."""
        from scipy.fft import dstn  # SciPy takes its time to import

        spectrum: Float64[np.ndarray, "*grid"] = dstn(field, type=1, norm="ortho")
        return spectrum

    def backward(self, spectrum: Float64[np.ndarray, "*grid"]) -> Float64[np.ndarray, "*grid"]:
        """The field of a spectrum: with this scale the transform is its own inverse."""
        return self.forward(spectrum)
