"""The reservoir: order, reuse, waiting and statistics of each policy, and checkpoints that repeat the same batches."""

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.reservoir.reservoir import Reservoir
from headrace.platform.reservoir.spec import ReservoirSpec
from headrace.platform.sample import SampleBatch

SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="a", components=2),),
    outputs=(FieldSpec(name="u"),),
    parameters=(FieldSpec(name="p"),),
    domain=Grid(shape=(3, 4), extent=(1.0, 1.0), periodic=(False, False)),
    times=(0.5, 1.0),
)
POLICIES = ("fifo", "firo", "reservoir")


def samples(*indices: int) -> SampleBatch:
    """Sample i holds numbers made of i alone."""
    i = np.array(indices, dtype=np.int64)
    at = i.astype(np.float32).reshape(-1, 1, 1, 1)
    return SampleBatch(
        indices=i,
        inputs=np.broadcast_to(at, (len(i), 2, 3, 4)) + np.arange(4, dtype=np.float32),
        outputs=np.broadcast_to(-at[..., None], (len(i), 2, 1, 3, 4)) + np.arange(3, dtype=np.float32)[:, None],
        parameters=i.astype(np.float32)[:, None] / 2,
    )


def assert_whole(batch: SampleBatch) -> None:
    """Every row still holds the arrays of its index."""
    expected = samples(*batch.indices)
    for name in ("inputs", "outputs", "parameters"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(expected, name))


def make(policy: str = "reservoir", capacity: int = 8, watermark: int = 1, **options) -> Reservoir:
    return Reservoir(SCHEMA, capacity, policy, watermark, **options)


def test_fifo_serves_each_sample_once_in_order_of_arrival():
    reservoir, served, offered = make("fifo", capacity=7), [], 0
    while len(served) < 60:
        offered += reservoir.try_put(samples(*range(offered, offered + 5)))
        batch = reservoir.take(3)
        assert_whole(batch)
        served += list(batch.indices)
    assert served == list(range(60))


def test_firo_serves_each_sample_once_in_random_order():
    reservoir = make("firo", capacity=50)
    reservoir.try_put(samples(*range(50)))
    served = [int(i) for _ in range(10) for i in reservoir.take(5).indices]
    assert sorted(served) == list(range(50)) and served != list(range(50))
    assert reservoir.stats()["size"] == 0


@pytest.mark.parametrize("policy", ["firo", "reservoir"])
def test_reads_are_uniform(policy: str):
    """Chi-square over 20 equally likely samples: the 99.9 % quantile with 19 degrees of freedom is 43.8."""
    counts, draws = np.zeros(20), 0
    reservoir = make(policy, capacity=20, seed=3)
    for _ in range(500):
        if policy == "firo":
            reservoir = make(policy, capacity=20, seed=draws)
        reservoir.try_put(samples(*range(20)) if policy == "firo" or not draws else samples())
        batch = reservoir.take(4)
        assert len(set(batch.indices)) == 4, "rows of a batch are distinct"
        counts[batch.indices] += 1
        draws += 4
    expected = draws / 20
    # Drawing 4 of 20 without replacement leaves 16/19 of the variance of independent draws.
    assert ((counts - expected) ** 2 / expected).sum() / (16 / 19) < 43.8


def test_seen_and_unseen_are_read_alike():
    """After half of the samples were served often, fresh ones have no better and no worse chance."""
    reservoir = make(capacity=40, seed=5)
    reservoir.try_put(samples(*range(20)))
    for _ in range(50):
        reservoir.take(10)
    reservoir.try_put(samples(*range(20, 40)))
    fresh = sum(int((reservoir.take(10).indices >= 20).sum()) for _ in range(400))
    assert abs(fresh - 2000) < 4 * np.sqrt(4000 * 0.25)  # four standard deviations of independent draws


def test_eviction_takes_random_seen_samples_only():
    """Chi-square over which of 10 seen samples among 15 gives way: 99.9 % quantile with 9 degrees of freedom 27.9."""
    gone: Counter[int] = Counter()
    for seed in range(1000):
        reservoir = make(capacity=15, seed=seed)
        reservoir.try_put(samples(*range(10)))
        reservoir.take(10)
        reservoir.try_put(samples(*range(10, 15)))
        assert reservoir.try_put(samples(99)) == 1
        held = set(reservoir.state()["indices"].tolist())
        (evicted,) = set(range(15)) - held
        assert 99 in held
        gone[evicted] += 1
    assert set(gone) <= set(range(10)), "an unseen sample was dropped"
    assert sum((gone[i] - 100) ** 2 / 100 for i in range(10)) < 27.9


