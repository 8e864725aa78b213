"""Drift: how what a reservoir has served differs from what came into it."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Int64

from headrace.platform.fields import FieldSpec

_NUM_BINS = 4096
_NUM_NOTED = 1024
UNKNOWN_LEVEL = -1
_CAME_IN, _SERVED = 0, 1


type _Noted = list[tuple[Float32[np.ndarray, "rows num"], Int64[np.ndarray, " rows"]]]


class Drift:
    """Counts by parameter and by level of the rows that came in and of those that were served, in bounded memory.

    The distance of a parameter is that of Kolmogorov and Smirnov, max |F_in(p) - F_served(p)|, between the empirical
    distributions of all rows that came in and of all that were served, each as often as it was: 0 when they agree,
    1 when they do not overlap. The rows that came in stand for the target: the data set's mix draws them.

    The distributions are histograms with the same bins for both, so the distance is never too large, and too small by
    at most what one bin holds. A bin is a range of neighbouring float32 numbers, whose bits, read as an integer with
    the negative half turned round, sort as they do; the distance does not change under such a monotone map. Its width
    is a power of two of these integers and doubles when a value falls outside all bins, which merges them in pairs:
    no range need be known, and at least half of the bins lie where the values are.

    Args:
        parameters: the schema's parameters; the components of one are told apart as `name_0`, `name_1`.
    """

    def __init__(self, parameters: Sequence[FieldSpec]) -> None:
        self._names = [
            spec.name if spec.components == 1 else f"{spec.name}_{component}"
            for spec in parameters
            for component in range(spec.components)
        ]
        self._levels: dict[str, int] = {}
        self._level_counts = np.zeros((2, 0), dtype=np.int64)
        num = len(self._names)
        self._counts = np.zeros((2, num, _NUM_BINS), dtype=np.int64)
        self._shift = np.zeros(num, dtype=np.int64)
        self._first_bin = np.zeros(num, dtype=np.int64)
        self._noted: tuple[_Noted, _Noted] = ([], [])
        self._num_noted = 0
        # Least and greatest value so far, as integers; nothing yet.
        self._range = np.tile(np.array([[1], [0]], dtype=np.int64), num)

    def level_numbers(self, levels: Sequence[str]) -> Int64[np.ndarray, " rows"]:
        """A number for each row's level; new names get new ones."""
        for name in sorted(set(levels) - self._levels.keys()):
            self._levels[name] = len(self._levels)
            self._level_counts = np.pad(self._level_counts, ((0, 0), (0, 1)))
        return np.array([self._levels[name] for name in levels], dtype=np.int64)

    def came_in(self, parameters: Float32[np.ndarray, "rows num"], levels: Int64[np.ndarray, " rows"]) -> None:
        """Count rows that came in; their levels are numbers of `level_numbers`, or `UNKNOWN_LEVEL`."""
        self._note(_CAME_IN, parameters, levels)

    def served(self, parameters: Float32[np.ndarray, "rows num"], levels: Int64[np.ndarray, " rows"]) -> None:
        """Count rows that were served."""
        self._note(_SERVED, parameters, levels)

    def distances(self) -> dict[str, float]:
        """The distance of each parameter; nothing before anything was served."""
        self._count_noted()
        totals = self._counts.sum(axis=2, keepdims=True)
        if not totals.size or not totals.all():
            return {}
        cumulative = np.cumsum(self._counts, axis=2) / totals
        return dict(zip(self._names, np.abs(cumulative[0] - cumulative[1]).max(axis=1).tolist(), strict=True))

    def shares(self) -> tuple[dict[str, float], dict[str, float]]:
        """The share of each level in the rows that came in, and in those that were served."""
        self._count_noted()
        came_in, served = (
            {name: count / max(1, sum(counts)) for name, count in zip(self._levels, counts, strict=True)}
            for counts in self._level_counts.tolist()
        )
        return came_in, served

    def state(self) -> dict[str, np.ndarray]:
        """All that `restore` needs."""
        self._count_noted()
        return {
            "drift_bins": self._counts.copy(),
            "drift_scale": np.stack([self._shift, self._first_bin, *self._range]),
            "drift_levels": self._level_counts.copy(),
            "level_names": np.array(list(self._levels), dtype=np.str_),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take on a state when fresh; from one that was written before there were these counts, nothing is taken.

        Raises:
            ValueError: it counts other parameters.
        """
        if "drift_bins" not in state:
            return
        if state["drift_bins"].shape != self._counts.shape:
            raise ValueError(f"the state counts {state['drift_bins'].shape[1]} parameters, not {len(self._names)}")
        self._counts = state["drift_bins"].copy()
        self._shift, self._first_bin = state["drift_scale"][:2].copy()
        self._range = state["drift_scale"][2:].copy()
        self._level_counts = state["drift_levels"].copy()
        self._levels = {name: number for number, name in enumerate(state["level_names"].tolist())}

    def _note(self, way: int, parameters: Float32[np.ndarray, "rows num"], levels: Int64[np.ndarray, " rows"]) -> None:
        # Many rows are counted at once: one batch at a time would cost ten times as much.
        self._noted[way].append((parameters.copy(), levels))
        self._num_noted += len(levels)
        if self._num_noted >= _NUM_NOTED:
            self._count_noted()

    def _count_noted(self) -> None:
        for way, noted in enumerate(self._noted):
            if not noted:
                continue
            values = _ordered(np.concatenate([parameters for parameters, _ in noted]))
            levels = np.concatenate([levels for _, levels in noted])
            noted.clear()
            if values.size:
                self._cover(values)
                bins = (values >> self._shift) - self._first_bin + _NUM_BINS * np.arange(values.shape[1])
                np.add.at(self._counts[way].reshape(-1), bins.reshape(-1), 1)
            self._level_counts[way] += np.bincount(levels[levels != UNKNOWN_LEVEL], minlength=len(self._levels))
        self._num_noted = 0

    def _cover(self, values: Int64[np.ndarray, "rows num"]) -> None:
        """Widen the bins until they hold these values, too."""
        low, high = values.min(axis=0), values.max(axis=0)
        first = self._range[0] > self._range[1]
        low, high = (
            np.where(first, low, np.minimum(low, self._range[0])),
            np.where(first, high, np.maximum(high, self._range[1])),
        )
        for column in np.flatnonzero((low != self._range[0]) | (high != self._range[1])).tolist():
            before, shift = int(self._shift[column]), int(self._shift[column])
            least, greatest = int(low[column]), int(high[column])
            while (greatest >> shift) - (least >> shift) >= _NUM_BINS:
                shift += 1
            counts = self._counts[:, column]
            full = np.flatnonzero(counts.any(axis=0))
            moved = ((full + self._first_bin[column]) >> (shift - before)) - (least >> shift)
            merged = np.zeros_like(counts)
            np.add.at(merged.T, moved, counts[:, full].T)
            self._counts[:, column] = merged
            self._shift[column], self._first_bin[column] = shift, least >> shift
        self._range = np.stack([low, high])


def _ordered(values: Float32[np.ndarray, "rows num"]) -> Int64[np.ndarray, "rows num"]:
    """The bits of float32 numbers as integers that sort as they do: IEEE 754 keeps sign and magnitude."""
    bits = np.ascontiguousarray(values).view(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)
