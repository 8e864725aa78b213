"""Multigrid for strongly heterogeneous coefficients in the plane: when it is due, its levels, and a sequence."""

import functools
import math
import time

import numpy as np
from jaxtyping import Float64, UInt64

from headrace.solvers.systems.operators import DiffusionOperator
from headrace.solvers.systems.solver import RunningSolver, Solution, SolveStatus
from headrace.solvers.systems.system import LinearSystem
from headrace.solvers.systems.verified import BACKWARD_STABLE, LARGEST_RESIDUAL

_NONE = np.zeros((0, 0))
# Conductances side by side that differ by more than this, on more than this share of faces (docs/benchmarks).
_JUMP, _MANY = 1000.0, 0.02


def jumps(operator: DiffusionOperator) -> bool:
    """Whether conductances change by orders of magnitude from one face to the next, in more than a few places.

    Looks at every eighth row, which takes some microseconds.
    """
    # Numba takes seconds to import: those who do not solve do not wait for it.
    from headrace.solvers.methods.black_box_operators import share_of_jumps

    return bool(share_of_jumps(operator.conductances[1], _JUMP) > _MANY)


class RunningBlackBox(RunningSolver):
    """Conjugate gradients with the cycle of `headrace.solvers.methods.black_box_kernels`; keeps the last workspace.

    Takes positive definite five-point operators that are not singular, between Dirichlet and Neumann boundaries, with a
    reaction or without.
    """

    def __init__(self, max_iterations: int) -> None:
        self._max_iterations = max_iterations
        self._workspace: _Workspace | None = None

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        """Solve one system.

        Raises:
            ValueError: the system has no five-point operator, or an axis is periodic.
        """
        # Numba takes seconds to import: those who do not solve do not wait for it.
        from headrace.solvers.methods import black_box_kernels as kernels

        operator = system.operator
        if operator is None or operator.periodic != (False, False):
            raise ValueError("black-box multigrid needs a diffusion operator in the plane without periodic axes")
        started = time.perf_counter()
        if self._workspace is None or self._workspace.shape != operator.shape:
            self._workspace = _Workspace(operator.shape)
        value = np.empty(operator.shape)
        num_iterations, residual = kernels.conjugate_gradients(
            *(np.ascontiguousarray(c, np.float64) for c in operator.conductances),
            _NONE if operator.reaction is None else np.ascontiguousarray(operator.reaction, np.float64),
            np.ascontiguousarray(system.rhs, np.float64).reshape(operator.shape),
            value,
            *self._workspace.arrays,
            rtol,
            self._max_iterations,
        )
        if residual <= rtol or _is_backward_stable(system, value.reshape(-1), residual):
            status = SolveStatus.converged
        elif num_iterations >= self._max_iterations:
            status = SolveStatus.max_iterations
        else:
            status = SolveStatus.breakdown
        if not math.isfinite(residual):
            # What is not finite stays in the workspace and would spoil the next system.
            self._workspace = None
        return Solution(
            value=value.reshape(-1),
            status=status,
            relative_residual=residual,
            num_iterations=num_iterations,
            seconds=time.perf_counter() - started,
            method="multigrid",
        )


def _is_backward_stable(system: LinearSystem, x: Float64[np.ndarray, " unknowns"], residual: float) -> bool:
    """Whether rounding is all that keeps the residual from being smaller, as at a contrast of 1e6 in large pieces."""
    return residual <= LARGEST_RESIDUAL and system.backward_error(x) <= BACKWARD_STABLE


class _Workspace:
    """Arrays of all levels, one after the other, in the layout of the kernels; about 210 bytes an unknown."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        levels, num_points = _hierarchy(shape[0], shape[1])
        finest = (shape[0] + 2) * (shape[1] + 2)
        coarsest = int(levels[-1, 0] * levels[-1, 1])
        # Columns 1, 3, ... and 2, 4, ...; and what the coarsest level needs.
        masks = np.zeros((3, max(shape[1] + 2, coarsest)))
        masks[0, 0::2], masks[1, 1::2] = 1.0, 1.0
        self.arrays = (
            levels,
            np.zeros((6, num_points)),
            np.zeros((8, num_points)),
            np.zeros((5, coarsest)),
            masks,
            np.zeros((3, num_points)),
            np.zeros((4, finest)),
        )


@functools.lru_cache(maxsize=8)
def _hierarchy(nx: int, ny: int) -> tuple[UInt64[np.ndarray, "levels 3"], int]:
    """Of every level the points along both axes and where it begins; and all values, with room behind the last."""
    levels, num_values = [], 0
    while True:
        levels.append((nx, ny, num_values))
        num_values += (nx + 2) * (ny + 2)
        if min(nx, ny) <= 3:
            return np.array(levels, dtype=np.uint64), num_values + 2 * (ny + 3)
        nx, ny = nx // 2, ny // 2
