"""Mixture: levels of difficulty drawn by fixed weights, each as a function of its index."""

from collections.abc import Mapping

import numpy as np

from headrace.platform.seeding import generator


class Mixture:
    """Draws the difficulty level of sample i from fixed weights, as a function of (seed, split, i) alone."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        total = sum(weights.values())
        if not weights or min(weights.values()) < 0 or not total > 0:
            raise ValueError(f"weights of a mixture must be non-negative and sum to more than 0, got {dict(weights)}")
        self.names = tuple(weights)
        self._cumulative = np.cumsum([weight / total for weight in weights.values()])

    def level(self, seed: int, split: str, index: int) -> str:
        """The level of sample `index` of a split."""
        if len(self.names) == 1:
            return self.names[0]
        u = generator(seed, split, "level", index).random()
        return self.names[min(int(np.searchsorted(self._cumulative, u, side="right")), len(self.names) - 1)]
