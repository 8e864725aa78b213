"""The reference of recipes: pages made from the JSON Schema that `headrace schema` prints."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from words import as_yaml, cell, code, docstring, escaped, paragraphs, with_unit

from headrace.pipelines.recipe.config import RunConfig
from headrace.platform.spec import Spec

type Schema = Mapping[str, Any]

SECTIONS = "reference/recipe.md"
# Where a recipe chooses one of several kinds: the page that has them, and their heading there.
CHOICES = {
    "data.problem": ("reference/problems.md", "Problems"),
    "data.sampler": ("reference/kinds.md", "Samplers"),
    "solver.method": ("reference/methods.md", "Methods"),
    "surrogate": ("reference/kinds.md", "Surrogates"),
    "training.strategy": ("reference/kinds.md", "Strategies"),
    "training.loss": ("reference/kinds.md", "Losses"),
    "training.optimizer": ("reference/kinds.md", "Optimisers"),
    "training.schedule": ("reference/kinds.md", "Schedules"),
}
PARTS = "reference/parts.md"
INTRODUCTIONS = {
    SECTIONS: """# Recipe

A recipe is one YAML file. Every key that it may have is here, with its default and its unit; the page is made from the
JSON Schema that `headrace schema` prints, by which an editor completes and checks recipes. `KEY=VALUE` after a recipe's
name changes one key by its dotted path: `headrace run smoke training.steps=60`. What is wrong with a recipe is said by
`headrace check`, all of it, before anything starts.
""",
    "reference/problems.md": """# Problems

What `data.problem` may be. [The gallery](../gallery.md) shows them.
""",
    "reference/methods.md": """# Methods

What `solver.method` may be. [How one is chosen](../solvers.md).
""",
    "reference/kinds.md": """# Networks, strategies, losses and others

What `surrogate`, `training.strategy`, `training.loss`, `training.optimizer`, `training.schedule` and `data.sampler` may
be. [How to write one](../extending.md).
""",
    PARTS: """# Parts

