"""The JSON Schema of a recipe: what editors show of each key, and what the reference page is made from."""

from collections.abc import Iterator

from headrace.pipelines.recipe.config import RunConfig
from headrace.platform.spec import Spec


def test_each_key_of_the_schema_says_what_it_is_and_its_default() -> None:
    schema = RunConfig.model_json_schema()
    own = {spec.__name__ for spec in _specs(Spec) if spec.__module__.startswith("headrace.")}
    sections = {name: section for name, section in schema["$defs"].items() if name in own} | {"recipe": schema}
    keys = {
        f"{name}.{key}": entry for name, section in sections.items() for key, entry in section["properties"].items()
    }
    required = {f"{name}.{key}" for name, section in sections.items() for key in section.get("required", ())}

    assert len(keys) > 400
    assert [key for key, entry in keys.items() if len(entry.get("description", "")) < 8] == []
    assert [key for key, entry in keys.items() if "default" not in entry and key not in required] == []
    assert keys["DataSpec.mix"]["default"] == {"default": 1.0}
    assert keys["StreamSpec.lease_seconds"]["description"].endswith("[s].")
    assert keys["Burgers.viscosity"]["description"].startswith("ν")  # a symbol keeps its case
    assert keys["TrainingSpec.steps"]["description"] == "Planned optimiser steps; the schedule spans them."


def test_no_count_is_without_bounds() -> None:
    # Python's integers have none, and what allocates, sums or plans does.
    schema = RunConfig.model_json_schema()
    sections = {**schema["$defs"], "recipe": schema}
    integers = {
        f"{name}.{key}": choice
        for name, section in sections.items()
        for key, entry in section.get("properties", {}).items()
        for choice in entry.get("anyOf", [entry])
        if choice.get("type") == "integer" and not choice.keys() & {"enum", "const"}
    }
    assert len(integers) > 50
    assert [key for key, entry in integers.items() if not entry.keys() & {"maximum", "exclusiveMaximum"}] == []
    assert [key for key, entry in integers.items() if not entry.keys() & {"minimum", "exclusiveMinimum"}] == []


def _specs(cls: type[Spec]) -> Iterator[type[Spec]]:
    for spec in cls.__subclasses__():
        yield spec
        yield from _specs(spec)
