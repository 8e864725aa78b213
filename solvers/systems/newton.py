"""Newton's method over any linear method: a nonlinear system as a sequence of linear ones."""

import time

from headrace.solvers.systems.norms import norm as size_of
from headrace.solvers.systems.solver import RunningSolver, Solution, SolveStatus
from headrace.solvers.systems.system import NonlinearSystem

_MAX_STEPS = 50
_MAX_HALVINGS = 20
# Sufficient decrease, as in Eisenstat & Walker (1994), Eq. 2.2.
_DECREASE = 1e-4
# A first, loose tolerance of the linear solves; then Choice 2 of Eisenstat & Walker, "Choosing the forcing terms in an
# inexact Newton method", SIAM J. Sci. Comput. 17 (1996), Eq. 2.6 with γ = 0.9 and α = 2, and its safeguard.
_FIRST_FORCING, _GAMMA, _LOOSEST = 0.1, 0.9, 0.1
# A step that leaves more than this of the residual says that its matrix is too far from the Jacobian.
_SLOW = 0.5


def solve_newton(running: RunningSolver, system: NonlinearSystem, rtol: float) -> Solution:
    """Solve F(x) = 0 by inexact Newton steps with step halving.

    The linear systems of one solve follow each other closely, and so do those of neighbouring samples: a method that
    recycles keeps what it learnt from one to the next.

    Returns:
        A solution whose `num_iterations` adds up those of the linear solves, and whose `method` is theirs.
    """
    started = time.perf_counter()
    x = system.guess.copy()
    norm = size_of(system.residual(x)) / system.scale
    forcing, num_iterations, method = _FIRST_FORCING, 0, "newton"
    linearize, left = system.linearize, system.exactly

    def ended(status: SolveStatus, detail: str) -> Solution:
        return Solution(
            value=x,
            status=status,
            relative_residual=norm,
            num_iterations=num_iterations,
            seconds=time.perf_counter() - started,
            method=method,
            detail=detail,
        )

    for step in range(_MAX_STEPS):
        if norm <= rtol:
            return ended(SolveStatus.converged, f"{step} Newton steps")
        # The last step need not do better than the tolerance asks.
        linear = running.solve(linearize(x), max(forcing, 0.1 * rtol / norm))
        num_iterations += linear.num_iterations
        method = linear.method
        if linear.status is not SolveStatus.converged:
            return ended(linear.status, f"in Newton step {step + 1}: {linear}")
        size = 1.0
        for _ in range(_MAX_HALVINGS):
            candidate = x + size * linear.value
            after = size_of(system.residual(candidate)) / system.scale
            if after <= (1.0 - _DECREASE * size) * norm:
                break
            size *= 0.5
        else:
            if left is None:
                return ended(SolveStatus.breakdown, f"no step decreases the residual after {step} Newton steps")
            linearize, left, forcing = left, None, _FIRST_FORCING
            continue
        guarded = _GAMMA * forcing**2
        forcing = _GAMMA * (after / norm) ** 2
        if guarded > 0.1:
            forcing = max(forcing, guarded)
        forcing = min(forcing, _LOOSEST)
        if left is not None and after > _SLOW * norm:
            linearize, left = left, None
        x, norm = candidate, after
    return ended(SolveStatus.max_iterations, f"{_MAX_STEPS} Newton steps")
