"""Preconditioners M ≈ A of a Krylov method: incomplete LU without fill, the diagonal, or nothing."""

from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from jaxtyping import Float64

if TYPE_CHECKING:
    from scipy.sparse import csr_array

PreconditionerName = Literal["ilu0", "jacobi", "none"]


class Preconditioner(Protocol):
    """M, as a thing that can be solved with and multiplied by."""

    def solve(self, x: Float64[np.ndarray, " unknowns"]) -> Float64[np.ndarray, " unknowns"]:
        """M⁻¹ x."""
        ...

    def multiply(self, x: Float64[np.ndarray, " unknowns"]) -> Float64[np.ndarray, " unknowns"]:
        """M x."""
        ...


def make_preconditioner(name: PreconditionerName, matrix: "csr_array") -> Preconditioner:
    """Set up a preconditioner.

    Raises:
        ArithmeticError: a pivot is 0 or missing.
    """
    if name == "ilu0":
        return IncompleteLU(matrix)
    diagonal = matrix.diagonal() if name == "jacobi" else np.ones(matrix.shape[0])
    if not np.abs(diagonal).min() > 0.0:
        raise ArithmeticError("the matrix has a 0 on its diagonal; jacobi cannot precondition it")
    return Diagonal(diagonal)


class Diagonal:
    """M = diag(d)."""

    def __init__(self, diagonal: Float64[np.ndarray, " unknowns"]) -> None:
        self._diagonal, self._inverse = diagonal, 1.0 / diagonal

    def solve(self, x: Float64[np.ndarray, " unknowns"]) -> Float64[np.ndarray, " unknowns"]:
        """M⁻¹ x."""
        return x * self._inverse

    def multiply(self, x: Float64[np.ndarray, " unknowns"]) -> Float64[np.ndarray, " unknowns"]:
        """M x."""
        return x * self._diagonal


class IncompleteLU:
    """M = L U with the pattern of A.

    ILU(0), Algorithm 10.4 of Saad, "Iterative methods for sparse linear systems", second edition (2003).

    Raises:
        ArithmeticError: a pivot is 0 or missing.
    """

    def __init__(self, matrix: "csr_array") -> None:
        from headrace.solvers.methods import ilu_kernels as kernels

        if not matrix.has_sorted_indices:
            matrix = matrix.sorted_indices()
        self._kernels = kernels
        self._pattern = matrix.indptr.astype(np.int32, copy=False), matrix.indices.astype(np.int32, copy=False)
        self._factors = np.array(matrix.data, dtype=np.float64)
        self._diagonal = np.empty(matrix.shape[0], dtype=np.int32)
        bad = kernels.factor(*self._pattern, self._factors, self._diagonal)
        if bad >= 0:
            raise ArithmeticError(f"incomplete LU met a pivot of 0 in row {bad}; use jacobi or a direct method")

    def solve(self, x: Float64[np.ndarray, " unknowns"]) -> Float64[np.ndarray, " unknowns"]:
        """M⁻¹ x."""
        out = np.empty_like(x)
        self._kernels.solve(*self._pattern, self._factors, self._diagonal, x, out)
        return out

    def multiply(self, x: Float64[np.ndarray, " unknowns"]) -> Float64[np.ndarray, " unknowns"]:
        """M x."""
        out = np.empty_like(x)
        self._kernels.multiply(*self._pattern, self._factors, self._diagonal, x, out)
        return out
