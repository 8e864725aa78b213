"""SolverSource: from requests to verified samples."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from jaxtyping import Float, Int64
from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from headrace.platform.errors import InputError
from headrace.platform.fields import Grid
from headrace.platform.frozen import Frozen, FrozenMap
from headrace.platform.sample import Failure, Request, Sample
from headrace.platform.samplers.fixed_mix import MIXED
from headrace.platform.samplers.sampler import AbstractSampler
from headrace.platform.seeding import generator
from headrace.platform.spec import kind_of
from headrace.solvers.certifying import certify
from headrace.solvers.evolution.accuracy import MAX_REFINEMENT, Choice, Trial
from headrace.solvers.label_error import LabelError, Refinable
from headrace.solvers.methods.direct import Direct
from headrace.solvers.numerics import Numerics
from headrace.solvers.problem import AbstractProblem
from headrace.solvers.problems import AnyProblem
from headrace.solvers.sampled import AbstractSource, at_level
from headrace.solvers.selection import AnyMethod, Auto
from headrace.solvers.sequences.sorting import Order, solving_order
from headrace.solvers.sources.bench import Bench, Clock
from headrace.solvers.systems.solver import (
    SMALLEST_RTOL,
    RunningSolver,
    Solution,
    SolveStatus,
    require_match,
)
from headrace.solvers.systems.system import System
from headrace.solvers.systems.verified import solve_batch_verified, solve_verified

# Unknowns that a warm-up has about, on each axis of a grid in 1, 2 and 3 dimensions.
_WARM_UP_POINTS = (129, 33, 11)
# Errors are measured on a third grid, four times as fine, where that has no more points: a sample takes about a second.
_MOST_POINTS = 300_000


class SolverSource(AbstractSource):
    """Everything that fixes a data set of solved problems; small enough to travel, heavy only once built.

    See `AbstractSource` for what a sample depends on. Method, tolerance and order change how it is solved and what that
    costs, not what it is.

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
        numerics: on how fine a grid it is solved, by level; default: on the output grid.
    """

    name: ClassVar[str] = "systems"

    problem: AnyProblem
    method: AnyMethod = Auto()
    rtol: Annotated[float, Field(ge=SMALLEST_RTOL, lt=1.0)] = 1e-8
    order: Order = "auto"
    numerics: Frozen[Mapping[str, Numerics]] = FrozenMap({})

    @model_serializer(mode="wrap")
    def _without_numerics(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Samples of the output grid are what they were before there was another: so is the hash of their spec.
        values: dict[str, Any] = handler(self)
        if not self.numerics:
            values.pop("numerics", None)
        return values

    def refinement(self, level: str) -> int:
        """The solver's points for each point of the output grid, along each axis."""
        return self.numerics[level].refinement if level in self.numerics else 1

    def refinable(self, level: str) -> Refinable | str:
        """The level's samples, solved by the same method, on finer grids; or why they cannot be had."""
        problem: AbstractProblem = at_level(self.problem, self.levels, level)
        if (reason := problem.unrefinable()) is not None:
            return reason
        refinement = self.refinement(level)
        points = int(np.prod(problem.schema().domain.shape)) * refinement ** _num_axes(problem)
        seed = int(generator(self.seed, "pilot", "label error", level).integers(2**62))

        def solve(fineness: int, numbers: Sequence[int]) -> Sequence[Sample | Failure]:
            numerics = FrozenMap({level: Numerics(refinement=fineness * refinement)})
            of_level = {"mix": FrozenMap({level: 1.0}), "numerics": numerics, "seed": seed, "split": "test"}
            return list(self.model_copy(update=of_level).samples(numbers))

        return Refinable(
            level=level,
            refinement=refinement,
            dimensions=_num_axes(problem),
            order=problem.order_at_least,
            has_third=points * 4 ** _num_axes(problem) <= _MOST_POINTS,
            solve=solve,
        )

    def choose_numerics(self, levels: Sequence[str], accuracy: float, tell: Callable[[str], None]) -> list[Choice]:
        """The coarsest grid of each level whose samples are accurate, by their measured error.

        Raises:
            InputError: there are no finer grids, or none up to 16 times as fine is accurate.
        """
        return [self._chosen(level, accuracy, tell) for level in levels]

    def _chosen(self, level: str, accuracy: float, tell: Callable[[str], None]) -> Choice:
        trials: list[Trial] = []
        found, refinement = LabelError(level=level), 1
        while refinement <= MAX_REFINEMENT:
            finer = self.model_copy(update={"numerics": FrozenMap({level: Numerics(refinement=refinement)})})
            tell(f"{level}: labels with {refinement} x the points")
            found = finer.label_error(level)
            if found.worst is None:
                break
            seconds = found.cpu_seconds / found.num_pilots
            trials.append(Trial(refinement=refinement, step=None, error=found.worst, cpu_seconds=seconds))
            if found.worst <= accuracy:
                return Choice(level=level, accuracy=accuracy, num_pilots=found.num_pilots, trials=tuple(trials))
            refinement *= 2
        said = f"The finest grid came to {trials[-1].error:.2g}" if trials else f"It was not measured: {found.reason}"
        raise InputError.single(
            "data.accuracy",
            f"{accuracy:g}",
            f"one that level {level} reaches on a grid up to {MAX_REFINEMENT} times as fine as the output's",
            f"{said}. Raise the resolution or the accuracy, or make the level easier.",
        )

    def mismatch(self) -> str | None:
        """Why the method cannot solve the problem, or this machine cannot discretise it; None when they can."""
        return self.problem.unavailable() or self.method.mismatch(self.problem)

    def planned_order(self, count: int, sampler: AbstractSampler = MIXED) -> Int64[np.ndarray, " samples"] | None:
        """The order in which to solve the samples 0 to count - 1; None for the order of their indices.

        Computed once for a whole data set, from a coarse draw of every sample (see `AbstractProblem.feature`), of which
        only a few numbers are kept. A problem without features, and samples that are decided late, are solved in the
        order of the indices.
        """
        if (
            sampler.decides_late
            or self.order == "none"
            or (self.order == "auto" and not self.method.recycles)
            or count < 3
        ):
            return None
        family: AbstractProblem = self.problem
        problems = {name: at_level(family, self.levels, name) for name in self.mix}
        requests = self.requests(range(count), sampler, count)

        def feature(index: int) -> Float[np.ndarray, "..."] | None:
            problem = problems[requests[index].level]
            try:
                return problem.feature(generator(self.seed, self.split, "fields", index))
            except (ValueError, ArithmeticError):
                return None  # it fails when its turn comes, wherever that is

        first = next((found for found in map(feature, range(count)) if found is not None), None)
        if first is None:
            return None
        fields = (first if (found := feature(index)) is None else found for index in range(count))
        return solving_order(fields, count, self.order)

    def certify(
        self,
        level: str,
        inputs: Float[np.ndarray, "channels_in *grid"],  # noqa: F821  (jaxtyping's shapes are no expressions)
        prediction: Float[np.ndarray, "1 channels_out *grid"],  # noqa: F821
        parameters: Float[np.ndarray, " num_parameters"],
        rtol: float | None = None,
    ) -> dict[str, Float[np.ndarray, "..."]]:
        """`relative_residual` of the prediction (see `Certificate`), and, with a tolerance, of what was made of it.

        That is `certified`, the outputs (NaN if the method did not get there), and `num_iterations` and `seconds` from
        the prediction and `..._by_itself`, from where the method starts without one.
        """
        problem: AbstractProblem = self.problem
        at = at_level(problem, self.levels, level)
        found = certify(at, inputs, prediction, parameters, rtol=rtol, method=self.method)
        arrays = {"relative_residual": np.array(found.relative_residual)}
        if (finished := found.finished) is not None:
            outputs = finished.outputs
            arrays["certified"] = np.full_like(prediction, np.nan) if outputs is None else outputs
            for suffix, solution in (("", finished.solution), ("_by_itself", finished.by_itself)):
                arrays[f"num_iterations{suffix}"] = np.array(float(solution.num_iterations))
                arrays[f"seconds{suffix}"] = np.array(solution.seconds)
        return arrays

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


