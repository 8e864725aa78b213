"""Poisson's equation on three boundaries: order, transforms that diagonalise it, balance, and what it refuses."""

import numpy as np
import pytest
import scipy.fft
import scipy.sparse.linalg
from pydantic import ValidationError

from headrace.solvers import LinearSystem, Poisson
from headrace.solvers.random_inputs.random_fields import Gaussian

BOUNDARIES = ("dirichlet", "neumann", "periodic")
PI = np.pi


def points(problem: Poisson) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(*problem.schema().domain.coordinates(), indexing="ij")
    return x, y


def solved(system: LinearSystem) -> np.ndarray:
    """By an independent method."""
    return system.without_mean(scipy.sparse.linalg.spsolve(system.regular_matrix.tocsc(), system.rhs))


def manufactured(problem: Poisson) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A solution that is not 0 on the boundary, its source and its boundary data."""
    x, y = points(problem)
    if problem.boundary == "dirichlet":
        u = np.sin(2 * x + y) + x * y**2
        return {"source": 5 * np.sin(2 * x + y) - 2 * x, "boundary": u}, u
    if problem.boundary == "neumann":
        u = x**2 * y**2 + np.cos(PI * x) * np.cos(2 * PI * y)
        source = 5 * PI**2 * np.cos(PI * x) * np.cos(2 * PI * y) - 2 * (x**2 + y**2)
        boundary = np.zeros_like(u)
        boundary[-1], boundary[:, -1] = 2 * y[-1] ** 2, 2 * x[:, -1] ** 2
        # The integrals balance; the sums over cells differ from them by O(h²).
        inflow = sum(edge.sum() for edge in (boundary[0], boundary[-1], boundary[:, 0], boundary[:, -1]))
        source -= source.mean() + inflow / problem.resolution
        return {"source": source, "boundary": boundary}, u - u.mean()
    u = np.sin(2 * PI * x) * np.cos(4 * PI * y) + np.sin(2 * PI * (x + y))
    return {"source": 20 * PI**2 * np.sin(2 * PI * x) * np.cos(4 * PI * y) + 8 * PI**2 * np.sin(2 * PI * (x + y))}, u


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_second_order_against_a_manufactured_solution(boundary: str) -> None:
    errors, spacings = [], []
    for n in (17, 32, 65, 128):
        problem = Poisson.model_validate({"boundary": boundary, "resolution": n})
        fields, exact = manufactured(problem)
        outputs = problem.sample_arrays(fields, solved(problem.discretize(fields)))[1]
        errors.append(np.sqrt(np.mean((outputs[0, 0] - exact) ** 2)))
        spacings.append(problem.schema().domain.spacing[0])
    orders = np.diff(np.log(errors)) / np.diff(np.log(spacings))
    assert orders.min() > 1.9, (errors, orders)


def by_transform(problem: Poisson, rhs: np.ndarray) -> np.ndarray:
    """The solution of mean 0 by the transform that the problem promises to be diagonal in."""
    if problem.boundary == "dirichlet":
        m = problem.resolution - 2
        eigenvalues = 2.0 - 2.0 * np.cos(PI * np.arange(1, m + 1) / (m + 1))
        return scipy.fft.idstn(scipy.fft.dstn(rhs, type=1) / (eigenvalues[:, None] + eigenvalues), type=1)
    n = problem.resolution
    step = PI if problem.boundary == "neumann" else 2.0 * PI
    eigenvalues = 2.0 - 2.0 * np.cos(step * np.arange(n) / n)
    both = eigenvalues[:, None] + eigenvalues
    both[0, 0] = np.inf
    if problem.boundary == "neumann":
        return scipy.fft.idctn(scipy.fft.dctn(rhs, type=2) / both, type=2)
    return np.real(scipy.fft.ifft2(scipy.fft.fft2(rhs) / both))


@pytest.mark.parametrize("resolution", [12, 33])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_fast_transform_diagonalises_the_matrix(boundary: str, resolution: int) -> None:
    problem = Poisson.model_validate({"boundary": boundary, "resolution": resolution})
    system = problem.discretize(problem.draw(0))
    assert system.structure == problem.structure and system.operator is not None
    u = by_transform(problem, system.rhs.reshape(system.operator.shape)).ravel()
    assert system.relative_residual(u) < 1e-12
    np.testing.assert_allclose(u, solved(system), atol=1e-11 * np.abs(u).max())


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_all_samples_share_one_operator(boundary: str) -> None:
    problem = Poisson.model_validate({"boundary": boundary, "resolution": 20})
    assert problem.discretize(problem.draw(0)).operator is problem.discretize(problem.draw(1)).operator


@pytest.mark.parametrize("boundary", ["neumann", "periodic"])
def test_drawn_sources_balance_in_single_precision(boundary: str) -> None:
    problem = Poisson.model_validate({"boundary": boundary, "resolution": 50}).at_level("rough")
    for seed in range(5):
        fields = problem.draw(seed)
        assert all(np.array_equal(field, field.astype(np.float32)) for field in fields.values())
        system = problem.discretize(fields)
        assert abs(system.rhs.sum()) <= 1e-12 * np.abs(system.rhs).sum()


def test_boundary_data_are_zero_inside_and_continuous_around() -> None:
    for boundary in ("dirichlet", "neumann"):
        problem = Poisson(boundary=boundary, resolution=129)
        g = problem.draw(3)["boundary"]
        assert not g[1:-1, 1:-1].any()
        around = np.concatenate([g[0], g[1:, -1], g[-1, -2::-1], g[-2::-1, 0]])
        # Correlated over 0.4 of a side: next neighbours, 1/128 apart, differ by little.
        assert np.abs(np.diff(around)).max() < 0.1 * np.ptp(around)


def test_potential_shows_its_dirichlet_values() -> None:
    problem = Poisson(resolution=20)
    fields = problem.draw(0)
    inputs, outputs, _ = problem.sample_arrays(fields, np.full(18 * 18, 7.0))
    assert np.array_equal(outputs[0, 0, [0, -1]], inputs[1, [0, -1]])
    assert np.array_equal(outputs[0, 0, :, [0, -1]], inputs[1, :, [0, -1]])
    assert (outputs[0, 0, 1:-1, 1:-1] == 7.0).all()


def test_unbalanced_fields_are_refused() -> None:
    problem = Poisson(boundary="neumann", resolution=20)
    fields = problem.draw(0)
    with pytest.raises(ValueError, match=r"source and boundary flux do not balance: their sum over all cells is .* "
                       r"expected 0, or there is no solution. Subtract the mean from the source"):  # fmt: skip
        problem.discretize({**fields, "source": fields["source"] + 1.0})
    with pytest.raises(ValueError, match="source does not balance"):
        Poisson(boundary="periodic", resolution=20).discretize({"source": np.ones((20, 20))})


@pytest.mark.parametrize(
    ("boundary", "fields", "words"),
    [
        ("dirichlet", {"source": np.ones((9, 9))}, r"expected the arrays source and boundary; got \['source'\]"),
        ("dirichlet", {"source": np.ones((9, 8)), "boundary": np.ones((9, 9))}, r"source has shape \(9, 8\), expected"),
        ("neumann", {"source": np.ones((9, 9)), "boundary": np.ones(9)}, r"expected \(9, 9\): cells a side"),
        ("periodic", {"source": np.full((9, 9), np.inf)}, "source has 81 values that are not finite"),
        ("periodic", {"source": np.ones((9, 9)), "boundary": np.ones((9, 9))}, "expected the array source; got"),
    ],
)
def test_bad_arrays_are_refused(boundary: str, fields: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Poisson.model_validate({"boundary": boundary, "resolution": 9}).discretize(fields)


def test_no_data_at_all_are_refused() -> None:
    with pytest.raises(ValidationError, match="u = 0 in all samples; expected a positive std"):
        Poisson(source=Gaussian(std=0.0), boundary="periodic")
    Poisson(source=Gaussian(std=0.0))
