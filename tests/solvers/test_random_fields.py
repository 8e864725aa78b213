"""Gaussian random fields: the moments they promise, on every grid."""

import numpy as np
import pytest

from headrace.platform.seeding import generator
from headrace.solvers.random_fields import matern_field


@pytest.fixture(scope="module")
def draws() -> np.ndarray:
    return np.stack([matern_field(generator(0, "grf", i), 33, length_scale=0.15, smoothness=1.5) for i in range(3000)])


def test_mean_is_zero_and_variance_is_one_at_every_point(draws: np.ndarray) -> None:
    # Standard errors of 3000 draws: 0.018 for the mean, 0.026 for the variance; five of them over 1089 points.
    assert np.abs(draws.mean(axis=0)).max() < 0.1
    assert np.abs(draws.var(axis=0) - 1.0).max() < 0.14
    assert draws.var() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("direction", ["x", "y", "diagonal"])
def test_correlation_is_matern_in_every_direction(draws: np.ndarray, direction: str) -> None:
    steps = np.arange(1, 11)
    step = {"x": (1, 0), "y": (0, 1), "diagonal": (1, 1)}[direction]
    distance = steps / 32 * np.hypot(*step)
    scaled = np.sqrt(3.0) * distance / 0.15
    expected = (1.0 + scaled) * np.exp(-scaled)  # Matérn, ν = 3/2, in closed form
    measured = [np.mean(draws[:, 11, 11] * draws[:, 11 + s * step[0], 11 + s * step[1]]) for s in steps]
    # Five standard errors of a correlation from 3000 draws.
    np.testing.assert_allclose(measured, expected, atol=0.1)


def test_grids_of_any_size_show_the_same_field() -> None:
    coarse = matern_field(generator(3), 33, length_scale=0.1, smoothness=2.0)
    fine = matern_field(generator(3), 129, length_scale=0.1, smoothness=2.0)
    # Values are rounded to 2⁻²⁰.
    np.testing.assert_allclose(fine[::4, ::4], coarse, atol=2.0**-20)


def test_opposite_edges_are_uncorrelated(draws: np.ndarray) -> None:
    assert abs(np.mean(draws[:, 16, 0] * draws[:, 16, -1])) < 0.1


def test_values_are_multiples_of_a_quantum_so_that_machines_agree() -> None:
    field = matern_field(generator(1), 20, length_scale=0.3, smoothness=1.5) * 2.0**20
    assert np.array_equal(field, np.round(field))