class BuiltSource:
    """A source at work: it holds what its method carries from one system to the next, and from request to request."""

    def __init__(self, spec: SolverSource) -> None:
        self._spec = spec
        problem: AbstractProblem = spec.problem
        self._bench = Bench(spec, problem)
        self._running = spec.method.build()
        self._rescue: RunningSolver | None = None
        self._refinement = {name: spec.refinement(name) for name in self._bench.problems}
        self._fine = {name: one.refined(self._refinement[name]) for name, one in self._bench.problems.items()}
        self._batch = max(spec.method.batch_size(problem) for problem in self._fine.values())
        self._is_warm = False

    def solve(self, requests: Sequence[Request]) -> Iterator[Sample | Failure]:
        """Solve samples in the given order (see `SolverSource.planned_order`), one result for each request.

        Methods that gain from it get several systems at once. A solve that fails is tried once more with a direct
        method, or, under `auto`, with the next candidate and then a direct method; what fails then too is a `Failure`
        with all reasons. Before the first sample, a small system is solved and thrown away, so that no sample pays for
        imports and compilation.

        Raises:
            InputError: see `Bench.problem`.
        """
        self._warm_up()
        for start in range(0, len(requests), self._batch):
            drawn = []
            for request in requests[start : start + self._batch]:
                result = self._draw(request)
                if isinstance(result, Failure):
                    yield result
                else:
                    drawn.append(result)
            if drawn:
                yield from self._solve(drawn)

    def report(self) -> dict[str, object]:
        """What it has come to so far; `SourceReport.from_json` reads it."""
        self._bench.report.selection = self._running.report()
        return self._bench.report.to_json()

    def _warm_up(self) -> None:
        """Let the method import and compile what it needs on a small system of the same problem."""
        if self._is_warm:
            return
        self._is_warm = True
        with self._bench.warming_up():
            for problem in self._bench.problems.values():
                if self._bench.is_cold((self._spec.method, type(problem))):
                    self._solve_small(problem)

    def _solve_small(self, problem: AbstractProblem) -> None:
        small = _small(problem)
        rng = generator(self._spec.seed, self._spec.split, "warm-up")
        try:
            system = small.discretize(small.draw(rng))
        except (ValueError, ArithmeticError):
            return
        if self._spec.method.mismatch(system) is None:
            solve_verified(self._spec.method.build(), system, self._spec.rtol)

    def _draw(self, request: Request) -> "_Drawn | Failure":
        problem = self._bench.problem(request)
        clock = Clock()
        try:
            rng = generator(self._spec.seed, self._spec.split, "fields", request.index)
            fields = problem.draw_refined(rng, self._refinement[request.level], request.parameters or {})
            system = self._fine[request.level].discretize(fields)
        except (ValueError, ArithmeticError) as error:
            return self._bench.failure(request, f"not discretised: {error}", *clock.read())
        return _Drawn(request=request, problem=problem, fields=fields, system=system, cost=clock.read())

    def _solve(self, batch: "Sequence[_Drawn]") -> Iterator[Sample | Failure]:
        clock, warm_up = Clock(), self._running.warm_up_seconds
        solutions = solve_batch_verified(self._running, [one.system for one in batch], self._spec.rtol)
        wall, cpu = clock.read()
        warm_up = self._running.warm_up_seconds - warm_up
        self._bench.report.warm_up_seconds += warm_up
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
        refinement = self._refinement[drawn.request.level]
        arrays = drawn.problem.restricted(drawn.fields, solution.value, refinement) if solved else None
        wall, cpu = (sum(parts) for parts in zip(drawn.cost, share, clock.read(), strict=True))
        if len(reasons) > 1 or solution.num_tries > 1:
            self._bench.note_rescue(drawn.request, "; ".join(reasons))
        if arrays is None:
            return self._bench.failure(drawn.request, "; ".join(reasons), wall, cpu)
        return self._bench.sample(
            drawn.request,
            *arrays,
            solver=solution.method,
            status=solution.outcome,
            relative_residual=solution.relative_residual,
            num_iterations=solution.num_iterations,
            wall_seconds=wall,
            cpu_seconds=cpu,
        )


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


def _num_axes(problem: AbstractProblem) -> int:
    """Along which the points grow: of the grid, or of the plane of a mesh."""
    domain = problem.schema().domain
    return len(domain.shape) if isinstance(domain, Grid) else domain.points.shape[1]


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """A sample between its draw and its solve; `cost` is the wall and CPU time of the draw."""

    request: Request
    problem: AbstractProblem
    fields: Mapping[str, Float[np.ndarray, "..."]]
    system: System
    cost: tuple[float, float]
