"""Multigrid-preconditioned conjugate gradients for seven-point operators: the levels, and a sequence of systems."""

import dataclasses
import time
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, UInt64

from headrace.solvers.methods.black_box import jumps
from headrace.solvers.systems.operators import DiffusionOperator
from headrace.solvers.systems.solver import RunningSolver, Solution, SolveStatus
from headrace.solvers.systems.system import LinearSystem

# An axis is coarsened as long as its conductances are not this much weaker than those of the strongest: along weak
# ones the error stays rough, and a coarser grid could not show it.
_WEAK = 0.3
# The kernels for the plane coarsen both axes all the same: where one is this much weaker they take about 30 iterations,
# at a third of the price; at 0.005 they cost as much as the others, and soon they run out of iterations.
_TOO_WEAK_IN_THE_PLANE = 0.03
# In the plane all that ties constants down together compares with a single conductance, however fine the grid is. Where
# it is less than this, the kernels for the plane take more iterations, or do not converge (seen from 3e-4 downwards).
_NEARLY_LOOSE = 1e-3

_TO_FRONT = ((0, 1, 2), (1, 0, 2), (2, 0, 1))
_FROM_FRONT = ((0, 1, 2), (1, 0, 2), (1, 2, 0))

type Levels = UInt64[np.ndarray, "levels 8"]
type Points = Float32[np.ndarray, "x y z"]


class RunningMultigrid3D(RunningSolver):
    """Conjugate gradients with a V-cycle, in three dimensions; keeps the workspace of the last grid.

    Takes positive definite seven-point operators with any mixture of Dirichlet, Neumann and periodic boundaries, on
    any grid, with a reaction or without; where constants may be added it finds the solution of mean 0. The kernels are
    explained in `headrace.solvers.methods.multigrid3d_kernels`.

    Contrast, measured on 33 points a side, three seeds, to 1e-8: log-normal permeability takes 8 to 17 iterations up to
    a contrast of 1e4, and 15 to 30 at 1e6. Two materials in pieces of a tenth of the side take 9 or 10 at 10, 16 or 17
    at 100, 22 to 36 at 1,000, and 38 to more than 100 at 1e4; of a twentieth 10, 20 to 23, 42 to 66, and more than 100.
    At 1e6 they are not solved here. There is no cycle for that in space.

    Memory beside the system and its solution: about 48 bytes an unknown (the same as 4 entries of a sparse matrix, of
    which the system's would have 7).
    """

    def __init__(self, max_iterations: int) -> None:
        self._max_iterations = max_iterations
        self._workspace: _Workspace | None = None

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        """Solve one system.

        Raises:
            ValueError: the system has no operator in three dimensions.
        """
        # Numba takes seconds to import: those who do not solve do not wait for it.
        from headrace.solvers.methods import multigrid3d_kernels as kernels

        operator = system.operator
        if operator is None or operator.ndim != 3:
            raise ValueError("multigrid in three dimensions needs a system with a 3-D diffusion operator")
        started = time.perf_counter()
        value = np.zeros(system.num_unknowns)
        num_iterations, residual = 0, float("nan")
        # Python's max would lose a NaN, NumPy's does not.
        fields = [*operator.conductances, *(() if operator.reaction is None else (operator.reaction,))]
        largest = float(np.max([field.max() for field in fields]))
        if np.isfinite(largest) and largest > 0.0:
            work = self._workspace_for(operator)
            work.set_up(operator, largest)
            none = np.zeros(0)
            num_iterations, residual = kernels.conjugate_gradients(
                operator.periodic,
                tuple(np.ascontiguousarray(c, dtype=np.float64).ravel() for c in operator.conductances),
                none if operator.reaction is None else np.ascontiguousarray(operator.reaction, np.float64).ravel(),
                largest,
                operator.singular,
                np.ascontiguousarray(system.rhs, dtype=np.float64),
                value,
                work.levels,
                work.single,
                work.weights,
                work.coarse_residual,
                work.residual,
                work.direction,
                work.planes,
                rtol,
                self._max_iterations,
            )
        if residual <= rtol:
            status = SolveStatus.converged
        elif num_iterations >= self._max_iterations:
            status = SolveStatus.max_iterations
        else:
            status = SolveStatus.breakdown
        if not np.isfinite(residual):
            # What is not finite stays on the ghosts of the workspace and would spoil the next system.
            self._workspace = None
        return Solution(
            value=system.without_mean(value),
            status=status,
            relative_residual=residual,
            num_iterations=num_iterations,
            seconds=time.perf_counter() - started,
            method="multigrid",
        )

    def _workspace_for(self, operator: DiffusionOperator) -> "_Workspace":
        shapes = _shapes(operator)
        if self._workspace is None or not self._workspace.fits(shapes, operator.periodic):
            # The old one goes before the new one comes.
            self._workspace = None
            self._workspace = _Workspace(shapes, operator.periodic)
        return self._workspace