def test_the_producer_waits_while_nothing_in_a_full_reservoir_was_seen():
    reservoir = make(capacity=4)
    assert reservoir.try_put(samples(0, 1, 2, 3, 4, 5)) == 4
    assert reservoir.try_put(samples(4, 5)) == 0
    reservoir.take(1)
    assert reservoir.try_put(samples(4, 5)) == 1
    assert reservoir.try_put(samples(4, 5), start=1) == 0
    assert reservoir.stats()["unseen"] == 4


@pytest.mark.parametrize("policy", ["fifo", "firo"])
def test_the_producer_waits_while_a_queue_is_full(policy: str):
    reservoir = make(policy, capacity=4)
    assert reservoir.try_put(samples(0, 1, 2, 3, 4, 5)) == 4
    assert reservoir.try_put(samples(4, 5)) == 0
    reservoir.take(2)
    assert reservoir.try_put(samples(4, 5, 6)) == 2


def test_no_sample_is_dropped_before_it_was_seen():
    """A fast producer against a slow reader: whatever came in is served at least once by the end."""
    reservoir, offered, served = make(capacity=10, seed=1), 0, set()
    for _ in range(300):
        while (accepted := reservoir.try_put(samples(offered, offered + 1, offered + 2))) > 0:
            offered += accepted
        served |= set(reservoir.take(3).indices.tolist())
    held = set(reservoir.state()["indices"].tolist())
    assert offered > 300 and set(range(offered)) == served | held


def test_the_trainer_waits_for_the_watermark_until_the_stream_ends():
    reservoir = make(capacity=8, watermark=4)
    assert not reservoir.ready(2)
    reservoir.try_put(samples(0, 1, 2))
    assert not reservoir.ready(2)
    with pytest.raises(ValueError, match="no batch of 2 is ready: 3 samples of 3 simulations, watermark 4"):
        reservoir.take(2)
    reservoir.try_put(samples(3))
    assert reservoir.ready(2) and reservoir.ready(4) and not reservoir.ready(5)
    reservoir.end()
    assert reservoir.ready(5) and len(reservoir.take(5)) == 4


def test_the_watermark_holds_again_when_a_mixing_queue_ran_low():
    reservoir = make("firo", capacity=8, watermark=4)
    reservoir.try_put(samples(0, 1, 2, 3, 4))
    reservoir.take(2)
    assert not reservoir.ready(2)


def test_a_queue_in_order_waits_for_the_watermark_once():
    reservoir = make("fifo", capacity=8, watermark=4)
    reservoir.try_put(samples(0, 1, 2))
    assert not reservoir.ready(2)
    reservoir.try_put(samples(3))
    assert [reservoir.take(2).indices.tolist(), reservoir.take(2).indices.tolist()] == [[0, 1], [2, 3]]
    assert not reservoir.ready(1)


@pytest.mark.parametrize("policy", ["fifo", "firo"])
def test_the_end_of_a_stream_serves_the_rest_in_a_shorter_batch(policy: str):
    reservoir = make(policy, capacity=8, watermark=4)
    reservoir.try_put(samples(*range(6)))
    reservoir.end()
    assert [len(reservoir.take(4)), len(reservoir.take(4))] == [4, 2]
    assert reservoir.exhausted and not reservoir.ready(1)
    with pytest.raises(ValueError, match="after the end of the stream"):
        reservoir.try_put(samples(7))


def test_after_the_end_a_reservoir_serves_on_without_bound():
    reservoir = make(capacity=4)
    reservoir.try_put(samples(0, 1, 2, 3))
    reservoir.end()
    for _ in range(50):
        assert sorted(reservoir.take(4).indices) == [0, 1, 2, 3]
    assert not reservoir.exhausted


def test_going_on_serves_what_is_used_up_only_for_want_of_others():
    reservoir = make(capacity=8, watermark=4, max_uses=2, goes_on=True, seed=4)
    reservoir.try_put(samples(*range(4)))
    uses: Counter[int] = Counter()
    for _ in range(6):
        uses.update(reservoir.take(2).indices.tolist())
    assert min(uses.values()) >= 2 and uses.total() == 12, "no sample was used a third time before all were used twice"
    reservoir.try_put(samples(*range(4, 8)))
    fresh = [i for _ in range(4) for i in reservoir.take(2).indices.tolist()]
    assert Counter(fresh) == {4: 2, 5: 2, 6: 2, 7: 2}
    assert reservoir.stats()["spent"] == 8
    # New samples take the place of what is used up, although others were seen, too.
    other = make(capacity=4, max_uses=2, goes_on=True, seed=4)
    other.try_put(samples(0, 1, 2, 3))
    for _ in range(2):
        other.take(4)
    other.try_put(samples(4, 5))
    other.take(2)
    other.try_put(samples(6, 7))
    assert set(other.state()["indices"].tolist()) == {4, 5, 6, 7}
    other.end()
    assert len(other.take(4)) == 4 and len(other.take(4)) == 4 and not other.exhausted


