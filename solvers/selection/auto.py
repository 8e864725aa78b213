"""The method that chooses the method."""

import dataclasses
import itertools
import math
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, SerializeAsAny, WithJsonSchema, model_validator

from headrace.platform.errors import nearest
from headrace.platform.spec import kinds
from headrace.solvers.methods import METHODS
from headrace.solvers.methods.direct import Direct
from headrace.solvers.selection.bandits import ChebCB, TsallisINF
from headrace.solvers.selection.candidates import (
    Candidate,
    candidates,
    capped,
    context_of,
    first_choice,
    in_words,
    miniature,
)
from headrace.solvers.selection.racing import Race
from headrace.solvers.systems.newton import solve_newton
from headrace.solvers.systems.selection_report import ArmReport, SelectionReport
from headrace.solvers.systems.solver import AbstractSolver, RunningSolver, Solution, SolveStatus
from headrace.solvers.systems.system import LinearSystem, Structure, Structured, System

SelectionStrategy = Literal["race", "tsallis_inf", "cheb_cb"]

# A try of an iterative method ends when it has had time for this many solves of the leader.
_PATIENCE = 4.0
# Systems after which a bandit takes over from a race that is waiting for what it cannot afford, and how much slower
# than the leader an arm of the bandit may be.
_RACE_AT_MOST, _WITHIN = 24, 3.0
_NO_CONTEXT = (0.0, 0.0)
# Kinds of methods and of systems that this process has solved once: imported, compiled.
_warm: set[tuple[type[AbstractSolver], Structure]] = set()


def _expanded(values: object) -> object:
    """Specs of mappings, a list in place of a setting being a grid."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        return values
    known = kinds("headrace.methods", METHODS)
    found: list[object] = []
    for value in values:
        value = {"kind": value} if isinstance(value, str) else value
        if not isinstance(value, Mapping):
            found.append(value)
            continue
        kind = value.get("kind")
        if kind not in known:
            hint = nearest(str(kind), known)
            raise ValueError(f"a candidate of the kind {kind!r}; expected one of {', '.join(sorted(known))}. {hint}")
        grids = [entry if isinstance(entry, list | tuple) else [entry] for entry in value.values()]
        found += [known[kind].model_validate(dict(zip(value, cell, strict=True))) for cell in itertools.product(*grids)]
    return tuple(found)


_Candidates = Annotated[
    tuple[SerializeAsAny[AbstractSolver], ...],
    BeforeValidator(_expanded),
    WithJsonSchema({"type": "array", "items": {"type": "object", "required": ["kind"]}}),
]


class Auto(AbstractSolver):
    """Chooses by structure, then by measured seconds per accepted sample as the sequence goes on.

    Seconds are those of the processor, all threads together, or of the wall if a candidate may use a GPU.

    The first systems are solved by the first choice for their structure: multigrid for positive definite diffusion
    operators, a fast transform where coefficients are constant, a direct method otherwise. The other candidates are
    tried as soon as they can be afforded (see `Race`). A single system is therefore solved by the first choice, and a
    sequence by the method that proves the fastest on it. A system that a method does not solve goes to the next one and
    at last to a direct method. A solution names the method that did the work.

    Strategies: `race` keeps the winner and goes on comparing at little cost; right unless the systems change. Under
    drift `tsallis_inf` draws methods at random, with a regret bound whatever the systems do. `cheb_cb` learns which
    method is fastest for which coefficients (their size and spread), for mixed difficulty. Both pay more for trying.

    Attributes:
        strategy: how to choose among the candidates.
        candidates: choose among these instead of the built-in ones. A list in place of a setting is a grid of it: three
            candidates are `{"kind": "gcrodr", "recycled": [10, 20, 30]}`.

    Example:
        >>> knob = Auto(strategy="cheb_cb", candidates=[{"kind": "gcrodr", "recycled": [5, 10, 20]}])
    """

    kind: Literal["auto"] = "auto"
    strategy: SelectionStrategy = "race"
    candidates: Annotated[_Candidates, Field()] = ()

    @model_validator(mode="after")
    def _no_circle(self) -> Self:
        if any(isinstance(method, Auto) for method in self.candidates):
            raise ValueError("auto is a candidate of auto; expected other methods")
        return self

    def build(self) -> "RunningAuto":
        """Start a sequence; each chosen method keeps its own state."""
        return RunningAuto(self)

    def batch_size(self, target: Structured) -> int:
        """What the first choice gains from."""
        return first_choice(target, self.candidates).batch_size(target)

    def mismatch(self, target: Structured) -> str | None:
        """Whatever the first choice says."""
        return first_choice(target, self.candidates).mismatch(target)


class RunningAuto(RunningSolver):
    """Hands each system to a method, learns from the seconds it takes, and knows whom to ask when it fails."""

    def __init__(self, spec: Auto) -> None:
        self._spec = spec
        self._choices: dict[tuple[Structure, int], _Choice] = {}
        self._last: _Choice | None = None
        self._retried: tuple[System, set[int]] | None = None

    @property
    def is_own(self) -> bool:
        """Whether all candidates are this package's."""
        return all(type(method).__module__.startswith("headrace.solvers.") for method in self._spec.candidates)

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        """Solve one system by the method whose turn it is, or by the next that can."""
        choice = self._last = self._choice(system)
        return choice.solve_one(system, rtol)

    def solve_batch(self, systems: Sequence[LinearSystem], rtol: float) -> list[Solution]:
        """Solve systems of one problem together by the method whose turn it is; what fails goes on alone."""
        if not systems:
            return []
        choice = self._last = self._choice(systems[0])
        return choice.solve(systems, rtol)

    def retry(self, system: System, rtol: float, failed: Solution) -> Solution | None:
        """The next candidate, then a direct method; also after a claim that the true residual did not bear out."""
        if self._last is None:
            return None
        if self._retried is None or self._retried[0] is not system:
            self._retried = (system, self._last.blamed(failed))
        return self._last.fall_back(system, rtol, self._retried[1])

    def report(self) -> SelectionReport:
        """Systems, seconds and regret so far."""
        parts = [choice.report() for choice in self._choices.values()]
        merged = SelectionReport.merged(parts)
        return merged or SelectionReport(strategy=self._spec.strategy, arms=[])

    def _choice(self, system: LinearSystem) -> "_Choice":
        last = self._last
        if last is not None and last.structure == system.structure and last.num_unknowns == system.num_unknowns:
            return last
        key = (system.structure, system.num_unknowns)
        if key not in self._choices:
            self._choices[key] = _Choice(self._spec, system, self)
        return self._choices[key]


