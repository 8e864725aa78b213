"""Scouts: the first of an ordered set, taken from all over it, so that what is learned of them holds of the rest."""

import numpy as np
from jaxtyping import Int64


def scouts_of(
    order: Int64[np.ndarray, " samples"], count: int, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, " scouts"], Int64[np.ndarray, " rest"]]:
    """Some samples of an order, one at random of each of `count` parts of it that are equally long, and the others.

    Both keep the order. Where neighbours are alike, such a draw knows the whole better than one that is free: it is
    stratified. None are taken where there are no more than `count`: then all are seen anyway.
    """
    if not 0 < count < len(order):
        return order[:0], order
    bounds = np.arange(count + 1) * len(order) // count
    places = bounds[:-1] + (rng.random(count) * np.diff(bounds)).astype(np.int64)
    return order[places], np.delete(order, places)
