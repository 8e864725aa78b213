"""The Darcy problem: order of accuracy, conservation, what it draws and what it refuses."""

import numpy as np
import pytest
from pydantic import ValidationError

from headrace.platform.errors import InputError
from headrace.solvers import Darcy, SolveStatus, solve
from headrace.solvers.random_inputs.permeability import LogNormal, TwoPhase


def manufactured(n: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """u = sin(πx) sin(2πy) with a = 1 + x/2 + x y², and the source -∇·(a ∇u) worked out by hand."""
    x, y = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n), indexing="ij")
    pi = np.pi
    u = np.sin(pi * x) * np.sin(2 * pi * y)
    a = 1 + x / 2 + x * y**2
    u_x, u_y = pi * np.cos(pi * x) * np.sin(2 * pi * y), 2 * pi * np.sin(pi * x) * np.cos(2 * pi * y)
    source = 5 * pi**2 * a * u - (0.5 + y**2) * u_x - 2 * x * y * u_y
    return {"permeability": a, "source": source}, u


@pytest.mark.parametrize("method", ["direct", "multigrid"])
@pytest.mark.parametrize("sizes", [(17, 33, 65, 129), (20, 40, 80, 160)], ids=["nested", "odd intervals"])
def test_second_order_against_a_manufactured_solution(method: str, sizes: tuple[int, ...]) -> None:
    errors, spacings = [], []
    for n in sizes:
        fields, exact = manufactured(n)
        problem = Darcy(resolution=n)
        solution = solve(problem.discretize(fields), rtol=1e-11, method=method)
        assert solution.status is SolveStatus.converged
        errors.append(np.sqrt(np.mean((solution.value.reshape(n - 2, n - 2) - exact[1:-1, 1:-1]) ** 2)))
        spacings.append(1 / (n - 1))
    orders = np.diff(np.log(errors)) / np.diff(np.log(spacings))
    assert orders.min() > 1.9, (errors, orders)


@pytest.mark.parametrize("contrast", [4.0, 100.0])
def test_two_phase_flow_conserves_mass_to_rounding(contrast: float) -> None:
    problem = Darcy(resolution=50, permeability=TwoPhase(low=1.0, high=contrast), source=2.5)
    system = problem.discretize(problem.draw(4))
    u = solve(system, rtol=1e-12, method="direct").value.reshape(48, 48)
    assert system.operator is not None
    flux_x, flux_y = system.operator.fluxes(u)
    leaves = flux_x[-1].sum() - flux_x[0].sum() + flux_y[:, -1].sum() - flux_y[:, 0].sum()
    produced = 2.5 * 48**2 / 49**2  # f times the area of the cells of all interior points
    assert leaves == pytest.approx(produced, rel=1e-11)
    assert system.rhs.sum() == pytest.approx(produced, rel=1e-12)


def test_flux_through_layers_in_series_is_exact() -> None:
    """Across layers the harmonic mean gives the exact flux: a strip in x between two values of a, f = 0 in between."""
    n = 9
    a = np.where(np.arange(n) < 5, 1.0, 10.0)[:, None] * np.ones(n)
    system = Darcy(resolution=n).discretize({"permeability": a})
    assert system.operator is not None
    conductance = system.operator.conductances[0][:, 3]
    np.testing.assert_allclose(conductance, [1, 1, 1, 1, 2 / (1 / 1 + 1 / 10), 10, 10, 10], rtol=1e-14)


def test_pressure_of_constant_permeability_matches_the_series_solution() -> None:
    n = 65
    problem = Darcy(resolution=n)
    middle = solve(problem.discretize({"permeability": np.ones((n, n))})).value.reshape(n - 2, n - 2)[31, 31]
    # Poisson's equation on the unit square: u(½, ½) = 0.0736713532815...; the scheme errs by O(h²).
    assert middle == pytest.approx(0.07367135328, abs=0.3 / 64**2)


def test_symmetric_permeability_gives_symmetric_pressure() -> None:
    problem = Darcy(resolution=30)
    a = problem.draw(0)["permeability"]
    solution = solve(problem.discretize({"permeability": a + a.T}), rtol=1e-12).value.reshape(28, 28)
    np.testing.assert_allclose(solution, solution.T, rtol=1e-9)


