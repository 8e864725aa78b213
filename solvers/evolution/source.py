"""EvolutionSource: from sample indices to trajectories."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from headrace.platform.frozen import Frozen, FrozenMap
from headrace.platform.sample import Failure, Provenance, Sample
from headrace.platform.sampling import Mixture
from headrace.platform.seeding import generator
from headrace.platform.spec import spec_hash
from headrace.solvers.evolution.evolution import AbstractEvolution, Draw, Numerics
from headrace.solvers.evolution.stepper import Stepper
from headrace.solvers.problems import AnyEvolution
from headrace.solvers.sampled import AbstractSource
from headrace.solvers.source import Clock, SourceReport, headrace_version

INTEGRATED = "integrated"
"""The status of these samples: followed in time, with steps that agree with two halves of themselves."""


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
        spec, stepper, clock = self._spec, self._steppers[level], Clock()
        draws: dict[int, Draw] = {}
        reasons: dict[int, str | None] = {}
        for index in indices:
            try:
                draws[index] = stepper.fine.draw(generator(spec.seed, spec.split, "fields", index))
            except (ValueError, ArithmeticError) as error:
                reasons[index] = f"not drawn: {error}"
        followed = stepper.follow(list(draws.values())) if draws else None
        wall, cpu = (seconds / len(indices) for seconds in clock.read())
        rows = {index: row for row, index in enumerate(draws)}
        for index in indices:
            if followed is not None and index in rows:
                reasons[index] = followed.failure(rows[index])
            if (reason := reasons[index]) is not None:
                self._report.failed += 1
                yield Failure(index=index, level=level, reason=reason, wall_seconds=wall, cpu_seconds=cpu)
                continue
            assert followed is not None
            row = rows[index]
            self._report.samples += 1
            counted = self._report.methods.setdefault(stepper.method, {"samples": 0, "seconds": 0.0})
            counted["samples"] += 1
            counted["seconds"] += wall
            provenance = Provenance(
                spec_hash=self._hash,
                seed=spec.seed,
                index=index,
                level=level,
                solver=stepper.method,
                status=INTEGRATED,
                relative_residual=float(followed.defect[row]),
                num_iterations=followed.num_steps,
                version=headrace_version(),
                wall_seconds=wall,
                cpu_seconds=cpu,
            )
            yield Sample(
                inputs=stepper.inputs(draws[index]),
                outputs=followed.outputs[row],
                parameters=np.array(list(draws[index].scalars.values()), dtype=np.float32),
                provenance=provenance,
            )
