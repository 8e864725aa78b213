"""Algebraic multigrid: right answers of both packages, iterations that do not grow, hierarchies that are kept."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

from headrace.solvers import Darcy, DiffusionOperator, LinearSystem, SolveStatus, solve
from headrace.solvers.methods.amg import AMG, pyamg_is_installed
from headrace.solvers.methods.direct import petsc_is_installed
from headrace.solvers.systems.verified import solve_verified

every_package = pytest.mark.parametrize(
    "method",
    [
        pytest.param(AMG(package="petsc"), marks=pytest.mark.skipif(not petsc_is_installed(), reason="no PETSc")),
        pytest.param(AMG(package="pyamg"), marks=pytest.mark.skipif(not pyamg_is_installed(), reason="no PyAMG")),
    ],
    ids=lambda method: method.package,
)


def darcy_system(n: int, seed: int = 0) -> LinearSystem:
    problem = Darcy(resolution=n)
    return problem.discretize(problem.draw(seed))


def box(shape: tuple[int, ...], *, closed: bool) -> DiffusionOperator:
    rng = np.random.default_rng(3)
    conductances = []
    for axis in range(len(shape)):
        c = rng.uniform(0.5, 2.0, tuple(n + (k == axis) for k, n in enumerate(shape)))
        if closed:
            np.moveaxis(c, axis, 0)[[0, -1]] = 0.0
        conductances.append(c)
    return DiffusionOperator(conductances=tuple(conductances))


def convection_diffusion(n: int) -> scipy.sparse.csr_array:
    step = scipy.sparse.diags_array([-np.ones(n - 1), np.ones(n)], offsets=[-1, 0])
    second = scipy.sparse.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    one = scipy.sparse.eye_array(n)
    return (scipy.sparse.kron(second + 0.7 * step, one) + scipy.sparse.kron(one, second + 0.2 * step)).tocsr()


@every_package
@pytest.mark.parametrize("shape", [(3,), (40,), (25, 31), (9, 10, 11)], ids=str)
def test_agrees_with_a_direct_solution(method: AMG, shape: tuple[int, ...]) -> None:
    operator = box(shape, closed=False)
    system = LinearSystem.from_operator(operator, np.random.default_rng(0).standard_normal(operator.num_unknowns))
    solution = solve(system, rtol=1e-11, method=method)
    assert solution.status is SolveStatus.converged, str(solution)
    expected = scipy.sparse.linalg.spsolve(system.matrix.tocsc(), system.rhs)
    # Times a condition number of about 1e3.
    np.testing.assert_allclose(solution.value, expected, atol=1e-8 * np.abs(expected).max())


@every_package
def test_iterations_hardly_grow_with_the_grid(method: AMG) -> None:
    counts = [solve(darcy_system(n), method=method).num_iterations for n in (33, 65, 129)]
    # Two-level theory says constant; smoothed aggregation in V-cycles loses a few.
    assert counts[-1] <= 1.5 * counts[0] + 2, counts


@every_package
def test_a_sequence_keeps_its_hierarchy_and_follows_the_values(method: AMG, monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.solvers.methods import amg

    made = []
    for kind in (amg._Gamg, amg._Pyamg):
        original = kind.__init__

        def noted(self: object, system: LinearSystem, original: object = original) -> None:
            made.append(system)
            original(self, system)  # type: ignore[operator]

        monkeypatch.setattr(kind, "__init__", noted)
    running = method.build()
    systems = [darcy_system(33, seed) for seed in range(4)]
    for system in systems:
        assert solve_verified(running, system, 1e-10).status is SolveStatus.converged
    assert made == systems[:1]
    other_grid = darcy_system(20)
    assert solve_verified(running, other_grid, 1e-10).status is SolveStatus.converged
    assert made == [systems[0], other_grid]


@every_package
def test_a_closed_box_has_the_solution_of_mean_zero(method: AMG) -> None:
    operator = box((12, 13), closed=True)
    exact = np.random.default_rng(0).standard_normal((12, 13))
    exact -= exact.mean()
    system = LinearSystem.from_operator(operator, operator.apply(exact).ravel())
    solution = solve(system, rtol=1e-11, method=method)
    assert solution.status is SolveStatus.converged, str(solution)
    np.testing.assert_allclose(solution.value, exact.ravel(), atol=1e-8)


@every_package
def test_matrices_that_are_not_symmetric(method: AMG) -> None:
    matrix = convection_diffusion(24)
    running = method.build()
    for seed in range(2):
        system = LinearSystem.from_matrix(matrix, np.random.default_rng(seed).standard_normal(576))
        solution = solve_verified(running, system, 1e-10)
        assert solution.status is SolveStatus.converged, str(solution)
        np.testing.assert_allclose(solution.value, scipy.sparse.linalg.spsolve(matrix.tocsc(), system.rhs), atol=1e-6)


@every_package
def test_what_goes_wrong_is_a_status(method: AMG) -> None:
    good = darcy_system(33)
    capped = solve(good, method=method.model_copy(update={"max_iterations": 2}))
    assert capped.status is SolveStatus.max_iterations and capped.num_iterations == 2
    running = method.build()
    bad = LinearSystem.from_matrix(good.matrix, np.full(good.num_unknowns, np.nan), positive_definite=True)
    solution = solve_verified(running, bad, 1e-8)
    assert solution.status is SolveStatus.breakdown and "not finite" in solution.detail
    assert solve_verified(running, good, 1e-8).status is SolveStatus.converged
    indefinite = good.matrix - 0.5 * good.matrix.diagonal().mean() * scipy.sparse.eye_array(good.num_unknowns)
    hard = LinearSystem.from_matrix(indefinite.tocsr(), good.rhs, positive_definite=True)
    assert solve_verified(running, hard, 1e-8).status is not SolveStatus.converged
    singular = LinearSystem.from_matrix(box((6, 6), closed=True).to_csr(), np.ones(36), symmetric=True)
    assert solve_verified(method.build(), singular, 1e-8).status is not SolveStatus.converged


def test_mismatch_refuses_complex_numbers() -> None:
    system = LinearSystem.from_matrix(scipy.sparse.eye_array(3).tocsr() * 1j, np.ones(3, dtype=complex))
    assert "this system is complex" in (AMG().mismatch(system) or "")
    assert AMG().mismatch(darcy_system(9)) is None