def test_draws_are_reproducible_and_held_by_single_precision() -> None:
    for level in ("smooth", "medium", "rough", "two_phase"):
        problem = Darcy(resolution=33).at_level(level)
        a, again = problem.draw(7)["permeability"], problem.draw(7)["permeability"]
        assert a.dtype == np.float64 and a.shape == (33, 33) and a.min() > 0
        assert np.array_equal(a, again)
        assert np.array_equal(a, a.astype(np.float32))
        assert not np.array_equal(a, problem.draw(8)["permeability"])


def test_levels_grow_rougher() -> None:
    spread, roughness = [], []
    for level in ("smooth", "medium", "rough"):
        log_a = np.stack([np.log(Darcy(resolution=33).at_level(level).draw(i)["permeability"]) for i in range(50)])
        spread.append(log_a.std())
        roughness.append(np.abs(np.diff(log_a, axis=1)).mean() / log_a.std())
    assert spread == sorted(spread) and roughness == sorted(roughness)
    # Fields are long-correlated, so that 50 of them still scatter by a tenth.
    np.testing.assert_allclose(spread, [0.5, 1.0, 1.5], rtol=0.2)


def test_two_phase_has_two_values_in_the_expected_share() -> None:
    problem = Darcy(resolution=33, permeability=TwoPhase(low=2.0, high=8.0, fraction=0.25, length_scale=0.05))
    a = np.stack([problem.draw(i)["permeability"] for i in range(40)])
    assert set(np.unique(a)) == {2.0, 8.0}
    assert np.mean(a == 8.0) == pytest.approx(0.25, abs=0.03)


def test_samples_have_the_layout_of_the_schema() -> None:
    problem = Darcy(resolution=20)
    schema = problem.schema()
    fields = problem.draw(0)
    inputs, outputs, parameters = problem.sample_arrays(fields, np.ones(18 * 18))
    assert inputs.shape == (schema.num_input_channels, *schema.domain.shape)
    assert outputs.shape == (len(schema.times), schema.num_output_channels, *schema.domain.shape)
    assert parameters.shape == (schema.num_parameters,)
    assert inputs.dtype == outputs.dtype == parameters.dtype == np.float32
    assert outputs[0, 0, 1:-1, 1:-1].min() == 1 and outputs.sum() == 18 * 18
    assert np.array_equal(inputs[0], fields["permeability"])


def test_levels_override_their_fields_and_leave_the_others() -> None:
    problem = Darcy(permeability=LogNormal(median=5.0, log_std=0.1))
    rough = problem.at_level("rough").permeability
    assert isinstance(rough, LogNormal) and (rough.median, rough.log_std) == (5.0, 1.5)
    assert problem.at_level("default") is problem
    other = problem.overridden({"permeability": {"kind": "two_phase", "high": 7}}).permeability
    assert other == TwoPhase(high=7.0)


def test_unknown_level_names_the_known_and_the_nearest() -> None:
    with pytest.raises(
        InputError,
        match=r'level is "ruogh"; expected one of default, smooth, medium, rough, two_phase. '
        r'Did you mean "rough"\?',
    ):
        Darcy().at_level("ruogh")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"permeability": np.ones((20, 21))}, r"permeability has shape \(20, 21\), expected \(20, 20\)"),
        ({"permeability": np.zeros((20, 20))}, r"permeability has the value 0, expected positive values"),
        ({"permeability": np.full((20, 20), np.nan)}, r"permeability has 400 values that are not finite"),
        ({"permeability": np.ones((20, 20)), "source": np.ones(3)}, r"source has shape \(3,\)"),
        ({"permeability": np.ones((20, 20)), "sorce": np.ones((20, 20))}, r"expected the array permeability"),
        ({}, r"expected the array permeability and, if wanted, source; got \[\]"),
    ],
)
def test_bad_arrays_are_refused_with_what_was_expected(fields: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Darcy(resolution=20).discretize(fields)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"resolution": 4}, "greater than or equal to 5"),
        ({"source": 0}, "a source of 0 with u = 0 on the boundary"),
        ({"permeability": {"kind": "log_normal", "log_std": 9}}, "less than or equal to 4"),
        ({"permeability": {"kind": "lognormal"}}, "log_normal"),
        ({"resolutoin": 33}, "Extra inputs are not permitted"),
    ],
)
def test_bad_configuration_is_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Darcy.model_validate(values)
