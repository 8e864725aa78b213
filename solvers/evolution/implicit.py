"""AbstractImplicit: equations whose steps are systems, which the methods of the solver library solve."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from headrace.solvers.evolution import sdirk
from headrace.solvers.evolution.evolution import AbstractEvolution, Draw, Snapshot, looked_at
from headrace.solvers.methods.direct import Direct
from headrace.solvers.selection.auto import Auto
from headrace.solvers.systems.norms import norm
from headrace.solvers.systems.solver import AbstractSolver, RunningSolver, SolveStatus
from headrace.solvers.systems.system import LinearSystem, NonlinearSystem, Structure
from headrace.solvers.systems.verified import solve_verified

type Unknowns = Float64[np.ndarray, " unknowns"]


class Semidiscrete(ABC):
    """u' = G(u): one sample, discretised in space.

    Attributes:
        is_linear: whether G is; a stage is then solved by one linear system.
    """

    is_linear: bool = False

    @abstractmethod
    def start(self) -> Unknowns:
        """U at time 0."""

    @abstractmethod
    def stage(self, size: float, known: Unknowns, guess: Unknowns) -> NonlinearSystem:
        """U - size G(u) = known, in any scaling.

        Args:
            size: positive [s or 1].
            known: the right-hand side.
            guess: where to start.
        """

    @abstractmethod
    def state(self, u: Unknowns) -> Float64[np.ndarray, "components *grid"]:
        """The fields on the grid."""


class StageSolver:
    """Solves stage after stage by one method, which keeps what it learns: factors, recycled spaces, who is faster.

    What the method does not solve is solved by the direct one, unless it was that, or `auto`, which asks it by itself.
    """

    def __init__(self, method: AbstractSolver | None = None, rtol: float = 1e-8) -> None:
        """Take a method, by default `Auto()`, and the relative residual that every stage must reach."""
        method = method or Auto()
        self._rtol = rtol
        self.running: RunningSolver = method.build()
        self._rescue = None if isinstance(method, Auto) or method == Direct() else Direct().build()
        any_matrix = LinearSystem.from_matrix(np.eye(2), np.ones(2))
        self._takes_any = method.mismatch(any_matrix) is None

    def solve(self, stage: NonlinearSystem, *, is_linear: bool) -> tuple[Unknowns, str | None]:
        """The solution, and why it is none, or None. The residual is that of the stage itself, computed anew."""
        easier = stage if self._takes_any else dataclasses.replace(stage, exactly=None)
        u, reason = self._solve(self.running, easier, is_linear)
        if reason is not None and self._rescue is not None:
            u, again = self._solve(self._rescue, stage, is_linear)
            reason = None if again is None else f"{reason}; {again}"
        return u, reason

    def _solve(self, running: RunningSolver, stage: NonlinearSystem, is_linear: bool) -> tuple[Unknowns, str | None]:
        if not is_linear:
            solution = solve_verified(running, stage, self._rtol)
            return solution.value, None if solution.status is SolveStatus.converged else str(solution)
        # One step of Newton's method is exact. What it corrects is small, so that few digits of it are enough.
        correction = stage.linearize(stage.guess)
        missed = norm(correction.rhs)
        if missed <= self._rtol * stage.scale:
            return stage.guess, None
        solution = solve_verified(running, correction, min(0.5 * self._rtol * stage.scale / missed, 0.1))
        u = stage.guess + solution.value
        if solution.status is not SolveStatus.converged:
            return u, str(solution)
        residual = stage.relative_residual(u)
        return u, None if residual <= self._rtol else f"{solution.method}: relative residual {residual:.1e} of a stage"


class AbstractImplicit(AbstractEvolution):
    """An equation that is stiff: its steps are those of SDIRK3, and every stage is a system for the solver library.

    An equation is `semidiscrete`, what it becomes when space is discretised, and `structure`, what is known about the
    matrix of a stage. Which method solves the stages is the recipe's `solver.method`. The systems of a trajectory
    follow each other closely (`Structure.drifts`), so that methods that keep something may have an advantage: factors
    of the same matrix, or of one that was nearly the same, and recycled Krylov spaces. `auto` measures who is faster.

    The steps are of third order in time, and stable however stiff the equation is (see `sdirk`). In a nonlinear
    equation the order is nearer to 2 as long as modes that are still there die within a step: that of its stages is 1.
    """

    heeds: ClassVar[frozenset[str]] = AbstractEvolution.heeds | {"solver.method", "solver.rtol"}
    solves_by_itself: ClassVar[tuple[str, str]] = (
        "trajectories are followed in the order of their numbers",
        AbstractEvolution.solves_by_itself[1],
    )

    integrator: ClassVar[str] = "SDIRK3"
    restarts_within: ClassVar[float] = 0.02  # what was stored may have taken other steps

    @property
    @abstractmethod
    def structure(self) -> Structure:
        """What is known about the matrix of every stage."""

    @abstractmethod
    def semidiscrete(self, draw: Draw) -> Semidiscrete:
        """A sample, discretised in space."""

    @property
    def batch_size(self) -> int:
        """One: the next trajectory has other matrices, and what the last one taught would be forgotten for it."""
        return 1

    def follow(self, draws: Sequence[Draw], step: float, stages: StageSolver | None = None) -> Iterator[Snapshot]:
        """The states of samples at the output times; see `AbstractEvolution.follow`.

        Args:
            draws: at least one.
            step: the largest time step; every interval between outputs is divided evenly.
            stages: who solves the stages; default: `auto`, which starts to learn here.
        """
        stages = stages or StageSolver()
        trajectories = [_Trajectory(self.semidiscrete(draw), stages) for draw in draws]
        looks, begin = looked_at(len(self.times)), 0.0
        for number, end in enumerate(self.times):
            # Evenly spaced times differ in their last bits, and every other step is another matrix.
            interval = float(f"{end - begin:.12g}")
            divisions = max(1, math.ceil(interval / step - 1e-9))
            for one in trajectories:
                one.advance(begin, interval / divisions, divisions, look=number in looks)
            begin = end
            yield Snapshot(
                state=np.stack([one.state() for one in trajectories]),
                defect=np.array([one.defect for one in trajectories]),
                num_steps=np.array([one.num_steps for one in trajectories]),
                reasons={row: one.reason for row, one in enumerate(trajectories) if one.reason is not None},
            )


class _Trajectory:
    """One sample on its way. `reason` says why it has ended; it is NaN from then on."""

    def __init__(self, equation: Semidiscrete, stages: StageSolver) -> None:
        self._equation, self._stages = equation, stages
        self._u = equation.start()
        # U' at the end of the step before.
        self._slope = np.zeros_like(self._u)
        self.reason: str | None = None
        self.defect = math.nan
        self.num_steps = 0

    def state(self) -> Float64[np.ndarray, "components *grid"]:
        """The fields on the grid."""
        return self._equation.state(self._u)

    def advance(self, begin: float, size: float, count: int, *, look: bool) -> None:
        """Take so many steps; if `look`, do the last one again as two halves."""
        self.defect = math.nan
        if self.reason is not None:
            return
        before, slope = self._u, self._slope
        for number in range(count):
            before, slope = self._u, self._slope
            if not self._take(begin + number * size, size):
                return
        if not look:
            return
        whole, end_slope, num_steps = self._u, self._slope, self.num_steps
        self._u, self._slope = before, slope
        middle = begin + (count - 0.5) * size
        if not (self._take(middle - 0.5 * size, 0.5 * size) and self._take(middle, 0.5 * size)):
            return
        self.defect = norm(whole - self._u) / max(norm(self._u), np.finfo(np.float64).tiny)
        self._u, self._slope, self.num_steps = whole, end_slope, num_steps

    def _take(self, time: float, size: float) -> bool:
        """A step; whether it was solved."""
        equation, slopes = self._equation, list[Unknowns]()
        u, slope, last = self._u, self._slope, 0.0
        for moment, weights in zip(sdirk.TIMES, sdirk.WEIGHTS, strict=True):
            # The guess goes on along the slope of the stage before.
            guess, known = u + (size * (moment - last)) * slope, self._u.copy()
            for weight, earlier in zip(weights, slopes, strict=True):
                known += (size * weight) * earlier
            stage = equation.stage(sdirk.DIAGONAL * size, known, guess)
            u, reason = self._stages.solve(stage, is_linear=equation.is_linear)
            if reason is not None:
                self.reason = f"a stage of the step from t = {time:.4g} was not solved: {reason}"
                self._u = np.full_like(u, np.nan)
                return False
            slope, last = (u - known) / (sdirk.DIAGONAL * size), moment
            slopes.append(slope)
        self._u, self._slope = u, slope
        self.num_steps += 1
        return True
