"""EvolutionSource: from sample indices to trajectories."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from headrace.platform.frozen import Frozen, FrozenMap
from headrace.platform.sample import Failure, Provenance, Sample
from headrace.platform.sampling import Mixture
from headrace.platform.seeding import generator
from headrace.platform.spec import spec_hash
from headrace.solvers.evolution.evolution import AbstractEvolution, Draw, Numerics
from headrace.solvers.evolution.stepper import Followed, Stepper
from headrace.solvers.problems import AnyEvolution
from headrace.solvers.sampled import AbstractSource
from headrace.solvers.source import Clock, SourceReport, headrace_version

INTEGRATED = "integrated"
"""The status of these samples: followed in time, with steps that agree with two halves of themselves."""


HALVINGS = 6
"""How often the step of a trajectory that is not resolved is halved before it is given up."""


class EvolutionSource(AbstractSource):
    """Everything that fixes a data set of trajectories; small enough to travel.

    Sample i depends on problem, numerics, levels, mix, seed, split and i.

    Attributes:
        problem: the equation.
        numerics: how finely it is solved, by level; default: on the output grid with the equation's own step.
    """

    problem: AnyEvolution
    numerics: Frozen[Mapping[str, Numerics]] = FrozenMap({})

    def problem_at(self, level: str) -> AbstractEvolution:
        """The equation at a level.

        Raises:
            InputError: there is no such level.
        """
        problem = super().problem_at(level)
        assert isinstance(problem, AbstractEvolution)
        return problem

    def planned_order(self, count: int) -> None:
        """None: the samples are made in the order of their indices, since one does not make the next one cheaper."""
        return None

    def build(self) -> "BuiltEvolution":
        """Make the source that solves."""
        return BuiltEvolution(self)


class BuiltEvolution:
    """A source at work. It solves samples of one level together, as many as the equation says."""

    def __init__(self, spec: EvolutionSource) -> None:
        self._spec = spec
        self._mixture = Mixture(spec.mix)
        self._steppers = {name: Stepper(spec.problem_at(name), spec.numerics.get(name)) for name in spec.mix}
        self._hash = spec_hash(spec)
        self._report = SourceReport()

    def solve(self, indices: Sequence[int]) -> Iterator[Sample | Failure]:
        """Solve samples, one result for each index; those of a level come together."""
        by_level = defaultdict(list)
        for index in indices:
            by_level[self._mixture.level(self._spec.seed, self._spec.split, int(index))].append(int(index))
        for level, rows in by_level.items():
            size = self._steppers[level].problem.batch_size
            for start in range(0, len(rows), size):
                yield from self._solve(level, rows[start : start + size])

    def report(self) -> dict[str, object]:
        """What it has come to so far; `SourceReport.from_json` reads it."""
        return self._report.to_json()

    def _solve(self, level: str, indices: Sequence[int]) -> Iterator[Sample | Failure]:
        """One result for each index. What a step was too long for is followed again, with half of it and less."""
        stepper, clock = self._steppers[level], Clock()
        pending: list[_Pending] = []
        for index in indices:
            try:
                draw = stepper.fine.draw(generator(self._spec.seed, self._spec.split, "fields", index))
            except (ValueError, ArithmeticError) as error:
                yield self._failed(_Pending(index=index, level=level), [f"not drawn: {error}"])
            else:
                pending.append(_Pending(index=index, level=level, draw=draw))
        for halvings in range(1 + HALVINGS):
            if not pending:
                return
            followed = stepper.follow([one.draw for one in pending if one.draw is not None])
            wall, cpu = (seconds / len(pending) for seconds in clock.read())
            clock, failed = Clock(), []
            for row, one in enumerate(pending):
                one.wall, one.cpu = one.wall + wall, one.cpu + cpu
                if (reason := followed.failure(row)) is not None:
                    one.reasons.append(reason if not halvings else f"with step {stepper.numerics.step:.3g} {reason}")
                    failed.append(one)
                    continue
                yield self._stored(one, stepper, followed, row)
            pending, stepper = failed, stepper.halved()
        for one in pending:
            yield self._failed(one, one.reasons)

    def _failed(self, one: "_Pending", reasons: Sequence[str]) -> Failure:
        self._report.failed += 1
        # The first says what happened, the last that it did to the end.
        text = "; ".join([*reasons[:1], *reasons[1:][-1:]])
        if len(reasons) > 1:
            self._report.note_rescue(one.index, one.level, self._spec.seed, text)
        return Failure(index=one.index, level=one.level, reason=text, wall_seconds=one.wall, cpu_seconds=one.cpu)

    def _stored(self, one: "_Pending", stepper: Stepper, followed: Followed, row: int) -> Sample:
        assert one.draw is not None
        if one.reasons:
            reason = f"{one.reasons[0]}; solved with step {stepper.numerics.step:.3g}"
            self._report.note_rescue(one.index, one.level, self._spec.seed, reason)
        self._report.note_sample(stepper.method, one.wall)
        provenance = Provenance(
            spec_hash=self._hash,
            seed=self._spec.seed,
            index=one.index,
            level=one.level,
            solver=stepper.method,
            status=INTEGRATED,
            relative_residual=float(followed.defect[row]),
            num_iterations=int(followed.num_steps[row]),
            version=headrace_version(),
            wall_seconds=one.wall,
            cpu_seconds=one.cpu,
        )
        return Sample(
            inputs=stepper.inputs(one.draw),
            outputs=followed.outputs[row],
            parameters=np.array(list(one.draw.scalars.values()), dtype=np.float32),
            provenance=provenance,
        )


@dataclass(kw_only=True)
class _Pending:
    """A sample on its way, and what it has cost so far [s]."""

    index: int
    level: str
    draw: Draw | None = None
    reasons: list[str] = field(default_factory=list)
    wall: float = 0.0
    cpu: float = 0.0