class _Choice:
    """The methods for systems of one structure and size, and what is known about them."""

    def __init__(self, spec: Auto, system: LinearSystem, owner: RunningAuto) -> None:
        # Weak: what is not held in a circle goes, and leaves its workspaces, as soon as nobody uses it.
        self._strategy, self._owner = spec.strategy, weakref.ref(owner)
        self._arms = list(candidates(system, spec.candidates))
        # Processor time, which other people's load disturbs less; wall time if one may wait for another device.
        self._clock = time.perf_counter if any(arm.method.waits for arm in self._arms) else time.process_time
        self._race = Race([arm.prior for arm in self._arms], [arm.set_up for arm in self._arms])
        # The last resort is not raced unless it is a candidate too.
        reserves = [k for k, arm in enumerate(self._arms) if arm.method == Direct()]
        if not reserves:
            self._arms.append(Candidate(method=Direct()))
        self._reserve = reserves[0] if reserves else len(self._arms) - 1
        self._racing = len(self._arms) - (not reserves)
        self.structure, self.num_unknowns = system.structure, system.num_unknowns
        self._running: dict[int, tuple[RunningSolver, AbstractSolver]] = {}
        kind = in_words(system)
        self._reports = [ArmReport(label=arm.label, systems=kind) for arm in self._arms]
        self._bandit: TsallisINF | ChebCB | None = None
        self._survivors: list[int] = []
        self._seen: list[tuple[int, tuple[float, float], float]] = []
        self._lead = self._most = 1.0
        self._warm_up_seconds = 0.0

    def solve_one(self, system: LinearSystem, rtol: float) -> Solution:
        """As `solve` does it, on the shortest way for what happens nearly always: small systems take 0.5 ms."""
        if self._strategy != "race":
            return self.solve([system], rtol)[0]
        k = self._race.pick()
        held = self._running.get(k)
        if held is None or held[1] is not self._arms[k].method:
            return self._solve_by(k, [system], rtol, _NO_CONTEXT)[0]
        started = self._clock()
        solution = held[0].solve(system, rtol)
        seconds = self._clock() - started
        if solution.status is not SolveStatus.converged:
            return self._finish(k, [system], [solution], rtol, _NO_CONTEXT, seconds, cold=False)[0]
        self._last_arm, self._last_seconds = k, seconds
        self._account(k, seconds, True, exploring=self._race.learn(k, seconds, True))
        return solution

    def solve(self, systems: Sequence[LinearSystem], rtol: float) -> list[Solution]:
        """Solve systems by the method whose turn it is, and by others what it does not solve."""
        context = context_of(systems[0]) if self._strategy == "cheb_cb" else _NO_CONTEXT
        return self._solve_by(self._pick(context), systems, rtol, context)

    def _solve_by(
        self, k: int, systems: Sequence[LinearSystem], rtol: float, context: tuple[float, float]
    ) -> list[Solution]:
        cold = not self._running and (type(self._arms[k].method), self.structure) not in _warm
        running = self._start(k, systems[0])
        started = self._clock()
        solutions = [running.solve(systems[0], rtol)] if len(systems) == 1 else running.solve_batch(systems, rtol)
        seconds = (self._clock() - started) / len(systems)
        return self._finish(k, systems, solutions, rtol, context, seconds, cold=cold)

    def _finish(
        self,
        k: int,
        systems: Sequence[LinearSystem],
        solutions: list[Solution],
        rtol: float,
        context: tuple[float, float],
        seconds: float,
        *,
        cold: bool,
    ) -> list[Solution]:
        """Learn from the seconds that each took, and let others solve what is not solved."""
        for position, (system, solution) in enumerate(zip(systems, solutions, strict=True)):
            accepted = solution.status is SolveStatus.converged
            if cold and position == 0:
                self._learn_cold(k, seconds, accepted)
            else:
                self._learn(k, context, seconds, accepted)
            tried = {k}
            while not accepted:
                another = self.fall_back(system, rtol, tried)
                if another is None:
                    break
                detail = "; ".join([*filter(None, [another.detail]), f"after {solution}"])
                solution = dataclasses.replace(another, detail=detail, num_tries=solution.num_tries + 1)
                solutions[position] = solution
                accepted = solution.status is SolveStatus.converged
        return solutions

    def fall_back(self, system: System, rtol: float, tried: set[int]) -> Solution | None:
        """Solve by the best method that was not tried yet, as a second try, and by the last resort as a third."""
        left = [k for k in self._order() if k not in tried]
        if len(tried) > 1 or not left:
            left = [self._reserve] if self._reserve not in tried else []
        if not left:
            return None
        k = left[0]
        tried.add(k)
        running = self._start(k, system if isinstance(system, LinearSystem) else system.linearize(system.guess))
        started = self._clock()
        if isinstance(system, LinearSystem):
            solution = running.solve(system, rtol)
        else:
            solution = solve_newton(running, system, rtol)
        # Hard systems are no measure of a method: they count in the account, not in the race.
        self._account(k, self._clock() - started, solution.status is SolveStatus.converged, exploring=False)
        return solution

    def blamed(self, failed: Solution) -> set[int]:
        """Whose solution was not accepted; a claim of convergence is taken back."""
        k = self._last_arm
        if failed.status is SolveStatus.residual_too_large:
            seconds = self._last_seconds
            self._reports[k].accepted -= 1
            if k < self._racing:
                self._race.revoke(k, seconds)
        return {k}

    def report(self) -> SelectionReport:
        return SelectionReport(
            strategy=self._strategy,
            arms=[dataclasses.replace(report) for report in self._reports],
            warm_up_seconds=self._warm_up_seconds,
        )

    def _order(self) -> list[int]:
        """The arms by what they are expected to take."""
        estimates = self._race.estimates()
        known = [estimate for estimate in estimates if estimate is not None and math.isfinite(estimate)]
        unit = min(known, default=1.0)
        expected = {k: unit * self._arms[k].prior if e is None else e for k, e in enumerate(estimates)}
        return sorted(range(len(self._arms)), key=lambda k: (expected.get(k, math.inf), k))

    def _pick(self, context: tuple[float, float]) -> int:
        if self._strategy != "race" and self._bandit is None:
            self._hand_over()
        if self._bandit is None:
            return self._race.pick()
        if isinstance(self._bandit, ChebCB):
            return self._survivors[self._bandit.pick(np.array(context))]
        return self._survivors[self._bandit.pick()]

    def _hand_over(self) -> None:
        """End the race when it is over, and let a bandit play on with what is left of the arms."""
        if not self._race.over and len(self._seen) < _RACE_AT_MOST:
            return
        estimates = self._race.estimates()
        known = {k: e for k, e in enumerate(estimates) if e is not None and math.isfinite(e)}
        if not known:
            return
        lead = min(known.values())
        self._survivors = [k for k, estimate in known.items() if estimate <= _WITHIN * lead]
        self._lead, self._most = lead, 2.0 * max(known[k] for k in self._survivors)
        # One generator for all: what is drawn only decides who solves, not what is solved.
        rng = np.random.default_rng(0)
        if self._strategy == "tsallis_inf":
            self._bandit = TsallisINF(len(self._survivors), rng)
            return
        contexts = np.array([context for _, context, _ in self._seen])
        low, high = contexts.min(axis=0), contexts.max(axis=0)
        self._bandit = ChebCB(len(self._survivors), low.tolist(), high.tolist(), rng)
        for k, context, seconds in self._seen:
            if k in self._survivors:
                self._bandit.learn(self._survivors.index(k), np.array(context), self._loss(seconds))

    def _learn_cold(self, k: int, seconds: float, accepted: bool) -> None:
        """The very first solve holds imports and compilation: all that it tells is whether the method works."""
        self._last_arm, self._last_seconds = k, seconds
        _warm.add((type(self._arms[k].method), self.structure))
        self._warm_up_seconds += seconds
        report = self._reports[k]
        report.solves += 1
        report.accepted += accepted
        report.cold += 1
        if not accepted:
            self._race.learn(k, seconds, accepted)

    def _learn(self, k: int, context: tuple[float, float], seconds: float, accepted: bool) -> None:
        self._last_arm, self._last_seconds = k, seconds
        exploring = self._race.learn(k, seconds, accepted)
        self._account(k, seconds, accepted, exploring=exploring)
        if self._strategy == "race":
            return
        if self._bandit is None:
            if accepted and self._reports[k].accepted > 1:
                self._seen.append((k, context, seconds))
        elif isinstance(self._bandit, ChebCB):
            # A failed solve costs its time and the next one's.
            self._bandit.learn(self._survivors.index(k), np.array(context), self._loss(seconds * (1 + (not accepted))))
        else:
            self._bandit.learn(self._survivors.index(k), min(seconds / self._most, 1.0) if accepted else 1.0)

    def _loss(self, seconds: float) -> float:
        """What ChebCB learns: 0 is as fast as the leader of the race, so that it expects no harm of what it forgot."""
        return math.log(seconds / self._lead)

    def _account(self, k: int, seconds: float, accepted: bool, *, exploring: bool) -> None:
        report = self._reports[k]
        if report.accepted and accepted:
            report.settled += 1
            report.settled_seconds += seconds
        report.solves += 1
        report.accepted += accepted
        report.seconds += seconds
        report.exploring += exploring
        report.exploring_seconds += seconds * exploring

    def _start(self, k: int, system: LinearSystem) -> RunningSolver:
        """The running solver of an arm; one that is only tried may not iterate for long."""
        leader, own = self._race.leader, self._arms[k].method
        held = self._running.get(k)
        if held is not None and (k != leader or held[1] is own):
            return held[0]
        lead = self._race.estimates()[leader] if self._racing else None
        method = own
        if k != leader and lead is not None and math.isfinite(lead):
            method = capped(own, system, _PATIENCE * lead)
        if self._running:
            self._warm_up(method, system)
        self._running[k] = (method.build(), method)
        return self._running[k][0]

    def _warm_up(self, method: AbstractSolver, system: LinearSystem) -> None:
        """Import and compile what a method needs, on nobody's account. The first one's cost cannot be told apart."""
        key = (type(method), system.structure)
        if key in _warm:
            return
        _warm.add(key)
        small = miniature(system)
        if method.mismatch(small) is None:
            started = time.perf_counter()
            method.build().solve(small, 1e-6)
            seconds = time.perf_counter() - started
            self._warm_up_seconds += seconds
            if (owner := self._owner()) is not None:
                owner.warm_up_seconds += seconds
