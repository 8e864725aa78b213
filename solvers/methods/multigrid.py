"""Multigrid-preconditioned conjugate gradients for five-point operators: the fastest method where it fits."""

import functools
import time
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float32, Float64, UInt64
from pydantic import Field

from headrace.solvers.methods.multigrid3d import RunningByDimension, RunningMultigrid3D
from headrace.solvers.problem import AbstractProblem
from headrace.solvers.solver import AbstractSolver, RunningSolver, Solution, SolveStatus
from headrace.solvers.system import LinearSystem, System


class Multigrid(AbstractSolver):
    """Conjugate gradients in double precision, preconditioned by one geometric V-cycle in single precision.

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
        conductance_x, conductance_y = operator.conductances
        if self._workspace is None or self._workspace.shape != operator.shape:
            self._workspace = _Workspace((operator.shape[0], operator.shape[1]))
        work = self._workspace
        value = np.empty(system.num_unknowns)
        num_iterations, residual = kernels.conjugate_gradients(
            np.ascontiguousarray(conductance_x, dtype=np.float64),
            np.ascontiguousarray(conductance_y, dtype=np.float64),
            np.ascontiguousarray(system.rhs, dtype=np.float64),
            value,
            work.levels,
            work.single,
            work.double,
            work.rows,
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
            # What is not finite stays on the boundary of the workspace and would spoil the next system.
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
    """Arrays of all levels, one after the other, in the layout that the kernels describe."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.levels, num_points = _hierarchy(shape[0] + 1, shape[1] + 1)
        self.single: Float32[np.ndarray, "6 points"] = np.zeros((6, num_points), dtype=np.float32)
        self.double: Float64[np.ndarray, "6 finest"] = np.zeros((6, (shape[0] + 2) * (shape[1] + 2)))
        self.rows: Float32[np.ndarray, " rows"] = np.zeros(4 * (max(shape) + 4), dtype=np.float32)


@functools.lru_cache(maxsize=8)
def _hierarchy(num_x: int, num_y: int) -> tuple[UInt64[np.ndarray, "levels 3"], int]:
    """Of every level the intervals along both axes and where its points begin; and the points of all levels."""
    levels, num_points = [], 0
    while True:
        levels.append((num_x, num_y, num_points))
        num_points += (num_x + 1) * (num_y + 1)
        if min(num_x, num_y) <= 2:
            return np.array(levels, dtype=np.uint64), num_points
        num_x, num_y = (num_x + 1) // 2, (num_y + 1) // 2
