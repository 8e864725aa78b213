"""What every sampler must do, and what the simple ones do."""

import pickle
from collections import Counter

import numpy as np
import pytest

from headrace.platform.sample import Request
from headrace.platform.samplers import SAMPLERS
from headrace.platform.samplers.fixed_mix import MIXED
from headrace.platform.samplers.loss_weighted import LossWeighted, Weighing
from headrace.platform.samplers.mixture import Mixture
from headrace.platform.samplers.sampler import AbstractSampler, Axis, DerivedRequests, SamplerContext
from headrace.platform.spec import kinds

CONTEXT = SamplerContext(
    mix={"easy": 3.0, "hard": 1.0, "never": 0.0},
    axes={"easy": {}, "hard": {"k": Axis(low=1.0, high=2.0)}, "never": {}},
    seed=4,
    split="train",
    count=1000,
)
EVERY = [one for one in kinds("headrace.samplers", SAMPLERS).values() if issubclass(one, AbstractSampler)]


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_a_sampler_decides_before_it_has_observed_anything_and_after(kind: type[AbstractSampler]) -> None:
    spec = kind()
    assert pickle.loads(pickle.dumps(spec)) == spec
    sampler = spec.build(CONTEXT)
    for turn in range(3):
        indices = [900 + turn, 3 + turn, 50 + turn]
        requests = sampler.decide(indices)
        assert [request.index for request in requests] == indices
        for request in requests:
            CONTEXT.require(request)
            assert pickle.loads(pickle.dumps(request)) == request
        sampler.observe(requests, np.array([0.1, np.nan, 2.0], np.float32))
        for name in CONTEXT.mix:
            sampler.price(name, 2, 0.5)
    assert sampler.decide([]) == []


@pytest.mark.parametrize("kind", [kind for kind in EVERY if not kind.decides_late], ids=lambda kind: kind.__name__)
def test_what_is_not_decided_late_depends_on_the_index_alone(kind: type[AbstractSampler]) -> None:
    early, late = kind().build(CONTEXT), kind().build(CONTEXT)
    late.observe(late.decide(range(100)), np.linspace(0, 1, 100, dtype=np.float32))
    assert list(early.decide(range(200))) == list(late.decide(range(200)))


def test_a_fixed_mix_is_the_mixture() -> None:
    mixture = Mixture(CONTEXT.mix)
    expected = [mixture.level(4, "train", index) for index in range(50)]
    assert [request.level for request in MIXED.build(CONTEXT).decide(range(50))] == expected
    parts = DerivedRequests(MIXED, CONTEXT, 3)([7, 8, 9, 1])
    assert [(request.index, request.level) for request in parts] == [
        (7, expected[2]),
        (8, expected[2]),
        (9, expected[3]),
        (1, expected[0]),
    ]


def weighing(**changes: float) -> Weighing:
    """A sampler that knows a loss and a price of each level."""
    sampler = LossWeighted.model_validate(changes).build(CONTEXT)
    for level, loss, seconds in (("easy", 0.25, 1.0), ("hard", 3.0, 4.0)):
        sampler.observe([Request(index=0, level=level)] * 2, np.array([loss, loss], np.float32))
        sampler.price(level, 3, 3 * seconds)
    return sampler


def test_weights_are_those_of_the_formula() -> None:
    # Weight x loss / cost: 3/4 x 0.25 and 1/4 x 0.75 are alike.
    assert weighing(floor=0.2).weights == pytest.approx({"easy": 0.2 * 0.75 + 0.4, "hard": 0.2 * 0.25 + 0.4})
    without_cost = weighing(floor=0.2, by_cost=False).weights
    assert without_cost == pytest.approx({"easy": 0.15 + 0.8 * 0.2, "hard": 0.05 + 0.8 * 0.8})
    assert weighing(sharpness=0.0).weights == pytest.approx({"easy": 0.75, "hard": 0.25})
    assert weighing(floor=1.0).weights == pytest.approx({"easy": 0.75, "hard": 0.25})


def test_the_mix_is_followed_until_every_level_is_known() -> None:
    sampler = LossWeighted().build(CONTEXT)
    sampler.observe([Request(index=0, level="hard")], np.array([100.0], np.float32))
    sampler.price("hard", 1, 1.0)
    assert sampler.weights == pytest.approx({"easy": 0.75, "hard": 0.25})
    levels = Counter(request.level for request in sampler.decide(range(2000)))
    assert levels["easy"] / 2000 == pytest.approx(0.75, abs=0.05) and not levels["never"]


def test_old_losses_fade() -> None:
    sampler = LossWeighted(memory=10, by_cost=False, floor=0.01).build(CONTEXT)
    for level in ("easy", "hard"):
        sampler.observe([Request(index=0, level=level)] * 1000, np.full(1000, 5.0, np.float32))
    sampler.observe([Request(index=0, level="easy")] * 100, np.full(100, 1e-6, np.float32))
    assert sampler.weights["hard"] > 0.98
