"""The options of `headrace import` that say what arrays are, and the YAML file that says the same."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import ValidationError

from headrace.pipelines.recipe.config import parse
from headrace.pipelines.recipe.faults import faults_of
from headrace.platform.errors import Fault, InputError, nearest
from headrace.platform.files import usable_path
from headrace.surrogates.intake.layout import Layout, Role

_SETS = {2: ("train", "test"), 3: ("train", "validation", "test")}


def read_layout(options: Mapping[str, Any]) -> Layout:
    """The layout that the file and the options say; an option wins over the file.

    Args:
        options: of the command, by name.

    Raises:
        InputError: with all that is wrong with them.
    """
    faults: list[Fault] = []
    base = _of_file(options["file"])
    values: dict[str, Any] = {}
    fields = _fields(options, base, values, faults)
    if fields:
        values["fields"] = fields
    for name in ("dt", "location", "index", "seed"):
        if options[name] is not None:
            values[name] = options[name]
    if options["coordinates"]:
        values["coordinates"] = options["coordinates"].split(",")
    if (times := options["times"]) is not None:
        numbers = [_number(one) for one in times.split(",")]
        values["times"] = times if None in numbers else numbers
    for name in ("extent", "split"):
        if options[name] is not None:
            found = [_number(one) for one in options[name].split(",")]
            if None in found:
                faults.append(Fault(where=f"--{name}", value=f'"{options[name]}"', expected="numbers between commas"))
            else:
                values[name] = found
    if isinstance(values.get("split"), list):
        names = _SETS.get(len(values["split"]))
        if names is None:
            value, expected = f'"{options["split"]}"', "two shares (train, test) or three (train, validation, test)"
            faults.append(Fault(where="--split", value=value, expected=expected))
        values["split"] = dict(zip(names or (), values["split"], strict=False))
    if options["periodic"] is not None:
        words = options["periodic"].split(",")
        values["periodic"] = [] if words == ["none"] else words
    if faults:
        raise InputError(faults)
    try:
        return Layout.model_validate(values).over(base)
    except ValidationError as error:
        raise InputError(_said(faults_of(error, Layout, "-"))) from error


def _of_file(path: Path | None) -> Layout:
    if path is None:
        return Layout()
    expected = "a YAML file in UTF-8 that can be read"
    try:
        text = usable_path(path, "--layout", expected).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = f"{error.strerror}." if isinstance(error, OSError) else str(error)
        raise InputError.single("--layout", str(path), expected, reason) from error
    try:
        return Layout.model_validate(parse(text, str(path)))
    except ValidationError as error:
        raise InputError(faults_of(error, Layout, str(path))) from error


def _fields(
    options: Mapping[str, Any], base: Layout, values: dict[str, Any], faults: list[Fault]
) -> list[dict[str, Any]]:
    """The fields that the options name, with what others say of them."""
    fields: list[dict[str, Any]] = []
    for role in get_args(Role):
        for text in options[role]:
            name, _, array = text.partition("=")
            fields.append({"name": name, "role": cast(Role, role), **({"array": array} if array else {})})
    fields = fields or [field.model_dump(exclude_none=True) for field in base.fields]
    by_name: dict[str, list[dict[str, Any]]] = {}
    for field in fields:
        by_name.setdefault(field["name"], []).append(field)
    for option, key in (("axes", "axes"), ("channels", "channels"), ("unit", "unit")):
        for text in options[option]:
            name, equals, said = text.partition("=")
            if option == "axes" and not equals:
                values["axes"] = text.split(",")
            elif not equals:
                faults.append(Fault(where=f"--{option}", value=f'"{text}"', expected="NAME=..., of a field"))
            elif option != "channels" and not fields:
                # Of fields that the file itself names.
                if option == "unit":
                    values.setdefault("units", {})[name] = said
                else:
                    values.setdefault("axes_of", {})[name] = said.split(",")
            elif name not in by_name:
                expected = f"a field that is named: {', '.join(by_name) or 'none is, by --input, --output or --state'}"
                faults.append(
                    Fault(where=f"--{option}", value=f'of "{name}"', expected=expected, advice=nearest(name, by_name))
                )
            else:
                for field in by_name[name]:
                    field[key] = said if option == "unit" else said.split(",") if said else []
    return fields


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _said(faults: Sequence[Fault]) -> list[Fault]:
    """Faults of options under the names that the user gave them: `--extent` for `-.extent.1`."""
    found = []
    for fault in faults:
        path = fault.where.removeprefix("-.").split(".")
        name = path[2] if path[0] == "fields" and len(path) > 2 else path[0]
        where = "the options" if name == "-" else "--axes" if name == "axes_of" else f"--{name}"
        found.append(Fault(where=where, value=fault.value, expected=fault.expected, advice=fault.advice))
    return found
