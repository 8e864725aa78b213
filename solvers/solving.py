"""solve: one system by a method of one's choice, verified."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped

from headrace.platform.errors import InputError, nearest
from headrace.platform.spec import kinds
from headrace.solvers.selection import ALL_METHODS
from headrace.solvers.systems.solver import AbstractSolver, Solution, require_match, require_tolerance
from headrace.solvers.systems.start import as_unknowns, solve_from
from headrace.solvers.systems.system import System
from headrace.solvers.systems.verified import solve_verified


def solve(
    system: System,
    rtol: float = 1e-8,
    method: "str | AbstractSolver" = "auto",
    *,
    initial: Shaped[np.ndarray, "..."] | Mapping[str, Shaped[np.ndarray, "..."]] | None = None,
) -> Solution:
    """Solve one system and check the result.

    Args:
        system: what to solve.
        rtol: the relative residual to reach, at least 1e-14.
        method: a kind with its defaults, or a spec.
        initial: where to start: a value for each unknown, or a field on the grid with its boundary, such as a
            surrogate's prediction (see `as_unknowns`); default: where the method starts by itself.

    Returns:
        The solution with its true residual; look at `status` before you use it.

    Raises:
        InputError: there is no such method, it cannot solve this system, rtol is out of reach, or `initial` does not
            fit the system.
    """
    spec = method_named(method)
    require_match(spec, system)
    require_tolerance(rtol)
    if initial is not None:
        return solve_from(spec.build(), system, rtol, as_unknowns(initial, system))
    return solve_verified(spec.build(), system, rtol)


def method_named(method: "str | AbstractSolver") -> AbstractSolver:
    """The spec itself, or the one of that kind with its defaults.

    Raises:
        InputError: there is no such kind, or it has no defaults.
    """
    if isinstance(method, AbstractSolver):
        return method
    known = kinds("headrace.methods", ALL_METHODS)
    if method not in known:
        raise InputError.single("method", f'"{method}"', f"one of {', '.join(sorted(known))}", nearest(method, known))
    spec = known[method]()
    if not isinstance(spec, AbstractSolver):
        raise TypeError(f"the method {method} ({type(spec).__qualname__}) is not an AbstractSolver")
    return spec
