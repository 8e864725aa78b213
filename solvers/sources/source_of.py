"""source_of: which source makes the samples of a problem."""

from headrace.solvers.sampled import AbstractSampled, AbstractSource
from headrace.solvers.sources.programs import ExternalSource
from headrace.solvers.sources.systems import SolverSource
from headrace.solvers.sources.trajectories import EvolutionSource

SOURCES: tuple[type[AbstractSource], ...] = (SolverSource, EvolutionSource, ExternalSource)
_BY_NAME = {source.name: source for source in SOURCES}


def source_of(problem: AbstractSampled, **settings: object) -> AbstractSource:
    """The source of a problem, by the name that the problem gives.

    Args:
        problem: what the samples are made from.
        settings: fields of sources; those that this one does not have are of no use to the problem, and left out.

    Raises:
        TypeError: the problem's class names no source.
        pydantic.ValidationError: a value is not allowed.
    """
    kind = _BY_NAME.get(problem.made_by)
    if kind is None:
        raise TypeError(f"{type(problem).__name__} is made_by {problem.made_by!r}, none of {', '.join(_BY_NAME)}")
    known = {name: value for name, value in settings.items() if name in kind.model_fields}
    return kind.model_validate({"problem": problem, **known})
