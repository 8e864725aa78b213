"""Preconditioners M ≈ A of the compiled Krylov methods: incomplete LU without fill, SSOR, the diagonal, or nothing."""

from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float64, Int32

if TYPE_CHECKING:
    from scipy.sparse import csr_array

PreconditionerName = Literal["ilu0", "ssor", "jacobi", "none"]

_NO_INTS: Int32[np.ndarray, " 0"] = np.empty(0, dtype=np.int32)
_NO_NUMBERS: Float64[np.ndarray, " 0"] = np.empty(0)


class Preconditioner:
    """M = L D U with triangles in the pattern of A, or M = D alone.

    Attributes:
        arrays: what the kernels take (see `headrace.solvers.methods.krylov_kernels`): pattern, values, where the
            diagonal stands, and its reciprocals; all but the last are empty if M is diagonal.
    """

    def __init__(
        self,
        inverse: Float64[np.ndarray, " unknowns"],
        indptr: Int32[np.ndarray, " rows"] = _NO_INTS,
        indices: Int32[np.ndarray, " entries"] = _NO_INTS,
        values: Float64[np.ndarray, " entries"] = _NO_NUMBERS,
        diagonal: Int32[np.ndarray, " unknowns"] = _NO_INTS,
    ) -> None:
        self.arrays = (indptr, indices, values, diagonal, inverse)

    def solve(self, x: Float64[np.ndarray, " unknowns"]) -> Float64[np.ndarray, " unknowns"]:
        """M⁻¹ x."""
        from headrace.solvers.methods import krylov_kernels as kernels

        out = np.empty_like(x)
        kernels.precondition(*self.arrays, x, out)
        return out

    def multiply(self, x: Float64[np.ndarray, " unknowns"]) -> Float64[np.ndarray, " unknowns"]:
        """M x."""
        from headrace.solvers.methods import krylov_kernels as kernels

        out = np.empty_like(x)
        kernels.multiply(*self.arrays, x, out)
        return out


def make_preconditioner(name: PreconditionerName, matrix: "csr_array", omega: float = 1.0) -> Preconditioner:
    """Set up a preconditioner.

    Args:
        name: which.
        matrix: A, with ascending columns.
        omega: the relaxation factor of SSOR, between 0 and 2.

    Raises:
        ArithmeticError: a pivot or a diagonal entry is 0, missing or not finite.
    """
    n = matrix.shape[0]
    if name == "none":
        return Preconditioner(np.ones(n))
    if name == "jacobi":
        diagonal = matrix.diagonal().astype(np.float64)
        if not np.abs(diagonal).min() > 0.0:
            raise ArithmeticError("the matrix has a 0 on its diagonal; jacobi cannot precondition it")
        return Preconditioner(1.0 / diagonal)
    from headrace.solvers.methods import ilu_kernels as kernels

    indptr, indices, data = compressed_rows(matrix)
    values, places, inverse = data.copy(), np.empty(n, dtype=np.int32), np.empty(n)
    if name == "ilu0":
        bad = kernels.factor(indptr, indices, values, places, inverse)
        if bad >= 0:
            raise ArithmeticError(f"incomplete LU met a pivot of 0 in row {bad}; use jacobi or a direct method")
    else:
        bad = kernels.relax(indptr, indices, values, places, inverse, omega)
        if bad >= 0:
            raise ArithmeticError(f"the matrix has a 0 on its diagonal in row {bad}; ssor cannot precondition it")
    return Preconditioner(inverse, indptr, indices, values, places)


def compressed_rows(
    matrix: "csr_array",
) -> tuple[Int32[np.ndarray, " rows"], Int32[np.ndarray, " entries"], Float64[np.ndarray, " entries"]]:
    """The three arrays of a matrix as the kernels take them: columns ascending, none twice; copies only if it must."""
    # Patterns that matrices share are read-only, for which Numba would compile everything a second time.
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return (
        np.require(matrix.indptr, dtype=np.int32, requirements=["C", "W"]),
        np.require(matrix.indices, dtype=np.int32, requirements=["C", "W"]),
        np.require(matrix.data, dtype=np.float64, requirements=["C", "W"]),
    )
