"""FrozenMap: a mapping that can stand in a frozen, hashable spec."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, PlainSerializer


class FrozenMap[Value](Mapping[str, Value]):
    """A mapping that cannot change, with a hash; mappings and lists inside it are frozen with it."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Value]) -> None:
        self._items = {key: _frozen(value) for key, value in items.items()}

    def __getitem__(self, key: str) -> Value:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return f"FrozenMap({self._items!r})"

    def __reduce__(self) -> tuple[type, tuple[dict[str, Value]]]:
        return type(self), (self._items,)


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return FrozenMap(value)
    if isinstance(value, list | tuple):
        return tuple(_frozen(entry) for entry in value)
    return value


def _thawed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _thawed(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_thawed(entry) for entry in value]
    return value


type Frozen[Map] = Annotated[Map, AfterValidator(FrozenMap), PlainSerializer(_thawed)]
"""Annotates a spec's mapping field: it is read as a mapping, kept frozen, and written as a plain dictionary."""
