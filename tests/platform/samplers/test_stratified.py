"""Stratified sets: every level as often as its weight says, whatever the seed."""

from collections import Counter

import pytest

from headrace.platform.samplers.sampler import SamplerContext
from headrace.platform.samplers.stratified import STRATIFIED, shares


def drawn(mix: dict[str, float], count: int | None, seed: int = 0, split: str = "test") -> list[str]:
    context = SamplerContext(mix=mix, axes=dict.fromkeys(mix, {}), seed=seed, split=split, count=count)
    sampler = STRATIFIED.build(context)
    assert count is not None
    requests = sampler.decide(range(count))
    assert [request.index for request in requests] == list(range(count))
    return [request.level for request in requests]


@pytest.mark.parametrize("seed", range(20))
def test_two_equal_levels_halve_eight_samples_whatever_the_seed(seed: int) -> None:
    assert Counter(drawn({"soft": 1, "sharp": 1}, 8, seed)) == {"soft": 4, "sharp": 4}


def test_largest_remainders_get_what_rounding_leaves() -> None:
    # Quotas of 10: 1.43, 2.86, 5.71; two are left, for the remainders .86 and .71.
    assert shares({"a": 1, "b": 2, "c": 4}, 10) == {"a": 1, "b": 3, "c": 6}
    assert shares({"a": 1, "b": 1, "c": 1}, 128) == {"a": 43, "b": 43, "c": 42}
    assert shares({"often": 99, "rare": 1}, 10) == {"often": 10, "rare": 0}
    # In floating point 0.3 of 10 is a little less than 3 samples, and 0.1 of 10 a little more than 1.
    assert shares({"a": 0.1, "b": 0.2, "c": 0.3, "never": 0.0, "d": 0.4}, 10) == {
        "a": 1,
        "b": 2,
        "c": 3,
        "never": 0,
        "d": 4,
    }
    for count in range(60):
        found = shares({"a": 0.37, "b": 1.9, "c": 0.001}, count)
        assert sum(found.values()) == count
        assert all(abs(found[name] - count * w / 2.271) < 1 for name, w in {"a": 0.37, "b": 1.9, "c": 0.001}.items())


def test_the_order_mixes_the_levels_and_is_fixed_by_seed_and_split() -> None:
    mix = {"soft": 1.0, "sharp": 1.0}
    one = drawn(mix, 64)
    assert one == drawn(mix, 64)
    assert one != drawn(mix, 64, seed=1) and one != drawn(mix, 64, split="validation")
    assert 8 <= one[:32].count("soft") <= 24


def test_who_does_not_say_how_many_there_are_is_told() -> None:
    with pytest.raises(ValueError, match="to stratify test it must be known how many samples it has"):
        drawn({"a": 1.0}, None)
