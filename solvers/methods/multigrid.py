"""Multigrid-preconditioned conjugate gradients for five-point operators: the fastest method where it fits."""

import functools
import math
import time
from typing import Annotated, ClassVar, Literal

import numpy as np
from jaxtyping import Float32, UInt64
from pydantic import Field

from headrace.solvers.methods.black_box import RunningBlackBox
from headrace.solvers.methods.multigrid3d import RunningByDimension, RunningMultigrid3D
from headrace.solvers.methods.spares import Spares
from headrace.solvers.systems.family import Candidacy, Family
from headrace.solvers.systems.operators import DiffusionOperator
from headrace.solvers.systems.solver import AbstractSolver, RunningSolver, Solution, SolveStatus
from headrace.solvers.systems.system import LinearSystem, Structured

_NONE = np.zeros((0, 0))
# NumPy asks the system for large pages from this size on; how large they are [bytes].
_LARGE, _LARGE_PAGE = 4 << 20, 2 << 20


class Multigrid(AbstractSolver):
    """Conjugate gradients preconditioned by one geometric V-cycle, in single precision, corrected in double.

    Takes positive definite diffusion operators in two and three dimensions, on any grid, with any mixture of Dirichlet,
    Neumann and periodic boundaries, with a reaction or without; where constants may be added to the solution it finds
    the one of mean 0. No matrix is built. The iterations to 1e-8 hardly depend on the grid, but on contrast and on how
    large the pieces are: about 7 on log-normal permeability of moderate contrast and at most 36 at 1e6; on two
    materials 9 to 13 at a contrast of 10 and 12 to 33 at 100, the most in pieces of two or three points.

    The plane, where most data sets are made, has kernels of its own (`headrace.solvers.methods.multigrid_kernels`) as
    long as no axis is periodic. Where coefficients there jump by more than 1,000 from one face to the next, in many
    places, or where those kernels do not converge, black-box multigrid in double precision takes their place
    (`headrace.solvers.methods.black_box_kernels`), at four times the price of an iteration; the table stands in
    docs/benchmarks, 2026-12-01. `headrace.solvers.methods.multigrid3d` takes the rest, at up to ten times the price in
    the plane.

    Attributes:
        max_iterations: iterations after which to give up.
    """

    kind: Literal["multigrid"] = "multigrid"

    candidacies: ClassVar[tuple[Candidacy, ...]] = (
        Candidacy(family=Family.repeating, cost=1.5),
        Candidacy(family=Family.structured, cost=1.0),
        Candidacy(family=Family.drifting, cost=1.0),
    )
    seconds_an_entry: ClassVar[float | None] = None
    max_iterations: Annotated[int, Field(ge=1, le=10_000)] = 100

    def build(self) -> "RunningByDimension":
        """Start a sequence; workspaces are shared by systems of one shape."""
        return RunningByDimension(
            RunningMultigrid(self.max_iterations),
            RunningMultigrid3D(self.max_iterations),
            RunningBlackBox(self.max_iterations),
        )

    def learns(self, target: Structured) -> bool:
        """Only workspaces are kept."""
        return False

    def mismatch(self, target: Structured) -> str | None:
        """Needs a positive definite diffusion operator in two or three dimensions."""
        known = target.structure
        if known.diffusion not in (2, 3):
            what = "this one is 1-D" if known.diffusion else "this is a general matrix"
            return f"Multigrid needs a diffusion operator on a 2-D or 3-D grid, {what}; use auto or direct."
        if not known.positive_definite:
            return "Multigrid needs a positive definite operator, this one is not; use auto or direct."
        return None


