"""The Helmholtz equation: order, inertia, what it draws, and the waves it refuses."""

import numpy as np
import pytest
import scipy.sparse.linalg
from pydantic import ValidationError

from headrace.solvers import Helmholtz
from headrace.solvers.random_inputs.random_fields import Gaussian

BOUNDARIES = ("dirichlet", "neumann")
PI = np.pi


def manufactured(problem: Helmholtz) -> tuple[dict[str, np.ndarray], np.ndarray]:
    x, y = np.meshgrid(*problem.schema().domain.coordinates(), indexing="ij")
    wave = np.sin if problem.boundary == "dirichlet" else np.cos
    u = wave(PI * x) * wave(2 * PI * y) + wave(3 * PI * x) * wave(PI * y)
    source = 5 * PI**2 * wave(PI * x) * wave(2 * PI * y) + 10 * PI**2 * wave(3 * PI * x) * wave(PI * y)
    k = 6.0 + 2.0 * x + np.sin(3.0 * y)
    return {"wave_number": k, "source": source - k**2 * u}, u


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_second_order_against_a_manufactured_solution(boundary: str) -> None:
    errors, spacings = [], []
    for n in (33, 64, 129):
        problem = Helmholtz.model_validate({"boundary": boundary, "resolution": n})
        fields, exact = manufactured(problem)
        system = problem.discretize(fields)
        u = scipy.sparse.linalg.spsolve(system.matrix.tocsc(), system.rhs)
        errors.append(np.sqrt(np.mean((problem.sample_arrays(fields, u)[1][0, 0] - exact) ** 2)))
        spacings.append(problem.schema().domain.spacing[0])
    orders = np.diff(np.log(errors)) / np.diff(np.log(spacings))
    assert orders.min() > 1.9, (errors, orders)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("wave_number", [3.0, 8.0])
def test_one_negative_eigenvalue_for_every_mode_below_the_wave_number(boundary: str, wave_number: float) -> None:
    problem = Helmholtz.model_validate(
        {"boundary": boundary, "resolution": 16, "wave_number": wave_number, "contrast": 0}
    )
    eigenvalues = np.linalg.eigvalsh(problem.discretize(problem.draw(0)).matrix.toarray())
    modes = np.arange(boundary == "dirichlet", 20)
    below = np.count_nonzero(PI**2 * (modes[:, None] ** 2 + modes**2) < wave_number**2)
    assert np.count_nonzero(eigenvalues < 0.0) == below
    assert not problem.structure.positive_definite


def test_wave_numbers_stay_within_the_contrast_and_scatter_around_their_mean() -> None:
    problem = Helmholtz(resolution=65, wave_number=20.0, contrast=0.3)
    k = np.stack([problem.draw(seed)["wave_number"] for seed in range(50)])
    assert 14.0 <= k.min() < 15.5 and 24.5 < k.max() <= 26.0
    assert k.mean() == pytest.approx(20.0, rel=0.03)
    assert np.array_equal(k, k.astype(np.float32))


def test_levels_raise_the_wave_number() -> None:
    problem = Helmholtz(resolution=65)
    assert [problem.at_level(name).wave_number for name in ("low", "medium", "high")] == [4.0, 12.0, 40.0]


def test_too_few_points_a_wavelength_are_refused_with_the_resolution_that_does() -> None:
    words = (
        r"a wave number of 48 has 4.1 points a wavelength at resolution 32, expected at least 6. "
        r"Take a resolution of 47 or more"
    )
    with pytest.raises(ValidationError, match=words):
        Helmholtz(resolution=32, wave_number=40.0)
    Helmholtz(resolution=47, wave_number=40.0)
    with pytest.raises(ValidationError, match="Take a resolution of 47 or more"):
        Helmholtz(resolution=46, wave_number=40.0)
    with pytest.raises(ValidationError, match="points a wavelength at resolution 33"):
        Helmholtz(resolution=33).at_level("high")
    with pytest.raises(ValueError, match="a wave number of 100 has 1.9 points"):
        Helmholtz(resolution=32).discretize({"wave_number": np.full((32, 32), 100.0), "source": np.ones((32, 32))})


def test_no_wave_on_a_neumann_boundary_is_refused() -> None:
    words = "a wave number of 0 with ∂u/∂n = 0 on the boundary leaves -Δu = f.* The problem poisson solves that"
    with pytest.raises(ValidationError, match=words):
        Helmholtz(boundary="neumann", wave_number=0.0)
    problem = Helmholtz(boundary="neumann", resolution=20)
    with pytest.raises(ValueError, match=words):
        problem.discretize({"wave_number": np.zeros((20, 20)), "source": np.ones((20, 20))})
    # On a Dirichlet boundary it is Poisson's equation.
    problem = Helmholtz(wave_number=0.0, resolution=20)
    assert np.linalg.eigvalsh(problem.discretize(problem.draw(0)).matrix.toarray()).min() > 0.0


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"wave_number": np.full((20, 20), -1.0)}, "wave_number has the value -1, expected values of 0 or more"),
        ({"wave_number": np.full((20, 20), np.nan)}, "wave_number has 400 values that are not finite"),
        ({"source": np.ones((20, 21))}, r"source has shape \(20, 21\), expected \(20, 20\): nodes a side"),
        ({"sauce": np.ones((20, 20))}, "expected the arrays wave_number and source; got"),
    ],
)
def test_bad_arrays_are_refused(changed: dict[str, np.ndarray], words: str) -> None:
    problem = Helmholtz(resolution=20)
    with pytest.raises(ValueError, match=words):
        problem.discretize({**problem.draw(0), **changed})


def test_no_source_is_refused() -> None:
    with pytest.raises(ValidationError, match="u = 0 in all samples; expected a positive std"):
        Helmholtz(source=Gaussian(std=0.0))
