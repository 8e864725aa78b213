"""`headrace list`: what a recipe may name."""

from pydantic import ValidationError

from headrace.pipelines.recipe.config import read_recipe, recipe_names
from headrace.platform.errors import InputError, nearest
from headrace.platform.samplers import SAMPLERS
from headrace.platform.spec import Spec, kinds
from headrace.solvers.sampled import AbstractSampled
from headrace.solvers.selection import ALL_METHODS
from headrace.solvers.sources.all_sampled import SAMPLED
from headrace.surrogates.formats import FORMATS
from headrace.surrogates.losses import LOSSES
from headrace.surrogates.models import SURROGATES
from headrace.surrogates.optimizers import OPTIMIZERS
from headrace.surrogates.schedules import SCHEDULES
from headrace.surrogates.strategies import STRATEGIES
from headrace.surrogates.surrogate import AbstractSurrogate


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0] if text else ""


def _kinds(group: str, built_in: tuple[type[Spec], ...]) -> dict[str, str]:
    return {kind: _first_line(spec.__doc__) for kind, spec in kinds(group, built_in).items()}


def _problems() -> dict[str, str]:
    """Problems, each with the levels and the axes of difficulty that it has as it stands."""
    lines = _kinds("headrace.problems", SAMPLED)
    for kind, spec in kinds("headrace.problems", SAMPLED).items():
        try:
            problem = spec()
        except ValidationError:
            continue  # some need to be told more
        assert isinstance(problem, AbstractSampled)
        if problem.axes:
            lines[kind] += f" Levels {', '.join(problem.levels())}, by {', '.join(problem.axes)}."
    return lines


def _surrogates() -> dict[str, str]:
    """Networks, each with what it declares as it stands."""
    lines = _kinds("headrace.surrogates", SURROGATES)
    for kind, spec in kinds("headrace.surrogates", SURROGATES).items():
        try:
            surrogate = spec()
        except ValidationError:
            continue  # some need to be told more
        assert isinstance(surrogate, AbstractSurrogate)
        lines[kind] += f" ({surrogate.capabilities})"
    return lines


def catalogue(what: str | None = None) -> dict[str, dict[str, str]]:
    """Kinds and their one-line descriptions by group; one group when it is named.

    Raises:
        InputError: there is no such group.
    """
    groups = {
        "problems": _problems,
        "solvers": lambda: _kinds("headrace.methods", ALL_METHODS),
        "surrogates": _surrogates,
        "samplers": lambda: _kinds("headrace.samplers", SAMPLERS),
        "losses": lambda: _kinds("headrace.losses", LOSSES),
        "strategies": lambda: _kinds("headrace.strategies", STRATEGIES),
        "optimizers": lambda: _kinds("headrace.optimizers", OPTIMIZERS),
        "schedules": lambda: _kinds("headrace.schedules", SCHEDULES),
        "formats": lambda: _kinds("headrace.formats", FORMATS),
        "recipes": lambda: {name: read_recipe(name).splitlines()[0].lstrip("# ") for name in recipe_names()},
    }
    if what is not None and what not in groups:
        raise InputError.single("list", f'"{what}"', f"one of {', '.join(groups)}", nearest(what, groups))
    return {name: read() for name, read in groups.items() if what in (None, name)}
