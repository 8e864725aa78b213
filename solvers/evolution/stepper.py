"""Stepper: an equation with the grid and the step that it is solved on."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Float64, Int64

from headrace.solvers.device import found_device
from headrace.solvers.evolution.batched import AbstractBatchedEvolution
from headrace.solvers.evolution.evolution import AbstractEvolution, Draw, Snapshot
from headrace.solvers.evolution.implicit import AbstractImplicit, StageSolver
from headrace.solvers.numerics import Numerics

MAX_DEFECT = 0.01
"""A trajectory whose steps differ by more from two half steps, relative to its state, is not resolved in time."""

HALVINGS = 6
"""How often the step of a trajectory that is not resolved is halved before it is given up."""


@dataclass(frozen=True, kw_only=True)
class Followed:
    """A batch of trajectories, or one part of each.

    Attributes:
        inputs: the state before the outputs and the fields that do not change, on the output grid.
        outputs: the states at the output times, on the output grid.
        defect: see `Snapshot.defect`; the largest that was seen since time 0, NaN when none was.
        num_steps: time steps of each.
        first_bad: for each sample the first output time at which it was not finite; NaN when there is none.
        reasons: see `Snapshot.reasons`.
    """

    inputs: Float32[np.ndarray, "batch channels_in *grid"]
    outputs: Float32[np.ndarray, "batch time components *grid"]
    defect: Float64[np.ndarray, " batch"]
    num_steps: Int64[np.ndarray, " batch"]
    first_bad: Float64[np.ndarray, " batch"]
    reasons: Mapping[int, str] = field(default_factory=dict)

    def failure(self, row: int) -> str | None:
        """Why a trajectory is none, or None."""
        if row in self.reasons:
            return self.reasons[row]
        if not np.isnan(self.first_bad[row]):
            return f"blew up before t = {self.first_bad[row]:g}"
        if self.defect[row] > MAX_DEFECT:
            return (
                f"not resolved in time: a step differs from two half steps by {self.defect[row]:.2g} of the state, "
                f"allowed is {MAX_DEFECT:g}"
            )
        return None


class Stepper:
    """An equation with the grid and the step that it is solved on.

    Attributes:
        problem: the equation on the output grid.
        fine: the same on the solver's grid, where its samples are drawn.
        numerics: refinement and step.
        step: the largest time step.
    """

    def __init__(
        self, problem: AbstractEvolution, numerics: Numerics | None = None, stages: StageSolver | None = None
    ) -> None:
        """Take an equation as it is, with its own step, or with other numerics.

        Args:
            problem: the equation.
            numerics: how finely it is solved.
            stages: who solves the systems of an implicit equation; default: `auto`, which starts to learn here.
        """
        self.problem = problem
        self.numerics = numerics or Numerics()
        self.fine = problem.refined(self.numerics.refinement)
        self.step = self.numerics.step or self.fine.default_step
        self._stages = stages or (StageSolver() if isinstance(problem, AbstractImplicit) else None)

    @property
    def method(self) -> str:
        """Integrator, grid, step and what is not the CPU, as a sample's provenance names them."""
        points = "x".join(str(n) for n in self.fine.grid.shape)
        device = found_device(self.problem.device) if isinstance(self.problem, AbstractBatchedEvolution) else "cpu"
        where = "" if device == "cpu" else f", {device}"
        return f"{self.problem.integrator} on {points} points, step at most {self.step:.3g}{where}"

    def halved(self) -> "Stepper":
        """The same with half the step."""
        shorter = self.numerics.model_copy(update={"step": self.step / 2.0})
        return Stepper(self.problem.cautious(), shorter, self._stages)

    def snapshots(self, draws: Sequence[Draw]) -> Iterator[Snapshot]:
        """The states of samples, drawn by `fine`, on its grid at the output times."""
        if isinstance(self.fine, AbstractImplicit):
            return self.fine.follow(draws, self.step, self._stages)
        return self.fine.follow(draws, self.step)

    def follow(self, draws: Sequence[Draw]) -> Followed:
        """Follow samples, drawn by `fine`, through all output times."""
        return next(self.parts(draws, len(self.problem.times)))

    def parts(self, draws: Sequence[Draw], num_times: int) -> Iterator[Followed]:
        """Follow samples, drawn by `fine`, so many output times at a time, until all are past it or broken."""
        grid, times = self.problem.grid, self.problem.times
        components = sum(spec.components for spec in self.problem.state)
        inputs = np.stack([self.inputs(draw) for draw in draws])
        defect, first_bad = np.full(len(draws), np.nan), np.full(len(draws), np.nan)
        num_before, reasons = np.zeros(len(draws), dtype=np.int64), dict[int, str]()
        snapshots = self.snapshots(draws)
        for start in range(0, len(times), num_times):
            outputs = np.full((len(draws), num_times, components, *grid.shape), np.nan, dtype=np.float32)
            num_steps = num_before
            for number, snapshot in enumerate(itertools.islice(snapshots, num_times)):
                with np.errstate(over="ignore"):  # what blows up becomes infinite, and is found below
                    outputs[:, number] = self.problem.restrict(snapshot.state, self.numerics.refinement)
                defect = np.fmax(defect, snapshot.defect)
                num_steps = snapshot.num_steps
                reasons.update(snapshot.reasons)
                is_bad = ~np.isfinite(outputs[:, number].reshape(len(draws), -1)).all(axis=1)
                first_bad[is_bad & np.isnan(first_bad)] = times[start + number]
                if is_bad.all():
                    break
            yield Followed(
                inputs=inputs,
                outputs=outputs,
                defect=defect,
                num_steps=num_steps - num_before,
                first_bad=first_bad.copy(),
                reasons=dict(reasons),
            )
            if start + num_times == len(times) or not np.isnan(first_bad).any():
                return
            num_before = num_steps.copy()
            inputs = inputs.copy()
            inputs[:, :components] = outputs[:, -1]

    def inputs(self, draw: Draw) -> Float32[np.ndarray, "channels_in *grid"]:
        """The fields of a draw as a sample's inputs."""
        names = [spec.name for spec in self.problem.schema().inputs]
        if not names:  # the parameters say all there is to know
            return np.zeros((0, *self.problem.grid.shape), dtype=np.float32)
        fields = np.concatenate([draw.fields[name] for name in names])
        return self.problem.restrict(fields, self.numerics.refinement).astype(np.float32)
