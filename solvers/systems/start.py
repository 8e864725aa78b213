"""Starting from what is known already: a prediction, or the solution of a neighbour."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64, Shaped

from headrace.platform.errors import InputError
from headrace.solvers.systems.solver import RunningSolver, Solution, SolveStatus
from headrace.solvers.systems.system import LinearSystem, System
from headrace.solvers.systems.verified import solve_verified

AS_GIVEN = "initial"
"""The method of a solution that was good enough as it was given."""


def solve_from(
    running: RunningSolver, system: System, rtol: float, initial: Shaped[np.ndarray, " unknowns"]
) -> Solution:
    """Solve from an initial guess x₀, and verify.

    Of a linear system the correction is solved for, A d = b - A x₀, as far as it takes for x₀ + d to reach the
    tolerance. For a Krylov method that is the same as starting at x₀; a method without iterations can do it too, and
    gains nothing. Newton's method starts at x₀.

    Args:
        running: the method at work.
        system: what to solve.
        rtol: the relative residual to reach.
        initial: x₀, of finite values.

    Returns:
        The solution; its method is `AS_GIVEN` and it has no iterations if x₀ was good enough.
    """
    if isinstance(system, LinearSystem) and not system.rhs.any():
        return solve_verified(running, system, rtol)  # by x = 0: there is nothing to come near by steps
    start = system.relative_residual(initial)
    if start <= rtol:
        return Solution(
            value=initial,
            status=SolveStatus.converged,
            relative_residual=start,
            num_iterations=0,
            seconds=0.0,
            method=AS_GIVEN,
        )
    if not isinstance(system, LinearSystem):
        return solve_verified(running, dataclasses.replace(system, guess=initial), rtol)
    correction = dataclasses.replace(system, rhs=system.rhs - system.apply(initial))
    # Residuals are relative to the right-hand side, which is ||b - A x₀|| here and may be far above ||b||.
    solution = solve_verified(running, correction, rtol / start)
    value = system.without_mean(initial + solution.value)
    residual, status = system.relative_residual(value), solution.status
    if status is SolveStatus.converged and not residual <= rtol:
        status = SolveStatus.residual_too_large
    return dataclasses.replace(solution, value=value, relative_residual=residual, status=status)


def as_unknowns(
    values: Shaped[np.ndarray, "..."] | Mapping[str, Shaped[np.ndarray, "..."]], system: System
) -> Float64[np.ndarray, " unknowns"]:
    """Values at the unknowns of a system, from a vector of them or from a field on the grid.

    A field has a value at each unknown, or at the boundary too, where the solution is given; leading axes of length 1
    (sample, time, channel) are left out. A mapping of one name to a field, as surrogates predict it, is that field.

    Raises:
        InputError: there are neither as many values nor as many inside the boundary, or some are not finite.
    """
    if isinstance(values, Mapping):
        if len(values) != 1:
            raise InputError.single("initial", f"fields {', '.join(values) or 'none'}", "one field, or an array")
        values = next(iter(values.values()))
    field, size = np.squeeze(np.asarray(values)), system.num_unknowns
    inner = field[(slice(1, -1),) * field.ndim]
    found = next((array for array in (field, inner) if array.size == size), None)
    if found is None:
        raise InputError.single(
            "initial",
            f"of shape {np.shape(values)}",
            f"{size} values, one for each unknown, or a field on the grid with its boundary around them",
            "problem.unknowns_of(outputs, system) makes them of one sample's outputs.",
        )
    x = np.ascontiguousarray(found, dtype=np.result_type(found.dtype, np.float64)).ravel()
    if not np.isfinite(x).all():
        raise InputError.single(
            "initial", f"{np.count_nonzero(~np.isfinite(x))} values that are not finite", "finite numbers"
        )
    return x
