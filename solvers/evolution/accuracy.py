"""Which grid and step an equation needs for an accuracy: found on a few samples, by self-convergence."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float32

from headrace.platform.errors import InputError
from headrace.platform.seeding import generator
from headrace.solvers.evolution.evolution import AbstractEvolution
from headrace.solvers.evolution.implicit import StageSolver
from headrace.solvers.evolution.stepper import Stepper
from headrace.solvers.label_error import relative_distances
from headrace.solvers.numerics import Numerics

MAX_REFINEMENT = 16
# Steps are tried from the shortest interval between outputs down to so many halvings of it.
_HALVINGS = 20
# Of an accuracy, so much may be spent on the step.
_SHARE_OF_STEP = 0.25


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a grid and a step came to.

    Attributes:
        refinement: the solver's points for each output point, along each axis.
        step: the largest step; None where nothing steps in time.
        error: see `Choice.error`.
        cpu_seconds: of a sample [s].
    """

    refinement: int
    step: float | None
    error: float
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The coarsest numerics that meet an accuracy at a level of difficulty.

    Attributes:
        level: its name.
        accuracy: what was asked for.
        num_pilots: samples that errors were measured on.
        trials: the grids, each with its step, that were tried; the last one was chosen.
    """

    level: str
    accuracy: float
    num_pilots: int
    trials: tuple[Trial, ...]

    @property
    def numerics(self) -> Numerics:
        """What was chosen."""
        return Numerics(refinement=self.trials[-1].refinement, step=self.trials[-1].step)

    @property
    def error(self) -> float:
        """The largest relative L2 distance, over pilots and output times, from a solution on a grid twice as fine."""
        return self.trials[-1].error

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        return asdict(self)


def choose_numerics(
    problem: AbstractEvolution,
    accuracy: float,
    *,
    level: str,
    seed: int,
    num_pilots: int = 4,
    stages: StageSolver | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Choice:
    """Find the coarsest grid, and on it the longest step, whose error is at most `accuracy`.

    A few pilot samples, drawn apart from those of the data set, are solved on one grid after the other, each with twice
    the points of the one before along each axis. On every grid the step is halved until halving it once more changes
    the outputs by less than a quarter of the accuracy, unless the equation sets its steps by itself. The error of grid
    and step together is the distance from the outputs on the next grid. All norms are taken on the output grid, at
    every output time.

    Args:
        problem: the equation at the level.
        accuracy: relative L2 error that is allowed.
        level: the level's name; each level has pilots of its own.
        seed: of the pilots.
        num_pilots: how many there are.
        stages: who solves the systems of an implicit equation, as in the run; default: `auto`.
        tell: is told what is being tried.

    Raises:
        InputError: no grid up to 16 times as fine as the output's meets it.
    """
    pilots = _Pilots(problem, level, seed, num_pilots, stages, tell)
    trials: list[Trial] = []
    refinement = 1
    step = pilots.longest_step(refinement, _SHARE_OF_STEP * accuracy)
    while step is not None and refinement <= MAX_REFINEMENT:
        finer = pilots.longest_step(2 * refinement, _SHARE_OF_STEP * accuracy)
        if finer is None:
            break
        error = pilots.distance((refinement, step), (2 * refinement, finer))
        cpu_seconds = pilots.cpu_seconds(refinement, step)
        trials.append(Trial(refinement=refinement, step=step, error=error, cpu_seconds=cpu_seconds))
        if error <= accuracy:
            return Choice(level=level, accuracy=accuracy, num_pilots=num_pilots, trials=tuple(trials))
        refinement, step = 2 * refinement, finer
    found = f"The finest grid came to {trials[-1].error:.2g}" if trials else "No step is short enough"
    raise InputError.single(
        "data.accuracy",
        f"{accuracy:g}",
        f"one that level {level} reaches on a grid up to {MAX_REFINEMENT} times as fine as the output's",
        f"{found}: raise the resolution or the accuracy, or make the level easier.",
    )


class _Pilots:
    """Pilot samples, and their outputs with every grid and step that was tried."""

    def __init__(
        self,
        problem: AbstractEvolution,
        level: str,
        seed: int,
        count: int,
        stages: StageSolver | None,
        tell: Callable[[str], None],
    ) -> None:
        self._problem, self._level, self._seed, self._count, self._tell = problem, level, seed, count, tell
        self._stages = stages
        self._interval = problem.shortest_interval
        # The first transforms of a process take several times as long: no trial shall pay for it.
        Stepper(problem, Numerics(step=self._interval), stages).follow([problem.draw(generator(seed, "warm-up"))])
        self._found: dict[tuple[int, float], tuple[np.ndarray, float]] = {}

    def longest_step(self, refinement: int, tolerance: float) -> float | None:
        """The longest step that half of it changes by no more than `tolerance`; None when there is none."""
        for halvings in range(_HALVINGS):
            step = float(f"{self._interval / 2**halvings:.12g}")
            if self._problem.sets_its_steps and np.isfinite(self._outputs(refinement, step)[0]).all():
                return step  # half of it would be the same again, at the same price
            if self.distance((refinement, step), (refinement, step / 2.0)) <= tolerance:
                return step
        return None

    def cpu_seconds(self, refinement: int, step: float) -> float:
        """Of a sample [s]."""
        return self._outputs(refinement, step)[1]

    def distance(self, one: tuple[int, float], other: tuple[int, float]) -> float:
        """The largest relative L2 distance of the outputs with two grids and steps; infinite when one blew up."""
        return float(relative_distances(self._outputs(*one)[0], self._outputs(*other)[0]).max())

    def _outputs(self, refinement: int, step: float) -> tuple[Float32[np.ndarray, "..."], float]:
        if (refinement, step) not in self._found:
            self._tell(f"{self._level}: {refinement} x the points, step {step:.3g}")
            stepper = Stepper(self._problem, Numerics(refinement=refinement, step=step), self._stages)
            began = time.process_time()
            draws = [
                stepper.fine.draw(generator(self._seed, "pilot", self._level, number)) for number in range(self._count)
            ]
            outputs = stepper.follow(draws).outputs
            self._found[refinement, step] = outputs, (time.process_time() - began) / self._count
        return self._found[refinement, step]
