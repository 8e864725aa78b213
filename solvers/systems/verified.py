"""The check that no method can talk its way around: the residual, recomputed from the system."""

import dataclasses
import time
from collections.abc import Sequence

from headrace.solvers.systems.newton import solve_newton
from headrace.solvers.systems.solver import RunningSolver, Solution, SolveStatus
from headrace.solvers.systems.system import LinearSystem, NonlinearSystem, System


def solve_verified(running: RunningSolver, system: System, rtol: float) -> Solution:
    """Solve, then recompute the residual from the system; whatever the method claims, a miss is not `converged`."""
    return solve_batch_verified(running, [system], rtol)[0]


def solve_batch_verified(running: RunningSolver, systems: Sequence[System], rtol: float) -> list[Solution]:
    """Solve systems that are at hand together and verify each; `seconds` is the share of one in the whole."""
    started = time.perf_counter()
    linear = [system for system in systems if isinstance(system, LinearSystem)]
    batch = iter([running.solve(linear[0], rtol)]) if len(linear) == 1 else iter(running.solve_batch(linear, rtol))
    solutions = [
        solve_newton(running, system, rtol) if isinstance(system, NonlinearSystem) else next(batch)
        for system in systems
    ]
    seconds = (time.perf_counter() - started) / max(len(systems), 1)
    return [
        _retried(running, system, _verified(system, solution, rtol, seconds), rtol)
        for system, solution in zip(systems, solutions, strict=True)
    ]


def _retried(running: RunningSolver, system: System, solution: Solution, rtol: float) -> Solution:
    """The solution if it is accepted, else the last of all further tries; `seconds` and `detail` tell of every one."""
    reasons: list[str] = []
    started, seconds, num_tries = time.perf_counter(), solution.seconds, solution.num_tries
    while solution.status is not SolveStatus.converged:
        another = running.retry(system, rtol, solution)
        if another is None:
            break
        reasons.append(str(solution))
        num_tries += another.num_tries
        solution = _verified(system, another, rtol, seconds + time.perf_counter() - started)
    if reasons:
        detail = "; ".join([*([solution.detail] if solution.detail else []), "after " + "; ".join(reasons)])
        solution = dataclasses.replace(solution, detail=detail, num_tries=num_tries)
    return solution


def _verified(system: System, solution: Solution, rtol: float, seconds: float) -> Solution:
    residual = system.relative_residual(solution.value)
    status = solution.status
    # Written so that a residual that is not a number misses.
    if status is SolveStatus.converged and not residual <= rtol:
        status = SolveStatus.residual_too_large
    return dataclasses.replace(solution, status=status, relative_residual=residual, seconds=seconds)
