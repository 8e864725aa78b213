"""Five-point operators: conductances through the faces of a rectangular grid, applied without a matrix."""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float64, Int32

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True, kw_only=True, eq=False)
class FivePointOperator:
    """The finite-volume operator (A u)ᵢⱼ = Σ over the four faces of cᵢⱼ,face (uᵢⱼ - u_neighbour), u = 0 outside.

    The unknowns are the `nx * ny` interior points of a tensor-product grid, the first axis slowest. Every face between
    two points carries one conductance, so the operator is symmetric, and what leaves one cell enters the next.

    Attributes:
        conductance_x: faces normal to the first axis; entry i lies between points i - 1 and i, where the points
            -1 and nx are on the boundary. All positive.
        conductance_y: faces normal to the second axis, in the same way.

    Raises:
        ValueError: the two shapes do not belong to one grid.
    """

    conductance_x: Float64[np.ndarray, "nx+1 ny"]
    conductance_y: Float64[np.ndarray, "nx ny+1"]

    def __post_init__(self) -> None:
        (faces, ny), (nx, other_faces) = self.conductance_x.shape, self.conductance_y.shape
        if faces != nx + 1 or other_faces != ny + 1 or nx < 1 or ny < 1:
            raise ValueError(
                f"expected conductance_x of shape (nx + 1, ny) and conductance_y of shape (nx, ny + 1), "
                f"got {self.conductance_x.shape} and {self.conductance_y.shape}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Unknowns per axis."""
        return self.conductance_y.shape[0], self.conductance_x.shape[1]

    def fluxes(
        self, u: Float64[np.ndarray, "nx ny"]
    ) -> tuple[Float64[np.ndarray, "nx+1 ny"], Float64[np.ndarray, "nx ny+1"]]:
        """What flows through each face in the direction of growing coordinates."""
        padded = np.zeros((u.shape[0] + 2, u.shape[1] + 2))
        padded[1:-1, 1:-1] = u
        flux_x = padded[:-1, 1:-1] - padded[1:, 1:-1]
        flux_y = padded[1:-1, :-1] - padded[1:-1, 1:]
        flux_x *= self.conductance_x
        flux_y *= self.conductance_y
        return flux_x, flux_y

    def apply(self, u: Float64[np.ndarray, "nx ny"]) -> Float64[np.ndarray, "nx ny"]:
        """The net outflow A u of every cell."""
        flux_x, flux_y = self.fluxes(u)
        out = flux_x[1:] - flux_x[:-1]
        out += flux_y[:, 1:]
        out -= flux_y[:, :-1]
        return out

    def to_csr(self) -> "csr_array":
        """The matrix A in compressed rows, columns ascending."""
        from scipy.sparse import csr_array

        nx, ny = self.shape
        cx, cy = self.conductance_x, self.conductance_y
        entries = np.empty((nx, ny, 5))
        entries[..., 0] = -cx[:-1]
        entries[..., 1] = -cy[:, :-1]
        entries[..., 2] = cx[:-1] + cx[1:] + cy[:, :-1] + cy[:, 1:]
        entries[..., 3] = -cy[:, 1:]
        entries[..., 4] = -cx[1:]
        present, indices, indptr = _pattern(nx, ny)
        return csr_array((entries[present], indices, indptr), shape=(nx * ny, nx * ny))


@functools.lru_cache(maxsize=8)
def _pattern(
    nx: int, ny: int
) -> tuple[Bool[np.ndarray, "nx ny 5"], Int32[np.ndarray, " nonzeros"], Int32[np.ndarray, " rows"]]:
    """Which of the five entries of each row exist, their columns, and where rows begin."""
    point = np.arange(nx * ny, dtype=np.int32).reshape(nx, ny, 1)
    columns = point + np.array([-ny, -1, 0, 1, ny], dtype=np.int32)
    present = np.ones((nx, ny, 5), dtype=bool)
    present[0, :, 0] = present[-1, :, 4] = False
    present[:, 0, 1] = present[:, -1, 3] = False
    indptr = np.zeros(nx * ny + 1, dtype=np.int32)
    np.cumsum(present.sum(axis=2).ravel(), out=indptr[1:])
    indices = columns[present]
    for array in (present, indices, indptr):
        array.setflags(write=False)
    return present, indices, indptr
