"""SolverSource: from sample indices to verified samples."""

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float, Int64
from pydantic import Field, ValidationError

from headrace.platform.errors import InputError
from headrace.platform.fields import Grid
from headrace.platform.sample import Failure, Provenance, Sample
from headrace.platform.sampling import Mixture
from headrace.platform.seeding import generator
from headrace.platform.spec import kind_of, spec_hash
from headrace.solvers.methods.direct import Direct
from headrace.solvers.problem import AbstractProblem
from headrace.solvers.problems import AnyProblem
from headrace.solvers.sampled import AbstractSource
from headrace.solvers.selection import AnyMethod, Auto
from headrace.solvers.sequences.sorting import Order, solving_order
from headrace.solvers.systems.selection_report import SelectionReport
from headrace.solvers.systems.solver import (
    SMALLEST_RTOL,
    AbstractSolver,
    RunningSolver,
    Solution,
    SolveStatus,
    require_match,
)
from headrace.solvers.systems.system import System
from headrace.solvers.systems.verified import solve_batch_verified, solve_verified

# Unknowns that a warm-up has about, on each axis of a grid in 1, 2 and 3 dimensions.
_WARM_UP_POINTS = (129, 33, 11)
# Second tries that a report names; it counts them all.
_NAMED = 50
# Kinds of methods and problems that this process has solved once: imported, compiled.
_warm: set[tuple[AbstractSolver, type[AbstractProblem]]] = set()


class SolverSource(AbstractSource):
    """Everything that fixes a data set of solved problems; small enough to travel, heavy only once built.

    Sample i depends on problem, levels, mix, seed, split and i. Method, tolerance and order change how it is solved and
    what that costs, not what it is.

    Attributes:
        problem: the equation.
        method: how to solve it.
        rtol: the relative residual that every sample must reach.
        order: in which order `planned_order` says to solve: `greedy` and `hilbert` sort neighbours together, `auto`
            does so for methods that recycle, `none` leaves them as they come.
        seed: seed of the data set.
        split: which part of it.
        mix: weights of the difficulty levels, by name.
        levels: levels of the user's own, or others under built-in names: name -> the problem's fields that change.
    """

    problem: AnyProblem
    method: AnyMethod = Auto()
    rtol: Annotated[float, Field(ge=SMALLEST_RTOL, lt=1.0)] = 1e-8
    order: Order = "auto"

    def problem_at(self, level: str) -> AbstractProblem:
        """The problem at a level: one of `levels`, else a built-in one.

        Raises:
            InputError: there is no such level.
        """
        problem = super().problem_at(level)
        assert isinstance(problem, AbstractProblem)
        return problem

    def mismatch(self) -> str | None:
        """Why the method cannot solve the problem, or this machine cannot discretise it; None when they can."""
        return self.problem.unavailable() or self.method.mismatch(self.problem)

    def planned_order(self, count: int) -> Int64[np.ndarray, " samples"] | None:
        """The order in which to solve the samples 0 to count - 1; None for the order of their indices.

        Computed once for a whole data set, from a coarse draw of every sample (see `AbstractProblem.feature`), of which
        only a few numbers are kept. A problem without features is solved in the order of the indices.
        """
        if self.order == "none" or (self.order == "auto" and not self.method.recycles) or count < 3:
            return None
        problems, mixture = {name: self.problem_at(name) for name in self.mix}, Mixture(self.mix)

        def feature(index: int) -> Float[np.ndarray, "..."] | None:
            problem = problems[mixture.level(self.seed, self.split, index)]
            try:
                return problem.feature(generator(self.seed, self.split, "fields", index))
            except (ValueError, ArithmeticError):
                return None  # it fails when its turn comes, wherever that is

        first = next((found for found in map(feature, range(count)) if found is not None), None)
        if first is None:
            return None
        fields = (first if (found := feature(index)) is None else found for index in range(count))
        return solving_order(fields, count, self.order)

    def build(self) -> "BuiltSource":
        """Make the source that solves.

        Raises:
            InputError: the method cannot solve the problem, or this machine cannot discretise it.
        """
        reason = self.problem.unavailable()
        if reason is not None:
            raise InputError.single(
                "problem", kind_of(type(self.problem)), "one that this machine can discretise", reason
            )
        require_match(self.method, self.problem)
        return BuiltSource(self)


