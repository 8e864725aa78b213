"""Drift: distances against SciPy's on all values, bins that find their range, shares of levels."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from headrace.platform.fields import FieldSpec
from headrace.platform.reservoir.drift import UNKNOWN_LEVEL, Drift

P = (FieldSpec(name="p"),)
RANDOM = np.random.default_rng(0)
SHIFTED = RANDOM.random(4000) ** 1.2
CASES = {
    "a range above zero": (RANDOM.uniform(100, 500, 3000), 100 + 400 * SHIFTED),
    "six decades": (10 ** RANDOM.uniform(-4, 2, 3000), 10 ** (6 * SHIFTED - 4)),
    "both signs": (RANDOM.standard_normal(3000), RANDOM.standard_normal(4000) + 0.2),
    "a small range far off": (RANDOM.uniform(1000, 1001, 3000), 1000 + SHIFTED),
    "few values": (RANDOM.integers(0, 3, 3000), RANDOM.integers(0, 2, 4000)),
}


def unknown(rows: np.ndarray) -> np.ndarray:
    return np.full(len(rows), UNKNOWN_LEVEL)


def column(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)[:, None]


def drift_of(came_in: np.ndarray, served: np.ndarray, size: int = 10_000) -> Drift:
    drift = Drift(P)
    for way, values in ((drift.came_in, came_in), (drift.served, served)):
        for start in range(0, len(values), size):
            part = column(values[start : start + size])
            way(part, unknown(part))
    return drift


@pytest.mark.parametrize("name", CASES)
def test_the_distance_is_that_of_kolmogorov_and_smirnov(name: str):
    came_in, served = CASES[name]
    distance = drift_of(came_in, served).distances()["p"]
    exact = ks_2samp(column(came_in)[:, 0], column(served)[:, 0]).statistic
    # Never above; below by what a bin holds: 2 % at most, about one, where 8 bins span a factor of 2 of a bell curve.
    assert exact - 0.02 < distance <= exact + 1e-12
    assert exact > 0.05


@pytest.mark.parametrize("name", CASES)
def test_the_bins_do_not_depend_on_the_order_of_arrival(name: str):
    came_in, served = CASES[name]
    at_once = drift_of(came_in, served)
    one_by_one = drift_of(np.sort(came_in), np.sort(served)[::-1], size=700)
    assert at_once.distances() == one_by_one.distances()


def test_agreement_is_0_and_no_overlap_is_1():
    values = RANDOM.random(100)
    assert drift_of(values, np.repeat(values, 3)).distances() == {"p": 0.0}
    assert drift_of(np.append(values, 5.0), np.full(7, 5.0)).distances()["p"] == pytest.approx(100 / 101)
    assert drift_of(np.full(5, 2.5), np.full(5, 2.5)).distances() == {"p": 0.0}


def test_nothing_is_said_before_there_is_something():
    assert Drift(P).distances() == {} and Drift(()).distances() == {}
    assert drift_of(RANDOM.random(5), RANDOM.random(0)).distances() == {}
    assert Drift(()).shares() == ({}, {})


def test_components_have_names():
    drift = Drift((FieldSpec(name="wall", components=2), FieldSpec(name="t")))
    rows = RANDOM.random((50, 3)).astype(np.float32)
    drift.came_in(rows, unknown(rows))
    drift.served(rows[rows[:, 1] > 0.5], unknown(rows[rows[:, 1] > 0.5]))
    distances = drift.distances()
    assert set(distances) == {"wall_0", "wall_1", "t"}
    assert distances["wall_1"] == pytest.approx((rows[:, 1] <= 0.5).mean()) and distances["wall_0"] < 0.4


def test_levels_have_shares():
    drift, rows = Drift(()), np.zeros((4, 0), dtype=np.float32)
    drift.came_in(rows, drift.level_numbers(["smooth", "rough", "rough", "rough"]))
    assert drift.shares() == ({"rough": 0.75, "smooth": 0.25}, {"rough": 0.0, "smooth": 0.0})
    drift.came_in(rows, drift.level_numbers(["new", "new", "new", "new"]))
    drift.served(rows, drift.level_numbers(["rough", "new", "new", "rough"]))
    drift.served(rows, unknown(rows))
    came_in, served = drift.shares()
    assert came_in == {"smooth": 0.125, "rough": 0.375, "new": 0.5}
    assert served == {"smooth": 0.0, "rough": 0.5, "new": 0.5}


def test_a_restored_drift_goes_on():
    came_in, served = CASES["both signs"]
    first, again = drift_of(came_in[:2000], served[:2000]), Drift(P)
    first.level_numbers(["rough"])
    again.restore(first.state())
    for drift in (first, again):
        drift.came_in(column(came_in[2000:]), drift.level_numbers(["rough"] * 1000))
        drift.served(column(served[2000:]), unknown(served[2000:]))
    assert first.distances() == again.distances() and first.shares() == again.shares() != ({}, {})
    with pytest.raises(ValueError, match="counts 1 parameters, not 0"):
        Drift(()).restore(first.state())


def test_what_was_written_before_there_was_drift_restores_to_nothing():
    drift = Drift(P)
    drift.restore({"indices": np.zeros(0)})
    assert drift.distances() == {}
    # Rows that came in before are served now: their values find bins.
    drift.came_in(column([1.0, 2.0]), unknown(np.zeros(2)))
    drift.served(column([-3.0, 50.0]), unknown(np.zeros(2)))
    assert drift.distances() == {"p": 0.5}
