"""Reservoir: the bounded buffer between a stream of samples and a trainer that reads at its own pace."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict

import numpy as np
from jaxtyping import Bool, Int64
from pydantic import PositiveInt, ValidationInfo, field_validator, model_validator

from headrace.platform.fields import SampleSchema
from headrace.platform.sample import SampleBatch
from headrace.platform.seeding import generator
from headrace.platform.spec import Spec

Policy = Literal["fifo", "firo", "reservoir"]
WhenUsedUp = Literal["wait", "go_on"]

_DEFAULT_WATERMARK = 256


class ReservoirSpec(Spec):
    """How samples wait for the trainer.

    Attributes:
        kind: `fifo` serves each sample once, in the order of arrival; `firo` once, in random order; `reservoir` keeps
            samples and serves them again until new ones take their place.
        capacity: samples that it holds at most.
        watermark: samples that must be there before a batch is served, so that a batch mixes enough of them (`fifo`:
            before the first batch); 256 when left out, or the capacity when that is smaller.
        max_uses: how often one sample is served at most (`reservoir` only); no limit when left out.
        when_used_up: what the trainer does when too few samples have uses left: `wait` for new ones, and end when none
            come any more; or `go_on` with samples that were used up, which give way to new ones first.
    """

    kind: Policy = "reservoir"
    capacity: PositiveInt = 2000
    watermark: PositiveInt = _DEFAULT_WATERMARK
    max_uses: PositiveInt | None = None
    when_used_up: WhenUsedUp = "wait"

    @model_validator(mode="before")
    @classmethod
    def _default_watermark(cls, data: Any) -> Any:
        # A small capacity alone must not be an error of a watermark that nobody wrote.
        if isinstance(data, dict) and "watermark" not in data:
            capacity = data.get("capacity")
            if isinstance(capacity, int) and 0 < capacity < _DEFAULT_WATERMARK:
                return {**data, "watermark": capacity}
        return data

    @field_validator("watermark")
    @classmethod
    def _fits(cls, watermark: int, info: ValidationInfo) -> int:
        capacity = info.data.get("capacity")
        if capacity is not None and watermark > capacity:
            raise ValueError(f"must not exceed the capacity, {capacity}: it could never be reached")
        return watermark

    @field_validator("max_uses")
    @classmethod
    def _applies(cls, max_uses: int | None, info: ValidationInfo) -> int | None:
        kind = info.data.get("kind")
        if max_uses is not None and kind in ("fifo", "firo"):
            raise ValueError(f"must be left out: {kind} serves each sample once; only reservoir serves it again")
        return max_uses

    @field_validator("when_used_up")
    @classmethod
    def _bounded(cls, when_used_up: WhenUsedUp, info: ValidationInfo) -> WhenUsedUp:
        if when_used_up == "go_on" and "max_uses" in info.data and info.data["max_uses"] is None:
            raise ValueError("go_on needs max_uses: without it no sample is ever used up")
        return when_used_up

    def build(self, schema: SampleSchema, seed: int, clock: Callable[[], float] = time.monotonic) -> "Reservoir":
        """Make an empty reservoir for samples of this schema."""
        return Reservoir(
            schema,
            self.capacity,
            self.kind,
            self.watermark,
            self.max_uses,
            seed,
            goes_on=self.when_used_up == "go_on",
            clock=clock,
        )


class ReservoirStats(TypedDict):
    """What a reservoir holds and has done.

    Keys:
        size: samples in it.
        capacity: samples that fit.
        fill: size / capacity.
        seen: samples in it that were served at least once.
        unseen: samples in it that were not served yet.
        spent: samples in it that were served as often as allowed, or more often.
        total_in: samples that came in since the start.
        total_out: rows that were served since the start.
        distinct: samples that were served at least once since the start.
        mean_uses: total_out / distinct: how often a served sample was served.
        mean_age_seconds: time from arrival to service, mean over the rows of the latest batch [s].
    """

    size: int
    capacity: int
    fill: float
    seen: int
    unseen: int
    spent: int
    total_in: int
    total_out: int
    distinct: int
    mean_uses: float
    mean_age_seconds: float


class Reservoir:
    """A bounded buffer of samples with a fifo, firo or reservoir policy (Meyer et al., SC'23 and ICML 2023).

    - `fifo` removes what it serves, oldest first; `firo` removes what it serves, at random.
    - `reservoir` serves uniformly over all that it holds. When full, a new sample takes the place of a random one
      that was served before; when none was, the producer must wait: nothing is dropped unused. Here we differ from
      the paper: `max_uses` bounds the reuse (a sample leaves with its last use; if the trainer `goes_on`, it stays, is
      served only when too few others are there, and gives way first), and after the end of the stream samples go on
      being served until their uses are spent, or without end when there is no bound. (The paper removes a sample with
      its first read after the end.)

    Nothing blocks here; who waits for whom:
    - the producer waits while `try_put` accepts less than it was given; each `take` may wake it;
    - the trainer waits while `ready(n)` is false; each `try_put` and `end` may wake it.
    They cannot both wait for ever: below the watermark there is room, and at it a batch of `n <= capacity` is there.

    Rows are copied in and out, into arrays that are allocated once. The rows of a batch are distinct. The same seed
    and the same calls give the same batches. Provenance is not kept: it is in the store.

    Args:
        schema: shape of the samples.
        capacity: samples that it holds at most.
        policy: see above.
        watermark: samples that must be there for each batch (`fifo`: for the first), until the stream ends.
        max_uses: how often one sample is served at most; None for no limit. `reservoir` only.
        seed: seeds the draws.
        goes_on: whether samples that were served `max_uses` times are served again rather than let the trainer wait.
        clock: seconds now, for the age of samples.

    Raises:
        ValueError: the watermark exceeds the capacity, or `max_uses` came with another policy.
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 1 <= watermark <= capacity:
            raise ValueError(f"watermark must be from 1 to the capacity, {capacity}; got {watermark}")
        if max_uses is not None and (policy != "reservoir" or max_uses < 1):
            raise ValueError(f"max_uses must be positive and is for reservoir; got {max_uses} for {policy}")
        self.schema = schema
        self.capacity = capacity
        self.policy = policy
        self.watermark = watermark
        self._max_uses = (max_uses or np.iinfo(np.int64).max) if policy == "reservoir" else 1
        self._goes_on = goes_on
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

    def try_put(self, batch: SampleBatch, start: int = 0) -> int:
        """Copy in as many samples of a batch, from row `start` on, as there is room for.

        Returns:
            How many were accepted; the caller waits for a `take` and offers the rest again.

        Raises:
            ValueError: the arrays do not fit the schema, or the stream was ended.
        """
        if self._ended:
            raise ValueError("samples came after the end of the stream")
        for name, array in self._arrays.items():
            given = getattr(batch, name)
            if given.shape[1:] != array.shape[1:]:
                raise ValueError(f"{name} have the shape {given.shape[1:]} per sample, the schema {array.shape[1:]}")
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
        # Holding samples back mixes batches better; in a queue that keeps its order it would only delay them.
        started = self.policy == "fifo" and self._total_out > 0
        return self._size >= (count if started else max(self.watermark, count))

    def take(self, count: int) -> SampleBatch:
        """Serve a batch of `count` distinct samples; after the end of the stream it may be shorter.

        Raises:
            ValueError: it is not `ready`.
        """
        if not self.ready(count):
            raise ValueError(f"no batch of {count} is ready: {self._size} samples, watermark {self.watermark}")
        count = min(count, self._size)
        if self.policy == "fifo":
            held = self._order[self._rows[: self._size]]
            positions = np.argpartition(held, count - 1)[:count]
            positions = positions[np.argsort(held[positions])]
        elif self._goes_on:
            positions = self._choose(self._uses[self._rows[: self._size]] < self._max_uses, count)
        else:
            positions = self._random.choice(self._size, count, replace=False)
        rows = self._rows[positions]
        batch = SampleBatch(
            indices=self._arrays["indices"][rows],
            inputs=self._arrays["inputs"][rows],
            outputs=self._arrays["outputs"][rows],
            parameters=self._arrays["parameters"][rows],
        )
        self._distinct += int(np.count_nonzero(self._uses[rows] == 0))
        self._uses[rows] += 1
        self._total_out += count
        self._mean_age = float(self._clock() - self._arrived[rows].mean())
        if not self._goes_on:
            self._remove(positions[self._uses[rows] >= self._max_uses])
        return batch

    def end(self) -> None:
        """Say that no more samples will come: what is there is served without regard to the watermark."""
        self._ended = True

    def stats(self) -> ReservoirStats:
        """What it holds and has done."""
        uses = self._uses[self._rows[: self._size]]
        seen = int(np.count_nonzero(uses))
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
            mean_uses=self._total_out / self._distinct if self._distinct else 0.0,
            mean_age_seconds=self._mean_age,
        )

    def state(self, *, samples: bool = True) -> dict[str, np.ndarray]:
        """All that a checkpoint needs to go on with the very same batches, as a plain dict of arrays.

        Args:
            samples: whether to include the samples themselves; without them `restore` needs them from the store.
        """
        rows = self._rows[: self._size]
        random: Any = self._random.bit_generator.state
        words = [random["buffer_pos"], random["has_uint32"], random["uinteger"]]
        totals = [self._ended, self._total_in, self._total_out, self._distinct]
        state = {
            "indices": self._arrays["indices"][rows],
            "uses": self._uses[rows],
            "order": self._order[rows],
            "age_seconds": self._clock() - self._arrived[rows],
            "mean_age_seconds": np.array(self._mean_age),
            "totals": np.array(totals, dtype=np.int64),
            "random": np.concatenate(
                [random["state"]["counter"], random["state"]["key"], random["buffer"], np.array(words, dtype=np.uint64)]
            ),
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
        words = state["random"]
        self._random.bit_generator.state = {
            "bit_generator": "Philox",
            "state": {"counter": words[:4], "key": words[4:6]},
            "buffer": words[6:10],
            "buffer_pos": int(words[10]),
            "has_uint32": int(words[11]),
            "uinteger": int(words[12]),
        }

    def _evict(self, wanted: int) -> None:
        """Make room for `wanted` samples at the cost of random ones that were served before, as far as there are."""
        uses = self._uses[self._rows[: self._size]]
        seen = np.flatnonzero(uses)
        if len(seen):
            self._remove(seen[self._choose(uses[seen] >= self._max_uses, min(wanted, len(seen)))])

    def _choose(self, preferred: Bool[np.ndarray, " positions"], count: int) -> Int64[np.ndarray, " count"]:
        """Distinct positions at random: of those that are preferred, and of others only as far as they do not do."""
        first, rest = np.flatnonzero(preferred), np.flatnonzero(~preferred)
        if len(first) >= count:
            return self._random.choice(first, count, replace=False)
        return np.concatenate([first, self._random.choice(rest, count - len(first), replace=False)])

    def _remove(self, positions: np.ndarray) -> None:
        """Free the rows at these positions, keeping the order of the others."""
        if not len(positions):
            return
        keep = np.ones(self._size, dtype=bool)
        keep[positions] = False
        held = self._rows[: self._size]
        self._rows[: self._size] = np.concatenate([held[keep], held[~keep]])
        self._size -= len(positions)