@dataclass(kw_only=True)
class SourceReport:
    """What solving has come to so far; times in seconds.

    Attributes:
        samples: how many were solved.
        failed: how many could not be, by any method.
        rescued: how many needed a second try.
        rescues: the first of these: index, level, seed and the reasons.
        warm_up_seconds: imports, compilation and the first, thrown-away solve; in no sample's cost.
        methods: samples and seconds of each method.
        selection: what choosing among methods came to; None when there was nothing to choose.
    """

    samples: int = 0
    failed: int = 0
    rescued: int = 0
    rescues: list[dict[str, str | int]] = field(default_factory=list)
    warm_up_seconds: float = 0.0
    methods: dict[str, dict[str, float]] = field(default_factory=dict)
    selection: SelectionReport | None = None

    def note_sample(self, method: str, seconds: float) -> None:
        """Count a sample."""
        self.samples += 1
        counted = self.methods.setdefault(method, {"samples": 0, "seconds": 0.0})
        counted["samples"] += 1
        counted["seconds"] += seconds

    def note_rescue(self, index: int, level: str, seed: int, reason: str) -> None:
        """Count a sample that needed a second try, whether it helped or not; the first are named."""
        self.rescued += 1
        if len(self.rescues) < _NAMED:
            self.rescues.append({"index": index, "level": level, "seed": seed, "reason": reason})

    @classmethod
    def merged(cls, reports: "Sequence[SourceReport]") -> "SourceReport":
        """One report of several sources that worked on one run."""
        whole = cls(selection=SelectionReport.merged(r.selection for r in reports if r.selection is not None))
        for report in reports:
            whole.samples += report.samples
            whole.failed += report.failed
            whole.rescued += report.rescued
            whole.rescues = (whole.rescues + report.rescues)[:_NAMED]
            whole.warm_up_seconds += report.warm_up_seconds
            for name, counted in report.methods.items():
                kept = whole.methods.setdefault(name, {"samples": 0, "seconds": 0.0})
                kept["samples"] += counted["samples"]
                kept["seconds"] += counted["seconds"]
        return whole

    def to_json(self) -> dict[str, object]:
        """The report as plain values."""
        return {
            "samples": self.samples,
            "failed": self.failed,
            "rescued": self.rescued,
            "rescues": self.rescues,
            "warm_up_seconds": self.warm_up_seconds,
            "methods": self.methods,
            "selection": self.selection.to_json() if self.selection else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SourceReport":
        """What `to_json` wrote."""
        chosen = value["selection"]
        return cls(**{**value, "selection": SelectionReport.from_json(chosen) if chosen else None})


class BuiltSource:
    """A source at work: it holds what its method carries from one system to the next, and from request to request."""

    def __init__(self, spec: SolverSource) -> None:
        self._spec = spec
        self._mixture = Mixture(spec.mix)
        self._problems = {name: spec.problem_at(name) for name in spec.mix}
        self._hash = spec_hash(spec)
        self._running = spec.method.build()
        self._rescue: RunningSolver | None = None
        self._batch = max(spec.method.batch_size(problem) for problem in self._problems.values())
        self._report = SourceReport()
        self._is_warm = False

    def solve(self, indices: Sequence[int]) -> Iterator[Sample | Failure]:
        """Solve samples in the given order (see `SolverSource.planned_order`), one result for each index.

        Methods that gain from it get several systems at once. A solve that fails is tried once more with a direct
        method, or, under `auto`, with the next candidate and then a direct method; what fails then too is a `Failure`
        with all reasons. Before the first sample, a small system is solved and thrown away, so that no sample pays for
        imports and compilation.
        """
        self._warm_up()
        for start in range(0, len(indices), self._batch):
            drawn = []
            for index in indices[start : start + self._batch]:
                result = self._draw(int(index))
                if isinstance(result, Failure):
                    self._report.failed += 1
                    yield result
                else:
                    drawn.append(result)
            if drawn:
                yield from self._solve(drawn)

    def report(self) -> dict[str, object]:
        """What it has come to so far; `SourceReport.from_json` reads it."""
        self._report.selection = self._running.report()
        return self._report.to_json()

    def _warm_up(self) -> None:
        """Let the method import and compile what it needs on a small system of the same problem."""
        if self._is_warm:
            return
        self._is_warm = True
        started = time.perf_counter()
        for problem in self._problems.values():
            if (self._spec.method, type(problem)) in _warm:
                continue
            _warm.add((self._spec.method, type(problem)))
            small = _small(problem)
            rng = generator(self._spec.seed, self._spec.split, "warm-up")
            try:
                system = small.discretize(small.draw(rng))
            except (ValueError, ArithmeticError):
                continue
            if self._spec.method.mismatch(system) is None:
                solve_verified(self._spec.method.build(), system, self._spec.rtol)
        self._report.warm_up_seconds += time.perf_counter() - started

    def _draw(self, index: int) -> "_Drawn | Failure":
        spec = self._spec
        level = self._mixture.level(spec.seed, spec.split, index)
        problem = self._problems[level]
        clock = Clock()
        try:
            fields = problem.draw(generator(spec.seed, spec.split, "fields", index))
            system = problem.discretize(fields)
        except (ValueError, ArithmeticError) as error:
            wall, cpu = clock.read()
            return Failure(
                index=index, level=level, reason=f"not discretised: {error}", wall_seconds=wall, cpu_seconds=cpu
            )
        return _Drawn(index=index, level=level, problem=problem, fields=fields, system=system, cost=clock.read())

    def _solve(self, batch: "Sequence[_Drawn]") -> Iterator[Sample | Failure]:
        clock, warm_up = Clock(), self._running.warm_up_seconds
        solutions = solve_batch_verified(self._running, [one.system for one in batch], self._spec.rtol)
        wall, cpu = clock.read()
        warm_up = self._running.warm_up_seconds - warm_up
        self._report.warm_up_seconds += warm_up
        # Compilation keeps one core busy: its wall time is its CPU time.
        share = tuple(max(seconds - warm_up, 0.0) / len(batch) for seconds in (wall, cpu))
        for one, solution in zip(batch, solutions, strict=True):
            yield self._finish(one, solution, share)

    def _finish(self, drawn: "_Drawn", solution: Solution, share: Sequence[float]) -> Sample | Failure:
        clock, spec = Clock(), self._spec
        reasons = [str(solution)]
        # `auto` has tried a direct method by now.
        if (
            solution.status is not SolveStatus.converged
            and not isinstance(spec.method, Auto)
            and spec.method != Direct()
        ):
            if self._rescue is None:
                self._rescue = Direct().build()
            solution = solve_verified(self._rescue, drawn.system, spec.rtol)
            reasons.append(str(solution))
        solved = solution.status is SolveStatus.converged
        arrays = drawn.problem.sample_arrays(drawn.fields, solution.value) if solved else None
        wall, cpu = (sum(parts) for parts in zip(drawn.cost, share, clock.read(), strict=True))
        if len(reasons) > 1 or solution.num_tries > 1:
            self._report.note_rescue(drawn.index, drawn.level, spec.seed, "; ".join(reasons))
        if arrays is None:
            self._report.failed += 1
            return Failure(
                index=drawn.index, level=drawn.level, reason="; ".join(reasons), wall_seconds=wall, cpu_seconds=cpu
            )
        self._report.note_sample(solution.method, wall)
        inputs, outputs, parameters = arrays
        provenance = Provenance(
            spec_hash=self._hash,
            seed=spec.seed,
            index=drawn.index,
            level=drawn.level,
            solver=solution.method,
            status=solution.status.value,
            relative_residual=solution.relative_residual,
            num_iterations=solution.num_iterations,
            version=headrace_version(),
            wall_seconds=wall,
            cpu_seconds=cpu,
        )
        return Sample(inputs=inputs, outputs=outputs, parameters=parameters, provenance=provenance)


def _small(problem: AbstractProblem) -> AbstractProblem:
    """The problem on a small grid if it has one and can be had on it, else as it is."""
    domain = problem.schema().domain
    if "resolution" not in type(problem).model_fields or not isinstance(domain, Grid):
        return problem
    points = min(_WARM_UP_POINTS[len(domain.shape) - 1], *domain.shape)
    try:
        return problem.overridden({"resolution": points})
    except ValidationError:
        return problem


class Clock:
    """Wall and CPU time since it was made [s]."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Both."""
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """A sample between its draw and its solve; `cost` is the wall and CPU time of the draw."""

    index: int
    level: str
    problem: AbstractProblem
    fields: Mapping[str, Float[np.ndarray, "..."]]
    system: System
    cost: tuple[float, float]


@functools.cache
def headrace_version() -> str:
    """The version that samples are made with."""
    try:
        return version("headrace")
    except PackageNotFoundError:
        return "unknown"
