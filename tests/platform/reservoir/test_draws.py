"""Draws without replacement: chances that can be worked out by hand, and batches of enough groups."""

import functools
from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from headrace.platform.reservoir.draws import prefer, smallest, uniform, weighted, with_groups


def test_weights_are_chances_draw_by_draw():
    """Chi-square over the 6 ordered pairs of 3 positions: the 99.9 % quantile with 5 degrees of freedom is 20.5."""
    random, weights = np.random.default_rng(0), np.array([1.0, 2.0, 5.0])
    found = Counter(tuple(weighted(random, np.array([7, 8, 9]), weights, 2).tolist()) for _ in range(8000))
    chi_square = 0.0
    for i, j in permutations(range(3), 2):
        expected = 8000 * weights[i] / 8 * weights[j] / (8 - weights[i])
        chi_square += (found[7 + i, 7 + j] - expected) ** 2 / expected
    assert chi_square < 20.5


def test_weights_of_any_size_do_not_overflow_or_tie():
    among, random = np.arange(50), np.random.default_rng(1)
    for scale in (1e-300, 1e300):
        drawn = {tuple(weighted(random, among, np.full(50, scale), 3).tolist()) for _ in range(100)}
        # Two alike among 100 of 117,600 equally likely ones: a chance of 4 %; four alike are not chance.
        assert len(drawn) > 96


def test_the_smallest_come_in_order():
    assert smallest(np.array([3, 1, 2, 0]), np.array([10, 11, 12, 13]), 3).tolist() == [13, 11, 12]


def test_others_are_drawn_only_for_want_of_the_preferred():
    draw = functools.partial(uniform, np.random.default_rng(2))
    preferred = np.arange(10) < 4
    assert set(prefer(np.arange(10), preferred, 3, draw).tolist()) < {0, 1, 2, 3}
    drawn = prefer(np.arange(10), preferred, 6, draw).tolist()
    assert drawn[:4] == [0, 1, 2, 3] and len(set(drawn)) == 6


def in_order(among: np.ndarray, count: int) -> np.ndarray:
    return among[:count]


@pytest.mark.parametrize(
    ("groups", "count", "wanted", "expected"),
    [
        ([0, 0, 1, 2], 3, 2, [0, 1, 2]),  # enough groups: as it was drawn
        ([0, 0, 0, 1, 1, 2], 3, 2, [0, 1, 3]),  # the last of group 0 makes way
        ([0, 0, 0, 1, 1, 2], 3, 3, [0, 3, 5]),
        ([0, 0, 1, 1, 1, 2], 4, 3, [0, 1, 2, 5]),
        ([0, 1, 1, 1, 2, 2], 4, 3, [0, 1, 2, 4]),
    ],
)
def test_what_makes_way_for_other_groups_was_drawn_last(groups, count, wanted, expected):
    assert with_groups(in_order, np.array(groups), count, wanted).tolist() == expected


def test_enough_groups_and_equal_chances_where_groups_are_equal():
    """Chi-square over 24 rows: the 99.9 % quantile with 23 degrees of freedom is 49.7; draws of a batch without
    replacement vary less than independent ones, so the bound is on the safe side."""
    draw = functools.partial(uniform, np.random.default_rng(3))
    groups, counts = np.repeat(np.arange(6), 4), np.zeros(24)
    freely = 0
    for _ in range(3000):
        drawn = with_groups(draw, groups, 6, 5)
        assert len(set(drawn.tolist())) == 6 and len(set(groups[drawn].tolist())) >= 5
        counts[drawn] += 1
        freely += len(set(groups[draw(np.arange(24), 6)].tolist())) >= 5
    assert freely < 1500, "the case is too easy: most free draws have enough groups"
    expected = 3000 * 6 / 24
    assert ((counts - expected) ** 2 / expected).sum() < 49.7