def test_going_on_may_be_resumed():
    first = make(capacity=8, watermark=4, max_uses=1, goes_on=True, seed=4)
    first.try_put(samples(*range(8)))
    for _ in range(3):
        first.take(4)
    second = make(capacity=8, watermark=4, max_uses=1, goes_on=True, seed=4)
    second.restore(first.state())
    for _ in range(5):
        assert first.take(4).indices.tolist() == second.take(4).indices.tolist()


@pytest.mark.parametrize("max_uses", [1, 3])
def test_no_sample_is_used_more_often_than_allowed(max_uses: int):
    reservoir, uses, offered = make(capacity=12, watermark=4, max_uses=max_uses, seed=2), Counter(), 0
    while offered < 200:
        offered += reservoir.try_put(samples(*range(offered, min(offered + 5, 200))))
        if reservoir.ready(4):
            batch = reservoir.take(4)
            assert_whole(batch)
            uses.update(batch.indices.tolist())
    reservoir.end()
    while reservoir.ready(4):
        uses.update(reservoir.take(4).indices.tolist())
    assert reservoir.exhausted
    assert set(uses) == set(range(200)) and max(uses.values()) == max_uses


def test_producer_and_trainer_never_both_wait():
    """Random sizes and speeds: whenever nothing can be put, a batch is ready."""
    rng = np.random.default_rng(0)
    for policy in POLICIES:
        for max_uses in (None, 1, 2) if policy == "reservoir" else (None,):
            capacity = int(rng.integers(4, 12))
            watermark = int(rng.integers(1, capacity + 1))
            size = int(rng.integers(1, capacity + 1))
            reservoir, offered = make(policy, capacity, watermark, max_uses=max_uses), 0
            for _ in range(500):
                accepted = reservoir.try_put(samples(*range(offered, offered + int(rng.integers(1, 20)))))
                offered += accepted
                assert accepted or reservoir.ready(size)
                if reservoir.ready(size) and rng.random() < 0.7:
                    reservoir.take(size)


def test_samples_are_copied_in_and_out():
    reservoir = make(capacity=2)
    given = samples(1, 2)
    given = SampleBatch(
        indices=given.indices, inputs=given.inputs.copy(), outputs=given.outputs, parameters=given.parameters
    )
    reservoir.try_put(given)
    given.inputs[:] = -1
    first = reservoir.take(2)
    assert_whole(first)
    first.inputs[:] = -1
    assert_whole(reservoir.take(2))


def test_stats_tell_reuse_and_age():
    now = [100.0]
    reservoir = make(capacity=4, clock=lambda: now[0])
    reservoir.try_put(samples(0, 1))
    now[0] = 110.0
    reservoir.try_put(samples(2, 3))
    now[0] = 112.0
    reservoir.take(4)
    assert reservoir.stats() == {
        "size": 4,
        "capacity": 4,
        "fill": 1.0,
        "seen": 4,
        "unseen": 0,
        "spent": 0,
        "total_in": 4,
        "total_out": 4,
        "distinct": 4,
        "distinct_held": 4,
        "mean_uses": 1.0,
        "mean_age_seconds": 7.0,
        "drift": {"p": 0.0},
        "shares_in": {},
        "shares_served": {},
    }
    reservoir.try_put(samples(4, 5))
    reservoir.take(2)
    stats = reservoir.stats()
    assert (stats["total_in"], stats["total_out"]) == (6, 6)
    assert stats["mean_uses"] == 6 / stats["distinct"] and 4 <= stats["distinct"] <= 6
    assert stats["seen"] + stats["unseen"] == stats["size"] == 4


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_and_calls_give_the_same_batches(policy: str):
    def run(seed: int) -> list[list[int]]:
        reservoir, batches, offered = make(policy, seed=seed), [], 0
        for _ in range(40):
            offered += reservoir.try_put(samples(offered, offered + 1))
            batches.append(reservoir.take(2).indices.tolist())
        return batches

    assert run(1) == run(1)
    assert policy == "fifo" or run(1) != run(2)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("with_samples", [True, False])
