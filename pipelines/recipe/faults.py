"""Turns what pydantic found into faults that a user can act on: path, value, what was expected, nearest spelling."""

from types import UnionType
from typing import Annotated, Any, TypeAliasType, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from headrace.platform.errors import Fault, nearest
from headrace.platform.spec import FieldError


def shown(value: object, limit: int = 80) -> str:
    """A value as a user would recognise it, cut to a length."""
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def faults_of(error: ValidationError, annotation: Any, prefix: str) -> list[Fault]:
    """One fault for each error, its place written as the user wrote it."""
    return [_fault(details, annotation, prefix) for details in error.errors()]


def _fault(details: ErrorDetails, annotation: Any, prefix: str) -> Fault:
    path, parent = _walk(annotation, details["loc"])
    where = ".".join([prefix, *path])
    value, advice = shown(details["input"]), ""
    kind, context = details["type"], details.get("ctx", {})
    expected = details["msg"][:1].lower() + details["msg"][1:]
    if kind == "extra_forbidden":
        known = list(parent.model_fields) if parent else []
        value, expected = "unknown", f"one of {', '.join(known)}"
        advice = nearest(path[-1], known)
    elif kind == "missing":
        value, expected = "missing", "a value"
    elif kind == "union_tag_invalid":
        where += ".kind"
        tags = [tag.strip().strip("'") for tag in str(context["expected_tags"]).split(",")]
        value, expected = shown(context["tag"]), f"one of {', '.join(tags)}"
        advice = nearest(str(context["tag"]), tags)
    elif kind == "union_tag_not_found":
        where += ".kind"
        value, expected = "missing", "the kind, as in {kind: ...}"
    elif kind == "literal_error":
        choices = [choice.strip(" '") for choice in str(context["expected"]).replace(" or ", ",").split(",")]
        expected, advice = f"one of {', '.join(choices)}", nearest(str(details["input"]), choices)
    elif kind in ("model_type", "model_attributes_type", "dict_type"):
        expected = "a section with keys of its own"
    elif kind == "value_error":
        error, given = context.get("error"), details["input"]
        expected = str(error or expected)
        if isinstance(error, FieldError):
            where, value, expected = f"{where}.{error.name}", error.value, f"{error.name} {error.condition}"
        elif isinstance(given, dict) and ("kind" in given or not path):
            value = "not consistent"  # all that is in it would say less than what follows
    else:
        expected = expected.replace("input should be ", "")
    return Fault(where=where, value=value, expected=expected, advice=advice)


def _walk(annotation: Any, location: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel] | None]:
    """Follow an error's location through the models.

    Pydantic puts the tag of a discriminated union into the location; the user's file has no such step.

    Returns:
        The path without tags, and the model that the last step was looked up in.
    """
    path: list[str] = []
    parent: type[BaseModel] | None = None
    for step in location:
        if isinstance(get_origin(annotation), TypeAliasType):  # Frozen[...]
            annotation = get_args(annotation)[0]
        members = _models(annotation)
        tagged = [model for model in members if len(members) > 1 and _tag(model) == step]
        tagged = tagged or [member for member in _members(annotation) if _written_tag(member) == step]
        if tagged:
            annotation = tagged[0]
            continue
        path.append(str(step))
        parent = members[0] if members else None
        field = parent.model_fields.get(str(step)) if parent else None
        annotation = field.annotation if field else (get_args(annotation) or (None,))[-1]
    return path, parent


def _members(annotation: Any) -> tuple[Any, ...]:
    """Those of a union."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()


def _written_tag(member: Any) -> str | None:
    """The tag of a member of a union whose members are told apart by a function."""
    notes = get_args(member)[1:] if get_origin(member) is Annotated else ()
    return next((note.tag for note in notes if isinstance(note, Tag)), None)


def _models(annotation: Any) -> list[type[BaseModel]]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _models(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [model for member in get_args(annotation) for model in _models(member)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return None if field is None else str(field.default)
