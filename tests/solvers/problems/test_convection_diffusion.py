"""Convection and diffusion: order of both schemes, conservation, monotonicity, what it draws and refuses."""

import numpy as np
import pytest
import scipy.sparse.linalg
from pydantic import ValidationError

from headrace.solvers import ConvectionDiffusion
from headrace.solvers.problems.convection_diffusion import _flow

PI = np.pi


def manufactured(problem: ConvectionDiffusion) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """u = sin πx sin 2πy in the flow of ψ = x² y + sin(2x) cos(y), which crosses the boundary."""
    x, y = np.meshgrid(*problem.schema().domain.coordinates(), indexing="ij")
    u = np.sin(PI * x) * np.sin(2 * PI * y)
    u_x, u_y = PI * np.cos(PI * x) * np.sin(2 * PI * y), 2 * PI * np.sin(PI * x) * np.cos(2 * PI * y)
    v_x, v_y = x**2 - np.sin(2 * x) * np.sin(y), -2 * x * y - 2 * np.cos(2 * x) * np.cos(y)
    source = 5 * PI**2 * problem.diffusivity * u + v_x * u_x + v_y * u_y
    return {"stream_function": x**2 * y + np.sin(2 * x) * np.cos(y), "source": source}, u


@pytest.mark.parametrize(("scheme", "order"), [("central", 1.9), ("upwind", 0.9)])
def test_order_against_a_manufactured_solution(scheme: str, order: float) -> None:
    errors, sizes = [], (33, 65, 129)
    for n in sizes:
        problem = ConvectionDiffusion.model_validate({"resolution": n, "diffusivity": 0.1, "scheme": scheme})
        fields, exact = manufactured(problem)
        system = problem.discretize(fields)
        u = scipy.sparse.linalg.spsolve(system.matrix.tocsc(), system.rhs).reshape(n - 2, n - 2)
        errors.append(np.sqrt(np.mean((u - exact[1:-1, 1:-1]) ** 2)))
    orders = -np.diff(np.log2(errors))
    assert orders.min() > order, (errors, orders)


def test_stored_velocity_is_of_second_order() -> None:
    errors = []
    for n in (33, 65):
        problem = ConvectionDiffusion(resolution=n)
        x, y = np.meshgrid(*problem.schema().domain.coordinates(), indexing="ij")
        psi = np.sin(2 * x) * np.cos(3 * y)
        velocity = problem.sample_arrays({"stream_function": psi}, np.zeros((n - 2) ** 2))[0]
        exact = np.stack([-3 * np.sin(2 * x) * np.sin(3 * y), -2 * np.cos(2 * x) * np.cos(3 * y)])
        errors.append(np.abs(velocity - exact).max())
    assert np.log2(errors[0] / errors[1]) > 1.9


def test_flow_neither_begins_nor_ends_in_a_cell() -> None:
    problem = ConvectionDiffusion(resolution=40)
    psi = problem.draw(1)["stream_function"]
    flow_x, flow_y = _flow(psi)
    net = np.diff(flow_x, axis=0) + np.diff(flow_y, axis=1)
    assert np.abs(net).max() < 1e-15 * 40
    # Nothing crosses the boundary.
    assert not psi[[0, -1]].any() and not psi[:, [0, -1]].any()


@pytest.mark.parametrize("scheme", ["upwind", "central"])
def test_what_leaves_a_cell_enters_the_next(scheme: str) -> None:
    """Columns sum to 0 inside: the scheme conserves. With the flow's sum, so do rows."""
    problem = ConvectionDiffusion.model_validate({"resolution": 20, "scheme": scheme})
    matrix = problem.discretize(problem.draw(0)).matrix
    for axis in (0, 1):
        total = matrix.sum(axis=axis).reshape(18, 18)[1:-1, 1:-1]
        np.testing.assert_allclose(total, 0.0, atol=1e-15)


def test_upwind_is_an_m_matrix_and_keeps_heat_positive() -> None:
    problem = ConvectionDiffusion(resolution=24, diffusivity=1e-4)
    system = problem.discretize(problem.draw(2))
    dense = system.matrix.toarray()
    off = dense - np.diag(np.diag(dense))
    assert off.max() <= 0.0 and np.diag(dense).min() > 0.0
    # Diagonally dominant, strictly beside the boundary.
    assert (np.diag(dense) + off.sum(axis=1)).min() > -1e-14
    assert np.linalg.inv(dense).min() >= 0.0
    assert scipy.sparse.linalg.spsolve(system.matrix.tocsc(), system.rhs).min() > 0.0


def test_without_flow_it_is_diffusion() -> None:
    problem = ConvectionDiffusion(resolution=12, speed=0.0, diffusivity=2.0)
    matrix = problem.discretize(problem.draw(0)).matrix
    assert np.array_equal(matrix.diagonal(), np.full(100, 8.0))
    assert (matrix - matrix.T).nnz == 0 or abs(matrix - matrix.T).max() == 0.0


def test_velocity_in_the_middle_has_the_asked_scale() -> None:
    problem = ConvectionDiffusion(resolution=129, speed=3.0)
    middle = []
    for seed in range(300):
        inputs = problem.sample_arrays(problem.draw(seed), np.zeros(127 * 127))[0]
        middle.append(inputs[:, 64, 64])
    # 600 values, three standard errors are 9 %; differences and the cut-off of the series miss a little of short waves.
    assert np.sqrt(np.mean(np.square(middle))) == pytest.approx(3.0, rel=0.13)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"stream_function": np.ones((20, 19))}, r"stream_function has shape \(20, 19\), expected \(20, 20\)"),
        ({"stream_function": np.full((20, 20), np.nan)}, "stream_function has 400 values that are not finite"),
        ({"velocity": np.ones((20, 20))}, "expected the array stream_function and, if wanted, source; got"),
        ({"stream_function": np.ones((20, 20)), "source": np.ones(2)}, r"source has shape \(2,\)"),
    ],
)
def test_bad_arrays_are_refused(fields: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ConvectionDiffusion(resolution=20).discretize(fields)


def test_bad_configuration_is_refused() -> None:
    with pytest.raises(ValidationError, match="diffusivity"):
        ConvectionDiffusion(diffusivity=0.0)
    with pytest.raises(ValidationError, match="smoothness"):
        ConvectionDiffusion(smoothness=1.0)
    with pytest.raises(ValidationError, match="a source of 0 with u = 0 on the boundary"):
        ConvectionDiffusion(source=0.0)
