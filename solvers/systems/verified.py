"""The check that no method can talk its way around: the residual, recomputed from the system.

What a method returns is looked at as if it came from elsewhere. It has to be a vector of the system's own type; it is
copied where it is a view of something else; and its residual is computed from the right-hand side as it was before the
method saw it. Right-hand sides far from 1 are brought near it by a power of two, so that neither methods nor norms
overflow or underflow, and what comes out is scaled back before it is verified.
"""

import dataclasses
import math
import time
from collections.abc import Sequence

import numpy as np

from headrace.solvers.systems.newton import solve_newton
from headrace.solvers.systems.norms import described, exponent, is_moderate, peak, scaled
from headrace.solvers.systems.solver import RunningSolver, Solution, SolveStatus
from headrace.solvers.systems.system import LinearSystem, NonlinearSystem, System

BACKWARD_STABLE = 2.0**-50
"""A backward error that says that no better x is to be had in double precision: four roundings."""

LARGEST_RESIDUAL = 1e-6
"""Beyond it a small backward error says nothing: x may be a vector that a nearly singular matrix maps to nothing."""

# The part of a matrix's rows that is left of a constant vector, if rounding made it.
_NOTHING = 1e-13


def solve_verified(running: RunningSolver, system: System, rtol: float) -> Solution:
    """Solve, then recompute the residual from the system; whatever the method claims, a miss is not `converged`."""
    return solve_batch_verified(running, [system], rtol)[0]


def solve_batch_verified(running: RunningSolver, systems: Sequence[System], rtol: float) -> list[Solution]:
    """Solve systems that are at hand together and verify each; `seconds` is the share of one in the whole."""
    started = time.perf_counter()
    tasks = [_Task(system) for system in systems]
    linear = [task.posed for task in tasks if isinstance(task.posed, LinearSystem)]
    batch = iter([running.solve(linear[0], rtol)]) if len(linear) == 1 else iter(running.solve_batch(linear, rtol))
    solutions = [
        solve_newton(running, task.posed, rtol) if isinstance(task.posed, NonlinearSystem) else next(batch)
        for task in tasks
    ]
    seconds = (time.perf_counter() - started) / max(len(systems), 1)
    return [
        _retried(running, task, task.verified(solution, rtol, seconds), rtol)
        for task, solution in zip(tasks, solutions, strict=True)
    ]


def _retried(running: RunningSolver, task: "_Task", solution: Solution, rtol: float) -> Solution:
    """The solution if it is accepted, else the last of all further tries; `seconds` and `detail` tell of every one."""
    reasons: list[str] = []
    started, seconds, num_tries = time.perf_counter(), solution.seconds, solution.num_tries
    while solution.status is not SolveStatus.converged:
        another = running.retry(task.posed, rtol, solution)
        if another is None:
            break
        reasons.append(str(solution))
        num_tries += another.num_tries
        solution = task.verified(another, rtol, seconds + time.perf_counter() - started)
    if reasons:
        detail = "; ".join([*([solution.detail] if solution.detail else []), "after " + "; ".join(reasons)])
        solution = dataclasses.replace(solution, detail=detail, num_tries=num_tries)
    return solution


class _Task:
    """A system as it is given, as a method is asked for it, and what the method may not change.

    Attributes:
        posed: what the method gets to see.
    """

    def __init__(self, system: System) -> None:
        self._system, self._shift, self.posed = system, 0, system
        if isinstance(system, LinearSystem):
            if not is_moderate(largest := peak(system.rhs)):
                self._shift = exponent(largest)
                self.posed = system.times(-self._shift)
            # A copy: the method has the other one in its hands.
            self._system = dataclasses.replace(system, rhs=system.rhs.copy())

    def verified(self, solution: Solution, rtol: float, seconds: float) -> Solution:
        """What the method returned, with its true residual and a status that this allows."""
        value, system = solution.value, self._system
        if fault := _fault(value, system):
            return dataclasses.replace(
                solution,
                value=np.full(system.num_unknowns, np.nan, dtype=system.dtype),
                status=SolveStatus.breakdown,
                relative_residual=math.nan,
                seconds=seconds,
                detail=f"the method returned {fault}",
            )
        # Its own, from here on: a view of a workspace changes with the next solve.
        value = scaled(value, self._shift) if self._shift else (value if value.base is None else value.copy())
        residual, status, detail = system.relative_residual(value), solution.status, solution.detail
        # Written so that a residual that is not a number misses.
        if status is SolveStatus.converged and not residual <= rtol:
            status = SolveStatus.residual_too_large
            if isinstance(system, LinearSystem) and residual <= LARGEST_RESIDUAL:
                error = system.backward_error(value)
                if error <= BACKWARD_STABLE:
                    status, told = SolveStatus.converged, _ACCEPTED.format(error)
                    detail = f"{detail}; {told}" if detail else told
        if status is SolveStatus.converged and _is_undetermined(system):
            status, detail = SolveStatus.breakdown, _UNDETERMINED
        return dataclasses.replace(
            solution, value=value, status=status, relative_residual=residual, seconds=seconds, detail=detail
        )


def _fault(value: object, system: System) -> str | None:
    """Why a method's answer is no vector of a system, or None."""
    right = f"an array of {system.dtype} with {system.num_unknowns} values"
    if type(value) is not np.ndarray or value.dtype != system.dtype or value.shape != (system.num_unknowns,):
        return f"{described(value)}, expected {right}"
    return None


def _is_undetermined(system: System) -> bool:
    """Whether a matrix maps constants to 0, and nobody said so: then any number may be added to x."""
    if not isinstance(system, LinearSystem) or system.assembled is None or system.structure.singular:
        return False
    matrix = system.assembled
    largest = peak(matrix.data)
    return bool(largest) and peak(matrix @ np.ones(matrix.shape[1])) <= _NOTHING * largest


_ACCEPTED = (
    "accepted by its backward error, {:.0e}: the matrix is so ill-conditioned that double precision has no smaller "
    "residual"
)
_UNDETERMINED = (
    "the matrix maps constants to 0, so that any number may be added to the solution: fix a value on the boundary, add "
    "a reaction, or describe it by LinearSystem.from_operator, which takes the solution of mean 0"
)