def test_a_restored_reservoir_goes_on_with_the_same_batches(policy: str, with_samples: bool):
    options = {"watermark": 2, "seed": 9}
    original = make(policy, **options)
    original.try_put(samples(*range(6)))
    original.take(3)
    state = original.state(samples=with_samples)
    assert all(isinstance(value, np.ndarray) for value in state.values())
    restored = make(policy, **options)
    restored.restore(state, None if with_samples else samples(*state["indices"]))
    assert restored.stats() == original.stats()
    for step in range(20):
        for reservoir in (original, restored):
            reservoir.try_put(samples(100 + 2 * step, 101 + 2 * step))
        a, b = original.take(2), restored.take(2)
        assert_whole(b)
        np.testing.assert_array_equal(a.indices, b.indices)


def test_restored_samples_keep_their_age():
    now = [0.0]
    original = make(clock=lambda: now[0])
    original.try_put(samples(0))
    now[0] = 3.0
    state = original.state()
    now[0] = 500.0  # the time between does not count: the clock may be another process's
    restored = make(clock=lambda: now[0])
    restored.restore(state)
    now[0] = 501.0
    restored.take(1)
    assert restored.stats()["mean_age_seconds"] == 4.0


def test_what_cannot_be_restored_is_told():
    original = make(capacity=8)
    original.try_put(samples(*range(6)))
    with pytest.raises(ValueError, match="holds 6 samples, the capacity is 4"):
        make(capacity=4).restore(original.state())
    with pytest.raises(ValueError, match="came without its samples"):
        make().restore(original.state(samples=False))
    with pytest.raises(ValueError, match="not those of the state"):
        make().restore(original.state(samples=False), samples(5, 4, 3, 2, 1, 0))


def test_wrong_calls_are_told():
    reservoir = make(capacity=4)
    with pytest.raises(ValueError, match="1 to 4 samples"):
        reservoir.ready(5)
    wrong = samples(0)
    wrong = SampleBatch(
        indices=wrong.indices, inputs=wrong.inputs[:, :1], outputs=wrong.outputs, parameters=wrong.parameters
    )
    with pytest.raises(ValueError, match=r"inputs have the shape \(1, 3, 4\) per sample, the schema \(2, 3, 4\)"):
        reservoir.try_put(wrong)
    with pytest.raises(ValueError, match="from 1 to the capacity, 4; got 5"):
        make(capacity=4, watermark=5)
    with pytest.raises(ValueError, match="max_uses"):
        make("fifo", max_uses=2)


def test_the_spec_builds_what_it_says():
    spec = ReservoirSpec(kind="reservoir", capacity=10, watermark=3, max_uses=2)
    reservoir = spec.build(SCHEMA, seed=1)
    assert (reservoir.capacity, reservoir.policy, reservoir.watermark) == (10, "reservoir", 3)
    reservoir.try_put(samples(0, 1, 2))
    reservoir.end()
    assert [len(reservoir.take(3)), len(reservoir.take(3))] == [3, 3] and reservoir.exhausted


def test_the_default_watermark_fits_the_capacity():
    assert ReservoirSpec(capacity=10).watermark == 10
    assert ReservoirSpec(capacity=10_000).watermark == 256
    assert ReservoirSpec() == ReservoirSpec.model_validate_json(ReservoirSpec().model_dump_json())


@pytest.mark.parametrize(
    ("given", "where", "words"),
    [
        ({"capacity": 10, "watermark": 20}, ("watermark",), "must not exceed the capacity, 10"),
        ({"kind": "fifo", "max_uses": 2}, ("max_uses",), "fifo serves each sample once"),
        ({"capacity": 0}, ("capacity",), "greater than 0"),
        ({"kind": "lifo"}, ("kind",), "'fifo', 'firo' or 'reservoir'"),
        ({"max_uses": 0}, ("max_uses",), "greater than 0"),
        ({"when_used_up": "go_on"}, ("when_used_up",), "without it no sample is ever used up"),
        ({"watermark": 8, "min_simulations": 9}, ("min_simulations",), "must not exceed the watermark, 8"),
        ({"kind": "firo", "level_weights": {"rough": 2}}, ("level_weights",), "firo serves each sample once"),
        ({"level_weights": {"rough": -1}}, ("level_weights", "rough"), "greater than 0"),
    ],
)
def test_errors_of_the_spec_name_the_field(given, where, words):
    with pytest.raises(ValidationError) as caught:
        ReservoirSpec(**given)
    (error,) = caught.value.errors()
    assert error["loc"] == where and words in error["msg"]
