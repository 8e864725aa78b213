"""Specs: frozen, hashable, strict; kinds by name, from here and from other packages."""

import importlib.metadata
import pickle
from types import SimpleNamespace
from typing import Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from headrace.platform import spec as spec_module
from headrace.platform.spec import Spec, broken_plug_ins, kind_of, kinds, one_of, spec_hash


class Round(Spec):
    kind: Literal["round"] = "round"
    radius: float = 1.0


class Square(Spec):
    kind: Literal["square"] = "square"
    side: float = 1.0
    inner: Round = Round()


class Plugged(Spec):
    kind: Literal["plugged"] = "plugged"


class Impostor(Spec):
    kind: Literal["round"] = "round"


class Kindless(Spec):
    size: int = 0


@pytest.fixture(autouse=True)
def fresh_cache(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spec_module, "_broken", {})
    kinds.cache_clear()
    yield
    kinds.cache_clear()


def plug_in(monkeypatch: pytest.MonkeyPatch, loaded: object) -> None:
    class Point:
        name, value = "extra", "package.module:Extra"
        dist = SimpleNamespace(name="their-package", version="0.3")

        def load(self) -> object:
            if isinstance(loaded, Exception):
                raise loaded
            return loaded

    monkeypatch.setattr(spec_module, "entry_points", lambda group: [Point()] if group == "headrace.shapes" else [])


def test_a_spec_is_frozen_hashable_and_picklable():
    spec = Square(side=2.0)
    assert pickle.loads(pickle.dumps(spec)) == spec and len({spec, Square(side=2.0), Square()}) == 2
    with pytest.raises(ValidationError, match="frozen"):
        spec.side = 3.0


@pytest.mark.parametrize("given", [{"sides": 2}, {"side": float("nan")}, {"side": float("inf")}, {"kind": "round"}])
def test_a_spec_is_strict(given: dict):
    with pytest.raises(ValidationError):
        Square(**given)


def test_the_kind_chooses_the_class():
    shape = TypeAdapter(one_of("headrace.shapes", (Round, Square)))
    assert shape.validate_python({"kind": "square", "inner": {"radius": 3}}) == Square(inner=Round(radius=3))
    assert shape.validate_python({"kind": "round"}) == Round()
    with pytest.raises(ValidationError, match="'round', 'square'"):
        shape.validate_python({"kind": "oval"})
    assert TypeAdapter(one_of("headrace.shapes", (Round,))).validate_python({}) == Round(), "the only one there is"


def test_a_union_is_made_when_it_is_first_used(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(spec_module, "entry_points", lambda group: asked.append(group) or [])
    shape = one_of("headrace.shapes", (Round, Square))

    class Drawing(Spec):
        first: shape
        second: shape | None = None

    assert asked == [], "a module that is half imported must not import plug-ins, which may import it"
    assert Drawing(first={"kind": "round"}).first == Round() and asked == ["headrace.shapes"]
    assert Drawing(first=Square(), second={"kind": "square", "side": 2}).second == Square(side=2)
    assert set(Drawing.model_json_schema()["$defs"]) == {"Round", "Square"}


def test_kinds_of_other_packages_join(monkeypatch: pytest.MonkeyPatch):
    plug_in(monkeypatch, Plugged)
    assert kinds("headrace.shapes", (Round, Square)) == {"round": Round, "square": Square, "plugged": Plugged}
    assert TypeAdapter(one_of("headrace.shapes", (Round,))).validate_python({"kind": "plugged"}) == Plugged()
    assert kinds("headrace.others", (Round,)) == {"round": Round}


@pytest.mark.parametrize(
    ("loaded", "words"),
    [
        (Kindless, "package.module:Extra is not a Spec with a kind"),
        (print, "package.module:Extra is not a Spec with a kind"),
        (Impostor, "package.module:Extra takes the kind round, which exists"),
        (ImportError("no module named theirs"), "ImportError: no module named theirs"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    ],
)
def test_plug_ins_that_do_not_fit_are_told_and_left_out(monkeypatch: pytest.MonkeyPatch, loaded: object, words: str):
    plug_in(monkeypatch, loaded)
    assert kinds("headrace.shapes", (Round, Square)) == {"round": Round, "square": Square}
    assert kinds("headrace.shapes", (Round,)) == {"round": Round}
    [told] = broken_plug_ins()
    assert str(told) == f"The plug-in extra of their-package 0.3 (headrace.shapes) cannot be used: {words}"


def test_the_groups_are_looked_up_where_packages_declare_them():
    assert spec_module.entry_points is importlib.metadata.entry_points
    assert kind_of(Square) == "square"


def test_a_hash_tells_content_and_nothing_else():
    assert spec_hash(Square(side=2)) == spec_hash(Square.model_validate({"side": 2.0, "inner": {"kind": "round"}}))
    assert len({spec_hash(Square()), spec_hash(Square(side=2)), spec_hash(Square(inner=Round(radius=2)))}) == 3
    assert spec_hash(Round()) == "eae0aa0152408de2"  # names data sets: must not change


class Documented(Round):
    """A round thing with more to say.

    Attributes:
        radius: of the circle, which
            is round.
        x, y: ν, where it stands.

    Example:
        nothing: more
    """

    kind: Literal["documented"] = "documented"
    x: float = 0.0
    y: float = 0.0
    told: float = Field(default=1.0, description="by its field [s]")
    silent: int = 0


class Heir(Documented):
    """Says less of what it has got.

    Attributes:
        silent: no longer.
    """

    kind: Literal["heir"] = "heir"


def test_what_the_class_says_of_a_field_is_its_description_in_the_schema():
    def descriptions(spec: type[Spec]) -> dict[str, str | None]:
        return {name: entry.get("description") for name, entry in spec.model_json_schema()["properties"].items()}

    place = "ν, where it stands."
    said = {"radius": "Of the circle, which is round.", "x": place, "y": place, "told": "by its field [s]"}
    assert descriptions(Documented) == {**said, "kind": "A round thing with more to say.", "silent": None}
    assert descriptions(Heir) == {**said, "kind": "Says less of what it has got.", "silent": "No longer."}
    assert Square.model_json_schema()["properties"]["inner"]["default"] == {"kind": "round", "radius": 1.0}
