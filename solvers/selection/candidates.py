"""Which methods for which system: the candidates of `auto`, by what is known about the matrix."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from headrace.platform.spec import kind_of, kinds
from headrace.solvers.methods import METHODS
from headrace.solvers.methods.direct import Direct
from headrace.solvers.systems.family import Family, family_of
from headrace.solvers.systems.operators import DiffusionOperator
from headrace.solvers.systems.solver import AbstractSolver
from headrace.solvers.systems.system import LinearSystem, Structured


def in_words(system: LinearSystem) -> str:
    """What kind of system it is, for people: those of one kind are raced together."""
    return f"{family_of(system.structure).replace('_', ', ')}, {system.num_unknowns:,} unknowns"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A method that may be the fastest.

    Attributes:
        method: its description.
        prior: its expected seconds in those of the first candidate, until it is measured.
        set_up: what is expected on top of that once, as its first solve makes what serves all others.
    """

    method: AbstractSolver
    prior: float = 1.0
    set_up: float = 0.0

    @functools.cached_property
    def label(self) -> str:
        """The kind, with the settings that are not the default."""
        changed = self.method.model_dump(exclude_defaults=True)
        settings = ", ".join(f"{name}={value}" for name, value in changed.items() if name != "kind")
        kind = kind_of(type(self.method))
        return f"{kind}({settings})" if settings else kind


@functools.cache
def candidates_of(family: Family) -> tuple[Candidate, ...]:
    """What may be fastest on matrices of a family, the safest guess first: what the methods say of themselves."""
    found = []
    for spec in kinds("headrace.methods", METHODS).values():
        assert issubclass(spec, AbstractSolver)
        for known in spec.candidacies:
            if known.family is family:
                method = spec.model_validate(dict(known.settings))
                found.append(Candidate(method=method, prior=known.cost, set_up=known.set_up))
    return tuple(sorted(found, key=lambda one: one.prior))


def candidates(target: Structured, methods: Sequence[AbstractSolver] = ()) -> tuple[Candidate, ...]:
    """The methods that can solve a problem or a system and may be the fastest, the first choice first.

    Args:
        target: what is to be solved.
        methods: choose among these instead of the built-in candidates.
    """
    fitting = [one for one in _listed(target, methods) if one.method.mismatch(target) is None]
    unit = fitting[0].prior if fitting else 1.0
    if unit == 1.0:
        return tuple(fitting)
    return tuple(replace(one, prior=one.prior / unit, set_up=one.set_up / unit) for one in fitting)


def first_choice(target: Structured, methods: Sequence[AbstractSolver] = ()) -> AbstractSolver:
    """The first choice by structure alone, as for a single system: nothing is tried.

    Multigrid on positive definite diffusion operators, where it is the fastest method on every grid from 65 to 257
    points a side (see docs/benchmarks), a fast transform where coefficients are constant, and else a direct method.
    """
    for one in _listed(target, methods):
        if one.method.mismatch(target) is None:
            return one.method
    return methods[0] if methods else Direct()


def _listed(target: Structured, methods: Sequence[AbstractSolver]) -> Sequence[Candidate]:
    """Those that may be candidates, whether they can solve the system or not."""
    return [Candidate(method=method) for method in methods] or candidates_of(family_of(target.structure))


def capped(method: AbstractSolver, system: LinearSystem, seconds: float) -> AbstractSolver:
    """The method with no more iterations than fit, at best, into some seconds; itself if it does not iterate.

    A try of a method that does not converge must end early.
    """
    each = method.seconds_an_entry
    if "max_iterations" not in type(method).model_fields or each is None:
        return method
    most = max(int(seconds / (each * system.matrix.nnz)), 20)
    own = int(method.model_dump(include={"max_iterations"})["max_iterations"])
    return method.model_copy(update={"max_iterations": most}) if most < own else method


def miniature(system: LinearSystem, points: int = 8) -> LinearSystem:
    """A corner of a system, of the same structure: something to compile for that costs nothing to solve."""
    known = system.structure
    if system.operator is None:
        size = min(points**2, system.num_unknowns)
        matrix = system.matrix[:size, :size]
        rhs = np.ones(size, dtype=system.rhs.dtype)
        return LinearSystem.from_matrix(
            matrix, rhs, symmetric=known.symmetric, positive_definite=known.positive_definite
        )
    operator = system.operator
    # The last face of the corner is an inner one, behind which u = 0 now: no corner is singular unless all axes wrap.
    corner = tuple(slice(min(points, n)) for n in operator.shape)
    conductances = []
    for axis, c in enumerate(operator.conductances):
        own = slice(corner[axis].stop + (not operator.periodic[axis]))
        conductances.append(c[tuple(own if k == axis else part for k, part in enumerate(corner))].copy())
    small = DiffusionOperator(
        conductances=tuple(conductances),
        periodic=operator.periodic,
        reaction=None if operator.reaction is None else operator.reaction[corner].copy(),
    )
    rhs = np.arange(small.num_unknowns, dtype=np.float64)
    return LinearSystem.from_operator(
        small,
        rhs - rhs.mean(),
        positive_definite=known.positive_definite,
        constant_coefficients=known.constant_coefficients,
    )


def context_of(system: LinearSystem) -> tuple[float, float]:
    """What a contextual bandit sees of a system: the logarithms of its coefficients' size and relative spread."""
    field = system.feature
    if field is None:
        field = system.rhs if system.operator is None else system.operator.conductances[0]
    size = float(np.abs(field).mean())
    if not size > 0.0:
        return 0.0, 0.0
    return float(np.log(size)), float(np.log(1e-6 + np.std(field) / size))
