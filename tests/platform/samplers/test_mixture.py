"""The mixture of difficulty levels: its frequencies, and its freedom from order."""

import numpy as np
import pytest

from headrace.platform.samplers.mixture import Mixture


def test_levels_come_as_often_as_they_weigh():
    mixture = Mixture({"smooth": 1, "medium": 2, "rough": 1})
    drawn = [mixture.level(0, "train", index) for index in range(4000)]
    for name, share in {"smooth": 0.25, "medium": 0.5, "rough": 0.25}.items():
        deviation = np.sqrt(share * (1 - share) / len(drawn))
        assert abs(drawn.count(name) / len(drawn) - share) < 4 * deviation


def test_the_level_of_a_sample_depends_on_seed_split_and_index_alone():
    one, other = Mixture({"a": 1, "b": 1}), Mixture({"a": 10, "b": 10})
    forward = [one.level(1, "train", index) for index in range(50)]
    backward = [other.level(1, "train", index) for index in reversed(range(50))]
    assert forward == backward[::-1]
    assert forward != [one.level(2, "train", index) for index in range(50)]
    assert forward != [one.level(1, "test", index) for index in range(50)]


def test_a_level_of_weight_zero_never_comes():
    mixture = Mixture({"never": 0, "always": 3, "nor this": 0})
    assert {mixture.level(0, "train", index) for index in range(500)} == {"always"}


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": 2, "b": -1}, {"a": float("nan")}])
def test_weights_that_make_no_mixture_are_told(weights):
    with pytest.raises(ValueError, match="non-negative and sum to more than 0, got"):
        Mixture(weights)
