"""Draws without replacement: uniform, by weight, the smallest first, some before others, of enough groups."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float64, Int64

Draw = Callable[[Int64[np.ndarray, " among"], int], Int64[np.ndarray, " count"]]
"""Takes so many of some positions, all distinct, and gives them in the order in which they were drawn."""


def uniform(random: np.random.Generator, among: Int64[np.ndarray, " among"], count: int) -> Int64[np.ndarray, " count"]:
    """Every position with the same chance."""
    return random.choice(among, count, replace=False)


def weighted(
    random: np.random.Generator,
    among: Int64[np.ndarray, " among"],
    weights: Float64[np.ndarray, " among"],
    count: int,
) -> Int64[np.ndarray, " count"]:
    """Each next position with a chance in proportion to its weight among those that are left.

    Algorithm A of Efraimidis and Spirakis (2006): the largest keys u^(1/w) of uniform u. We take the smallest
    -log(u) / w, which are in the opposite order and neither overflow nor tie for large or small weights.
    """
    keys = random.standard_exponential(len(among)) / weights
    return smallest(keys, among, count)


def smallest(
    keys: Float64[np.ndarray, " among"] | Int64[np.ndarray, " among"], among: Int64[np.ndarray, " among"], count: int
) -> Int64[np.ndarray, " count"]:
    """The positions of the smallest keys, in ascending order of these."""
    least = np.argpartition(keys, count - 1)[:count]
    return among[least[np.argsort(keys[least])]]


def prefer(
    among: Int64[np.ndarray, " among"], preferred: Bool[np.ndarray, " among"], count: int, draw: Draw
) -> Int64[np.ndarray, " count"]:
    """Positions that are preferred, and others only as far as those do not suffice."""
    first, others = among[preferred], among[~preferred]
    if len(first) >= count:
        return draw(first, count)
    return np.concatenate([first, draw(others, count - len(first))])


def with_groups(draw: Draw, groups: Int64[np.ndarray, " size"], count: int, wanted: int) -> Int64[np.ndarray, " count"]:
    """Positions that belong to so many distinct groups at least.

    The draw goes on beyond `count` until all positions stand in a row. The first of each of the first `wanted` groups
    that it came to are in, and then those that it came to first. So a draw that had enough groups stays as it is; of
    another one the last positions of groups that occur more than once give way to the first ones of new groups.

    Args:
        draw: how to draw.
        groups: the group of each position.
        count: how many positions; at least `wanted`.
        wanted: how many groups; at most as many as there are.
    """
    positions = draw(np.arange(len(groups)), count)
    if len(np.unique(groups[positions])) >= wanted:
        return positions
    rest = np.delete(np.arange(len(groups)), positions)
    row = np.concatenate([positions, draw(rest, len(rest))])
    taken = np.zeros(len(row), dtype=bool)
    firsts = np.unique(groups[row], return_index=True)[1]
    taken[np.sort(firsts)[:wanted]] = True
    taken[np.flatnonzero(~taken)[: count - wanted]] = True
    return row[taken]
