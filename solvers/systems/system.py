"""What a steady problem becomes: A x = b with what is known about A, or F(x) = 0 with its linearisation."""

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from jaxtyping import Float, Float64, Shaped

from headrace.solvers.systems.norms import described, exponent, is_moderate, norm, peak, scaled
from headrace.solvers.systems.operators import DiffusionOperator

if TYPE_CHECKING:
    from scipy.sparse import csr_array, sparray

# A right-hand side that came out of sums over the grid is orthogonal to constants up to rounding.
_COMPATIBLE = 1e-10
# Beyond what rounding leaves of a symmetric matrix, whatever order it was summed in.
_ASYMMETRIC = 1e-8


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What a method may rely on.

    Attributes:
        symmetric: A equals its transpose.
        positive_definite: A is symmetric and all its eigenvalues are positive (all but the one of the constants, if
            `singular`).
        singular: the constants, and only they, are mapped to 0. The solution is the one of mean 0.
        diffusion: the number of axes of the `DiffusionOperator` that describes A; 0 if only a matrix does.
        constant_coefficients: on each axis of the operator all inner faces have one conductance, boundary faces one or
            twice that or 0, and the reaction is the same everywhere.
        repeats: all systems of the problem have the same matrix; only their right-hand sides differ.
        drifts: the systems follow each other in small steps, as those of an implicit time integrator do: the matrix is
            the same as before or nearly so, until the next sample begins.
    """

    symmetric: bool = False
    positive_definite: bool = False
    singular: bool = False
    diffusion: int = 0
    constant_coefficients: bool = False
    repeats: bool = False
    drifts: bool = False

    def __post_init__(self) -> None:
        if self.positive_definite:
            object.__setattr__(self, "symmetric", True)


class Structured(Protocol):
    """Whatever the structure of its systems is known of: a problem, an equation in time, a system itself."""

    @property
    def structure(self) -> Structure:
        """What a method may rely on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearSystem:
    """One linear system; make it with `from_operator` or `from_matrix`.

    Attributes:
        rhs: the right-hand side b.
        structure: what is known about A.
        operator: A without a matrix, if `structure.diffusion`.
        assembled: A as it was given, if it was given as a matrix.
        feature: the coefficient field that A was made from; systems are sorted by the distance of their features.
    """

    rhs: Shaped[np.ndarray, " unknowns"]
    structure: Structure
    operator: DiffusionOperator | None = None
    assembled: "csr_array | None" = None
    feature: Float[np.ndarray, "..."] | None = None

    def __post_init__(self) -> None:
        b = self.rhs
        if type(b) is not np.ndarray or b.ndim != 1 or b.dtype not in (np.float64, np.complex128):
            raise ValueError(f"expected the right-hand side as a vector of float64 or complex128, got {described(b)}")

    @classmethod
    def from_operator(
        cls,
        operator: DiffusionOperator,
        rhs: Float[np.ndarray, " unknowns"],
        *,
        positive_definite: bool | None = None,
        constant_coefficients: bool = False,
        repeats: bool = False,
        drifts: bool = False,
        feature: Float[np.ndarray, "..."] | None = None,
    ) -> "LinearSystem":
        """The system of a diffusion operator.

        Args:
            operator: A.
            rhs: b, the points in the operator's order.
            positive_definite: what the caller knows; None means yes unless the reaction is negative somewhere.
            constant_coefficients: see `Structure`.
            repeats: see `Structure`.
            drifts: see `Structure`.
            feature: the coefficient field to sort by.

        Raises:
            ValueError: the right-hand side has another number of unknowns, or the operator is singular and the
                right-hand side is not orthogonal to constants.
        """
        rhs = _right_hand_side(rhs)
        if np.iscomplexobj(rhs):
            raise ValueError(
                "a diffusion operator acts on real numbers, got a complex right-hand side: solve for its real and its "
                "imaginary part, or give the matrix, LinearSystem.from_matrix(operator.to_csr(), rhs)"
            )
        if rhs.shape != (operator.num_unknowns,):
            points = " x ".join(map(str, operator.shape))
            raise ValueError(
                f"the operator has {points} unknowns, expected rhs of shape ({operator.num_unknowns},), got {rhs.shape}"
            )
        if operator.singular:
            largest = peak(rhs)
            unit = rhs if is_moderate(largest) else scaled(rhs, -exponent(largest))
            total, scale = float(unit.sum()), float(np.abs(unit).sum())
            if abs(total) > _COMPATIBLE * scale:
                raise ValueError(
                    f"the operator maps constants to 0 (no Dirichlet boundary, no reaction), and the right-hand side "
                    f"sums to {total:g}, expected 0: the system has no solution. Balance the source with the boundary "
                    f"flux, or fix the value somewhere on the boundary"
                )
        if positive_definite is None:
            positive_definite = operator.reaction is None or bool(operator.reaction.min() >= 0.0)
        known = Structure(
            symmetric=True,
            positive_definite=positive_definite,
            singular=operator.singular,
            diffusion=operator.ndim,
            constant_coefficients=constant_coefficients,
            repeats=repeats,
            drifts=drifts,
        )
        return cls(rhs=rhs, structure=known, operator=operator, feature=feature)

    @classmethod
    def from_matrix(
        cls,
        matrix: "sparray",
        rhs: Shaped[np.ndarray, " unknowns"],
        *,
        symmetric: bool = False,
        positive_definite: bool = False,
        repeats: bool = False,
        drifts: bool = False,
        feature: Float[np.ndarray, "..."] | None = None,
    ) -> "LinearSystem":
        """The system of any sparse matrix.

        Args:
            matrix: square, in any SciPy sparse format, or dense.
            rhs: the right-hand side.
            symmetric: the caller knows that the matrix is symmetric.
            positive_definite: the caller knows that it is also positive definite; this is not checked.
            repeats: see `Structure`.
            drifts: see `Structure`.
            feature: the coefficient field to sort by.

        Raises:
            ValueError: the shapes do not fit, values are no numbers, or the matrix is not symmetric and was said to be.
        """
        from scipy.sparse import csr_array

        rhs, rows = _right_hand_side(rhs), csr_array(matrix)
        if rows.shape != (rhs.size, rhs.size) or rhs.ndim != 1:
            raise ValueError(f"expected a square matrix and rhs of the same size, got {rows.shape} and {rhs.shape}")
        rows.data = _double("the matrix", rows.data)
        known = Structure(symmetric=symmetric, positive_definite=positive_definite, repeats=repeats, drifts=drifts)
        # Written so that values that are not finite pass: solving says of them what there is to say.
        if known.symmetric and (off := asymmetry(rows)) > _ASYMMETRIC:
            raise ValueError(
                f"the matrix was said to be symmetric, but is not: entries differ by {off:.0e} of the largest from "
                f"those across the diagonal. Leave out symmetric and positive_definite, or look at how it was assembled"
            )
        return cls(rhs=rhs, structure=known, assembled=rows, feature=feature)

    @property
    def num_unknowns(self) -> int:
        """The length of x."""
        return self.rhs.size

    @functools.cached_property
    def matrix(self) -> "csr_array":
        """A in compressed rows, built when first asked for."""
        return self.assembled if self.assembled is not None else cast(DiffusionOperator, self.operator).to_csr()

    @functools.cached_property
    def regular_matrix(self) -> "csr_array":
        """A itself, or, of a singular A, the matrix with its first diagonal entry doubled.

        That matrix is regular, and because b is orthogonal to the constants its solution is the one of A x = b whose
        first entry is 0: summing all rows leaves a₀₀ x₀ = 0. `without_mean` makes it the one of mean 0.
        """
        if not self.structure.singular:
            return self.matrix
        matrix = self.matrix.copy()
        first = matrix.indices[matrix.indptr[0] : matrix.indptr[1]].tolist().index(0)
        matrix.data[first] *= 2.0
        return matrix

    def without_mean(self, x: Shaped[np.ndarray, " unknowns"]) -> Shaped[np.ndarray, " unknowns"]:
        """The solution x itself, or, where constants may be added to it, the one of mean 0."""
        return x - x.mean() if self.structure.singular else x

    def apply(self, x: Shaped[np.ndarray, " unknowns"]) -> Shaped[np.ndarray, " unknowns"]:
        """A x in double precision, without building a matrix where there is none."""
        if self.operator is not None:
            return self.operator.apply(x.reshape(self.operator.shape)).ravel()
        return cast(np.ndarray, self.matrix @ x)

    @property
    def dtype(self) -> "np.dtype[np.float64] | np.dtype[np.complex128]":
        """Of x: double precision, complex where A or b are."""
        if np.iscomplexobj(self.rhs) or (self.assembled is not None and np.iscomplexobj(self.assembled.data)):
            return np.dtype(np.complex128)
        return np.dtype(np.float64)

    def relative_residual(self, x: Shaped[np.ndarray, " unknowns"]) -> float:
        """||b - A x|| / ||b||, whatever the size of b; if b = 0, it is 0 for x = 0 and infinite otherwise."""
        if self.operator is not None:
            return self.operator.relative_residual(x, self.rhs)
        largest = peak(self.rhs)
        if largest == 0.0:
            return 0.0 if not x.any() else math.inf
        b = self.rhs
        if not is_moderate(largest):
            shift = -exponent(largest)
            b, x = scaled(b, shift), scaled(x, shift)
        return norm(b - self.apply(x)) / norm(b)

    def backward_error(self, x: Shaped[np.ndarray, " unknowns"]) -> float:
        """The least relative change of A and b that x solves the system with, in the maximum norm.

        ||b - A x|| / (||A|| ||x|| + ||b||) (Rigal and Gaches 1967; Higham, Accuracy and Stability of Numerical
        Algorithms, 2nd ed., Theorem 7.1). Where the condition number of A is large no computed x has a small relative
        residual, but a good one has a backward error of the size of rounding.
        """
        largest = peak(self.rhs)
        if largest == 0.0:
            return 0.0 if not x.any() else math.inf
        shift = -exponent(largest) if math.isfinite(largest) else 0
        b, x = scaled(self.rhs, shift), scaled(x, shift)
        # Of complex numbers `peak` is that of their parts: up to √2 too small, below, and too large above.
        size = float(abs(self.matrix).sum(axis=1).max(initial=0.0)) * peak(x) + peak(b)
        return math.sqrt(2.0) ** np.iscomplexobj(x) * peak(b - self.apply(x)) / size

    def times(self, shift: int) -> "LinearSystem":
        """The system with the right-hand side times 2 to the power of `shift`."""
        return dataclasses.replace(self, rhs=scaled(self.rhs, shift))


