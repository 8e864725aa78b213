"""YAML as a stranger may have written it: read strictly, and refused before it takes long."""

from typing import Any

import yaml

from headrace.platform.errors import InputError

MAX_CHARACTERS = 1_000_000
"""Of a text. The longest recipe that comes with Headrace has a thousand."""
_MAX_EXPANDED, _NODE = 4_000_000, 20  # characters of all that aliases stand for, a node counting as so many

# What PyYAML lets through for values that look like a number or a moment and are none: `2024-13-01`, 5000 digits.
_NOT_A_VALUE = (ValueError, OverflowError, AttributeError, IndexError, TypeError)


def read_yaml(text: str, where: str) -> Any:
    """The value that a text stands for; no key may stand twice in a mapping, for the second would silently win.

    A few lines with aliases of aliases can stand for more than any memory holds, and would keep busy whoever looks at
    it: how much it is, is counted before anything is made of it.

    Args:
        text: one YAML document.
        where: what it is, for errors.

    Raises:
        InputError: it is no valid YAML, too long, nested too deeply, or stands for too much.
    """
    if len(text) > MAX_CHARACTERS:
        raise too_long(where, len(text))
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _expanded(node, {}) > _MAX_EXPANDED:
            raise InputError.single(
                where, "a short text for very much", "YAML whose aliases stand for less", "Write out what they repeat."
            )
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise InputError.single(place, getattr(error, "problem", None) or "broken", "valid YAML") from error
    except RecursionError as error:
        raise InputError.single(where, "nested too deeply, or in itself", "valid YAML of few levels") from error
    except _NOT_A_VALUE as error:
        raise InputError.single(where, f"broken ({error})", "valid YAML", "Words in quotes stay words.") from error
    finally:
        loader.dispose()


def too_long(where: str, length: int) -> InputError:
    """The error of a text that nobody has written by hand."""
    return InputError.single(where, f"{length:,} characters long", f"at most {MAX_CHARACTERS:,}: is it the right file?")


def _expanded(node: yaml.Node, known: dict[int, int]) -> int:
    """Characters of a node with everything in it, aliases followed; nodes are counted once and known from then on.

    Raises:
        RecursionError: it is inside of itself.
        yaml.constructor.ConstructorError: a key stands twice.
    """
    if (size := known.get(id(node))) is not None:
        if size < 0:
            raise RecursionError
        return size
    known[id(node)] = -1  # it is being counted: who meets it now is inside of it
    if isinstance(node, yaml.ScalarNode):
        size = _NODE + len(node.value)
    elif isinstance(node, yaml.MappingNode):
        _refuse_twins(node)
        size = _NODE + sum(_expanded(part, known) for pair in node.value for part in pair)
    else:
        size = _NODE + sum(_expanded(part, known) for part in node.value)
    known[id(node)] = size
    return size


def _refuse_twins(mapping: yaml.MappingNode) -> None:
    seen: set[tuple[str, str]] = set()
    for key, _ in mapping.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    "while reading a mapping", mapping.start_mark, f'the key "{key.value}" stands twice', key.start_mark
                )
            seen.add((key.tag, key.value))
