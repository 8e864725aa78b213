"""Families of matrices, and how a method says that it is a candidate for one of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from headrace.solvers.systems.system import Structure


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


@dataclass(frozen=True, kw_only=True)
class Candidacy:
    """For which matrices `auto` should consider a method, with which settings, and what to expect of it.

    A method that is not worth a try there may say so with a large cost: a long sequence can afford to find out.

    Attributes:
        family: of matrices.
        cost: expected seconds of a solve, in those of the best method for the family (docs/benchmarks); the order in
            which candidates are tried.
        settings: fields of the method's spec that are not its defaults.
        set_up: what its first solve costs on top, in the same unit, as it makes what serves all others: factors that
            stay.
    """

    family: Family
    cost: float
    settings: Mapping[str, object] = field(default_factory=dict)
    set_up: float = 0.0
