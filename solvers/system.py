"""What a steady linear problem becomes: A x = b, with what is known about A."""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from jaxtyping import Float, Shaped

from headrace.solvers.operators import FivePointOperator

if TYPE_CHECKING:
    from scipy.sparse import csr_array, sparray


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What a method may rely on.

    Attributes:
        symmetric: A equals its transpose.
        positive_definite: A is symmetric and all its eigenvalues are positive.
        five_point: a `FivePointOperator` describes A, so that no matrix is needed.
    """

    symmetric: bool = False
    positive_definite: bool = False
    five_point: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearSystem:
    """One linear system; make it with `from_five_point` or `from_matrix`.

    Attributes:
        rhs: the right-hand side b.
        structure: what is known about A.
        operator: A without a matrix, if `structure.five_point`.
        assembled: A as it was given, if it was given as a matrix.
        feature: the coefficient field that A was made from; systems are sorted by the distance of their features.
    """

    rhs: Shaped[np.ndarray, " unknowns"]
    structure: Structure
    operator: FivePointOperator | None = None
    assembled: "csr_array | None" = None
    feature: Float[np.ndarray, "..."] | None = None

    @classmethod
    def from_five_point(
        cls,
        operator: FivePointOperator,
        rhs: Float[np.ndarray, " unknowns"],
        *,
        feature: Float[np.ndarray, "..."] | None = None,
    ) -> "LinearSystem":
        """The system of a five-point operator, which is symmetric and positive definite.

        Raises:
            ValueError: the right-hand side has another number of unknowns.
        """
        nx, ny = operator.shape
        if rhs.shape != (nx * ny,):
            raise ValueError(
                f"the operator has {nx} x {ny} unknowns, expected rhs of shape ({nx * ny},), got {rhs.shape}"
            )
        known = Structure(symmetric=True, positive_definite=True, five_point=True)
        return cls(rhs=rhs, structure=known, operator=operator, feature=feature)

    @classmethod
    def from_matrix(
        cls,
        matrix: "sparray",
        rhs: Shaped[np.ndarray, " unknowns"],
        *,
        symmetric: bool = False,
        positive_definite: bool = False,
        feature: Float[np.ndarray, "..."] | None = None,
    ) -> "LinearSystem":
        """The system of any sparse matrix.

        Args:
            matrix: square, in any SciPy sparse format.
            rhs: the right-hand side.
            symmetric: the caller knows that the matrix is symmetric; it is not checked.
            positive_definite: the caller knows that it is also positive definite.
            feature: the coefficient field to sort by.

        Raises:
            ValueError: the shapes do not fit.
        """
        from scipy.sparse import csr_array

        if matrix.shape != (rhs.size, rhs.size) or rhs.ndim != 1:
            raise ValueError(f"expected a square matrix and rhs of the same size, got {matrix.shape} and {rhs.shape}")
        known = Structure(symmetric=symmetric or positive_definite, positive_definite=positive_definite)
        return cls(rhs=rhs, structure=known, assembled=csr_array(matrix), feature=feature)

    @property
    def num_unknowns(self) -> int:
        """The length of x."""
        return self.rhs.size

    @functools.cached_property
    def matrix(self) -> "csr_array":
        """A in compressed rows, built when first asked for."""
        return self.assembled if self.assembled is not None else cast(FivePointOperator, self.operator).to_csr()

    def apply(self, x: Shaped[np.ndarray, " unknowns"]) -> Shaped[np.ndarray, " unknowns"]:
        """A x in double precision, without building a matrix where there is none."""
        if self.operator is not None:
            return self.operator.apply(x.reshape(self.operator.shape)).ravel()
        return cast(np.ndarray, self.matrix @ x)

    def relative_residual(self, x: Shaped[np.ndarray, " unknowns"]) -> float:
        """||b - A x|| / ||b||; the absolute residual if b = 0."""
        scale = float(np.linalg.norm(self.rhs)) or 1.0
        return float(np.linalg.norm(self.rhs - self.apply(x))) / scale
