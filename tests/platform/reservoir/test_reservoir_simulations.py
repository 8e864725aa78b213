"""Batches of a reservoir whose simulations have several rows, rows that weigh more than others, and what was before."""

import dataclasses
import io
import logging
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.reservoir.reservoir import Reservoir
from headrace.platform.sample import Provenance, SampleBatch

SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="a"),),
    outputs=(FieldSpec(name="u"),),
    parameters=(FieldSpec(name="t"),),
    domain=Grid(shape=(2,), extent=(1.0,), periodic=(False,)),
)
POLICIES = ("fifo", "firo", "reservoir")


def rows(indices: Sequence[int], marks: Sequence[float] | None = None, levels: Sequence[str] = ()) -> SampleBatch:
    """Rows of these simulations; a row's parameter tells it from the others."""
    parameters = np.arange(len(indices)) if marks is None else np.asarray(marks)
    return SampleBatch(
        indices=np.array(indices, dtype=np.int64),
        inputs=np.zeros((len(indices), 1, 2), dtype=np.float32),
        outputs=np.zeros((len(indices), 1, 1, 2), dtype=np.float32),
        parameters=parameters.astype(np.float32)[:, None],
        provenance=tuple(provenance(index, level) for index, level in zip(indices, levels, strict=bool(levels))),
    )


def provenance(index: int, level: str) -> Provenance:
    return Provenance(
        spec_hash="0" * 16,
        seed=0,
        index=index,
        level=level,
        solver="direct",
        status="converged",
        relative_residual=0.0,
        num_iterations=0,
        wall_seconds=0.0,
        cpu_seconds=0.0,
        version="0",
    )


def make(policy: str = "reservoir", capacity: int = 12, watermark: int = 1, **options) -> Reservoir:
    return Reservoir(SCHEMA, capacity, policy, watermark, **options)  # type: ignore[arg-type]


def marks(batch: SampleBatch) -> list[int]:
    return [int(mark) for mark in batch.parameters[:, 0]]


# --- what was before -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "options", "served", "digest"),
    [
        ("fifo", {}, 90, 221250500),
        ("firo", {}, 90, 3464346592),
        ("reservoir", {}, 102, 3323200753),
        ("reservoir", {"max_uses": 2}, 102, 3792443114),
        ("reservoir", {"max_uses": 2, "goes_on": True}, 102, 327539005),
    ],
)
def test_without_weights_and_minimum_the_batches_are_those_of_before_there_were_any(policy, options, served, digest):
    """Recorded when a simulation was always one row: resumed runs go on with the same batches."""
    reservoir, found, offered = make(policy, watermark=4, seed=7, **options), [], 0
    for _ in range(30):
        offered += reservoir.try_put(rows(range(offered, offered + 3)))
        if reservoir.ready(3):
            found += reservoir.take(3).indices.tolist()
    reservoir.end()
    for _ in range(3):
        if reservoir.ready(5):
            found += reservoir.take(5).indices.tolist()
    assert len(found) == served and zlib.crc32(np.array(found, dtype="<i8").tobytes()) == digest


def test_a_state_without_weights_and_levels_is_of_samples_that_weigh_alike():
    old = make(seed=3)
    old.try_put(rows(range(8)))
    state = {name: array for name, array in old.state().items() if name not in ("weights", "levels")}
    state = {name: array for name, array in state.items() if not name.startswith(("drift", "level"))}
    new = make(seed=3, level_weights={"rough": 9.0})
    new.restore(state)
    assert [new.take(3).indices.tolist() for _ in range(5)] == [old.take(3).indices.tolist() for _ in range(5)]
    assert new.stats()["shares_in"] == {}


# --- simulations of several rows -------------------------------------------------------------------------------------


