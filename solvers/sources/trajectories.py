"""EvolutionSource: from requests to trajectories."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator

from headrace.platform.errors import InputError
from headrace.platform.fields import SampleSchema
from headrace.platform.frozen import Frozen, FrozenMap
from headrace.platform.sample import Failure, Request, Sample
from headrace.platform.seeding import generator
from headrace.platform.spec import Count, kind_of
from headrace.solvers.evolution.accuracy import Choice, choose_numerics
from headrace.solvers.evolution.defect import forecast_defect
from headrace.solvers.evolution.evolution import AbstractEvolution, Draw
from headrace.solvers.evolution.implicit import AbstractImplicit, StageSolver
from headrace.solvers.evolution.stepper import HALVINGS, Followed, Stepper
from headrace.solvers.label_error import Refinable
from headrace.solvers.numerics import Numerics
from headrace.solvers.problems import AnyEvolution
from headrace.solvers.sampled import AbstractSource, at_level
from headrace.solvers.selection import AnyMethod, Auto
from headrace.solvers.sources.bench import Bench, Clock
from headrace.solvers.systems.solver import SMALLEST_RTOL, AbstractSolver, require_match
from headrace.solvers.systems.system import Structure

INTEGRATED = "integrated"
"""The status of these samples: followed in time, with steps that agree with two halves of themselves."""


# Kinds of equations, and of their systems, that a process has to follow once: to import, to compile.
type _Kind = tuple[type[AbstractEvolution], AbstractSolver | None, Structure | None]


class EvolutionSource(AbstractSource):
    """Everything that fixes a data set of trajectories; small enough to travel.

    A sample depends on problem, numerics, levels, seed, split and its request (see `AbstractSource`). The one with
    index i is trajectory i, or, with `times_per_part`, part i % parts of trajectory i // parts.

    Attributes:
        problem: the equation.
        numerics: how finely it is solved, by level; default: on the output grid with the equation's own step.
        times_per_part: output times of a sample; None for whole trajectories. Parts come as they are solved, and the
            inputs of one are the state before it.
        method: who solves the systems of an implicit equation; others have none.
        rtol: the relative residual that each of these must reach.
    """

    name: ClassVar[str] = "trajectories"

    problem: AnyEvolution
    numerics: Frozen[Mapping[str, Numerics]] = FrozenMap({})
    times_per_part: Count | None = None
    method: AnyMethod = Auto()
    rtol: Annotated[float, Field(ge=SMALLEST_RTOL, lt=1.0)] = 1e-8

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.times_per_part is not None and (reason := super().schema().indivisible(self.times_per_part)):
            raise ValueError(f"a times_per_part that divides the trajectories: {reason}")
        return self

    def schema(self) -> SampleSchema:  # type: ignore[override]  # as in AbstractSource
        """What the samples look like: trajectories, or parts of them."""
        whole = super().schema()
        return whole if self.times_per_part is None else whole.in_parts(self.times_per_part)

    def refinable(self, level: str) -> Refinable:
        """The level's trajectories on finer grids, with shorter steps."""
        problem: AbstractEvolution = at_level(self.problem, self.levels, level)
        own = Stepper(problem, self.numerics.get(level), self._stages(problem))
        seed = int(generator(self.seed, "pilot", "label error", level).integers(2**62))
        num_axes = len(problem.grid.shape)

        def solve(fineness: int, numbers: Sequence[int]) -> Sequence[Sample | Failure]:
            finer = Numerics(refinement=fineness * own.numerics.refinement, step=own.step / fineness)
            numerics = self.numerics.get(level) if fineness == 1 else finer
            update = {
                "mix": FrozenMap({level: 1.0}),
                "numerics": FrozenMap({} if numerics is None else {level: numerics}),
                "seed": seed,
                "split": "test",
                "times_per_part": None,
            }
            return sorted(self.model_copy(update=update).samples(numbers), key=_index)

        return Refinable(
            level=level,
            refinement=own.numerics.refinement,
            dimensions=num_axes + 1,
            order=problem.order_at_least,
            has_third=num_axes == 1,
            solve=solve,
        )

    def _stages(self, problem: AbstractEvolution) -> StageSolver | None:
        return StageSolver(self.method, self.rtol) if isinstance(problem, AbstractImplicit) else None

    def choose_numerics(self, levels: Sequence[str], accuracy: float, tell: Callable[[str], None]) -> list[Choice]:
        """The coarsest grid and step of each level; the systems of an implicit equation are solved as in the run."""
        problem: AbstractEvolution = self.problem
        # A looser tolerance of its systems is a part of the error.
        stages = StageSolver(self.method, self.rtol) if isinstance(problem, AbstractImplicit) else None
        return [
            choose_numerics(
                at_level(problem, self.levels, level),
                accuracy,
                level=level,
                seed=self.seed,
                stages=stages,
                tell=tell,
            )
            for level in levels
        ]

    def certify(
        self,
        level: str,
        inputs: Float[np.ndarray, "channels_in *grid"],  # noqa: F821  (jaxtyping's shapes are no expressions)
        prediction: Float[np.ndarray, "time channels_out *grid"],  # noqa: F821
        parameters: Float[np.ndarray, " num_parameters"],
        rtol: float | None = None,
    ) -> dict[str, Float[np.ndarray, "..."]]:
        """`defect` of every interval between output times (see `forecast_defect`), with the finest step of all levels.

        Raises:
            InputError: a tolerance is given: a forecast is corrected by following the equation, from time 0.
        """
        if rtol is not None:
            raise InputError.single(
                "to_rtol",
                f"{rtol:g}",
                "nothing",
                "An equation in time is solved from its start, and a forecast spares the solver none of it. "
                "Without it, the defect tells how far each interval is from the equation.",
            )
        problem: AbstractEvolution = self.problem
        at = at_level(problem, self.levels, level)
        steps = [one.step for one in self.numerics.values() if one.step is not None]
        found = forecast_defect(
            at,
            inputs,
            prediction,
            parameters,
            numerics=Numerics(step=min(steps)) if steps else None,
            stages=StageSolver(self.method, self.rtol) if isinstance(at, AbstractImplicit) else None,
        )
        return {"defect": found.relative}

    def build(self) -> "BuiltEvolution":
        """Make the source that solves.

        Raises:
            InputError: this machine lacks what an equation was told to use, or the method cannot solve the systems of
                an implicit one at some level.
        """
        family: AbstractEvolution = self.problem
        for level in self.mix:
            problem = at_level(family, self.levels, level)
            if (reason := problem.unavailable()) is not None:
                kind = kind_of(type(problem))
                raise InputError.single("problem", kind, "one that this machine can follow", reason)
            if isinstance(problem, AbstractImplicit):
                require_match(self.method, problem)
        return BuiltEvolution(self)