class RunningMultigrid(RunningSolver):
    """Solves in the plane, between Dirichlet and Neumann boundaries; keeps the workspace of the last grid."""

    def __init__(self, max_iterations: int) -> None:
        self._max_iterations = max_iterations
        self._workspace: _Workspace | None = None

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        """Solve one system.

        Raises:
            ValueError: the system has no five-point operator, or an axis is periodic.
        """
        # Numba takes seconds to import: those who do not solve do not wait for it.
        from headrace.solvers.methods import multigrid_kernels as kernels

        operator = system.operator
        if operator is None:
            raise ValueError("multigrid needs a system with a diffusion operator, got a general matrix")
        if operator.periodic != (False, False):
            raise ValueError(
                f"multigrid in the plane needs two axes that are not periodic, got periodic = {operator.periodic}"
            )
        started = time.perf_counter()
        reaction = operator.reaction
        workspace = self._workspace
        if workspace is None or workspace.shape != operator.shape or workspace.reacts == (reaction is None):
            self._leave()
            key = (operator.shape, reaction is not None)
            workspace = self._workspace = _spares.take(key) or _Workspace(operator)
        along_x, along_y = operator.conductances
        # What is left of the mean is rounding, and nothing that a singular operator could produce.
        rhs = system.without_mean(system.rhs)
        value = np.empty(rhs.size)
        num_iterations, residual = kernels.conjugate_gradients(
            np.ascontiguousarray(along_x, np.float64),
            np.ascontiguousarray(along_y, np.float64),
            _NONE if reaction is None else np.ascontiguousarray(reaction, np.float64),
            np.ascontiguousarray(rhs, np.float64),
            value,
            *workspace.arrays,
            rtol,
            self._max_iterations,
        )
        if residual <= rtol:
            status = SolveStatus.converged
        elif num_iterations >= self._max_iterations:
            status = SolveStatus.max_iterations
        else:
            status = SolveStatus.breakdown
        if status is SolveStatus.breakdown or not math.isfinite(residual):
            # What is not finite stays in the workspace and would spoil the next system.
            self._workspace = None
        return Solution(
            value=system.without_mean(value),
            status=status,
            relative_residual=residual,
            num_iterations=num_iterations,
            seconds=time.perf_counter() - started,
            method="multigrid",
        )

    def _leave(self) -> None:
        """Leave the workspace to the next solver that is built."""
        workspace, self._workspace = self._workspace, None
        if workspace is not None:
            _spares.leave((workspace.shape, workspace.reacts), workspace, workspace.num_bytes)

    def __del__(self) -> None:
        self._leave()


class _Workspace:
    """Arrays of all levels, one after the other, in the layout that the kernels describe; about 85 bytes an unknown.

    A reaction takes 5 more.
    """

    def __init__(self, operator: DiffusionOperator) -> None:
        self.shape, self.reacts = operator.shape, operator.reaction is not None
        shape = operator.shape
        levels, num_points = _hierarchy(shape[0] + 1, shape[1] + 1)
        finest = int(levels[1, 2]) if len(levels) > 1 else num_points
        coarse = num_points - finest
        halves = num_points // 2 + int(levels[0, 3])
        levelled, reaction, finest_single, double, weights, links, parts, edges, rows = _arrays(
            (9, num_points),
            (int(self.reacts), num_points),
            (2, finest),
            (1, 2 * (finest + 16)),
            (5, coarse),
            (4, halves),
            (2, halves),
            (2, coarse),
            (10, max(shape[0], int(levels[0, 3]))),
        )
        self.num_bytes = 4 * (12 * num_points + 8 * finest + 7 * coarse + 6 * halves)
        # Conductances on the boundary and on padding mean nothing, but they must not make a quotient 0 / 0.
        levelled[:2] = 1.0
        self.arrays = (
            levels,
            levelled,
            reaction.reshape(-1),
            finest_single,
            double.view(np.float64)[0],
            weights,
            links,
            parts,
            edges,
            rows,
        )


# To 4 workspaces of 500 x 500 points.
_spares: Spares[_Workspace] = Spares(4, 32 << 20)


def _arrays(*requests: tuple[int, int]) -> list[Float32[np.ndarray, "count size"]]:
    """Zeros: of every request so many rows of a size, with room for those who look a little beyond the ends.

    All lie in one piece of memory, on large pages where the system has some: loops read a dozen arrays in step, and on
    257 points a side they touch more small pages than the processor keeps the addresses of, which costs some 2 %.
    """
    # Rows begin at cache lines. Lengths near a multiple of 4 KB would have a loop's arrays all fight for one of them.
    sizes = [1024 * math.ceil((size + 48) / 1024) + 144 for _, size in requests]
    num_values = sum(count * size for (count, _), size in zip(requests, sizes, strict=True))
    # What nobody touches takes no memory.
    flat = np.zeros((max(4 * num_values, _LARGE) + _LARGE_PAGE) // 4, dtype=np.float32)
    at = -flat.ctypes.data % _LARGE_PAGE // 4
    arrays = []
    for (count, _), size in zip(requests, sizes, strict=True):
        arrays.append(flat[at : at + count * size].reshape(count, size))
        at += count * size
    return arrays


@functools.lru_cache(maxsize=8)
def _hierarchy(num_x: int, num_y: int) -> tuple[UInt64[np.ndarray, "levels 4"], int]:
    """Of every level the intervals along both axes, where its points begin, and the stride; and all points."""
    levels, num_points = [], 0
    while True:
        stride = 16 * math.ceil(num_y / 16)
        levels.append((num_x, num_y, num_points, stride))
        num_points += (num_x + 1) * stride
        if min(num_x, num_y) <= 2:
            return np.array(levels, dtype=np.uint64), num_points
        num_x, num_y = (num_x + 1) // 2, (num_y + 1) // 2
