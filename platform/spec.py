"""Spec: the frozen, hashable description of a thing, and the kinds that a recipe may name."""

import functools
import hashlib
import inspect
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, Union

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, to_jsonable_python

log = logging.getLogger(__name__)

Count = Annotated[int, Field(gt=0, le=10**12)]
"""A number of things that a recipe asks for: at least one, and no more than anything counts, so that sums stay sums."""


class Spec(BaseModel):
    """Base of everything that a recipe describes.

    A spec is frozen, hashable and picklable, rejects unknown keys, and says all that is needed to rebuild what it
    describes on another machine. Concrete kinds carry `kind: Literal["name"] = "name"`.

    What its class says of a field under "Attributes:" is the field's description in the JSON Schema, too.
    """

    # Schemas are built when they are first needed: plug-ins that belong into them are imported by then (see `OneOf`).
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The JSON Schema with a description and, where a field has one, a default for each field."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, field in cls.model_fields.items():
            entry = properties.get(field.alias or name)
            if entry is None:
                continue
            words = field_description(cls, name)
            if words:
                entry["description"] = words
            if "default" not in entry and not field.is_required():
                entry["default"] = to_jsonable_python(field.get_default(call_default_factory=True), fallback=dict)
        return schema


class FieldError(ValueError):
    """A field has a value that its type allows and its spec does not: raised by validators of the whole spec.

    Attributes:
        name: of the field.
        value: what it has.
        condition: what it should be, to follow the name: `above 0`.
    """

    def __init__(self, name: str, value: str, condition: str) -> None:
        self.name, self.value, self.condition = name, value, condition
        super().__init__(f"{name} {condition}, got {value}")

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.name, self.value, self.condition)


_ENTRY = re.compile(r" {4}(\w+(?:, \w+)*): ?(.*)")


@functools.cache
def documented_attributes(cls: type) -> dict[str, str]:
    """What the "Attributes:" section of a class's own docstring says, by name; one line each."""
    lines = inspect.cleandoc(cls.__dict__.get("__doc__") or "").split("\n")
    start = lines.index("Attributes:") + 1 if "Attributes:" in lines else len(lines)
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines[start:]:
        if line and not line.startswith(" "):
            break  # the next section
        if entry := _ENTRY.fullmatch(line):
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def field_description(spec: type[Spec], name: str) -> str:
    """What is said of a field: by its `Field`, else by the docstring of the class, or of the nearest base that does.

    Of a `kind` that nothing is said of: what the class is. Empty when nothing is said.
    """
    field = spec.model_fields[name]
    if field.description:
        return field.description
    for cls in spec.__mro__:
        if words := documented_attributes(cls).get(name):
            return words[0].upper() + words[1:] if words[:2].isascii() and words[:2].isalpha() else words
    return _first_sentence(spec) if name == "kind" else ""


def _first_sentence(cls: type) -> str:
    return inspect.cleandoc(cls.__doc__ or "").partition("\n")[0]


def kind_of(spec: type[Spec]) -> str:
    """The `kind:` under which a recipe names this class."""
    return str(spec.model_fields["kind"].default)


@dataclass(frozen=True, kw_only=True)
class BrokenPlugIn:
    """An entry point of another package that gives no kind.

    Attributes:
        group: of entry points, for example `headrace.problems`.
        name: of the entry point, which recipes use as the kind.
        package: the distribution that declares it, with its version; empty when that is not known.
        error: why it gives none.
    """

    group: str
    name: str
    package: str
    error: str

    def __str__(self) -> str:
        owner = f" of {self.package}" if self.package else ""
        return f"The plug-in {self.name}{owner} ({self.group}) cannot be used: {self.error}"


_broken: dict[tuple[str, str], BrokenPlugIn] = {}


def broken_plug_ins() -> list[BrokenPlugIn]:
    """Those that were found broken so far: each group is looked up when its kinds are asked for."""
    return list(_broken.values())


@dataclass(frozen=True, kw_only=True)
class PlugIn:
    """A package that kinds come from.

    Attributes:
        package: its name.
        version: that is installed.
        kinds: which of its kinds are meant.
    """

    package: str
    version: str
    kinds: tuple[str, ...]

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return f"{self.package}=={self.version}"

    def __str__(self) -> str:
        return f"{self.package} {self.version} ({', '.join(self.kinds)})"


