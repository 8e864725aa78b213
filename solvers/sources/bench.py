"""Bench: what every source does around its solving."""

import contextlib
import functools
import time
from collections.abc import Hashable, Iterator
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from jaxtyping import Float32

from headrace.platform.errors import InputError, nearest
from headrace.platform.sample import Failure, Provenance, Request, Sample
from headrace.platform.samplers.sampler import require_choosable
from headrace.platform.spec import spec_hash
from headrace.solvers.sampled import AbstractSampled, AbstractSource, at_level
from headrace.solvers.sources.report import SourceReport

# Kinds of problems and methods that this process has solved once: imported, compiled.
_warm: set[Hashable] = set()


class Bench[Problem: AbstractSampled]:
    """Where a source works: the problem of each level, and what becomes of a request, a sample or a failure.

    Attributes:
        problems: the problem at each level of the mix.
        report: what solving has come to; samples and failures that are made here are counted.
    """

    def __init__(self, spec: AbstractSource, problem: Problem) -> None:
        """Lay out the levels.

        Args:
            spec: which samples there are.
            problem: `spec.problem`, whose class the source knows.
        """
        self.problems: dict[str, Problem] = {name: at_level(problem, spec.levels, name) for name in spec.mix}
        self.report = SourceReport()
        self._seed, self._split, self._hash = spec.seed, spec.split, spec_hash(spec)

    def problem(self, request: Request) -> Problem:
        """The problem at the level that a request asks for.

        Raises:
            InputError: there is no such level, or a parameter that cannot be chosen as the request says.
        """
        where = f"sample {request.index} of {self._split}"
        if request.level not in self.problems:
            hint = nearest(request.level, self.problems)
            raise InputError.single(where, f'level "{request.level}"', f"one of {', '.join(self.problems)}", hint)
        problem = self.problems[request.level]
        if request.parameters:
            require_choosable(request.parameters, problem.choosable, where)
        return problem

    def failure(self, request: Request, reason: str, wall_seconds: float, cpu_seconds: float) -> Failure:
        """What becomes of a request that could not be met."""
        self.report.failed += 1
        return Failure(
            index=request.index,
            level=request.level,
            reason=reason,
            wall_seconds=wall_seconds,
            cpu_seconds=cpu_seconds,
        )

    def sample(
        self,
        request: Request,
        inputs: Float32[np.ndarray, "channels_in *grid"],
        outputs: Float32[np.ndarray, "time channels_out *grid"],
        parameters: Float32[np.ndarray, " num_parameters"],
        *,
        solver: str,
        status: str,
        relative_residual: float,
        num_iterations: int,
        wall_seconds: float,
        cpu_seconds: float,
    ) -> Sample:
        """What becomes of a request that was met: its arrays, and where they came from (see `Provenance`)."""
        self.report.note_sample(solver, wall_seconds)
        provenance = Provenance(
            spec_hash=self._hash,
            seed=self._seed,
            index=request.index,
            level=request.level,
            solver=solver,
            status=status,
            relative_residual=relative_residual,
            num_iterations=num_iterations,
            version=headrace_version(),
            wall_seconds=wall_seconds,
            cpu_seconds=cpu_seconds,
        )
        return Sample(inputs=inputs, outputs=outputs, parameters=parameters, provenance=provenance)

    def note_rescue(self, request: Request, reason: str) -> None:
        """Count a sample that needed a second try, whether it helped or not."""
        self.report.note_rescue(request.index, request.level, self._seed, reason)

    @contextlib.contextmanager
    def warming_up(self) -> Iterator[None]:
        """Count the time of the block as one that no sample pays for."""
        began = time.perf_counter()
        yield
        self.report.warm_up_seconds += time.perf_counter() - began

    @staticmethod
    def is_cold(kind: Hashable) -> bool:
        """Whether this process has never been asked about this kind before: then it is to be solved once."""
        if kind in _warm:
            return False
        _warm.add(kind)
        return True


class Clock:
    """Wall and CPU time since it was made [s]."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Both."""
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


@functools.cache
def headrace_version() -> str:
    """The version that samples are made with."""
    try:
        return version("headrace")
    except PackageNotFoundError:
        return "unknown"
