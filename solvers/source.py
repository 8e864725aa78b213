"""SolverSource: from sample indices to verified samples."""

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Literal, Self

import numpy as np
from jaxtyping import Float
from pydantic import Field, ValidationError, model_validator

from headrace.platform.errors import InputError
from headrace.platform.fields import SampleSchema
from headrace.platform.sample import Failure, Provenance, Sample
from headrace.platform.sampling import Mixture
from headrace.platform.seeding import generator
from headrace.platform.spec import Spec, spec_hash
from headrace.solvers.frozen import Frozen, FrozenMap
from headrace.solvers.methods import AnyMethod, Auto, Direct
from headrace.solvers.problem import DEFAULT_LEVEL, AbstractProblem
from headrace.solvers.problems import AnyProblem
from headrace.solvers.sequence import Order, solving_order
from headrace.solvers.solver import SMALLEST_RTOL, SolveStatus, require_match, solve_verified
from headrace.solvers.system import System

# Samples that are drawn together to be sorted; longer requests go in pieces, which bounds memory and the first wait.
_CHUNK = 64

Weight = Annotated[float, Field(ge=0.0)]


class SolverSource(Spec):
    """Everything that fixes a data set of solved problems; small enough to travel, heavy only once built.

    Sample i depends on problem, levels, mix, seed, split and i. Method, tolerance and order change how it is solved and
    what that costs, not what it is.

    Attributes:
        problem: the equation.
        method: how to solve it.
        rtol: the relative residual that every sample must reach.
        order: `greedy` sorts neighbours together for methods that recycle (gcrodr); others gain nothing from it and
            solve as they come.
        seed: seed of the data set.
        split: which part of it.
        mix: weights of the difficulty levels, by name.
        levels: levels of the user's own, or others under built-in names: name -> the problem's fields that change.
    """

    problem: AnyProblem
    method: AnyMethod = Auto()
    rtol: Annotated[float, Field(ge=SMALLEST_RTOL, lt=1.0)] = 1e-8
    order: Order = "greedy"
    seed: Annotated[int, Field(ge=0)] = 0
    split: Literal["train", "validation", "test"] = "train"
    mix: Frozen[Mapping[str, Weight]] = FrozenMap({DEFAULT_LEVEL: 1.0})
    levels: Frozen[Mapping[str, Mapping[str, Any]]] = FrozenMap({})

    @model_validator(mode="after")
    def _levels_exist(self) -> Self:
        Mixture(self.mix)
        schema = self.problem.schema()
        for name in self.mix:
            try:
                problem = self.problem_at(name)
            except InputError as error:
                raise ValueError(str(error)) from error
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(["levels", name, *map(str, first["loc"])])
                raise ValueError(f"{where} is {first['input']!r}: {first['msg']}") from error
            if problem.schema() != schema:
                raise ValueError(
                    f"level {name} changes the shape of the samples; all levels share one grid and its fields"
                )
        return self

    def schema(self) -> SampleSchema:  # type: ignore[override]  # pydantic's own, deprecated, is not missed
        """What the samples look like; the same at all levels."""
        return self.problem.schema()

    def problem_at(self, level: str) -> AbstractProblem:
        """The problem at a level: one of `levels`, else a built-in one.

        Raises:
            InputError: there is no such level.
        """
        return self.problem.overridden(self.levels[level]) if level in self.levels else self.problem.at_level(level)

    def mismatch(self) -> str | None:
        """Why the method cannot solve the problem; None when it can."""
        return self.method.mismatch(self.problem)

    def build(self) -> "BuiltSource":
        """Make the source that solves.

        Raises:
            InputError: the method cannot solve the problem.
        """
        require_match(self.method, self.problem)
        return BuiltSource(self)


