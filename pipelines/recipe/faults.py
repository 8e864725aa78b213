"""Turns what pydantic found into faults that a user can act on: path, value, what was expected, nearest spelling."""

from types import UnionType
from typing import Annotated, Any, TypeAliasType, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from headrace.platform.errors import Fault, nearest
from headrace.platform.spec import FieldError, OneOf, broken_plug_ins


def shown(value: object, limit: int = 80) -> str:
    """A value as a user would recognise it, cut to a length."""
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def faults_of(error: ValidationError, annotation: Any, prefix: str) -> list[Fault]:
    """One fault for each error, its place written as the user wrote it."""
    return [_fault(details, annotation, prefix) for details in error.errors()]


def _fault(details: ErrorDetails, annotation: Any, prefix: str) -> Fault:
    path, parent, group = _walk(annotation, details["loc"])
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
        value, expected, advice = _or_broken(group, str(context["tag"]), value, expected, advice)
    elif kind == "union_tag_not_found":
        where += ".kind"
        value, expected = "missing", "the kind, as in {kind: ...}"
    elif kind == "literal_error":
        choices = [choice.strip(" '") for choice in str(context["expected"]).replace(" or ", ",").split(",")]
        expected, advice = f"one of {', '.join(choices)}", nearest(str(details["input"]), choices)
        if path[-1:] == ["kind"]:
            value, expected, advice = _or_broken(group, str(details["input"]), value, expected, advice)
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


def _or_broken(group: str, kind: str, value: str, expected: str, advice: str) -> tuple[str, str, str]:
    """Value, expectation and advice for a kind that is not there: what is wrong with the plug-in, if it is one."""
    for plug_in in broken_plug_ins():
        if (plug_in.group, plug_in.name) == (group, kind):
            return f"{value}, a plug-in that is broken", "a kind that can be used", str(plug_in)
    return value, expected, advice


def _walk(annotation: Any, location: tuple[int | str, ...]) -> tuple[list[str], type[BaseModel] | None, str]:
    """Follow an error's location through the models.

    Pydantic puts the tag of a discriminated union into the location; the user's file has no such step.

    Returns:
        The path without tags, the model that the last step was looked up in, and the group of kinds that was met last.
    """
    group = ""
    path: list[str] = []
    parent: type[BaseModel] | None = None
    for step in location:
        if isinstance(get_origin(annotation), TypeAliasType):  # Frozen[...]
            annotation = get_args(annotation)[0]
        members, group = _models(annotation), _group(annotation) or group
        tagged = [model for model in members if len(members) > 1 and _tag(model) == step]
        tagged = tagged or [member for member in _members(annotation) if _written_tag(member) == step]
        if tagged:
            annotation = tagged[0]
            continue
        path.append(str(step))
        parent = members[0] if members else None
        field = parent.model_fields.get(str(step)) if parent else None
        annotation = field.annotation if field else (get_args(annotation) or (None,))[-1]
    return path, parent, _group(annotation) or group


def _group(annotation: Any) -> str:
    """The group of the kinds that an annotation stands for; empty when it does not."""
    members = (annotation, *get_args(annotation))
    return next((member.group for member in members if isinstance(member, OneOf)), "")


def _members(annotation: Any) -> tuple[Any, ...]:
    """Those of a union."""
    if isinstance(annotation, OneOf):
        return annotation.members
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()


def _written_tag(member: Any) -> str | None:
    """The tag of a member of a union whose members are told apart by a function."""
    notes = get_args(member)[1:] if get_origin(member) is Annotated else ()
    return next((note.tag for note in notes if isinstance(note, Tag)), None)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, OneOf):
        return list(annotation.members)
    origin = get_origin(annotation)
    if origin is Annotated:
        return _models(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [model for member in get_args(annotation) for model in _models(member)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return None if field is None else str(field.default)
