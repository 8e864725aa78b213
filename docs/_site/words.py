"""Docstrings and JSON Schema as Markdown."""

import inspect
import re
from dataclasses import dataclass, field

import yaml

_SECTION = re.compile(r"^(Attributes|Example|Examples|Raises|Args|Returns):\s*$", re.M)
_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", re.M)
_UNIT = re.compile(r"\s*\[([^\[\]]+)\](?=\.?$)")


@dataclass(frozen=True)
class Docstring:
    """The parts of a docstring.

    Attributes:
        first: its first paragraph.
        body: what follows, up to its sections.
        attributes: what it says of each attribute.
        example: its example, as code.
    """

    first: str = ""
    body: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    example: str = ""


def docstring(text: str | None) -> Docstring:
    """Take a docstring apart."""
    parts = _SECTION.split(inspect.cleandoc(text or ""))
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    first, _, body = parts[0].strip().partition("\n\n")
    attributes = {name: " ".join(words.split()) for name, words in _ATTRIBUTE.findall(sections.get("Attributes", ""))}
    example = inspect.cleandoc(sections.get("Example", ""))
    return Docstring(
        " ".join(first.split()), body.strip("\n").rstrip(), attributes, example if ">>>" in example else ""
    )


def escaped(text: str) -> str:
    """Words that Markdown shows as they are; code between backticks stays code."""
    parts = text.split("`")
    for number in range(0, len(parts), 2):
        part = parts[number].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        parts[number] = re.sub(r"([*_\[\]|\\])", r"\\\1", part)
    return "`".join(parts)


def paragraphs(text: str) -> str:
    """A docstring's body: paragraphs as words, indented blocks as code."""
    blocks = []
    for block in re.split(r"\n\s*\n", text):
        if block.startswith("    "):
            blocks.append(f"```text\n{inspect.cleandoc(block)}\n```")
        elif re.match(r"[-*] ", block):
            items = re.split(r"^[-*] ", block, flags=re.M)[1:]
            blocks.append("\n".join(f"- {escaped(' '.join(item.split()))}" for item in items))
        else:
            blocks.append(escaped(" ".join(block.split())))
    return "\n\n".join(blocks)


def cell(text: str) -> str:
    """Words in the cell of a table."""
    return escaped(" ".join(text.split()))


def code(text: str) -> str:
    """Code in the cell of a table, where a bar would end it."""
    return f"`{text}`" if "|" not in text else f"<code>{text.replace('|', '&#124;')}</code>"


def as_yaml(value: object) -> str:
    """A value as a recipe would write it, in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).strip()
    return text.removesuffix("...").strip()


def with_unit(text: str) -> tuple[str, str]:
    """A description without the unit in brackets at its end, and that unit."""
    found = _UNIT.search(text)
    return (_UNIT.sub("", text), found[1]) if found else (text, "")