class BuiltSource:
    """A source at work: it holds what its method carries from one system to the next."""

    def __init__(self, spec: SolverSource) -> None:
        self._spec = spec
        self._mixture = Mixture(spec.mix)
        self._problems = {name: spec.problem_at(name) for name in spec.mix}
        self._hash = spec_hash(spec)
        self._running = spec.method.build()
        self._rescue = Direct().build()

    def solve(self, indices: Sequence[int]) -> Iterator[Sample | Failure]:
        """Solve samples in an order of the source's choosing, one result for each index.

        A solve that fails is tried once more with a direct method; what fails then too is a `Failure` with both
        reasons.
        """
        # Only sorting needs to look ahead.
        chunk = _CHUNK if self._spec.method.recycles and self._spec.order == "greedy" else 1
        for start in range(0, len(indices), chunk):
            drawn = []
            for index in indices[start : start + chunk]:
                result = self._draw(int(index))
                if isinstance(result, Failure):
                    yield result
                else:
                    drawn.append(result)
            for position in solving_order([one.system for one in drawn], self._spec.method, self._spec.order):
                yield self._solve(drawn[position])

    def _draw(self, index: int) -> "_Drawn | Failure":
        clock = _Clock()
        spec = self._spec
        level = self._mixture.level(spec.seed, spec.split, index)
        problem = self._problems[level]
        try:
            fields = problem.draw(generator(spec.seed, spec.split, "fields", index))
            system = problem.discretize(fields)
        except (ValueError, ArithmeticError) as error:
            return Failure(
                index=index,
                level=level,
                reason=f"not discretised: {error}",
                wall_seconds=clock.wall_seconds,
                cpu_seconds=clock.cpu_seconds,
            )
        clock.pause()
        return _Drawn(index=index, level=level, problem=problem, fields=fields, system=system, clock=clock)

    def _solve(self, drawn: "_Drawn") -> Sample | Failure:
        clock = drawn.clock
        clock.go_on()
        solution = solve_verified(self._running, drawn.system, self._spec.rtol)
        reasons = [str(solution)]
        if solution.status is not SolveStatus.converged and solution.method != "direct":
            solution = solve_verified(self._rescue, drawn.system, self._spec.rtol)
            reasons.append(str(solution))
        if solution.status is not SolveStatus.converged:
            return Failure(
                index=drawn.index,
                level=drawn.level,
                reason="; ".join(reasons),
                wall_seconds=clock.wall_seconds,
                cpu_seconds=clock.cpu_seconds,
            )
        inputs, outputs, parameters = drawn.problem.sample_arrays(drawn.fields, solution.value)
        provenance = Provenance(
            spec_hash=self._hash,
            seed=self._spec.seed,
            index=drawn.index,
            level=drawn.level,
            solver=solution.method,
            status=solution.status.value,
            relative_residual=solution.relative_residual,
            num_iterations=solution.num_iterations,
            version=_version(),
            wall_seconds=clock.wall_seconds,
            cpu_seconds=clock.cpu_seconds,
        )
        return Sample(inputs=inputs, outputs=outputs, parameters=parameters, provenance=provenance)


class _Clock:
    """Adds up the wall and CPU time of one sample, which is drawn and solved at different times."""

    def __init__(self) -> None:
        self._wall = self._cpu = 0.0
        self.go_on()

    def go_on(self) -> None:
        self._wall_start, self._cpu_start = time.perf_counter(), time.process_time()

    def pause(self) -> None:
        self._wall, self._cpu = self.wall_seconds, self.cpu_seconds

    @property
    def wall_seconds(self) -> float:
        return self._wall + time.perf_counter() - self._wall_start

    @property
    def cpu_seconds(self) -> float:
        return self._cpu + time.process_time() - self._cpu_start


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """A sample between its draw and its solve."""

    index: int
    level: str
    problem: AbstractProblem
    fields: Mapping[str, Float[np.ndarray, "..."]]
    system: System
    clock: _Clock


@functools.cache
def _version() -> str:
    try:
        return version("headrace")
    except PackageNotFoundError:
        return "unknown"