class RunningByDimension(RunningSolver):
    """Hands every system to the kernels that take it.

    Those for two dimensions take the plane without periodic axes, unless `_is_too_hard` says no. Where coefficients
    jump by orders of magnitude (`jumps`), and where those kernels do not converge, a cycle made for that takes their
    place. Other systems in the plane are systems in space whose first axis has a single point between closed ends, at
    up to ten times the price.
    """

    def __init__(self, two: RunningSolver, three: RunningSolver, jumping: RunningSolver) -> None:
        self._two, self._three, self._jumping = two, three, jumping

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        """Solve one system."""
        operator = system.operator
        if operator is None or operator.ndim != 2:
            return self._three.solve(system, rtol)
        if not any(operator.periodic) and not _is_too_hard(operator):
            # The coarsest matrix of a singular operator has no factor.
            if operator.singular:
                return self._two.solve(system, rtol)
            if jumps(operator):
                return self._jumping.solve(system, rtol)
            solution = self._two.solve(system, rtol)
            if solution.status is SolveStatus.converged or not np.isfinite(solution.relative_residual):
                return solution
            again = self._jumping.solve(system, rtol)
            return dataclasses.replace(
                again,
                num_iterations=again.num_iterations + solution.num_iterations,
                seconds=again.seconds + solution.seconds,
                detail=f"after {solution.num_iterations} iterations of the cycle for smaller contrasts",
            )
        flat = DiffusionOperator(
            conductances=(np.zeros((2, *operator.shape)), *(c[np.newaxis] for c in operator.conductances)),
            periodic=(False, *operator.periodic),
            reaction=None if operator.reaction is None else operator.reaction[np.newaxis],
        )
        return self._three.solve(LinearSystem.from_operator(flat, system.rhs), rtol)


def _is_too_hard(operator: DiffusionOperator) -> bool:
    """Whether the kernels for two dimensions would need more time for it than the others, or fail.

    They coarsen both axes, which conductances that differ much along them do not allow; and what hardly ties constants
    down, a reaction or an end that is nearly closed, is lost in their single precision. Where nothing does, they know.
    Dirichlet problems without a reaction are not looked at, which would cost more than what it saves.
    """
    reaction = operator.reaction
    if reaction is None and operator.has_open_ends:
        return False
    strengths = [_typical(c) for c, n in zip(operator.conductances, operator.shape, strict=True) if n > 1]
    # One point across a line is solved directly.
    if len(strengths) == 2 and min(strengths) < _TOO_WEAK_IN_THE_PLANE * max(strengths):
        return True
    if reaction is not None and not reaction.min() >= 0.0:
        return True
    enough = _NEARLY_LOOSE * max(strengths, default=0.0)
    if reaction is not None and _typical(reaction) >= enough:
        return False
    along_x, along_y = operator.conductances
    ties = [along_x[0], along_x[-1], along_y[:, 0], along_y[:, -1], *(() if reaction is None else (reaction,))]
    return 0.0 < sum(float(tie.sum()) for tie in ties) < enough


