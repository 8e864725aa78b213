"""Nonlinear diffusion: order, the exact Jacobian, quadratic convergence, and what it refuses."""

import numpy as np
import pytest
import scipy.sparse.linalg

from headrace.solvers import NonlinearDiffusion, NonlinearSystem, SolveStatus, solve
from headrace.solvers.random_inputs.permeability import TwoPhase

PI = np.pi


def newton_step(system: NonlinearSystem, u: np.ndarray) -> np.ndarray:
    linear = system.linearize(u)
    return u + scipy.sparse.linalg.spsolve(linear.matrix.tocsc(), linear.rhs)


def manufactured(n: int, beta: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """u = sin(πx) sin(2πy) with a = 1 + x/2 + x y²; -∇·((a + β u²) ∇u) worked out by hand."""
    x, y = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n), indexing="ij")
    u = np.sin(PI * x) * np.sin(2 * PI * y)
    u_x, u_y = PI * np.cos(PI * x) * np.sin(2 * PI * y), 2 * PI * np.sin(PI * x) * np.cos(2 * PI * y)
    a = 1 + x / 2 + x * y**2
    conduction = 5 * PI**2 * a * u - (0.5 + y**2) * u_x - 2 * x * y * u_y
    radiation = 5 * PI**2 * beta * u**3 - 2 * beta * u * (u_x**2 + u_y**2)
    return {"coefficient": a, "source": conduction + radiation}, u


def test_second_order_against_a_manufactured_solution() -> None:
    errors = []
    for n in (17, 33, 65):
        problem = NonlinearDiffusion(resolution=n, strength=3.0)
        fields, exact = manufactured(n, 3.0)
        solution = solve(problem.discretize(fields), rtol=1e-10, method="direct")
        assert solution.status is SolveStatus.converged
        errors.append(np.sqrt(np.mean((solution.value.reshape(n - 2, n - 2) - exact[1:-1, 1:-1]) ** 2)))
    orders = -np.diff(np.log2(errors))
    assert orders.min() > 1.9, (errors, orders)


def test_jacobian_is_the_derivative_of_the_residual() -> None:
    problem = NonlinearDiffusion(resolution=12, strength=50.0)
    system = problem.discretize(problem.draw(0))
    rng = np.random.default_rng(0)
    u = rng.standard_normal(system.num_unknowns)
    jacobian = system.linearize(u).matrix.toarray()
    # The residual is a cubic: central differences with a step h err by h² times its third derivative and rounding / h.
    h = 1e-4
    columns = [(system.residual(u + h * e) - system.residual(u - h * e)) / (2 * h) for e in np.eye(len(u))]
    np.testing.assert_allclose(np.stack(columns, axis=1), jacobian, atol=1e-6 * np.abs(jacobian).max())
    np.testing.assert_array_equal(system.linearize(u).rhs, -system.residual(u))


def test_jacobian_is_an_m_matrix_everywhere() -> None:
    problem = NonlinearDiffusion(resolution=14, strength=100.0, coefficient=TwoPhase(low=1.0, high=100.0))
    system = problem.discretize(problem.draw(0))
    u = 5.0 * np.random.default_rng(1).standard_normal(system.num_unknowns)
    jacobian = system.linearize(u).matrix.toarray()
    off = jacobian - np.diag(np.diag(jacobian))
    assert off.max() <= 0.0
    assert (np.diag(jacobian) + off.sum(axis=0)).min() > -1e-12 * jacobian.max()
    assert np.linalg.inv(jacobian).min() >= 0.0


def test_newton_converges_quadratically() -> None:
    problem = NonlinearDiffusion(resolution=33).at_level("medium")
    system = problem.discretize(problem.draw(0))
    exact = solve(system, rtol=1e-13, method="direct").value
    u, errors = system.guess, []
    while not errors or errors[-1] > 1e-7:
        u = newton_step(system, u)
        errors.append(float(np.abs(u - exact).max() / np.abs(exact).max()))
        assert len(errors) < 12
    final = [error for error in errors if error < 0.1]
    # eₙ₊₁ ≤ C eₙ²; a linear rate would soon break any bound.
    assert len(final) >= 3
    ratios = [after / before**2 for before, after in zip(final, final[1:], strict=False)]
    assert max(ratios) < 5.0, errors


@pytest.mark.parametrize("level", ["smooth", "medium", "rough"])
def test_every_level_converges_and_conserves(level: str) -> None:
    problem = NonlinearDiffusion(resolution=40).at_level(level)
    system = problem.discretize(problem.draw(7))
    solution = solve(system, rtol=1e-11, method="direct")
    assert solution.status is SolveStatus.converged
    assert solution.value.min() > 0.0
    # What the cells produce leaves through the boundary: (c + β u² / 3) u through every outer face.
    a = problem.draw(7)["coefficient"]
    u = np.zeros((40, 40))
    u[1:-1, 1:-1] = solution.value.reshape(38, 38)
    leaves = 0.0
    for edge, inner in ((a[0], 1), (a[-1], 38)):
        c = 2 * edge * a[inner] / (edge + a[inner])
        leaves += np.sum((c * u[inner] + problem.strength * u[inner] ** 3 / 3)[1:-1])
    for edge, inner in ((a[:, 0], 1), (a[:, -1], 38)):
        c = 2 * edge * a[:, inner] / (edge + a[:, inner])
        leaves += np.sum((c * u[:, inner] + problem.strength * u[:, inner] ** 3 / 3)[1:-1])
    # The residual is 1e-11 of the source; its sum may be √n times as much.
    assert leaves == pytest.approx(problem.source * 38**2 / 39**2, rel=1e-9)


def test_without_strength_it_is_darcy_flow() -> None:
    problem = NonlinearDiffusion(resolution=20, strength=0.0)
    solution = solve(problem.discretize(problem.draw(0)), rtol=1e-10, method="direct")
    assert solution.detail == "1 Newton steps"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"coefficient": np.ones((20, 21))}, r"coefficient has shape \(20, 21\), expected \(20, 20\)"),
        ({"coefficient": np.full((20, 20), -2.0)}, "coefficient has the value -2, expected positive values"),
        ({"coefficient": np.full((20, 20), np.inf)}, "coefficient has 400 values that are not finite"),
        ({"coefficient": np.ones((20, 20)), "source": np.zeros((20, 20))}, "source is 0 at all interior points"),
        ({}, r"expected the array coefficient and, if wanted, source; got \[\]"),
    ],
)
def test_bad_arrays_are_refused(fields: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        NonlinearDiffusion(resolution=20).discretize(fields)
