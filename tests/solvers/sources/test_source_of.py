"""Every problem names its source and what of a recipe it heeds."""

import pytest

from headrace.platform.spec import kinds
from headrace.solvers.evolution.evolution import AbstractEvolution
from headrace.solvers.external.spec import External
from headrace.solvers.problem import AbstractProblem
from headrace.solvers.problems.burgers import Burgers
from headrace.solvers.problems.darcy import Darcy
from headrace.solvers.sampled import AbstractSampled
from headrace.solvers.selection import Auto
from headrace.solvers.sources.all_sampled import SAMPLED
from headrace.solvers.sources.source_of import SOURCES, source_of

# Of a recipe; a new key that not all families heed belongs into the check of recipes, and here.
KEYS = {
    "solver.method": "method",
    "solver.rtol": "rtol",
    "solver.order": "order",
    "data.numerics": "numerics",
    "data.times_per_part": "times_per_part",
}
EVERY = [one for one in kinds("headrace.problems", SAMPLED).values() if issubclass(one, AbstractSampled)]
BY_NAME = {source.name: source for source in SOURCES}


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_what_a_problem_heeds_its_source_knows(kind: type[AbstractSampled]) -> None:
    source = BY_NAME[kind.made_by]
    assert kind.heeds <= {*KEYS, "data.accuracy", "data.numerics.step"}
    for key, field in KEYS.items():
        if key in kind.heeds:
            assert field in source.model_fields, key
    if not kind.heeds >= {"solver.method", "solver.rtol", "solver.order"}:
        assert all(kind.solves_by_itself), "a user who sets them is told why they have no effect, and where to say it"


@pytest.mark.parametrize(
    ("family", "name"),
    [(AbstractProblem, "systems"), (AbstractEvolution, "trajectories"), (External, "programs")],
)
def test_a_family_names_its_source(family: type[AbstractSampled], name: str) -> None:
    assert family.made_by == name


@pytest.mark.parametrize("kind", [one for one in EVERY if one is not External], ids=lambda kind: kind.__name__)
def test_a_source_takes_the_settings_that_it_knows(kind: type[AbstractSampled]) -> None:
    source = source_of(kind(), method=Auto(), rtol=1e-6, order="none", times_per_part=None, seed=7)
    assert type(source) is BY_NAME[kind.made_by]
    assert (source.problem, source.seed) == (kind(), 7)
    for key, value in (("rtol", 1e-6), ("order", "none")):
        assert source.model_dump().get(key, value) == value


def test_a_problem_without_a_source_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Darcy, "made_by", "hand")
    with pytest.raises(TypeError, match="Darcy is made_by 'hand', none of systems, trajectories, programs"):
        source_of(Darcy())


def test_parts_are_those_of_what_steps_in_time() -> None:
    assert source_of(Burgers(snapshots=10), times_per_part=5).schema().parts == 2
    assert source_of(Darcy(), times_per_part=5).schema().parts == 1
