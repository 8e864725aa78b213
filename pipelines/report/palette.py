"""The colours of all pictures and pages: those of Okabe and Ito (2008), told apart with every kind of colour vision."""

from collections.abc import Iterable, Sequence

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The first one stands for all samples together, and for what has no levels."""


def in_order(found: Iterable[str], order: Sequence[str]) -> list[str]:
    """Names in a given order, those that it does not hold behind."""
    return sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name))


def level_colours(found: Iterable[str], levels: Sequence[str] = ()) -> dict[str, str]:
    """A colour for each difficulty level that was found, the same wherever `levels`, all of the recipe, are the same.

    They come in the order of `levels`, others behind.
    """
    names = in_order(set(found), levels)
    known = [*levels, *(name for name in names if name not in levels)]
    return {name: COLOURS[1 + known.index(name) % (len(COLOURS) - 1)] for name in names}