def _typical(field: Float64[np.ndarray, "x y"]) -> float:
    """The mean of some rows, in less time than a pass over all of them."""
    rows = field[field.shape[0] // 2 % 8 :: 8]
    return float(rows.sum()) / rows.size


def _shapes(operator: DiffusionOperator) -> list[tuple[int, int, int]]:
    """Points along the axes of every level, from the finest to a single point.

    Only axes with strong conductances are coarsened. A coarse conductance is half as large along its own axis (two in
    series) and twice as large for every other axis that is coarsened (two side by side).
    """
    nx, ny, nz = operator.shape
    shapes = [(nx, ny, nz)]
    strengths = [float(c.mean()) for c in operator.conductances]
    while max(shapes[-1]) > 1:
        shape = shapes[-1]
        strongest = max(s for s, n in zip(strengths, shape, strict=True) if n > 1)
        coarsens = [n > 1 and (s == strongest or s >= _WEAK * strongest) for s, n in zip(strengths, shape, strict=True)]
        coarse = [
            _coarse(n, wraps) if yes else n for n, wraps, yes in zip(shape, operator.periodic, coarsens, strict=True)
        ]
        shapes.append((coarse[0], coarse[1], coarse[2]))
        for axis, yes in enumerate(coarsens):
            if yes:
                strengths = [s / 2.0 if other == axis else s * 2.0 for other, s in enumerate(strengths)]
    return shapes


def _coarse(n: int, wraps: bool) -> int:
    """Coarse points of n along an axis: every second one, and of an odd number around a period also the last."""
    return (n + 1) // 2 if wraps else n // 2


class _Workspace:
    """Arrays of all levels, one after the other, in the layout that the kernels describe."""

    def __init__(self, shapes: list[tuple[int, int, int]], periodic: tuple[bool, ...]) -> None:
        self._shapes, self._periodic = shapes, periodic
        rows, first, weight = [], 0, 0
        for shape, coarse in zip(shapes, [*shapes[1:], None], strict=True):
            row = [*shape, first]
            first += (shape[0] + 2) * (shape[1] + 2) * (shape[2] + 2)
            for axis in range(3):
                row.append(weight)
                if coarse is not None:
                    weight += int(np.prod(_weight_shape(shape, coarse, axis)))
            rows.append([*row, weight])
        self.levels: Levels = np.array(rows, dtype=np.uint64)
        finest = int(self.levels[1, 3]) if len(shapes) > 1 else first
        # Conductances along the axes, inverse diagonal, correction, and what the smoother needs.
        self.single = tuple(np.zeros(first, dtype=np.float32) for _ in range(6))
        self.weights: Float32[np.ndarray, " weights"] = np.zeros(weight, dtype=np.float32)
        self.coarse_residual: Float32[np.ndarray, " coarse"] = np.zeros(first - finest, dtype=np.float32)
        self.residual: Float64[np.ndarray, " finest"] = np.zeros(finest)
        self.direction: Float32[np.ndarray, " unknowns"] = np.zeros(int(np.prod(shapes[0])), dtype=np.float32)
        # For the longest rows of any level, not of the finest: that one may be flat.
        self.planes: Float32[np.ndarray, " planes"] = np.zeros(
            4 * (shapes[0][1] + 2) * (shapes[0][2] + 2), dtype=np.float32
        )

    def fits(self, shapes: list[tuple[int, int, int]], periodic: tuple[bool, ...]) -> bool:
        """Whether it was made for these levels."""
        return shapes == self._shapes and periodic == self._periodic

    def set_up(self, operator: DiffusionOperator, largest: float) -> None:
        """Conductances, weights and diagonals of all levels."""
        level = _finest(operator, largest)
        for index, shape in enumerate(self._shapes):
            first = int(self.levels[index, 3])
            padded = (shape[0] + 2, shape[1] + 2, shape[2] + 2)
            parts = [array[first : first + int(np.prod(padded))].reshape(padded) for array in self.single[:4]]
            for axis, stored in enumerate(parts[:3]):
                stored[...] = level.conductances[axis]
            _invert_diagonal(level, parts[3])
            if index + 1 == len(self._shapes):
                break
            coarse = self._shapes[index + 1]
            # From here on the level's conductances are read from where they are stored, and freed on the way.
            level = _Level(conductances=[parts[0], parts[1], parts[2]], reaction=level.reaction)
            for axis in range(3):
                if coarse[axis] < shape[axis]:
                    level, weights = _coarsened(level, axis, self._periodic)
                    begin, end = int(self.levels[index, 4 + axis]), int(self.levels[index, 5 + axis])
                    self.weights[begin:end] = weights.ravel()


def _weight_shape(shape: tuple[int, int, int], coarse: tuple[int, int, int], axis: int) -> tuple[int, int, int]:
    """Of the weights along an axis: with the ghosts of the axes that come after it, in which the kernels run on."""
    between = shape[axis] - coarse[axis]
    if axis == 0:
        return between, shape[1] + 2, shape[2] + 2
    return (coarse[0], between, shape[2] + 2) if axis == 1 else (coarse[0], coarse[1], between)


@dataclass
class _Level:
    """An operator with ghosts: `conductances[axis]` between a point and the next one; the reaction, or None."""

    conductances: list[Points]
    reaction: Points | None


def _finest(operator: DiffusionOperator, largest: float) -> _Level:
    padded = tuple(n + 2 for n in operator.shape)
    conductances = []
    for axis, (faces, wraps) in enumerate(zip(operator.conductances, operator.periodic, strict=True)):
        c = np.zeros(padded, dtype=np.float32)
        inside = [slice(1, -1)] * 3
        inside[axis] = slice(0, -2 if wraps else -1)
        # A point that is its own neighbour exchanges nothing with itself.
        if not (wraps and operator.shape[axis] == 1):
            np.multiply(faces, 1.0 / largest, out=c[tuple(inside)], casting="same_kind")
            if wraps:
                along = _to_front(c, axis)
                along[-2] = along[0]
        conductances.append(c)
    reaction = None
    if operator.reaction is not None:
        reaction = np.zeros(padded, dtype=np.float32)
        np.multiply(operator.reaction, 1.0 / largest, out=reaction[1:-1, 1:-1, 1:-1], casting="same_kind")
    return _Level(conductances=conductances, reaction=reaction)


def _invert_diagonal(level: _Level, out: Points) -> None:
    inside = (slice(1, -1),) * 3
    diagonal = np.zeros(tuple(n - 2 for n in out.shape), dtype=np.float32)
    for axis, c in enumerate(level.conductances):
        before = list(inside)
        before[axis] = slice(0, -2)
        diagonal += c[tuple(before)]
        diagonal += c[inside]
    if level.reaction is not None:
        diagonal += level.reaction[inside]
    # The last point of a singular operator has the diagonal 0, and gets no correction.
    out[inside] = np.divide(1.0, diagonal, out=np.zeros_like(diagonal), where=diagonal > 0.0)


def _coarsened(level: _Level, axis: int, periodic: tuple[bool, ...]) -> tuple[_Level, Points]:
    """The operator with every second point along one axis, and the weights of interpolation.

    A point between two coarse ones gives the share w = c₋ / (c₋ + c₊) of everything it has to the one before it and
    the rest to the one after. Two conductances in series become c₋ c₊ / (c₋ + c₊), which is what the Galerkin product
    makes of them; of conductances across the axis each coarse point gets the share of the points at both ends of them.
    """
    wraps = periodic[axis]
    along = _to_front(level.conductances[axis], axis)
    n = along.shape[0] - 2
    m = _coarse(n, wraps)
    between = n - m
    before, after = along[0 : 2 * between : 2], along[1 : 2 * between : 2]
    total = before + after
    # On ghosts, and where a closed axis has but one point, there is nothing to share.
    weights = np.divide(before, total, out=np.full_like(total, 0.5), where=total > 0.0)
    new = np.zeros((m + 2, *along.shape[1:]), dtype=np.float32)
    np.multiply(weights, after, out=new[:between])
    if between <= m:
        # The last interval has no partner, or it is the first one again.
        new[between] = along[n] if not wraps else along[n - 1] if between < m else new[0]
    if wraps:
        new[m] = new[0]
        if m == 1:
            new[:] = 0.0
    conductances = list(level.conductances)
    conductances[axis] = _from_front(new, axis)
    # Across the axis a conductance lies between two points with weights of their own. Beyond the end of the box the
    # last weight goes on.
    for other in range(3):
        if other != axis:
            _extend(_from_front(weights, axis), other, periodic[other])
    for other in range(3):
        if other == axis:
            continue
        target = np.zeros((m + 2, *along.shape[1:]), dtype=np.float32)
        conductances[other] = _from_front(target, axis)
        if not level.conductances[other].any():
            # The plane has no third axis.
            continue
        shares = _to_front(_from_front(weights, axis), other)
        mean = 0.5 * (shares[:-1] + shares[1:])
        across = _to_front(level.conductances[other], other)[:-1]
        source = _to_front(_from_front(across, other), axis)
        share = _to_front(_from_front(mean, other), axis)
        # `source` lacks the last layer of the other axis: no conductance begins on the ghosts behind the box.
        short = [slice(None)] * 3
        short[other + (other < axis)] = slice(0, -1)
        _collect(source, share, target[tuple(short)], n, m, wraps)
    reaction = None
    if level.reaction is not None:
        target = np.zeros((m + 2, *along.shape[1:]), dtype=np.float32)
        _collect(_to_front(level.reaction, axis), weights, target, n, m, wraps)
        reaction = _from_front(target, axis)
    # What the kernels read: without the ghosts of the axes that are coarse already.
    stored = _from_front(weights, axis)
    stored = stored[tuple(slice(1, -1) if other < axis else slice(None) for other in range(3))]
    return _Level(conductances=conductances, reaction=reaction), stored


def _to_front(array: Points, axis: int) -> Points:
    """A view whose first axis is this one. NumPy's `moveaxis` costs ten times as much, and half of a small set-up."""
    return array.transpose(_TO_FRONT[axis])


def _from_front(array: Points, axis: int) -> Points:
    """A view whose first axis goes to the place of this one."""
    return array.transpose(_FROM_FRONT[axis])


def _extend(weights: Points, axis: int, wraps: bool) -> None:
    """Fill the ghosts of an axis, in place."""
    along = _to_front(weights, axis)
    along[0], along[-1] = (along[-2], along[1]) if wraps else (along[1], along[-2])


def _collect(source: Points, share: Points, target: Points, n: int, m: int, wraps: bool) -> None:
    """Add up along the first axis what coarse points have and get, in place."""
    between = n - m
    regular = min(between, m)
    target[1 : regular + 1] = source[2 : 2 * regular + 1 : 2]
    if m > regular:
        target[m] = source[n]
    given = share * source[1 : 2 * between : 2]
    target[1:between] += given[1:]
    if wraps:
        target[m] += given[0]
    np.subtract(source[1 : 2 * between : 2], given, out=given)
    target[1 : regular + 1] += given[:regular]
