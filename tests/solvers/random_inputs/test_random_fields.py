"""Gaussian random fields: the moments they promise, on every grid."""

import numpy as np
import pytest

from headrace.platform.seeding import generator
from headrace.solvers.random_inputs.random_fields import Gaussian, matern_field


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


@pytest.mark.parametrize("ndim", [1, 3])
def test_correlation_is_matern_in_one_and_three_dimensions(ndim: int) -> None:
    fields = np.stack(
        [matern_field(generator(0, "nd", i), 7, length_scale=0.3, smoothness=2.5, ndim=ndim) for i in range(2000)]
    )
    assert fields.shape[1:] == (7,) * ndim
    # Five standard errors of 2000 draws: 0.11 for a mean or a correlation, 0.16 for a variance.
    assert np.abs(fields.mean(axis=0)).max() < 0.12
    assert np.abs(fields.var(axis=0) - 1.0).max() < 0.17
    scaled = np.sqrt(5.0) * np.arange(7) / 6 / 0.3
    expected = (1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled)  # Matérn, ν = 5/2
    first = fields[(slice(None),) + (0,) * ndim]
    for axis in range(ndim):
        along = np.moveaxis(fields, axis + 1, -1)[(slice(None),) + (0,) * (ndim - 1)]
        np.testing.assert_allclose(np.mean(first[:, None] * along, axis=0), expected, atol=0.12)


def test_grids_of_any_size_show_the_same_field_in_three_dimensions() -> None:
    coarse = matern_field(generator(3), 5, length_scale=0.3, smoothness=2.0, ndim=3)
    fine = matern_field(generator(3), 13, length_scale=0.3, smoothness=2.0, ndim=3)
    # Values are rounded to 2⁻²⁰.
    np.testing.assert_allclose(fine[::3, ::3, ::3], coarse, atol=2.0**-20)


def test_cells_lie_between_nodes() -> None:
    nodes = matern_field(generator(3), 25, length_scale=0.1, smoothness=2.0)
    cells = matern_field(generator(3), 12, length_scale=0.1, smoothness=2.0, points="cells")
    np.testing.assert_allclose(nodes[1::2, 1::2], cells, atol=2.0**-20)


def test_periodic_fields_go_on_across_the_edge() -> None:
    """The step from the last point to the first is like any other, and shifting changes no moment."""
    fields = np.stack(
        [matern_field(generator(1, i), 16, length_scale=0.15, smoothness=2.5, points="periodic") for i in range(1500)]
    )
    steps = np.mean((np.roll(fields, -1, axis=1) - fields) ** 2, axis=(0, 2))
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.1)
    assert fields.var() == pytest.approx(1.0, abs=0.03)
    fine = matern_field(generator(7), 32, length_scale=0.15, smoothness=2.5, points="periodic")
    coarse = matern_field(generator(7), 16, length_scale=0.15, smoothness=2.5, points="periodic")
    np.testing.assert_allclose(fine[::2, ::2], coarse, atol=2.0**-20)


def test_draws_of_two_dimensions_stay_what_they_were() -> None:
    """Data sets are named by their seed: these values belong to the first release."""
    field = matern_field(generator(11), 9, length_scale=0.2, smoothness=1.5)
    assert (2**20 * field[[0, 4, 8], [0, 4, 3]]).tolist() == [498620, 834229, -741360]


def test_a_gaussian_has_its_standard_deviation() -> None:
    field = Gaussian(std=2.5, length_scale=0.3).draw(generator(2), 20)
    unit = matern_field(generator(2), 20, length_scale=0.3, smoothness=1.5)
    assert np.array_equal(field, 2.5 * unit)
    assert not Gaussian(std=0.0).draw(generator(2), 20).any()
