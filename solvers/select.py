"""Which methods for which system: the candidates of `auto`, by what is known about the matrix."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from headrace.platform.spec import kind_of, kinds
from headrace.solvers.operators import DiffusionOperator
from headrace.solvers.solver import AbstractSolver
from headrace.solvers.system import LinearSystem, Structure, Structured


class Family(StrEnum):
    """Kinds of matrices that have the same candidates."""

    repeating = "repeating"
    drifting = "drifting"
    drifting_nonsymmetric = "drifting_nonsymmetric"
    structured = "structured"
    positive_definite = "positive_definite"
    indefinite = "indefinite"
    nonsymmetric = "nonsymmetric"


def family_of(structure: Structure) -> Family:
    """The family that a matrix of this structure belongs to, the first that fits."""
    if structure.repeats:
        return Family.repeating
    if structure.drifts:
        return Family.drifting if structure.positive_definite else Family.drifting_nonsymmetric
    if structure.positive_definite:
        return Family.structured if structure.diffusion else Family.positive_definite
    return Family.indefinite if structure.symmetric else Family.nonsymmetric


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


# Factors that stay cost so many of the solves that they serve.
_SET_UPS: Mapping[tuple[Family, str], float] = {
    (Family.repeating, "direct"): 40.0,
    (Family.drifting, "direct"): 40.0,
    (Family.drifting, "cg"): 40.0,
    (Family.drifting_nonsymmetric, "gmres"): 10.0,
}

type _Line = tuple[str, Mapping[str, object], float]

# What may be fastest, the safest guess first, with what it is expected to cost in solves of that one. The expectations
# are those of `docs/benchmarks`; a method that is not worth a try there stands here all the same, with a large number,
# because a long sequence can afford to find out. A line whose method is not installed or does not fit is passed over.
_CANDIDATES: Mapping[Family, Sequence[_Line]] = {
    Family.repeating: (
        ("transform", {}, 1.0),
        ("direct", {}, 1.0),
        ("multigrid", {}, 1.5),
    ),
    Family.structured: (
        ("transform", {}, 1.0),
        ("multigrid", {}, 1.0),
        ("batched_multigrid", {"device": "cuda"}, 1.0),
        ("direct", {}, 60.0),
        ("amg", {}, 60.0),
    ),
    Family.positive_definite: (
        ("direct", {}, 1.0),
        ("direct", {"package": "cholmod"}, 1.0),
        ("cg", {"preconditioner": "icc"}, 1.5),
        ("direct", {"package": "mumps"}, 2.0),
        ("amg", {}, 4.0),
        ("recycled_cg", {}, 4.0),
    ),
    # A stage of an implicit step is better conditioned than a steady system, and the guess for it is good: iterations
    # are few, and whether factors that stay make up for their price depends on how many steps there are.
    Family.drifting: (
        ("multigrid", {}, 1.0),
        ("direct", {}, 2.0),
        ("cg", {"preconditioner": "stale"}, 2.0),
        ("recycled_cg", {}, 10.0),
        ("amg", {}, 15.0),
    ),
    Family.drifting_nonsymmetric: (
        ("bicgstab", {"preconditioner": "ilu", "levels": 2}, 1.0),
        ("gcrodr", {}, 1.0),
        ("gmres", {"preconditioner": "stale"}, 2.0),
        ("direct", {"package": "petsc"}, 2.0),
        ("amg", {}, 2.0),
        ("direct", {}, 3.0),
    ),
    # PETSc's factors have no pivots: where that goes wrong the residual tells, and MUMPS does it again.
    Family.indefinite: (
        ("transform", {}, 1.0),
        ("direct", {"package": "petsc"}, 1.0),
        ("direct", {}, 2.0),
        ("amg", {}, 8.0),
        ("gcrodr", {}, 10.0),
    ),
    Family.nonsymmetric: (
        ("direct", {"package": "petsc"}, 1.0),
        ("direct", {}, 2.0),
        ("amg", {}, 3.0),
        ("bicgstab", {"preconditioner": "ilu", "levels": 2}, 3.0),
        ("gmres", {"preconditioner": "ilu"}, 8.0),
        ("gcrodr", {}, 10.0),
    ),
}


@functools.cache
def _table(family: Family) -> tuple[Candidate, ...]:
    from headrace.solvers.methods import METHODS

    known = kinds("headrace.methods", METHODS)
    found = []
    for kind, settings, prior in _CANDIDATES[family]:
        if kind in known:
            method = known[kind].model_validate(dict(settings))
            assert isinstance(method, AbstractSolver)
            found.append(Candidate(method=method, prior=prior, set_up=_SET_UPS.get((family, kind), 0.0)))
    return tuple(found)


def candidates(target: Structured, methods: Sequence[AbstractSolver] = ()) -> tuple[Candidate, ...]:
    """The methods that can solve a problem or a system and may be the fastest, the first choice first.

    Args:
        target: what is to be solved.
        methods: choose among these instead of the built-in candidates.
    """
    listed = [Candidate(method=method) for method in methods] or _table(family_of(target.structure))
    fitting = [one for one in listed if one.method.mismatch(target) is None]
    unit = fitting[0].prior if fitting else 1.0
    return tuple(replace(one, prior=one.prior / unit, set_up=one.set_up / unit) for one in fitting)


def choose(target: Structured, methods: Sequence[AbstractSolver] = ()) -> AbstractSolver:
    """The first choice by structure alone, as for a single system: nothing is tried.

    Multigrid on positive definite diffusion operators, where it is the fastest method on every grid from 65 to 257
    points a side (see docs/benchmarks), a fast transform where coefficients are constant, and else a direct method.
    """
    from headrace.solvers.methods.direct import Direct

    fitting = candidates(target, methods)
    return fitting[0].method if fitting else (methods[0] if methods else Direct())


# What an iteration takes at best, by the entries of the matrix, which with its preconditioner moves through memory: 6
# to 16 ns were measured. A V-cycle passes over it many times. Those that make no matrix have to converge to be here.
_LEAST_SECONDS_AN_ENTRY = 6e-9
_SECONDS_AN_ENTRY = {"amg": 20e-9}
_MATRIX_FREE = ("multigrid", "batched_multigrid")


def capped(method: AbstractSolver, system: LinearSystem, seconds: float) -> AbstractSolver:
    """The method with no more iterations than fit, at best, into some seconds; itself if it does not iterate.

    A try of a method that does not converge must end early.
    """
    if "max_iterations" not in type(method).model_fields or kind_of(type(method)) in _MATRIX_FREE:
        return method
    each = _SECONDS_AN_ENTRY.get(kind_of(type(method)), _LEAST_SECONDS_AN_ENTRY)
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