def _right_hand_side(values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    return _double("the right-hand side", values)


def _double(name: str, values: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Numbers of any kind in double precision, rows contiguous.

    Raises:
        ValueError: they are no numbers, or some are masked.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array, expected numbers everywhere: fill in what is missing")
    array = np.asarray(values)
    if array.dtype.kind not in "biufc":
        raise ValueError(f"expected numbers in {name}, got {described(array)}")
    return np.ascontiguousarray(array, dtype=np.complex128 if array.dtype.kind == "c" else np.float64)


def asymmetry(matrix: "csr_array") -> float:
    """The largest difference of an entry from the one across the diagonal, as a share of the largest entry."""
    with np.errstate(all="ignore"):
        return float(abs(matrix - matrix.T).max() / (np.abs(matrix.data).max(initial=0.0) or 1.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class NonlinearSystem:
    """F(x) = 0, solved by Newton's method: every step is a linear system.

    Attributes:
        guess: where the iteration starts.
        residual: F.
        linearize: from x to the system F'(x) d = -F(x), or one with a matrix that comes near F'(x) and is solved more
            easily.
        exactly: where `linearize` only comes near, the system with F'(x) itself, a general matrix: what is gone on with
            where the other converges slowly. Left out, nothing is.
        structure: what is known about F'(x), at every x.
        scale: the norm that residuals are compared with, positive.
        feature: the coefficient field to sort by.
    """

    guess: Float64[np.ndarray, " unknowns"]
    residual: Callable[[Float64[np.ndarray, " unknowns"]], Float64[np.ndarray, " unknowns"]]
    linearize: Callable[[Float64[np.ndarray, " unknowns"]], LinearSystem]
    structure: Structure
    scale: float
    feature: Float[np.ndarray, "..."] | None = None
    exactly: Callable[[Float64[np.ndarray, " unknowns"]], LinearSystem] | None = None

    def __post_init__(self) -> None:
        # What is not a number passes: no residual is small beside it, and solving says what there is to say.
        if self.scale <= 0.0 or math.isinf(self.scale):
            raise ValueError(f"expected a positive, finite scale to compare residuals with, got {self.scale:g}")

    @property
    def dtype(self) -> "np.dtype[np.float64]":
        """Of x."""
        return np.dtype(np.float64)

    @property
    def num_unknowns(self) -> int:
        """The length of x."""
        return self.guess.size

    def relative_residual(self, x: Float64[np.ndarray, " unknowns"]) -> float:
        """||F(x)|| / scale."""
        return norm(self.residual(x)) / self.scale


type System = LinearSystem | NonlinearSystem
"""Anything that a problem can become."""