class BuiltEvolution:
    """A source at work. It solves samples of one level together, as many as the equation says."""

    def __init__(self, spec: EvolutionSource) -> None:
        self._spec = spec
        problem: AbstractEvolution = spec.problem
        self._bench = Bench(spec, problem)
        self._stages = StageSolver(spec.method, spec.rtol) if isinstance(problem, AbstractImplicit) else None
        self._steppers = {
            name: Stepper(one, spec.numerics.get(name), self._stages) for name, one in self._bench.problems.items()
        }
        schema = spec.schema()
        self._num_parts, self._num_times = schema.parts, len(schema.times)
        self._warmed_up = 0.0  # of `warm_up_seconds` of the method, what the report has

    def solve(self, requests: Sequence[Request]) -> Iterator[Sample | Failure]:
        """Solve samples, one result for each request; those of a level come together.

        Before the first one each equation goes to its first output time once, and that is thrown away, so that no
        sample pays for imports and compilation.

        Raises:
            InputError: see `Bench.problem`.
        """
        self._warm_up()
        pending = dict[int, _Pending]()
        for request in requests:
            self._bench.problem(request)
            trajectory, part = divmod(request.index, self._num_parts)
            pending.setdefault(trajectory, _Pending(trajectory=trajectory, wanted=[])).wanted.append((part, request))
        by_level = defaultdict[str, list[_Pending]](list)
        for one in pending.values():
            by_level[one.request.level].append(one)
            one.wanted.sort(key=lambda wanted: wanted[0])
        for level, rows in by_level.items():
            size = self._steppers[level].problem.batch_size
            for start in range(0, len(rows), size):
                yield from self._solve(self._steppers[level], rows[start : start + size])

    def report(self) -> dict[str, object]:
        """What it has come to so far; `SourceReport.from_json` reads it."""
        if self._stages is not None:
            self._bench.report.selection = self._stages.running.report()
        return self._bench.report.to_json()

    def _warm_up(self) -> None:
        with self._bench.warming_up():
            for stepper in self._steppers.values():
                self._follow_once(stepper)

    def _follow_once(self, stepper: Stepper) -> None:
        spec, problem, stages = self._spec, stepper.problem, None
        kind: _Kind = (type(problem), None, None)
        if isinstance(problem, AbstractImplicit):
            # What a method learns here is thrown away too.
            stages = StageSolver(spec.method, spec.rtol)
            kind = (type(problem), spec.method, problem.structure)
        if not self._bench.is_cold(kind):
            return
        apart = Stepper(problem, stepper.numerics, stages)
        try:
            draw = apart.fine.draw(generator(spec.seed, spec.split, "warm-up"))
        except (ValueError, ArithmeticError):
            return
        next(apart.snapshots([draw]))

    def _compiled(self) -> float:
        """Seconds since it was asked last that a method spent on imports and compilation, which no sample pays for."""
        if self._stages is None:
            return 0.0
        before, self._warmed_up = self._warmed_up, self._stages.running.warm_up_seconds
        self._bench.report.warm_up_seconds += self._warmed_up - before
        return self._warmed_up - before

    def _solve(self, stepper: Stepper, trajectories: "Sequence[_Pending]") -> Iterator[Sample | Failure]:
        """One result for each part that is wanted. What a step was too long for is followed again, with half of it.

        A part comes from the first attempt that gets through it. So it is the same whichever parts are wanted.
        """
        clock = Clock()
        pending: list[_Pending] = []
        for one in trajectories:
            try:
                rng = generator(self._spec.seed, self._spec.split, "fields", one.trajectory)
                one.draw = stepper.fine.draw(rng, one.request.parameters or {})
            except (ValueError, ArithmeticError) as error:
                one.reasons.append(f"not drawn: {error}")
                yield from self._failed(one)
            else:
                pending.append(one)
        for halvings in range(1 + HALVINGS):
            if not pending:
                return
            failed = list[_Pending]()
            followed = stepper.parts([one.draw for one in pending if one.draw is not None], self._num_times)
            for number, part in enumerate(followed):
                compiled = self._compiled()
                wall, cpu = (max(seconds - compiled, 0.0) / len(pending) for seconds in clock.read())
                for row, one in enumerate(pending):
                    one.wall, one.cpu = one.wall + wall, one.cpu + cpu
                    if one in failed or not one.wanted:
                        continue
                    if (reason := part.failure(row)) is not None:
                        said = reason if not halvings else f"with step {stepper.step:.3g} {reason}"
                        one.reasons.append(said)
                        failed.append(one)
                    elif one.wanted[0][0] == number:
                        yield self._stored(one, stepper, part, row)
                if all(one in failed or not one.wanted for one in pending):
                    break
                clock = Clock()  # here: who takes the samples may wait, which is none of their cost
            clock = Clock()
            pending, stepper = failed, stepper.halved()
        for one in pending:
            yield from self._failed(one)

    def _failed(self, one: "_Pending") -> Iterator[Failure]:
        """A failure for each part that is still wanted; the first one bears the cost."""
        # The first says what happened, the last that it did to the end.
        text = "; ".join([*one.reasons[:1], *one.reasons[1:][-1:]])
        if len(one.reasons) > 1:
            self._bench.note_rescue(one.request, text)
        while one.wanted:
            yield self._bench.failure(one.taken(), text, *one.spent())

    def _stored(self, one: "_Pending", stepper: Stepper, followed: Followed, row: int) -> Sample:
        request = one.taken()
        if one.reasons and not one.is_rescued:
            one.is_rescued = True
            reason = f"{one.reasons[0]}; solved with step {stepper.step:.3g}"
            self._bench.note_rescue(request, reason)
        wall, cpu = one.spent()
        assert one.draw is not None
        return self._bench.sample(
            request,
            followed.inputs[row],
            followed.outputs[row],
            np.array(list(one.draw.scalars.values()), dtype=np.float32),
            solver=stepper.method,
            status=INTEGRATED,
            relative_residual=float(followed.defect[row]),
            num_iterations=int(followed.num_steps[row]),
            wall_seconds=wall,
            cpu_seconds=cpu,
        )


def _index(result: Sample | Failure) -> int:
    return result.index if isinstance(result, Failure) else result.provenance.index


@dataclass(kw_only=True, eq=False)
class _Pending:
    """A trajectory on its way, the parts of it that are still wanted, and what they have cost since the last [s]."""

    trajectory: int
    wanted: list[tuple[int, Request]]
    draw: Draw | None = None
    reasons: list[str] = field(default_factory=list)
    is_rescued: bool = False
    wall: float = 0.0
    cpu: float = 0.0

    @property
    def request(self) -> Request:
        """That of the next part that is wanted; all parts of a trajectory have one level, and one set of parameters."""
        return self.wanted[0][1]

    def taken(self) -> Request:
        """The next part that is wanted, and is not any more."""
        return self.wanted.pop(0)[1]

    def spent(self) -> tuple[float, float]:
        """Wall and CPU seconds since it was asked last."""
        spent = self.wall, self.cpu
        self.wall = self.cpu = 0.0
        return spent
