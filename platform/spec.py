"""Spec: the frozen, hashable description of a thing, and the kinds that a recipe may name."""

import functools
import hashlib
import json
import logging
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Annotated, Any, Union

from pydantic import BaseModel, ConfigDict, Field

log = logging.getLogger(__name__)


class Spec(BaseModel):
    """Base of everything that a recipe describes.

    A spec is frozen, hashable and picklable, rejects unknown keys, and says all that is needed to rebuild what it
    describes on another machine. Concrete kinds carry `kind: Literal["name"] = "name"`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


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


def kind_of(spec: type[Spec]) -> str:
    """The `kind:` under which a recipe names this class."""
    return str(spec.model_fields["kind"].default)


@functools.cache
def kinds(group: str, built_in: tuple[type[Spec], ...]) -> dict[str, type[Spec]]:
    """Every class of a group by its kind: those built in, then those of installed packages.

    Args:
        group: the entry-point group, for example `headrace.problems`.
        built_in: the classes of the room's own tuple.

    Raises:
        TypeError: a plug-in is not a `Spec` with a `kind`, or takes a kind that exists.
    """
    found = {kind_of(spec): spec for spec in built_in}
    for point in entry_points(group=group):
        spec = point.load()
        if not (isinstance(spec, type) and issubclass(spec, Spec) and "kind" in spec.model_fields):
            raise TypeError(f"entry point {point.name} of {group} ({point.value}) is not a Spec with a kind")
        if found.get(kind_of(spec), spec) is not spec:
            raise TypeError(f"entry point {point.name} of {group} takes the kind {kind_of(spec)}, which exists")
        found[kind_of(spec)] = spec
    return found


def one_of(group: str, built_in: Sequence[type[Spec]]) -> Any:
    """The pydantic type of a group: a union discriminated on `kind`."""
    members = tuple(kinds(group, tuple(built_in)).values())
    if len(members) == 1:
        return members[0]
    return Annotated[Union[members], Field(discriminator="kind")]  # noqa: UP007  (members are known at run time)


def spec_hash(spec: Spec) -> str:
    """The first 16 hex digits of the SHA-256 of the spec's canonical JSON."""
    text = json.dumps(spec.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
