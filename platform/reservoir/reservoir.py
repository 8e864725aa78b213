"""Reservoir: the bounded buffer between a stream of samples and a trainer that reads at its own pace."""

import functools
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float64, Int64

from headrace.platform.fields import SampleSchema
from headrace.platform.frozen import FrozenMap
from headrace.platform.reservoir.draws import prefer, smallest, uniform, weighted, with_groups
from headrace.platform.reservoir.drift import UNKNOWN_LEVEL, Drift
from headrace.platform.reservoir.stats import ReservoirStats
from headrace.platform.reservoir.weights import Policy, row_weights
from headrace.platform.sample import SampleBatch
from headrace.platform.seeding import generator, generator_state, restore_generator

log = logging.getLogger(__name__)


class Reservoir:
    """A bounded buffer of samples with a fifo, firo or reservoir policy (Meyer et al., SC'23 and ICML 2023).

    - `fifo` removes what it serves, oldest first; `firo` removes what it serves, at random.
    - `reservoir` serves uniformly over all that it holds. When full, a new sample takes the place of a random one
      that was served before; when none was, the producer must wait: nothing is dropped unused. Here we differ from
      the paper: `max_uses` bounds the reuse (a sample leaves with its last use; if the trainer `goes_on`, it stays, is
      served only when too few others are there, and gives way first), and after the end of the stream samples go on
      being served until their uses are spent, or without end when there is no bound. (The paper removes a sample with
      its first read after the end.)

    Rows of one index, and the parts of one trajectory (`SampleSchema.parts`), belong to one simulation. When a batch
    that was drawn freely holds fewer simulations than it must, the last drawn of those rows whose simulation is in it
    more than once make way for one row each of further simulations, the first that the draw would have come to. So a
    row's chance stays the same for all rows of simulations of equally many rows, whatever is asked for; where these
    numbers differ, a row of a short simulation gains.

    Rows of a `reservoir` may have weights: a batch is then drawn without replacement, each next row with a chance in
    proportion to its weight among those that are left (Efraimidis and Spirakis 2006, Algorithm A, with the logarithm
    of its keys). Uses follow the weights the better the more often samples are reused, since none is dropped unused,
    and the smaller a batch is beside what is held. Who gives way to new samples does not depend on weights.

    Nothing blocks here; who waits for whom:
    - the producer waits while `try_put` accepts less than it was given; each `take` may wake it;
    - the trainer waits while `ready(n)` is false; each `try_put` and `end` may wake it.
    They cannot both wait for ever: either there is room, or it is full, and then a batch of `n <= capacity` is served,
    even if long simulations have filled it before there were as many of them as the watermark says.

    Rows are copied in and out, into arrays that are allocated once. The rows of a batch are distinct. The same seed
    and the same calls give the same batches. Of the provenance only the level is kept; the rest is in the store.

    Args:
        schema: shape of the samples.
        capacity: samples that it holds at most.
        policy: see above.
        watermark: simulations that must be there for each batch (`fifo`: for the first), until the stream ends.
        max_uses: how often one sample is served at most; None for no limit. `reservoir` only.
        seed: seeds the draws.
        goes_on: whether samples that were served `max_uses` times are served again rather than let the trainer wait.
        min_simulations: distinct simulations in a batch at least, as far as it has rows; after the end of the stream,
            or when too few fill it, as many as there are.
        level_weights: weight of the rows of a level, by name; 1 for others. `reservoir` only.
        clock: seconds now, for the age of samples.

    Raises:
        ValueError: the watermark exceeds the capacity, or `min_simulations` the watermark; or `max_uses` or weights
            came with another policy.
    """

    def __init__(
        self,
        schema: SampleSchema,
        capacity: int,
        policy: Policy = "reservoir",
        watermark: int = 1,
        max_uses: int | None = None,
        seed: int = 0,
        *,
        goes_on: bool = False,
        min_simulations: int = 1,
        level_weights: Mapping[str, float] = FrozenMap({}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 1 <= watermark <= capacity:
            raise ValueError(f"watermark must be from 1 to the capacity, {capacity}; got {watermark}")
        if max_uses is not None and (policy != "reservoir" or max_uses < 1):
            raise ValueError(f"max_uses must be positive and is for reservoir; got {max_uses} for {policy}")
        if not 1 <= min_simulations <= watermark:
            raise ValueError(f"min_simulations must be from 1 to the watermark, {watermark}; got {min_simulations}")
        if level_weights and policy != "reservoir":
            raise ValueError(f"level_weights are for reservoir; got {dict(level_weights)} for {policy}")
        self.schema = schema
        self.capacity = capacity
        self.policy = policy
        self.watermark = watermark
        self._max_uses = (max_uses or np.iinfo(np.int64).max) if policy == "reservoir" else 1
        self._goes_on = goes_on
        self._min_simulations = min_simulations
        self._level_weights = dict(level_weights)
        self._clock = clock
        self._random = generator(seed, "reservoir")
        grid = schema.domain.shape
        # Memory is touched, and so taken, only as samples come.
        self._arrays: dict[str, np.ndarray] = {
            "indices": np.empty(capacity, dtype=np.int64),
            "inputs": np.empty((capacity, schema.num_input_channels, *grid), dtype=np.float32),
            "outputs": np.empty((capacity, len(schema.times), schema.num_output_channels, *grid), dtype=np.float32),
            "parameters": np.empty((capacity, schema.num_parameters), dtype=np.float32),
        }
        self._uses = np.zeros(capacity, dtype=np.int64)
        self._arrived = np.zeros(capacity, dtype=np.float64)  # [s] on the clock
        self._order = np.zeros(capacity, dtype=np.int64)  # number of the arrival
        self._weights = np.ones(capacity)
        self._levels = np.zeros(capacity, dtype=np.int64)  # as the drift numbers them
        self._rows_of: Counter[int] = Counter()  # rows held of each simulation, by its number
        self._drift = Drift(schema.parameters)
        self._said_full = False
        # Rows of the arrays: the first `_size` hold samples, the others are free.
        self._rows = np.arange(capacity)
        self._size = 0
        self._ended = False
        self._total_in = 0
        self._total_out = 0
        self._distinct = 0
        self._mean_age = 0.0

    def __len__(self) -> int:
        return self._size

    @property
    def ended(self) -> bool:
        """Whether `end` was called."""
        return self._ended

    @property
    def exhausted(self) -> bool:
        """Whether the stream ended and nothing is left to serve."""
        return self._ended and self._size == 0

    def try_put(self, batch: SampleBatch, start: int = 0, weights: Float64[np.ndarray, " batch"] | None = None) -> int:
        """Copy in as many samples of a batch, from row `start` on, as there is room for.

        Args:
            batch: the samples; with provenance where weights or statistics by level are wanted.
            start: the first row to take.
            weights: of all rows of the batch, times those of their levels: how often they are served, in proportion.

        Returns:
            How many were accepted; the caller waits for a `take` and offers the rest again.

        Raises:
            ValueError: the arrays do not fit the schema, a weight is not positive and finite, there are weights but the
                policy is not `reservoir`, weights by level lack the provenance, or the stream was ended.
        """
        if self._ended:
            raise ValueError("samples came after the end of the stream")
        for name, array in self._arrays.items():
            given = getattr(batch, name)
            if given.shape[1:] != array.shape[1:]:
                raise ValueError(f"{name} have the shape {given.shape[1:]} per sample, the schema {array.shape[1:]}")
        weight_of = row_weights(batch, start, weights, self.policy, self._level_weights)
        level_of = self._level_numbers(batch, start)
        offered = len(batch) - start
        free = self.capacity - self._size
        if offered > free and self.policy == "reservoir":
            self._evict(offered - free)
        accepted = min(offered, self.capacity - self._size)
        rows = self._rows[self._size : self._size + accepted]
        for name, array in self._arrays.items():
            array[rows] = getattr(batch, name)[start : start + accepted]
        self._uses[rows] = 0
        self._arrived[rows] = self._clock()
        self._order[rows] = self._total_in + np.arange(accepted)
        self._weights[rows] = weight_of[:accepted]
        self._levels[rows] = level_of[:accepted]
        self._rows_of.update(self._simulations(rows).tolist())
        self._drift.came_in(self._arrays["parameters"][rows], level_of[:accepted])
        self._size += accepted
        self._total_in += accepted
        return accepted

    def ready(self, count: int) -> bool:
        """Whether a batch of `count` can be served; after the end of the stream also a shorter, last one.

        Raises:
            ValueError: `count` exceeds the capacity, so it could never be.
        """
        if not 1 <= count <= self.capacity:
            raise ValueError(f"a batch must have 1 to {self.capacity} samples (the capacity), got {count}")
        if self._ended:
            return self._size > 0
        # A full one serves: what is missing could never come.
        return self._size >= count and (len(self._rows_of) >= self._needed(count) or self._size == self.capacity)

    def _needed(self, count: int) -> int:
        """Simulations that must be there for a batch."""
        # Holding samples back mixes batches better; in a queue that keeps its order it would only delay them.
        started = self.policy == "fifo" and self._total_out > 0
        return min(self._min_simulations, count) if started else self.watermark

    def take(self, count: int) -> SampleBatch:
        """Serve a batch of `count` distinct samples; after the end of the stream it may be shorter.

        Raises:
            ValueError: it is not `ready`.
        """
        if not self.ready(count):
            raise ValueError(
                f"no batch of {count} is ready: {self._size} samples of {len(self._rows_of)} simulations, "
                f"watermark {self.watermark}"
            )
        if not (self._ended or self._said_full) and len(self._rows_of) < (needed := self._needed(count)):
            self._said_full = True
            log.warning(
                "the reservoir is full with %d samples of %d simulations: it serves them, though stream.reservoir asks "
                "for %d; raise its capacity, or lower its watermark",
                self._size,
                len(self._rows_of),
                needed,
            )
        positions = self._draw(min(count, self._size))
        rows = self._rows[positions]
        batch = SampleBatch(
            indices=self._arrays["indices"][rows],
            inputs=self._arrays["inputs"][rows],
            outputs=self._arrays["outputs"][rows],
            parameters=self._arrays["parameters"][rows],
        )
        self._distinct += int(np.count_nonzero(self._uses[rows] == 0))
        self._uses[rows] += 1
        self._total_out += len(rows)
        self._drift.served(batch.parameters, self._levels[rows])
        self._mean_age = float(self._clock() - self._arrived[rows].mean())
        if not self._goes_on:
            self._remove(positions[self._uses[rows] >= self._max_uses])
        return batch

    def discard(self, simulation: int) -> int:
        """Let go of the samples of a simulation; how many there were. Those that were served before stay counted."""
        positions = np.flatnonzero(self._simulations(self._rows[: self._size]) == simulation)
        self._remove(positions)
        return len(positions)

    def end(self) -> None:
        """Say that no more samples will come: what is there is served without regard to the watermark."""
        self._ended = True

    def stats(self) -> ReservoirStats:
        """What it holds and has done."""
        uses = self._uses[self._rows[: self._size]]
        seen = int(np.count_nonzero(uses))
        shares_in, shares_served = self._drift.shares()
        return ReservoirStats(
            size=self._size,
            capacity=self.capacity,
            fill=self._size / self.capacity,
            seen=seen,
            unseen=self._size - seen,
            spent=int(np.count_nonzero(uses >= self._max_uses)),
            total_in=self._total_in,
            total_out=self._total_out,
            distinct=self._distinct,
            distinct_held=len(self._rows_of),
            mean_uses=self._total_out / self._distinct if self._distinct else 0.0,
            mean_age_seconds=self._mean_age,
            drift=self._drift.distances(),
            shares_in=shares_in,
            shares_served=shares_served,
        )

    def state(self, *, samples: bool = True) -> dict[str, np.ndarray]:
        """All that a checkpoint needs to go on with the very same batches, as a plain dict of arrays.

        Args:
            samples: whether to include the samples themselves; without them `restore` needs them from the store.
        """
        rows = self._rows[: self._size]
        totals = [self._ended, self._total_in, self._total_out, self._distinct]
        state = {
            "indices": self._arrays["indices"][rows],
            "uses": self._uses[rows],
            "order": self._order[rows],
            "weights": self._weights[rows],
            "levels": self._levels[rows],
            "age_seconds": self._clock() - self._arrived[rows],
            "mean_age_seconds": np.array(self._mean_age),
            "totals": np.array(totals, dtype=np.int64),
            "random": generator_state(self._random),
            **self._drift.state(),
        }
        if samples:
            state |= {name: self._arrays[name][rows] for name in ("inputs", "outputs", "parameters")}
        return state

    def restore(self, state: Mapping[str, np.ndarray], samples: SampleBatch | None = None) -> None:
        """Take on a state of `state()`.

        Args:
            state: what `state` gave, from a reservoir of the same schema and at most this capacity.
            samples: the samples of `state["indices"]` in that order, when the state came without them.

        Raises:
            ValueError: it holds more than fits, or the samples are missing or others.
        """
        indices = state["indices"]
        size = len(indices)
        if size > self.capacity:
            raise ValueError(f"the state holds {size} samples, the capacity is {self.capacity}")
        if samples is not None and not np.array_equal(samples.indices, indices):
            raise ValueError("the samples are not those of the state, or in another order")
        if samples is None and "inputs" not in state:
            raise ValueError("the state came without its samples: pass them")
        self._rows = np.arange(self.capacity)
        self._size = size
        self._arrays["indices"][:size] = indices
        for name in ("inputs", "outputs", "parameters"):
            self._arrays[name][:size] = state[name] if samples is None else getattr(samples, name)
        self._uses[:size] = state["uses"]
        self._order[:size] = state["order"]
        self._arrived[:size] = self._clock() - state["age_seconds"]
        self._mean_age = float(state["mean_age_seconds"])
        ended, self._total_in, self._total_out, self._distinct = (int(total) for total in state["totals"])
        self._ended = bool(ended)
        # Those written before there were weights and levels have none.
        self._weights[:size] = state.get("weights", 1.0)
        self._levels[:size] = state.get("levels", UNKNOWN_LEVEL)
        self._rows_of = Counter(self._simulations(self._rows[:size]).tolist())
        self._drift = Drift(self.schema.parameters)
        self._drift.restore(state)
        restore_generator(self._random, state["random"])

    def _simulations(self, rows: Int64[np.ndarray, " some"]) -> Int64[np.ndarray, " some"]:
        """The simulation that each of some rows belongs to."""
        simulations: np.ndarray = self._arrays["indices"][rows] // self.schema.parts
        return simulations

    def _level_numbers(self, batch: SampleBatch, start: int) -> Int64[np.ndarray, " offered"]:
        """The numbers of the levels of the rows from `start` on."""
        if not batch.provenance:
            return np.full(len(batch) - start, UNKNOWN_LEVEL)
        return self._drift.level_numbers([row.level for row in batch.provenance[start:]])

    def _draw(self, count: int) -> Int64[np.ndarray, " count"]:
        """Positions of a batch."""
        wanted = min(self._min_simulations, count, len(self._rows_of))
        if wanted == 1:
            return self._first(np.arange(self._size), count)
        return with_groups(self._first, self._simulations(self._rows[: self._size]), count, wanted)

    def _first(self, among: Int64[np.ndarray, " held"], count: int) -> Int64[np.ndarray, " count"]:
        """Those of these positions that are served first, in that order."""
        rows = self._rows[among]
        if self.policy == "fifo":
            return smallest(self._order[rows], among, count)
        if not self._goes_on:
            return self._sample(among, count)
        return prefer(among, self._uses[rows] < self._max_uses, count, self._sample)

    def _sample(self, among: Int64[np.ndarray, " some"], count: int) -> Int64[np.ndarray, " count"]:
        """Some of these positions at random, by weight."""
        weights = self._weights[self._rows[among]]
        if (weights == weights[:1]).all():
            return uniform(self._random, among, count)
        return weighted(self._random, among, weights, count)

    def _evict(self, wanted: int) -> None:
        """Make room for `wanted` samples at the cost of random ones that were served before, as far as there are."""
        uses = self._uses[self._rows[: self._size]]
        seen = np.flatnonzero(uses)
        if len(seen):
            draw = functools.partial(uniform, self._random)
            self._remove(prefer(seen, uses[seen] >= self._max_uses, min(wanted, len(seen)), draw))

    def _remove(self, positions: np.ndarray) -> None:
        """Free the rows at these positions, keeping the order of the others."""
        if not len(positions):
            return
        keep = np.ones(self._size, dtype=bool)
        keep[positions] = False
        held = self._rows[: self._size]
        for simulation in self._simulations(held[positions]).tolist():
            others = self._rows_of[simulation] - 1
            if others:
                self._rows_of[simulation] = others
            else:
                del self._rows_of[simulation]
        self._rows[: self._size] = np.concatenate([held[keep], held[~keep]])
        self._size -= len(positions)
