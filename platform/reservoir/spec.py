"""ReservoirSpec: what a recipe says about the reservoir."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field, PositiveFloat, ValidationInfo, field_validator, model_validator

from headrace.platform.fields import SampleSchema
from headrace.platform.frozen import Frozen, FrozenMap
from headrace.platform.reservoir.reservoir import Reservoir
from headrace.platform.reservoir.weights import Policy
from headrace.platform.spec import Count, Spec

WhenUsedUp = Literal["wait", "go_on"]

_DEFAULT_WATERMARK = 256


class ReservoirSpec(Spec):
    """How samples wait for the trainer.

    A simulation may come as one sample or as several, its time steps; their index tells that they belong together.

    Attributes:
        kind: `fifo` serves each sample once, in the order of arrival; `firo` once, in random order; `reservoir` keeps
            samples and serves them again until new ones take their place.
        capacity: samples that it holds at most.
        watermark: distinct simulations that must be there before a batch is served, so that a batch mixes enough of
            them (`fifo`: before the first batch); 256 when left out, or the capacity when that is smaller.
        min_simulations: distinct simulations that each batch holds samples of, at least.
        max_uses: how often one sample is served at most (`reservoir` only); no limit when left out.
        when_used_up: what the trainer does when too few samples have uses left: `wait` for new ones, and end when none
            come any more; or `go_on` with samples that were used up, which give way to new ones first.
        level_weights: how often a sample of each difficulty level is served, in proportion to the others; 1 for levels
            that are left out (`reservoir` only). What comes in is not changed: that is the mix of the data.
    """

    kind: Policy = "reservoir"
    capacity: Count = 2000
    watermark: Count = _DEFAULT_WATERMARK
    min_simulations: Count = 1
    max_uses: Count | None = None
    when_used_up: WhenUsedUp = "wait"
    level_weights: Frozen[Mapping[str, PositiveFloat]] = Field(default_factory=lambda: FrozenMap({}))

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

    @field_validator("min_simulations")
    @classmethod
    def _reachable(cls, min_simulations: int, info: ValidationInfo) -> int:
        watermark = info.data.get("watermark")
        if watermark is not None and min_simulations > watermark:
            raise ValueError(f"must not exceed the watermark, {watermark}: so many need not be there for a batch")
        return min_simulations

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

    @field_validator("level_weights")
    @classmethod
    def _are_draws(cls, level_weights: Mapping[str, float], info: ValidationInfo) -> Mapping[str, float]:
        kind = info.data.get("kind")
        if level_weights and kind in ("fifo", "firo"):
            raise ValueError(f"must be left out: {kind} serves each sample once, whatever it weighs")
        return level_weights

    def build(self, schema: SampleSchema, seed: int, clock: Callable[[], float] = time.monotonic) -> Reservoir:
        """Make an empty reservoir for samples of this schema."""
        return Reservoir(
            schema,
            self.capacity,
            self.kind,
            self.watermark,
            self.max_uses,
            seed,
            goes_on=self.when_used_up == "go_on",
            min_simulations=self.min_simulations,
            level_weights=self.level_weights,
            clock=clock,
        )
