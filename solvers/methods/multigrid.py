"""Multigrid-preconditioned conjugate gradients for five-point operators: the fastest method where it fits."""

import functools
import math
import time
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float32, UInt64
from pydantic import Field

from headrace.solvers.methods.multigrid3d import RunningByDimension, RunningMultigrid3D
from headrace.solvers.problem import AbstractProblem
from headrace.solvers.solver import AbstractSolver, RunningSolver, Solution, SolveStatus
from headrace.solvers.system import LinearSystem, System


class Multigrid(AbstractSolver):
    """Conjugate gradients preconditioned by one geometric V-cycle, in single precision, corrected in double.

    Takes positive definite diffusion operators in two and three dimensions, on any grid, with any mixture of Dirichlet,
    Neumann and periodic boundaries, with a reaction or without; where constants may be added to the solution it finds
    the one of mean 0. No matrix is built. The iterations to 1e-8, about 7 on log-normal permeability and 8 to 13 on
    two-phase permeability up to contrast 100, hardly depend on the grid.

    The plane with Dirichlet boundaries and without a reaction, where most data sets are made, has the fastest kernels
    (`headrace.solvers.methods.multigrid_kernels`); `headrace.solvers.methods.multigrid3d` takes the rest.

    Attributes:
        max_iterations: when to give up.
    """

    kind: Literal["multigrid"] = "multigrid"
    max_iterations: Annotated[int, Field(ge=1, le=10_000)] = 100

    def build(self) -> "RunningByDimension":
        """Start a sequence; workspaces are shared by systems of one shape."""
        return RunningByDimension(RunningMultigrid(self.max_iterations), RunningMultigrid3D(self.max_iterations))

    def mismatch(self, target: AbstractProblem | System) -> str | None:
        """Needs a positive definite diffusion operator in two or three dimensions."""
        known = target.structure
        if known.diffusion not in (2, 3):
            what = "this one is 1-D" if known.diffusion else "this is a general matrix"
            return f"Multigrid needs a diffusion operator on a 2-D or 3-D grid, {what}; use auto or direct."
        if not known.positive_definite:
            return "Multigrid needs a positive definite operator, this one is not; use auto or direct."
        return None


class RunningMultigrid(RunningSolver):
    """Keeps the grids and workspaces of the last shape that it solved."""

    def __init__(self, max_iterations: int) -> None:
        self._max_iterations = max_iterations
        self._workspace: _Workspace | None = None

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        """Solve one system.

        Raises:
            ValueError: the system has no five-point operator.
        """
        # Numba takes seconds to import: those who do not solve do not wait for it.
        from headrace.solvers.methods import multigrid_kernels as kernels

        if system.operator is None:
            raise ValueError("multigrid needs a system with a diffusion operator, got a general matrix")
        started = time.perf_counter()
        operator = system.operator
        if self._workspace is None or self._workspace.shape != operator.shape:
            self._workspace = _Workspace((operator.shape[0], operator.shape[1]))
        value = np.empty(system.num_unknowns)
        num_iterations, residual = kernels.conjugate_gradients(
            *(np.ascontiguousarray(c, dtype=np.float64).ravel() for c in operator.conductances),
            np.ascontiguousarray(system.rhs, dtype=np.float64),
            value,
            *self._workspace.arrays,
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
            value=value,
            status=status,
            relative_residual=residual,
            num_iterations=num_iterations,
            seconds=time.perf_counter() - started,
            method="multigrid",
        )


class _Workspace:
    """Arrays of all levels, one after the other, in the layout that the kernels describe; about 85 bytes an unknown."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        levels, num_points = _hierarchy(shape[0] + 1, shape[1] + 1)
        finest = int(levels[1, 2]) if len(levels) > 1 else num_points
        coarse = num_points - finest
        levelled = _arrays(9, num_points)
        # Conductances on the boundary and on padding mean nothing, but they must not make a quotient 0 / 0.
        levelled[:2] = 1.0
        self.arrays = (
            levels,
            levelled,
            _arrays(2, finest),
            np.zeros(finest + 16),
            _arrays(5, coarse),
            _arrays(4, num_points // 2 + int(levels[0, 3])),
            _arrays(2, num_points // 2 + int(levels[0, 3])),
            _arrays(2, coarse),
            _arrays(10, max(shape[0], int(levels[0, 3]))),
        )


def _arrays(count: int, size: int) -> Float32[np.ndarray, "count size"]:
    """Zeros with room for those who look a little beyond the ends."""
    # A loop reads a dozen arrays in step: lengths near a multiple of 4 KB would have them all fight for one cache line.
    size = 1024 * math.ceil((size + 48) / 1024) + 144
    flat = np.zeros(count * size + 16, dtype=np.float32)
    # Rows begin at cache lines.
    skip = -flat.ctypes.data // 4 % 16
    return flat[skip : skip + count * size].reshape(count, size)


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
