"""Methods, what they return, and the check that no method can talk its way around."""

import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Shaped

from headrace.platform.errors import InputError, nearest
from headrace.platform.spec import Spec, kind_of, kinds
from headrace.solvers.system import LinearSystem, NonlinearSystem, Structured, System

if TYPE_CHECKING:
    from headrace.solvers.racing import SelectionReport

SMALLEST_RTOL = 1e-14
"""The smallest relative residual that can be asked for: 45 roundings of double precision."""


class SolveStatus(StrEnum):
    """How a solve ended; only `converged` makes a sample."""

    converged = "converged"
    max_iterations = "max_iterations"
    breakdown = "breakdown"
    residual_too_large = "residual_too_large"


@dataclass(frozen=True, kw_only=True)
class Solution:
    """What a method found.

    Attributes:
        value: x; the best that was found if the status is not `converged`.
        status: how it ended.
        relative_residual: ||b - A x|| / ||b||, recomputed in double precision from the system.
        num_iterations: products with A inside an iterative method; 0 for a direct one.
        seconds: wall time of set-up and solve together [s].
        method: the kind of the method that did the work.
        detail: what a person should know about a failure; may be empty.
        num_tries: methods that were asked, one after the other, until this came out.
    """

    value: Shaped[np.ndarray, " unknowns"]
    status: SolveStatus
    relative_residual: float
    num_iterations: int
    seconds: float
    method: str
    detail: str = ""
    num_tries: int = 1

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return (
            f"{self.method}: {self.status} after {self.num_iterations} iterations, "
            f"relative residual {self.relative_residual:.1e}{detail}"
        )


class RunningSolver(ABC):
    """A method at work on a sequence of systems: it owns workspaces, symbolic factors, recycled subspaces.

    Attributes:
        warm_up_seconds: wall time [s] spent inside `solve` on imports and compilation that no system is to blame for.
    """

    warm_up_seconds: float = 0.0

    @abstractmethod
    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        """Solve one system and learn from it for the next. Never raises for a system that is merely hard."""

    def solve_batch(self, systems: Sequence[LinearSystem], rtol: float) -> list[Solution]:
        """Solve several systems, one after the other unless the method gains from having them together."""
        return [self.solve(system, rtol) for system in systems]

    def retry(self, system: System, rtol: float, failed: Solution) -> Solution | None:
        """Another try at a system whose solution was not accepted; None when this method knows of none.

        Called until a try is accepted or there is none left. A method that chooses among others goes on to the next.
        """
        return None

    def report(self) -> "SelectionReport | None":
        """What a method that chooses among others has found out so far; None for those that have nothing to choose."""
        return None


class AbstractSolver(Spec):
    """The description of a method; `build` makes the thing that solves.

    Attributes:
        recycles: the method is faster when neighbours of a sequence are alike, so that sorting is worth its price.
        waits: it may leave the work to another device, so that its processor time does not tell what it costs.

    What a method may assume of a system is its `structure`, and `mismatch` says no to everything else. The values are
    the method's to look at: on those that it cannot handle it returns a status, never raises.
    """

    recycles: ClassVar[bool] = False
    waits: ClassVar[bool] = False

    def batch_size(self, target: Structured) -> int:
        """How many systems of a problem it gains from having together; 1 for most methods."""
        return 1

    def learns(self, target: Structured) -> bool:
        """Whether a solution's last bits depend on what was solved before it, or together with it, or on the clock."""
        return True

    @abstractmethod
    def build(self) -> RunningSolver:
        """Start a sequence."""

    @abstractmethod
    def mismatch(self, target: Structured) -> str | None:
        """Why this method cannot solve a problem or a system; None when it can."""


def solve(system: System, rtol: float = 1e-8, method: "str | AbstractSolver" = "auto") -> Solution:
    """Solve one system and check the result.

    Args:
        system: what to solve.
        rtol: the relative residual to reach, at least 1e-14.
        method: a kind with its defaults, or a spec.

    Returns:
        The solution with its true residual; look at `status` before you use it.

    Raises:
        InputError: there is no such method, it cannot solve this system, or rtol is out of reach.
    """
    spec = method_named(method)
    require_match(spec, system)
    require_tolerance(rtol)
    return solve_verified(spec.build(), system, rtol)


def solve_verified(running: RunningSolver, system: System, rtol: float) -> Solution:
    """Solve, then recompute the residual from the system; whatever the method claims, a miss is not `converged`."""
    return solve_batch_verified(running, [system], rtol)[0]


def solve_batch_verified(running: RunningSolver, systems: Sequence[System], rtol: float) -> list[Solution]:
    """Solve systems that are at hand together and verify each; `seconds` is the share of one in the whole."""
    from headrace.solvers.newton import solve_newton

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


def require_tolerance(rtol: float) -> None:
    """Refuse a tolerance that double precision does not reach.

    Raises:
        InputError: rtol is not a number from `SMALLEST_RTOL` to 1.
    """
    if not SMALLEST_RTOL <= rtol < 1.0:
        raise InputError.single(
            "rtol",
            f"{rtol:g}",
            f"a number from {SMALLEST_RTOL:g} to 1",
            "Residuals are computed in double precision, whose rounding is 1e-16 an operation; 1e-8 is usual.",
        )


def method_named(method: "str | AbstractSolver") -> AbstractSolver:
    """The spec itself, or the one of that kind with its defaults.

    Raises:
        InputError: there is no such kind, or it has no defaults.
    """
    if isinstance(method, AbstractSolver):
        return method
    from headrace.solvers.methods import METHODS

    known = kinds("headrace.methods", METHODS)
    if method not in known:
        raise InputError.single("method", f'"{method}"', f"one of {', '.join(sorted(known))}", nearest(method, known))
    spec = known[method]()
    if not isinstance(spec, AbstractSolver):
        raise TypeError(f"the method {method} ({type(spec).__qualname__}) is not an AbstractSolver")
    return spec


def require_match(spec: AbstractSolver, target: Structured) -> None:
    """Raise what `mismatch` says.

    Raises:
        InputError: the method cannot solve this problem or system.
    """
    reason = spec.mismatch(target)
    if reason is not None:
        raise InputError.single("method", kind_of(type(spec)), "a method that can solve this", reason)
