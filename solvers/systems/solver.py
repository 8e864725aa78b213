"""Methods and what they return."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Shaped

from headrace.platform.errors import InputError
from headrace.platform.spec import Spec, kind_of
from headrace.solvers.systems.family import Candidacy
from headrace.solvers.systems.system import LinearSystem, Structured, System

if TYPE_CHECKING:
    from headrace.solvers.systems.selection_report import SelectionReport

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
        backward_error: (see `LinearSystem.backward_error`) where the residual alone did not decide, else None. With
            the status `converged` it is what the solution was accepted by.
    """

    value: Shaped[np.ndarray, " unknowns"]
    status: SolveStatus
    relative_residual: float
    num_iterations: int
    seconds: float
    method: str
    detail: str = ""
    num_tries: int = 1
    backward_error: float | None = None

    @property
    def outcome(self) -> str:
        """How it ended, as samples record it: `backward_stable` where the backward error is what it was accepted by."""
        accepted = self.status is SolveStatus.converged and self.backward_error is not None
        return "backward_stable" if accepted else self.status.value

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

    @property
    def is_own(self) -> bool:
        """Whether nobody else's code takes part: `auto` may have others' methods among its candidates."""
        return True

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
        candidacies: where `auto` considers it; empty for methods that are only taken by name.
        seconds_an_entry: what an iteration takes at best, by the entries of the matrix, which with its preconditioner
            moves through memory: 6 to 16 ns were measured [s]. None for those that make no matrix.

    What a method may assume of a system is its `structure`, and `mismatch` says no to everything else. The values are
    the method's to look at: on those that it cannot handle it returns a status, never raises.
    """

    recycles: ClassVar[bool] = False
    waits: ClassVar[bool] = False
    candidacies: ClassVar[tuple[Candidacy, ...]] = ()
    seconds_an_entry: ClassVar[float | None] = 6e-9

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


def require_match(spec: AbstractSolver, target: Structured) -> None:
    """Raise what `mismatch` says.

    Raises:
        InputError: the method cannot solve this problem or system.
    """
    reason = spec.mismatch(target)
    if reason is not None:
        raise InputError.single("method", kind_of(type(spec)), "a method that can solve this", reason)
