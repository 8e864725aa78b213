"""Fast transforms: constant coefficients on a box are diagonal in sines, cosines or Fourier modes."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float64

from headrace.solvers.systems.family import Candidacy, Family
from headrace.solvers.systems.operators import DiffusionOperator
from headrace.solvers.systems.solver import AbstractSolver, RunningSolver, Solution, SolveStatus
from headrace.solvers.systems.system import LinearSystem, Structured

# Conductances that came out of different sums may differ by rounding; what this costs the residual check will see.
_EQUAL = 1e-12
# An eigenvalue this far below the largest is 0 for double precision.
_ZERO = 1e-14
# Right-hand sides that are transformed together, and how many numbers that may be.
_BLOCK, _BLOCK_NUMBERS = 32, 1 << 22


class Transform(AbstractSolver):
    """Fast sine, cosine and Fourier transforms, for constant coefficients on a box in 1, 2 or 3 dimensions.

    Along an axis with conductance c between neighbours, (A u)ⱼ = c (2 uⱼ - uⱼ₋₁ - uⱼ₊₁), the boundary conditions say
    which modes are eigenvectors; all have the eigenvalues c (2 - 2 cos θ) (Strang 1999, "The discrete cosine
    transform", SIAM Review 41; Swarztrauber 1977, "The methods of cyclic reduction, Fourier analysis and the FACR
    algorithm", SIAM Review 19):

    ====================================================  ===========  =======================
    end faces                                             transform    θ for n points
    ====================================================  ===========  =======================
    c and c: u = 0 at the points beyond (nodes)           DST-I        π k / (n + 1), k = 1..n
    0 and 0: no flux                                      DCT-II       π k / n, k = 0..n-1
    2c and 2c: u = 0 on the faces (cells)                 DST-II       π k / n, k = 1..n
    0 and 2c; 2c and 0                                    DCT-IV; -S-  π (k + ½) / n, k = 0..n-1
    periodic                                              real FFT     2 π k / n
    any other pair                                        dense        of a tridiagonal matrix
    ====================================================  ===========  =======================

    A dense transform is a product with the n x n matrix of the eigenvectors: for n of some hundreds not much slower.
    The reaction may be any constant, so Helmholtz operators with one wave number are solved as well; one that hits an
    eigenvalue ends as `breakdown`. Systems with equal coefficients are transformed together.
    """

    kind: Literal["transform"] = "transform"

    candidacies: ClassVar[tuple[Candidacy, ...]] = (
        Candidacy(family=Family.repeating, cost=1.0),
        Candidacy(family=Family.structured, cost=1.0),
        Candidacy(family=Family.indefinite, cost=1.0),
    )

    def build(self) -> "RunningTransform":
        """Start a sequence."""
        return RunningTransform()

    def batch_size(self, target: Structured) -> int:
        """A stack of right-hand sides: small ones gain from sharing the overhead of a call."""
        return _BLOCK

    def mismatch(self, target: Structured) -> str | None:
        """Needs a diffusion operator with constant coefficients."""
        known = target.structure
        if not known.diffusion or not known.constant_coefficients:
            what = "the coefficients of this one vary" if known.diffusion else "this is a general matrix"
            return f"Transforms need a diffusion operator with constant coefficients, {what}; use auto or direct."
        if isinstance(target, LinearSystem) and np.iscomplexobj(target.rhs):
            return "Transforms compute in real numbers, this right-hand side is complex; use direct."
        return None


@dataclass(frozen=True)
class _Axis:
    """One axis of the operator: its points, the conductance between them, and the end faces (None if periodic)."""

    num_points: int
    conductance: float
    ends: tuple[float, float] | None


@dataclass(frozen=True)
class _Coefficients:
    """All that there is to know about an operator with constant coefficients."""

    axes: tuple[_Axis, ...]
    reaction: float


class RunningTransform(RunningSolver):
    """Keeps the eigenvalues of the last operator."""

    def __init__(self) -> None:
        self._diagonalized: _Diagonalized | None = None

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        """Solve one system."""
        return self.solve_batch([system], rtol)[0]

    def solve_batch(self, systems: Sequence[LinearSystem], rtol: float) -> list[Solution]:
        """Transform the right-hand sides of systems with equal coefficients together."""
        solutions: dict[int, Solution] = {}
        groups: dict[_Coefficients, list[int]] = {}
        for index, system in enumerate(systems):
            if system.operator is None:
                solutions[index] = _solution(system, None, 0.0, "a general matrix has no known eigenvectors")
                continue
            try:
                groups.setdefault(_coefficients(system.operator), []).append(index)
            except ArithmeticError as error:
                solutions[index] = _solution(system, None, 0.0, str(error))
        for coefficients, indices in groups.items():
            if self._diagonalized is None or self._diagonalized.coefficients != coefficients:
                self._diagonalized = _Diagonalized(coefficients)
            size = max(1, min(_BLOCK, _BLOCK_NUMBERS // systems[indices[0]].num_unknowns))
            for first in range(0, len(indices), size):
                part = indices[first : first + size]
                started = time.perf_counter()
                detail = self._diagonalized.defect
                values = None if detail else self._diagonalized.solve(np.stack([systems[i].rhs for i in part]))
                seconds = (time.perf_counter() - started) / len(part)
                for row, index in enumerate(part):
                    value = None if values is None else values[row]
                    solutions[index] = _solution(systems[index], value, seconds, detail)
        return [solutions[index] for index in range(len(systems))]


def _solution(
    system: LinearSystem, value: Float64[np.ndarray, " unknowns"] | None, seconds: float, detail: str
) -> Solution:
    if value is not None and not np.isfinite(value).all():
        detail = "the solution is not finite: look for values that are not in the right-hand side"
    return Solution(
        value=np.zeros(system.num_unknowns) if value is None else system.without_mean(value),
        status=SolveStatus.breakdown if detail else SolveStatus.converged,
        relative_residual=float("nan"),
        num_iterations=0,
        seconds=seconds,
        method="transform",
        detail=detail,
    )


def _coefficients(operator: DiffusionOperator) -> _Coefficients:
    """The constants of an operator.

    Raises:
        ArithmeticError: they are not constant.
    """
    axes = []
    for axis, (faces, periodic) in enumerate(zip(operator.conductances, operator.periodic, strict=True)):
        along = np.moveaxis(faces, axis, 0)
        name = f"the conductances between neighbours along axis {axis}"
        if periodic:
            axes.append(_Axis(operator.shape[axis], _constant(along, name), None))
            continue
        first = _constant(along[0], f"the conductances of the first faces of axis {axis}")
        last = _constant(along[-1], f"the conductances of the last faces of axis {axis}")
        # A single point has no neighbour: any conductance will do.
        inner = _constant(along[1:-1], name) if operator.shape[axis] > 1 else max(first, last)
        axes.append(_Axis(operator.shape[axis], inner, (first, last)))
    reaction = 0.0 if operator.reaction is None else _constant(operator.reaction, "the reaction")
    return _Coefficients(tuple(axes), reaction)


def _constant(values: Float64[np.ndarray, "..."], name: str) -> float:
    low, high = float(values.min()), float(values.max())
    # Written so that what is not a number fails.
    if not high - low <= _EQUAL * max(abs(low), abs(high)):
        raise ArithmeticError(f"{name} vary from {low:g} to {high:g}, transforms need a constant; use another method")
    return float(values.flat[0])


class _Diagonalized:
    """An operator's eigenvectors, as transforms along its axes, and its inverse eigenvalues."""

    def __init__(self, coefficients: _Coefficients) -> None:
        self.coefficients = coefficients
        axes = coefficients.axes
        self._shape = tuple(axis.num_points for axis in axes)
        self._parts = [_Modes(axis) for axis in axes]
        self._periodic = [index for index, axis in enumerate(axes) if axis.ends is None]
        eigenvalues = np.full((1,) * len(axes), coefficients.reaction)
        for index, modes in enumerate(self._parts):
            along = modes.eigenvalues
            if self._periodic and index == self._periodic[-1]:
                # The transform of real numbers stores half of the last periodic axis.
                along = along[: along.size // 2 + 1]
            eigenvalues = eigenvalues + along.reshape((-1,) + (1,) * (len(axes) - 1 - index))
        size = np.abs(eigenvalues)
        largest, zero = float(size.max()), size <= _ZERO * float(size.max())
        # Constants are mapped to 0 exactly when nothing else holds them; the solution of mean 0 has none of them.
        closed = coefficients.reaction == 0.0 and all(axis.ends in (None, (0.0, 0.0)) for axis in axes)
        self.defect = ""
        if not largest > 0.0 and not closed:
            self.defect = "all eigenvalues of the operator are 0"
        elif zero.sum() > closed:
            self.defect = (
                f"the operator is singular: {int(zero.sum())} of its eigenvalues vanish against the largest, "
                f"{largest:g}. The reaction {coefficients.reaction:g} hits a resonance of the box"
            )
        eigenvalues[zero] = np.inf
        self._inverse = 1.0 / eigenvalues

    def solve(self, rhs: Float64[np.ndarray, "batch unknowns"]) -> Float64[np.ndarray, "batch unknowns"]:
        """A⁻¹ of every row; without the constants, if A maps them to 0."""
        from scipy import fft

        u: np.ndarray = rhs.reshape(-1, *self._shape)
        for index, modes in enumerate(self._parts):
            u = modes.forward(u, index + 1)
        periodic = [index + 1 for index in self._periodic]
        if periodic:
            u = fft.rfftn(u, axes=periodic)
        u = u * self._inverse
        if periodic:
            u = fft.irfftn(u, s=[self._shape[index] for index in self._periodic], axes=periodic)
        for index, modes in enumerate(self._parts):
            u = modes.backward(u, index + 1)
        return u.reshape(rhs.shape)


class _Modes:
    """The orthonormal eigenvectors of one axis; those of a periodic one are left to `_Diagonalized`."""

    def __init__(self, axis: _Axis) -> None:
        n, c = axis.num_points, axis.conductance
        self._cosine, self._type, self._vectors = False, 0, np.empty((0, 0))
        self.eigenvalues: Float64[np.ndarray, " n"]
        angles: np.ndarray
        if axis.ends is None:
            angles = 2.0 * math.pi / n * np.arange(n)
        else:
            kind = _kind(axis.ends, c)
            if kind is None:
                self.eigenvalues, self._vectors = _dense_modes(n, c, axis.ends)
                return
            self._cosine, self._type = kind
            k = np.arange(n)
            angles = math.pi / n * {1: (k + 1) * n / (n + 1), 2: k + (not self._cosine), 4: k + 0.5}[self._type]
        # 2 - 2 cos θ without cancellation.
        self.eigenvalues = c * (2.0 * np.sin(0.5 * angles)) ** 2

    def forward(self, u: Float64[np.ndarray, "batch *points"], axis: int) -> Float64[np.ndarray, "batch *modes"]:
        """From points to modes along one axis."""
        from scipy import fft

        if self._vectors.size:
            return np.moveaxis(np.moveaxis(u, axis, -1) @ self._vectors, -1, axis)
        if not self._type:
            return u
        return (fft.dct if self._cosine else fft.dst)(u, type=self._type, axis=axis, norm="ortho")

    def backward(self, u: Float64[np.ndarray, "batch *modes"], axis: int) -> Float64[np.ndarray, "batch *points"]:
        """From modes to points along one axis."""
        from scipy import fft

        if self._vectors.size:
            return np.moveaxis(np.moveaxis(u, axis, -1) @ self._vectors.T, -1, axis)
        if not self._type:
            return u
        return (fft.idct if self._cosine else fft.idst)(u, type=self._type, axis=axis, norm="ortho")


def _kind(ends: tuple[float, float], c: float) -> tuple[bool, Literal[1, 2, 4]] | None:
    """Whether the transform is a cosine transform, and its type; None if there is no fast one."""
    fast: dict[tuple[int, int], tuple[bool, Literal[1, 2, 4]]] = {
        (1, 1): (False, 1),
        (0, 0): (True, 2),
        (2, 2): (False, 2),
        (0, 2): (True, 4),
        (2, 0): (False, 4),
    }
    for (first, last), kind in fast.items():
        if all(abs(end - times * c) <= _EQUAL * c for end, times in zip(ends, (first, last), strict=True)):
            return kind
    return None


def _dense_modes(
    n: int, c: float, ends: tuple[float, float]
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "n modes"]]:
    from scipy.linalg import eigh_tridiagonal

    diagonal = np.full(n, 2.0 * c)
    diagonal[0] += ends[0] - c
    diagonal[-1] += ends[1] - c
    if n == 1:
        return np.array([sum(ends)]), np.ones((1, 1))
    values, vectors = eigh_tridiagonal(diagonal, np.full(n - 1, -c))
    return values, vectors
