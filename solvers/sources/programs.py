"""ExternalSource: from requests to the samples that a program outside Headrace makes."""

import contextlib
import logging
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from headrace.platform.errors import InputError
from headrace.platform.sample import Failure, Request, Sample
from headrace.solvers.external.files import Answer, Unusable, read_answer, read_arrays
from headrace.solvers.external.pipe import PipeProgram
from headrace.solvers.external.process import Ended, run_once
from headrace.solvers.external.request import CLIENT_FOLDER, ProgramRequest
from headrace.solvers.external.spec import External
from headrace.solvers.sampled import AbstractSource
from headrace.solvers.sources.bench import Bench, Clock

log = logging.getLogger(__name__)

UNVERIFIED = "unverified"
"""The status of these samples: nobody but the program knows how well its equation is solved."""

# The programs that this process keeps: its splits and levels share one where they can.
_kept: weakref.WeakValueDictionary[object, PipeProgram] = weakref.WeakValueDictionary()


class ExternalSource(AbstractSource):
    """Everything that fixes a data set of an external program; small enough to travel.

    See `AbstractSource` for what a sample depends on, as far as the program depends on its request alone.

    Attributes:
        problem: the program.
    """

    name: ClassVar[str] = "programs"

    problem: External

    def build(self) -> "BuiltExternal":
        """Make the source that runs the program.

        Raises:
            InputError: the program is not there.
        """
        for level in self.mix:
            reason = self.problem_at(level).unavailable()
            if reason is not None:
                raise InputError.single("problem", "external", "a program that can be run here", reason)
        return BuiltExternal(self)


class BuiltExternal:
    """A source at work: it keeps the process that answers requests, if the protocol is `pipe`.

    Whatever the program does wrong makes the sample a `Failure` that says so, and the next one starts clean.
    """

    def __init__(self, spec: ExternalSource) -> None:
        self._spec = spec
        self._bench = Bench(spec, spec.problem)
        self._programs: dict[str, PipeProgram] = {}

    def solve(self, requests: Sequence[Request]) -> Iterator[Sample | Failure]:
        """Have samples made in the given order, one result for each request.

        Raises:
            InputError: see `Bench.problem`.
            OSError: no scratch folder can be made, or no process started.
        """
        for request in requests:
            yield self._one(request, self._bench.problem(request))

    def report(self) -> dict[str, object]:
        """What it has come to so far; `SourceReport.from_json` reads it."""
        return self._bench.report.to_json()

    def _one(self, wanted: Request, problem: External) -> Sample | Failure:
        spec, clock, cpu = self._spec, Clock(), 0.0
        folder = self._scratch(problem, wanted)
        kept, failed = None, True
        try:
            request = ProgramRequest.draw(problem, wanted, folder=folder, seed=spec.seed, split=spec.split)
            request.write()
            answer, cpu = self._run(request)
            inputs, outputs = read_arrays(request, answer)
            failed = False
        except Ended as error:
            reason, cpu = str(error), error.cpu_seconds
        except Unusable as error:
            reason = str(error)
        finally:
            if problem.keep_folders == "always" or (failed and problem.keep_folders == "on_failure"):
                kept = self._keep(problem, folder, wanted.index)
            shutil.rmtree(folder, ignore_errors=True)
        wall, own = clock.read()
        if failed:
            where = f"; its folder is {kept}" if kept is not None else ""
            return self._bench.failure(wanted, reason + where, wall, own + cpu)
        answer = answer or Answer()
        return self._bench.sample(
            wanted,
            inputs,
            outputs,
            np.array(list(request.parameters.values()), dtype=np.float32),
            solver=f"external: {problem.program}",
            status=UNVERIFIED,
            relative_residual=answer.relative_residual,
            num_iterations=answer.num_iterations,
            wall_seconds=wall,
            cpu_seconds=own + cpu,
        )

    def _run(self, request: ProgramRequest) -> tuple[Answer | None, float]:
        """Have a request carried out; the answer, and the CPU time that it took [s].

        Raises:
            Ended: the program ended in a bad way, or took too long.
            Unusable: its answer is no good.
        """
        problem = request.problem
        if problem.protocol == "files":
            cpu = run_once(
                request.command(),
                program=problem.program,
                folder=request.folder,
                environment=_environment(problem, request.folder),
                timeout=problem.timeout_seconds,
            )
            return read_answer(request.folder), cpu
        program = self._programs[request.level]
        values, cpu = program.ask(request.line(), request.index, problem.timeout_seconds)
        return Answer.parse(values), cpu

    def _scratch(self, problem: External, wanted: Request) -> Path:
        """A folder for one sample; with a pipe it lies in that of the process, and dies with it."""
        name = f"headrace-{self._spec.split}-{wanted.index}-"
        if problem.protocol == "files":
            return Path(tempfile.mkdtemp(prefix=name, dir=problem.scratch))
        program = self._programs.get(wanted.level) or _kept_program(problem)
        self._programs[wanted.level] = program
        program.folder.mkdir(exist_ok=True)  # a program may tidy up too much
        return Path(tempfile.mkdtemp(prefix=name, dir=program.folder))

    def _keep(self, problem: External, folder: Path, index: int) -> Path | None:
        """Move a folder to where nobody removes it; None when the program has done so itself."""
        if not folder.is_dir():
            return None
        if problem.protocol == "pipe":
            for name in ("stderr.txt", "stdout.txt"):
                with contextlib.suppress(OSError):
                    shutil.copy(folder.parent / name, folder / name)
        prefix = f"headrace-kept-{self._spec.split}-{index}-"
        kept = Path(tempfile.mkdtemp(prefix=prefix, dir=problem.scratch))
        os.replace(folder, kept)
        return kept


def _kept_program(problem: External) -> PipeProgram:
    key = (problem.launcher, problem.command, problem.environment, problem.scratch)
    found = _kept.get(key)
    if found is None:
        words = [word.format_map({}) for word in (*problem.launcher, *problem.command)]
        folder = Path(tempfile.mkdtemp(prefix=f"headrace-{_plain(problem.program)}-", dir=problem.scratch))
        found = PipeProgram(words, program=problem.program, environment=_environment(problem, folder), folder=folder)
        _kept[key] = found
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _environment(problem: External, folder: Path) -> Mapping[str, str]:
    """The variables of a program: those of this process, where the request is, the recipe's own."""
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": f"{CLIENT_FOLDER}{os.pathsep}{path}" if path else str(CLIENT_FOLDER),
        "HEADRACE_FOLDER": str(folder),
        "HEADRACE_PROTOCOL": problem.protocol,
        **problem.environment,
    }
