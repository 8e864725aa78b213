"""Convection and diffusion: order of both schemes, conservation, monotonicity, what it draws and refuses."""

import numpy as np
import pytest
import scipy.sparse.linalg
from pydantic import ValidationError

from headrace.solvers import ConvectionDiffusion, LinearSystem, NonlinearSystem, solve
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


def solved(problem: ConvectionDiffusion, fields: dict[str, np.ndarray]) -> np.ndarray:
    """At all points, the boundary included."""
    solution = solve(problem.discretize(fields), rtol=1e-10, method="direct")
    assert solution.status == "converged", solution
    return np.pad(solution.value.reshape((problem.resolution - 2,) * 2), 1)


@pytest.mark.parametrize("diffusivity", [1e-2, 1e-4])
def test_limited_faces_are_of_second_order_where_the_solution_is_smooth(diffusivity: float) -> None:
    """Away from its extremes and from the boundary, whose layers no grid here resolves; Péclet numbers up to 300."""
    errors = []
    for n in (33, 65, 129):
        problem = ConvectionDiffusion(resolution=n, diffusivity=diffusivity)
        x, y = np.meshgrid(*problem.schema().domain.coordinates(), indexing="ij")
        # Flow out of the corner (0, 0) along the diagonal; u vanishes where it comes in, and grows all the way.
        u = x * y * (1.0 - x**6) * (1.0 - y**6)
        w, w_x, w_xx = (lambda t: t * (1 - t**6)), (lambda t: 1 - 7 * t**6), (lambda t: -42 * t**5)
        u_x, u_y = w_x(x) * w(y), w(x) * w_x(y)
        source = u_x + u_y - diffusivity * (w_xx(x) * w(y) + w(x) * w_xx(y))
        found = solved(problem, {"stream_function": y - x, "source": source})
        inner = (slice(n // 16, n // 2),) * 2
        errors.append(float(np.linalg.norm((found - u)[inner]) / np.linalg.norm(u[inner])))
    assert np.log2(errors[0] / errors[-1]) / 2.0 > 1.9, errors


@pytest.mark.parametrize("seed", range(3))
def test_limited_faces_neither_overshoot_nor_undershoot_at_a_grid_peclet_number_of_1000(seed: int) -> None:
    """Heat that is let in by a source in one corner spreads, and nowhere else is there an extremum."""
    n = 33
    problem = ConvectionDiffusion(resolution=n)
    psi = problem.draw(seed)["stream_function"]
    fastest = max(np.abs(part).max() for part in _flow(psi))
    source = np.zeros((n, n))
    source[10:14, 20:24] = 1.0
    fields = {"stream_function": psi, "source": source}
    found = {
        scheme: solved(problem.overridden({"scheme": scheme, "diffusivity": fastest / 1000.0}), fields)
        for scheme in ("limited", "central")
    }
    assert found["central"].min() < -0.05 * found["central"].max(), "this flow makes the mean oscillate"
    u = found["limited"]
    assert u.min() >= -1e-9 * u.max()
    # Without a source no inner point is above all its neighbours, or below them.
    middle, beside = u[1:-1, 1:-1], [u[:-2, 1:-1], u[2:, 1:-1], u[1:-1, :-2], u[1:-1, 2:]]
    is_free = source[1:-1, 1:-1] == 0.0
    slack = 1e-9 * u.max()
    assert (middle <= np.max(beside, axis=0) + slack)[is_free].all()
    assert (middle >= np.min(beside, axis=0) - slack)[is_free].all()


def test_limited_faces_are_nearer_to_a_fine_grid_than_upstream_ones() -> None:
    fine = ConvectionDiffusion(resolution=257, scheme="central").at_level("rough")
    psi = fine.draw(0)["stream_function"]
    right = solved(fine, {"stream_function": psi})[::4, ::4]
    errors = {}
    for scheme in ("limited", "upwind", "central"):
        problem = ConvectionDiffusion.model_validate({"resolution": 65, "scheme": scheme}).at_level("rough")
        found = solved(problem, {"stream_function": psi[::4, ::4]})
        errors[scheme] = float(np.linalg.norm(found - right) / np.linalg.norm(right))
    assert errors["central"] < errors["limited"] < 0.02 < 0.1 < errors["upwind"]


def test_the_derivative_of_limited_faces_is_their_derivative() -> None:
    problem = ConvectionDiffusion(resolution=12, diffusivity=1e-3)
    system = problem.discretize(problem.draw(0))
    assert isinstance(system, NonlinearSystem)
    rng = np.random.default_rng(0)
    x, direction = rng.standard_normal(100), rng.standard_normal(100)
    step = 1e-7
    slope = (system.residual(x + step * direction) - system.residual(x - step * direction)) / (2.0 * step)
    np.testing.assert_allclose(system.linearize(x).matrix @ direction, slope, atol=1e-6)


def test_where_diffusion_is_enough_limited_is_central() -> None:
    values = {"resolution": 33, "diffusivity": 0.5}
    limited, central = (
        ConvectionDiffusion.model_validate(values | {"scheme": name}) for name in ("limited", "central")
    )
    fields = limited.draw(0)
    one, other = limited.discretize(fields), central.discretize(fields)
    assert isinstance(one, LinearSystem) and isinstance(other, LinearSystem)
    assert (one.matrix != other.matrix).nnz == 0


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
    problem = ConvectionDiffusion(resolution=24, diffusivity=1e-4, scheme="upwind")
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
