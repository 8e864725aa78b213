"""The check that no method can talk its way around: the residual, recomputed from the system.

What a method returns is looked at as if it came from elsewhere. It has to be a vector of the system's own type; it is
copied where it is a view of something else; and its residual is computed from matrix and right-hand side as they were
before the method saw them (of a method that is not this package's: from copies). Right-hand sides far from 1 are
brought near it by a power of two, so that neither methods nor norms overflow or underflow, and what comes out is scaled
back before it is verified.
"""

import dataclasses
import math
import time
from collections.abc import Sequence

import numpy as np

from headrace.solvers.systems.newton import fault_of, solve_newton
from headrace.solvers.systems.norms import exponent, has_size_near_one, is_near_one, peak, scaled
from headrace.solvers.systems.solver import RunningSolver, Solution, SolveStatus
from headrace.solvers.systems.system import LinearSystem, NonlinearSystem, System

BACKWARD_STABLE = 2.0**-50
"""A backward error that says that no better x is to be had in double precision: four roundings."""

LARGEST_RESIDUAL = 1e-6
"""Beyond it a small backward error says nothing: x may be a vector that a nearly singular matrix maps to nothing."""

# The part of a matrix's rows that is left of a constant vector, if rounding made it.
_NOTHING = 1e-13
_LOOKED_AT = 8


def solve_verified(running: RunningSolver, system: System, rtol: float) -> Solution:
    """Solve, then recompute the residual from the system; whatever the method claims, a miss is not `converged`."""
    return solve_batch_verified(running, [system], rtol)[0]


def solve_batch_verified(running: RunningSolver, systems: Sequence[System], rtol: float) -> list[Solution]:
    """Solve systems that are at hand together and verify each; `seconds` is the share of one in the whole."""
    started = time.perf_counter()
    trusted = _is_own(running)
    tasks = [_Task(system, trusted=trusted) for system in systems]
    linear = [task.posed for task in tasks if isinstance(task.posed, LinearSystem)]
    found = [running.solve(linear[0], rtol)] if len(linear) == 1 else running.solve_batch(linear, rtol)
    if len(found) != len(linear):
        raise ValueError(f"{type(running).__qualname__} returned {len(found)} solutions of {len(linear)} systems")
    batch = iter(found)
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

    def __init__(self, system: System, *, trusted: bool) -> None:
        self._system, self._shift, self.posed, self._trusted = system, 0, system, trusted
        if isinstance(system, LinearSystem):
            if not has_size_near_one(system.rhs) and not is_near_one(largest := peak(system.rhs)):
                self._shift = exponent(largest)
                self.posed = system.times(-self._shift)
            if not trusted:
                self._system = _copy(system)

    def verified(self, solution: Solution, rtol: float, seconds: float) -> Solution:
        """What the method returned, with its true residual and a status that this allows."""
        value, system = solution.value, self._system
        if fault := fault_of(value, system):
            return dataclasses.replace(
                solution,
                value=np.full(system.num_unknowns, np.nan, dtype=system.dtype),
                status=SolveStatus.breakdown,
                relative_residual=math.nan,
                seconds=seconds,
                backward_error=None,
                detail=f"the method returned {fault}",
            )
        # Its own, from here on: a workspace, or a view of one, changes with the next solve.
        if self._shift:
            value = scaled(value, self._shift)
        elif not self._trusted or value.base is not None:
            value = value.copy()
        if value is not solution.value:
            solution = dataclasses.replace(solution, value=value)
        return judged(system, solution, rtol, seconds)


def judged(system: System, solution: Solution, rtol: float, seconds: float) -> Solution:
    """The solution with its true residual, and with the status that this allows."""
    value = solution.value
    residual, status, detail = system.relative_residual(value), solution.status, solution.detail
    backward: float | None = None
    # Written so that a residual that is not a number misses.
    if status is SolveStatus.converged and not residual <= rtol:
        status = SolveStatus.residual_too_large
        if isinstance(system, LinearSystem) and residual <= LARGEST_RESIDUAL:
            backward = system.backward_error(value)
            if backward <= BACKWARD_STABLE:
                status, told = SolveStatus.converged, _ACCEPTED.format(backward)
                detail = f"{detail}; {told}" if detail else told
    if status is SolveStatus.converged and _is_undetermined(system):
        status, detail = SolveStatus.breakdown, _UNDETERMINED
    return Solution(
        value=value,
        status=status,
        relative_residual=residual,
        num_iterations=solution.num_iterations,
        seconds=seconds,
        method=solution.method,
        detail=detail,
        num_tries=solution.num_tries,
        backward_error=backward,
    )


def _is_own(running: RunningSolver) -> bool:
    """Whether the methods at work are this package's, which are tested to leave alone what they are given."""
    return type(running).__module__.startswith("headrace.solvers.") and running.is_own


def _copy(system: LinearSystem) -> LinearSystem:
    """All that decides whether x is the solution, out of reach of a method that writes into what it is given."""
    operator, assembled = system.operator, system.assembled
    if operator is not None:
        operator = dataclasses.replace(
            operator,
            conductances=tuple(c.copy() for c in operator.conductances),
            reaction=None if operator.reaction is None else operator.reaction.copy(),
        )
    return dataclasses.replace(
        system, rhs=system.rhs.copy(), operator=operator, assembled=None if assembled is None else assembled.copy()
    )


def _is_undetermined(system: System) -> bool:
    """Whether a matrix maps constants to 0, and nobody said so: then any number may be added to x."""
    if not isinstance(system, LinearSystem) or system.assembled is None or system.structure.singular:
        return False
    matrix = system.assembled
    limit = _NOTHING * peak(matrix.data)
    # The first rows nearly always end the search.
    first = matrix.data[: matrix.indptr[min(_LOOKED_AT, matrix.shape[0])]]
    starts = matrix.indptr[: min(_LOOKED_AT, matrix.shape[0])]
    if all(starts[:-1] < starts[1:]) and starts[-1] < first.size and peak(np.add.reduceat(first, starts)) > limit:
        return False
    return limit > 0.0 and peak(matrix @ np.ones(matrix.shape[1])) <= limit


_ACCEPTED = (
    "accepted by its backward error, {:.0e}: the matrix is so ill-conditioned that double precision has no smaller "
    "residual"
)
_UNDETERMINED = (
    "the matrix maps constants to 0, so that any number may be added to the solution: fix a value on the boundary, add "
    "a reaction, or describe it by LinearSystem.from_operator, which takes the solution of mean 0"
)