What keys of [problems](problems.md) and of other kinds are made of.
""",
}


@dataclass(frozen=True)
class Place:
    """Where a definition of the schema is described."""

    page: str
    heading: str

    def link(self, page: str, text: str) -> str:
        """A link to it from a page."""
        target = "" if page == self.page else self.page.rpartition("/")[2]
        return f"[{text}]({target}#{self.heading})"


def _specs(base: type[Spec] = Spec) -> Iterator[type[Spec]]:
    for one in base.__subclasses__():
        yield one
        yield from _specs(one)


class Reference:
    """Pages of the schema, by their path below `docs/`."""

    def __init__(self, schema: Schema) -> None:
        self.schema, self.definitions = schema, schema["$defs"]
        self.classes = {one.__name__: one for one in _specs()}
        self.places: dict[str, Place] = {}
        self.sections: list[tuple[str, str]] = []  # path of keys, definition
        self.groups: dict[str, list[str]] = {}
        self._find(schema, "")
        self.parts = [name for name in self.definitions if self._is_part(name)]
        self.places |= {name: Place(PARTS, self._name_of(name).lower()) for name in self.parts}

    def pages(self) -> dict[str, str]:
        """All pages."""
        texts = {page: [text] for page, text in INTRODUCTIONS.items()}
        texts[SECTIONS].append(self._table(SECTIONS, self.schema, "", RunConfig))
        for path, name in self.sections:
            texts[SECTIONS].append(self._entry(SECTIONS, name, path, 2 if "." not in path else 3, path))
        for path, names in self.groups.items():
            page, heading = CHOICES[path]
            several = sum(one == page for one, _ in CHOICES.values()) > 1
            if several:
                texts[page].append(f"## {heading}\n\nWhat `{path}` may be.\n")
            texts[page] += [self._entry(page, name, "", 3 if several else 2) for name in names]
        texts[PARTS] += [self._entry(PARTS, name, "", 2) for name in self.parts]
        return {page: "\n\n".join(text) + "\n" for page, text in texts.items()}

    def _find(self, schema: Schema, path: str) -> None:
        """Sections in the order of the recipe, and the kinds of each choice."""
        for key, value in schema.get("properties", {}).items():
            here = f"{path}.{key}" if path else key
            names = [name for name in self._references(value) if not self._is_mapping(name)]
            if here in CHOICES:
                page, _ = CHOICES[here]
                self.groups[here] = names
                self.places |= {name: Place(page, self._name_of(name)) for name in names}
            elif len(names) == 1 and names[0] not in self.places:
                self.sections.append((here, names[0]))
                self.places[names[0]] = Place(SECTIONS, here.replace(".", ""))
                self._find(self.definitions[names[0]], here)

    def _is_mapping(self, name: str) -> bool:
        return "properties" not in self.definitions[name]

    def _is_part(self, name: str) -> bool:
        return not self._is_mapping(name) and name not in self.places and bool(self.definitions[name]["properties"])

    def _name_of(self, name: str) -> str:
        kind = self.definitions[name]["properties"].get("kind", {})
        return str(kind.get("const", name))

    def _references(self, schema: Schema) -> list[str]:
        if "$ref" in schema:
            return [schema["$ref"].rpartition("/")[2]]
        return [name for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())) for name in self._references(one)]

    def _entry(self, page: str, name: str, path: str, level: int, heading: str = "") -> str:
        definition = self.definitions[name]
        words = docstring(definition.get("description"))
        anchor = heading.replace(".", "") if heading else self.places[name].heading
        lines = [f"{'#' * level} {heading or self._name_of(name)} {{ #{anchor} }}", escaped(words.first)]
        if words.body:
            lines.append(paragraphs(words.body))
        lines.append(self._table(page, definition, path, self.classes.get(name)))
        if words.example:
            lines.append(f"```python\n{words.example}\n```")
        return "\n\n".join(line for line in lines if line) + "\n"

    def _table(self, page: str, definition: Schema, path: str, kind: type[Spec] | None) -> str:
        said = docstring(definition.get("description")).attributes
        rows = []
        for key, value in definition["properties"].items():
            if key == "kind" and "const" in value:
                continue
            text, unit = with_unit(value.get("description") or said.get(key, "") or self._said_of(value))
            where = f"{path}.{key}" if path else key
            rows.append((where, self._type(page, value, where), self._default(definition, key, kind), unit, text))
        if not rows:
            return "No settings."
        lines = ["| key | what it is | default | |", "|---|---|---|---|"]
        for where, words, default, unit, text in rows:
            measured = f"{words} [{cell(unit)}]" if unit else words
            lines.append(f"| `{where}` | {measured} | {default} | {cell(text)} |")
        return "\n".join(lines)

    def _said_of(self, value: Schema) -> str:
        """What a section says of itself, where nothing is said of its key."""
        names = [name for name in self._references(value) if not self._is_mapping(name)]
        return docstring(self.definitions[names[0]].get("description")).first if len(names) == 1 else ""

    def _default(self, definition: Schema, key: str, kind: type[Spec] | None) -> str:
        if key in definition.get("required", ()):
            return "**required**"
        value = definition["properties"][key].get("default")
        if value is None and kind is not None and key in kind.model_fields:
            found = kind.model_fields[key].get_default(call_default_factory=True)
            value = found.model_dump(mode="json") if isinstance(found, Spec) else found
            value = dict(value) if isinstance(value, Mapping) else value
        if value is None:
            return "none"
        text = as_yaml(list(value) if isinstance(value, tuple) else value)
        return code(text) if len(text) <= 60 else "see there"

    def _type(self, page: str, value: Schema, path: str = "") -> str:
        """A type in words."""
        if path in CHOICES:
            target, heading = CHOICES[path]
            if sum(one == target for one, _ in CHOICES.values()) == 1:
                return f"[one of them]({target.rpartition('/')[2]})"
            return f"[one of them]({target.rpartition('/')[2]}#{heading.lower()})"
        if "$ref" in value:
            name = value["$ref"].rpartition("/")[2]
            if self._is_mapping(name):
                inner = self.definitions[name].get("additionalProperties", True)
                return f"names, each with {self._type(page, inner) if isinstance(inner, Mapping) else 'a value'}"
            shown = self._name_of(name)
            return self.places[name].link(page, "section" if self.places[name].page == SECTIONS else shown)
        for several in ("anyOf", "oneOf"):
            if several in value:
                words = [self._type(page, one) for one in value[several]]
                return " or ".join(dict.fromkeys(words))
        if "const" in value:
            return code(as_yaml(value["const"]))
        if "enum" in value:
            return " ".join(code(as_yaml(one)) for one in value["enum"])
        return self._plain(page, value)

    def _plain(self, page: str, value: Schema) -> str:
        match value.get("type"):
            case "integer" | "number" as number:
                return ("whole number" if number == "integer" else "number") + _bounds(value)
            case "boolean":
                return "`true` `false`"
            case "null":
                return "`null`"
            case "array":
                items = value.get("items") or {}
                inner = self._type(page, items) if items else "values"
                if "prefixItems" in value:
                    inner = ", ".join(self._type(page, one) for one in value["prefixItems"])
                return f"list of {inner}"
            case "object":
                inner = value.get("additionalProperties")
                return (
                    f"names, each with {self._type(page, inner) if isinstance(inner, Mapping) and inner else 'a value'}"
                )
            case "string":
                return "text"
            case _:
                return "anything"


def _bounds(value: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "&lt;"}
    found = [
        f"{sign.replace('>', '&gt;')} {value[key]:g}"
        for key, sign in signs.items()
        if key in value and abs(value[key]) < 1e9
    ]
    return f" {', '.join(found)}" if found else ""


def pages() -> dict[str, str]:
    """All pages of the reference."""
    return Reference(RunConfig.model_json_schema()).pages()