def test_the_watermark_counts_simulations():
    reservoir = make(capacity=12, watermark=3)
    reservoir.try_put(rows([0, 0, 0, 0, 1, 1, 1, 1]))
    assert not reservoir.ready(2) and reservoir.stats()["distinct_held"] == 2
    with pytest.raises(ValueError, match="8 samples of 2 simulations, watermark 3"):
        reservoir.take(2)
    reservoir.try_put(rows([2]))
    assert reservoir.ready(2) and reservoir.ready(9) and not reservoir.ready(10)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("max_uses", [None, 2])
def test_every_batch_holds_enough_simulations(policy: str, max_uses: int | None):
    """Simulations come one after the other, 5 rows each, as from a time-stepping solver."""
    if policy != "reservoir":
        max_uses = None
    reservoir = make(policy, capacity=40, watermark=4, min_simulations=4, max_uses=max_uses, seed=1)
    uses: Counter[tuple[int, int]] = Counter()
    offered = 0
    while offered < 300:
        coming = range(offered, min(offered + 3, 300))
        offered += reservoir.try_put(rows([i // 5 for i in coming], coming))
        while reservoir.ready(6) and reservoir.stats()["unseen"]:
            batch = reservoir.take(6)
            assert len(batch) == len(set(marks(batch))) == 6
            assert len(set(batch.indices)) >= 4
            uses.update(zip(batch.indices.tolist(), marks(batch), strict=True))
    reservoir.end()
    while reservoir.ready(6) and reservoir.stats()["unseen"]:
        held = reservoir.stats()["distinct_held"]
        batch = reservoir.take(6)
        assert len(set(batch.indices)) >= min(4, len(batch), held)
        uses.update(zip(batch.indices.tolist(), marks(batch), strict=True))
    assert {mark for _, mark in uses} == set(range(300)), "a row was lost"
    assert policy == "reservoir" or set(uses.values()) == {1}
    assert max_uses is None or max(uses.values()) <= max_uses


def test_a_queue_in_order_stays_in_order_as_far_as_it_can():
    reservoir = make("fifo", watermark=3, min_simulations=2)
    reservoir.try_put(rows([0, 0, 0, 0, 1, 1, 2, 2]))
    assert marks(reservoir.take(3)) == [0, 1, 4]
    assert marks(reservoir.take(2)) == [2, 5]
    assert marks(reservoir.take(2)) == [3, 6]
    assert not reservoir.ready(2), "one simulation is left"
    reservoir.end()
    assert marks(reservoir.take(2)) == [7]


def test_rows_of_equally_long_simulations_are_served_alike():
    """Chi-square over 24 rows: the 99.9 % quantile with 23 degrees of freedom is 49.7, and draws without replacement
    vary less than independent ones."""
    reservoir, counts = make(capacity=30, watermark=6, min_simulations=6, seed=5), np.zeros(24)
    reservoir.try_put(rows(np.repeat(np.arange(6), 4).tolist()))
    for _ in range(2000):
        batch = reservoir.take(8)
        assert len(set(batch.indices)) == 6
        counts[marks(batch)] += 1
    expected = 2000 * 8 / 24
    assert ((counts - expected) ** 2 / expected).sum() < 49.7


def test_a_batch_asks_for_no_more_simulations_than_it_has_rows():
    reservoir = make(watermark=5, min_simulations=5)
    reservoir.try_put(rows([0, 0, 0, 1, 2, 3, 4]))
    assert all(len(set(reservoir.take(3).indices)) == 3 for _ in range(20))


def test_after_the_end_a_batch_holds_as_many_simulations_as_there_are():
    reservoir = make(watermark=3, min_simulations=3)
    reservoir.try_put(rows([0, 0, 0, 0, 0, 0, 1]))
    reservoir.end()
    assert all(set(reservoir.take(2).indices) == {0, 1} for _ in range(20))


def test_a_full_reservoir_serves_with_a_warning_what_can_never_be_completed(caplog: pytest.LogCaptureFixture):
    reservoir = make(capacity=6, watermark=3, min_simulations=2)
    assert reservoir.try_put(rows([0] * 9)) == 6
    with caplog.at_level(logging.WARNING):
        assert set(reservoir.take(4).indices) == set(reservoir.take(4).indices) == {0}
    (record,) = caplog.records
    assert "full with 6 samples of 1 simulations" in record.message and "asks for 3" in record.message
    assert reservoir.try_put(rows([1] * 3)) == 3
    assert {0, 1} == set(reservoir.take(3).indices)


@pytest.mark.parametrize("policy", POLICIES)
def test_producer_and_trainer_never_both_wait(policy: str):
    """Simulations of random length, one after the other: whenever nothing can be put, a batch is ready."""
    random = np.random.default_rng(0)
    for max_uses in (None, 1, 2) if policy == "reservoir" else (None,):
        for goes_on in (False, True) if max_uses else (False,):
            capacity = int(random.integers(6, 20))
            watermark = int(random.integers(1, capacity + 1))
            size = int(random.integers(1, capacity + 1))
            options = {"min_simulations": int(random.integers(1, watermark + 1)), "goes_on": goes_on}
            reservoir = make(policy, capacity, watermark, max_uses=max_uses, **options)
            for simulation in range(300):
                left = int(random.integers(1, 15))
                while left:
                    accepted = reservoir.try_put(rows([simulation] * left))
                    left -= accepted
                    assert accepted or reservoir.ready(size)
                    if reservoir.ready(size) and random.random() < 0.7:
                        reservoir.take(size)
                    held = reservoir.state(samples=False)["indices"]
                    assert reservoir.stats()["distinct_held"] == len(np.unique(held))


# --- weights ---------------------------------------------------------------------------------------------------------


def test_rows_are_served_in_proportion_to_their_weights():
    """Batches of 1 are independent draws: chi-square over 10 rows, 99.9 % quantile with 9 degrees of freedom 27.9."""
    weights, counts = np.arange(1.0, 11.0), np.zeros(10)
    reservoir = make(seed=2)
    reservoir.try_put(rows(range(10)), weights=weights)
    for _ in range(5000):
        counts[reservoir.take(1).indices] += 1
    expected = 5000 * weights / weights.sum()
    assert ((counts - expected) ** 2 / expected).sum() < 27.9


def test_levels_weigh_what_the_recipe_says():
    """10 of 40 rows weigh 3: with batches of 1 half of the rows served, within 4 standard deviations of 2,000 draws."""
    reservoir = make(capacity=40, seed=2, level_weights={"rough": 3.0})
    reservoir.try_put(rows(range(30), levels=["smooth"] * 30))
    reservoir.try_put(rows(range(30, 40), range(30, 40), levels=["rough"] * 10))
    for _ in range(2000):
        reservoir.take(1)
    stats = reservoir.stats()
    assert stats["shares_in"] == {"smooth": 0.75, "rough": 0.25}
    assert abs(stats["shares_served"]["rough"] - 0.5) < 4 * np.sqrt(0.25 / 2000)
    # The parameters tell the rows apart: the last quarter is served half of the time.
    assert stats["drift"]["t"] > 0.2


def test_weights_of_rows_and_levels_multiply():
    reservoir = make(level_weights={"rough": 3.0})
    batch = rows(range(3), levels=["rough", "smooth", "rough"])
    assert reservoir.try_put(batch, start=1, weights=np.array([1.0, 2.0, 4.0])) == 2
    assert reservoir.state()["weights"].tolist() == [2.0, 12.0]


def test_weights_do_not_shield_from_eviction():
    """One of two seen rows gives way, the light one as often as the heavy one: 4 standard deviations of 400 draws."""
    heavy_gone = 0
    for seed in range(400):
        reservoir = make(capacity=2, seed=seed)
        reservoir.try_put(rows([0, 1]), weights=np.array([1.0, 1000.0]))
        reservoir.take(2)
        reservoir.try_put(rows([2]))
        heavy_gone += 1 not in reservoir.state()["indices"]
    assert abs(heavy_gone - 200) < 4 * np.sqrt(400 * 0.25)


def test_weights_keep_to_the_cap_on_uses():
    reservoir = make(max_uses=2, goes_on=True, seed=1)
    reservoir.try_put(rows(range(4)), weights=np.array([1.0, 1.0, 1.0, 1e6]))
    assert sorted(i for _ in range(4) for i in reservoir.take(2).indices.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("with_samples", [True, False])
def test_a_restored_reservoir_goes_on_with_weights_and_simulations(with_samples: bool):
    options = {"watermark": 3, "min_simulations": 3, "seed": 9, "level_weights": {"rough": 5.0}}
    original = make(**options)
    simulations, levels = [0, 0, 0, 1, 1, 2, 3], ["smooth", "rough", "smooth", "rough", "rough", "smooth", "rough"]
    original.try_put(rows(simulations, levels=levels), weights=np.arange(1.0, 8.0))
    original.take(4)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **original.state(samples=with_samples))
    file.seek(0)
    state = dict(np.load(file, allow_pickle=False))
    again = rows(state["indices"].tolist(), original.state()["parameters"][:, 0])
    restored = make(**options)
    restored.restore(state, None if with_samples else again)
    assert restored.stats() == original.stats()
    for step in range(30):
        for reservoir in (original, restored):
            reservoir.try_put(rows([10 + step] * 2, [100 + step, 200 + step], levels=["rough", "smooth"]))
        a, b = original.take(4), restored.take(4)
        assert a.indices.tolist() == b.indices.tolist() and marks(a) == marks(b)
    assert restored.stats()["shares_served"] == original.stats()["shares_served"]


@pytest.mark.parametrize(
    ("options", "weights", "words"),
    [
        ({}, [1.0, 0.0], "2 positive, finite weights"),
        ({}, [1.0, np.inf], "2 positive, finite weights"),
        ({}, [1.0], "2 positive, finite weights"),
        ({"policy": "fifo"}, [1.0, 2.0], "fifo serves each sample once"),
        ({"level_weights": {"rough": 2.0}}, None, "samples with provenance"),
    ],
)
def test_weights_that_cannot_be_used_are_told(options, weights, words):
    reservoir = make(**options)
    with pytest.raises(ValueError, match=words):
        reservoir.try_put(rows([0, 1]), weights=None if weights is None else np.array(weights))
    assert len(reservoir) == 0


def test_settings_that_contradict_are_told():
    with pytest.raises(ValueError, match="min_simulations must be from 1 to the watermark, 2; got 3"):
        make(watermark=2, min_simulations=3)
    with pytest.raises(ValueError, match="level_weights are for reservoir"):
        make("firo", level_weights={"rough": 2.0})


def test_the_parts_of_a_trajectory_are_one_simulation() -> None:
    schema = dataclasses.replace(SCHEMA, parts=4)
    reservoir = Reservoir(schema, 40, watermark=3, min_simulations=3)
    reservoir.try_put(rows([0, 1, 2, 3, 4, 5, 6]))
    assert reservoir.stats()["distinct_held"] == 2 and not reservoir.ready(3)
    reservoir.try_put(rows([7, 8, 9]))
    assert reservoir.ready(3)
    for _ in range(20):
        assert len({index // 4 for index in reservoir.take(3).indices.tolist()}) == 3


def test_a_simulation_can_be_let_go_of() -> None:
    schema = dataclasses.replace(SCHEMA, parts=4)
    reservoir = Reservoir(schema, 40)
    reservoir.try_put(rows([0, 1, 4, 5, 6, 8]))
    assert reservoir.discard(1) == 3 and reservoir.discard(1) == 0
    assert len(reservoir) == 3 and reservoir.stats()["distinct_held"] == 2
    assert sorted(reservoir.take(3).indices.tolist()) == [0, 1, 8]
    again = Reservoir(schema, 40)
    again.restore(reservoir.state())
    assert again.stats()["distinct_held"] == 2