_owners: dict[type[Spec], tuple[str, str]] = {}


def plug_ins_of(spec: Spec) -> list[PlugIn]:
    """The packages, other than Headrace, that kinds of a spec and of all specs in it come from."""
    found: dict[tuple[str, str], set[str]] = {}
    for part in _parts(spec):
        if (owner := _owners.get(type(part))) is not None:
            found.setdefault(owner, set()).add(kind_of(type(part)))
    return [
        PlugIn(package=package, version=version, kinds=tuple(sorted(kinds)))
        for (package, version), kinds in sorted(found.items())
    ]


def _parts(value: object) -> Iterator[Spec]:
    """A spec and all specs below it."""
    if isinstance(value, Spec):
        yield value
        for name in type(value).model_fields:
            yield from _parts(getattr(value, name))
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _parts(entry)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for entry in value:
            yield from _parts(entry)


def _note_broken(group: str, point: EntryPoint, error: str) -> None:
    package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else ""
    broken = BrokenPlugIn(group=group, name=point.name, package=package, error=error)
    _broken[group, point.name] = broken
    log.debug("%s", broken)


def _loaded(group: str, point: EntryPoint) -> type[Spec] | None:
    """What an entry point names; None, and noted as broken, when that is no kind."""
    try:
        spec = point.load()
    except Exception as error:
        # Whatever somebody else's module raises must not stop recipes that do not use it.
        _note_broken(group, point, f"{type(error).__name__}: {error}")
        return None
    if not (isinstance(spec, type) and issubclass(spec, Spec) and "kind" in spec.model_fields):
        _note_broken(group, point, f"{point.value} is not a Spec with a kind")
        return None
    return spec


@functools.cache
def kinds(group: str, built_in: tuple[type[Spec], ...]) -> dict[str, type[Spec]]:
    """Every class of a group by its kind: those built in, then those of installed packages.

    A plug-in that cannot be imported, is not a `Spec` with a `kind`, or takes a kind that exists is left out: see
    `broken_plug_ins`.

    Args:
        group: the entry-point group, for example `headrace.problems`.
        built_in: the classes of the room's own tuple.
    """
    found = {kind_of(spec): spec for spec in built_in}
    for point in entry_points(group=group):
        spec = _loaded(group, point)
        if spec is None:
            continue
        if found.get(kind_of(spec), spec) is not spec:
            _note_broken(group, point, f"{point.value} takes the kind {kind_of(spec)}, which exists")
            continue
        found[kind_of(spec)] = spec
        if point.dist is not None:
            _owners[spec] = (point.dist.name, point.dist.version)
    return found


class OneOf:
    """The type of a field that holds a spec of a group; pydantic takes it as a union discriminated on `kind`.

    The union is made when the first spec with such a field is validated, not when its class is: plug-ins are imported
    then, and import from Headrace what they want, for all of it stands. (Specs defer their schemas for this.)
    """

    def __init__(self, group: str, built_in: tuple[type[Spec], ...]) -> None:
        self.group, self._built_in = group, built_in

    def __repr__(self) -> str:
        return f"one of {self.group}"

    def __or__(self, other: Any) -> Any:
        return Union[self, other]  # noqa: UP007  (mypy reads neither)

    @property
    def members(self) -> tuple[type[Spec], ...]:
        """The classes, plug-ins included."""
        return tuple(kinds(self.group, self._built_in).values())

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The schema of the union; of the class itself, whose kind may be left out, when it is the only one."""
        members = self.members
        if len(members) == 1:
            return handler.generate_schema(members[0])
        return handler.generate_schema(Annotated[Union[members], Field(discriminator="kind")])  # noqa: UP007


def one_of(group: str, built_in: Sequence[type[Spec]]) -> Any:
    """The type of a field for one spec of a group (see `OneOf`); untyped, for mypy knows no types of run time."""
    return OneOf(group, tuple(built_in))


def spec_hash(spec: Spec) -> str:
    """The first 16 hex digits of the SHA-256 of the spec's canonical JSON."""
    text = json.dumps(spec.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
