"""Direct methods: factors are reused when the matrix repeats, and singular matrices are never solved by accident."""

import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

from headrace.solvers import Darcy, DiffusionOperator, Direct, Helmholtz, LinearSystem, SolveStatus, solve
from headrace.solvers.methods.direct import cholmod_is_installed, petsc_is_installed
from headrace.solvers.methods.factorizations import Factorization, MatrixKey
from headrace.solvers.systems.verified import solve_batch_verified, solve_verified

PACKAGES = [
    Direct(package="scipy"),
    *(
        pytest.param(
            Direct(package=package),  # type: ignore[arg-type]
            marks=pytest.mark.skipif(not installed, reason=f"{package} is not installed"),
        )
        for package, installed in [
            ("petsc", petsc_is_installed()),
            ("mumps", petsc_is_installed()),
            ("cholmod", cholmod_is_installed()),
        ]
    ),
]
every_package = pytest.mark.parametrize("method", PACKAGES, ids=lambda method: method.package)


def darcy_system(n: int = 20, seed: int = 0) -> LinearSystem:
    problem = Darcy(resolution=n)
    return problem.discretize(problem.draw(seed))


def with_rhs(system: LinearSystem, seed: int) -> LinearSystem:
    """The same matrix, in arrays of its own, and another right-hand side."""
    operator = system.operator
    assert operator is not None
    copied = DiffusionOperator(conductances=tuple(c.copy() for c in operator.conductances))
    rhs = np.random.default_rng(seed).standard_normal(system.num_unknowns)
    return LinearSystem.from_operator(copied, rhs - rhs.mean() if copied.singular else rhs)


def closed_box(shape: tuple[int, ...]) -> DiffusionOperator:
    rng = np.random.default_rng(3)
    conductances = []
    for axis in range(len(shape)):
        c = rng.uniform(0.5, 2.0, tuple(n + (k == axis) for k, n in enumerate(shape)))
        np.moveaxis(c, axis, 0)[[0, -1]] = 0.0
        conductances.append(c)
    return DiffusionOperator(conductances=tuple(conductances))


@pytest.fixture
def factored(monkeypatch: pytest.MonkeyPatch) -> list[LinearSystem]:
    """The systems whose matrices were factored."""
    from headrace.solvers.methods import factorizations

    seen: list[LinearSystem] = []
    for kind in (factorizations.SuperLU, factorizations.Petsc, factorizations.Cholmod):
        original = kind.factor

        def noted(self: Factorization, system: LinearSystem, original: object = original) -> None:
            seen.append(system)
            original(self, system)  # type: ignore[operator]

        monkeypatch.setattr(kind, "factor", noted)
    return seen


@every_package
def test_a_matrix_that_comes_again_is_not_factored_again(method: Direct, factored: list[LinearSystem]) -> None:
    running = method.build()
    first, other = darcy_system(seed=0), darcy_system(seed=1)
    for system in [first, with_rhs(first, 1), with_rhs(first, 2), other, with_rhs(other, 3), first]:
        assert solve_verified(running, system, 1e-11).status is SolveStatus.converged
    assert factored == [first, other, first]


@every_package
def test_blocks_of_right_hand_sides_are_solved_with_one_factorization(
    method: Direct, factored: list[LinearSystem]
) -> None:
    one, other = darcy_system(seed=0), darcy_system(n=17, seed=1)
    # More than a block holds, and in between systems of another matrix.
    systems = [one, other, *(with_rhs(one, seed) for seed in range(40)), with_rhs(other, 50)]
    solutions = solve_batch_verified(method.build(), systems, 1e-11)
    assert all(solution.status is SolveStatus.converged for solution in solutions)
    assert factored == [one, other]
    for index in (0, 1, 30, 42):
        expected = scipy.sparse.linalg.spsolve(systems[index].matrix.tocsc(), systems[index].rhs)
        np.testing.assert_allclose(solutions[index].value, expected, atol=1e-11 * np.abs(expected).max())


def test_only_a_repeating_matrix_makes_batches() -> None:
    system = darcy_system()
    assert system.operator is not None
    assert Direct().batch_size(system) == 1
    assert Direct().batch_size(LinearSystem.from_operator(system.operator, system.rhs, repeats=True)) == 32


def test_keys_compare_values_and_notice_what_was_overwritten() -> None:
    system, other = darcy_system(), darcy_system(seed=1)
    assert MatrixKey(system) == MatrixKey(with_rhs(system, 0)) and hash(MatrixKey(system)) == hash(MatrixKey(system))
    assert MatrixKey(system) != MatrixKey(other)
    matrix = system.matrix.copy()
    general = LinearSystem.from_matrix(matrix, system.rhs)
    before = MatrixKey(general)
    assert before == MatrixKey(LinearSystem.from_matrix(matrix.copy(), system.rhs))
    assert before != MatrixKey(system)
    assert general.assembled is not None
    general.assembled.data *= 2.0
    assert before != MatrixKey(general)


@every_package
def test_factors_follow_a_matrix_that_was_overwritten(method: Direct) -> None:
    matrix = darcy_system().matrix.copy()
    rhs = np.ones(matrix.shape[0])
    running = method.build()
    first = running.solve(LinearSystem.from_matrix(matrix, rhs, positive_definite=True), 1e-10).value
    matrix.data *= 2.0
    second = running.solve(LinearSystem.from_matrix(matrix, rhs, positive_definite=True), 1e-10).value
    np.testing.assert_allclose(second, first / 2.0, rtol=1e-10)


@pytest.mark.parametrize("method", PACKAGES[:3], ids=lambda method: method.package)
def test_an_indefinite_matrix_is_solved_with_the_factors_of_its_symmetry(method: Direct) -> None:
    running = method.build()
    for wave_number in (9.0, 12.0):
        problem = Helmholtz(resolution=34, wave_number=wave_number)
        system = problem.discretize(problem.draw(0))
        solution = solve_verified(running, system, 1e-10)
        assert solution.status is SolveStatus.converged
        expected = scipy.sparse.linalg.spsolve(system.matrix.tocsc(), system.rhs)
        np.testing.assert_allclose(solution.value, expected, atol=1e-8 * np.abs(expected).max())


@every_package
@pytest.mark.parametrize("shape", [(12,), (9, 8), (5, 4, 6)], ids=["1-D", "2-D", "3-D"])
def test_a_closed_box_has_the_solution_of_mean_zero(method: Direct, shape: tuple[int, ...]) -> None:
    operator = closed_box(shape)
    exact = np.random.default_rng(0).standard_normal(shape)
    exact -= exact.mean()
    system = LinearSystem.from_operator(operator, operator.apply(exact).ravel())
    systems = [system, with_rhs(system, 1)]
    solutions = solve_batch_verified(method.build(), systems, 1e-11)
    assert [solution.status for solution in solutions] == [SolveStatus.converged] * 2
    np.testing.assert_allclose(solutions[0].value, exact.ravel(), atol=1e-11)
    assert abs(solutions[1].value.mean()) < 1e-13


@every_package
@pytest.mark.parametrize("compatible", [True, False])
def test_a_singular_matrix_that_does_not_say_so_breaks_down(method: Direct, compatible: bool) -> None:
    """Also when the right-hand side has solutions: which one is meant, nobody knows."""
    matrix = closed_box((15, 15)).to_csr()
    rhs = np.random.default_rng(1).standard_normal(225)
    if compatible:
        rhs -= rhs.mean()
    running = method.build()
    system = LinearSystem.from_matrix(matrix, rhs, symmetric=True, positive_definite=method.package == "cholmod")
    for _ in range(2):  # the failed factors are not kept as good ones
        solution = solve_verified(running, system, 1e-8)
        assert solution.status is SolveStatus.breakdown
        assert any(word in solution.detail for word in ("singular", "could not factor", "not positive definite"))
    regular = darcy_system()
    if method.package != "cholmod":
        assert solve_verified(running, regular, 1e-10).status is SolveStatus.converged


@every_package
def test_an_indefinite_matrix_that_claims_to_be_definite_is_never_converged_wrongly(method: Direct) -> None:
    matrix = darcy_system().matrix
    shifted = matrix - 0.5 * matrix.diagonal().mean() * scipy.sparse.eye_array(matrix.shape[0])
    system = LinearSystem.from_matrix(shifted.tocsr(), np.ones(matrix.shape[0]), positive_definite=True)
    solution = solve(system, rtol=1e-10, method=method)
    # LU and LDLᵀ do not care; Cholesky must notice.
    assert solution.status is SolveStatus.converged or solution.detail


def test_ill_conditioned_but_regular_matrices_are_solved() -> None:
    """Contrast 1e5: condition number about 1e8."""
    problem = Darcy(resolution=40)
    a = np.exp(12.0 * (problem.draw(0)["permeability"] > 1.0))
    matrix = problem.discretize({"permeability": a}).matrix
    system = LinearSystem.from_matrix(matrix, np.ones(matrix.shape[0]), symmetric=True)
    assert solve(system, rtol=1e-8, method="direct").status is SolveStatus.converged


def test_complex_right_hand_side_of_a_real_matrix() -> None:
    matrix = darcy_system().matrix
    rhs = np.ones(matrix.shape[0]) + 2j
    system = LinearSystem.from_matrix(matrix, rhs)
    solution = solve(system, rtol=1e-12, method="direct")
    assert solution.status is SolveStatus.converged
    np.testing.assert_allclose(matrix @ solution.value, rhs, atol=1e-10)


def test_mismatch_names_what_is_missing() -> None:
    indefinite = LinearSystem.from_matrix(scipy.sparse.eye_array(3).tocsr() * -1.0, np.ones(3), symmetric=True)
    expected = "needs a positive definite matrix" if cholmod_is_installed() else "comes with scikit-sparse"
    assert expected in (Direct(package="cholmod").mismatch(indefinite) or "")
    assert Direct().mismatch(indefinite) is None
    if petsc_is_installed():
        complex_system = LinearSystem.from_matrix(scipy.sparse.eye_array(3).tocsr() * 1j, np.ones(3, dtype=complex))
        assert "computes in real numbers" in (Direct(package="mumps").mismatch(complex_system) or "")


@pytest.mark.skipif(not petsc_is_installed(), reason="PETSc is not installed")
def test_its_mpi_opens_no_port() -> None:
    program = (
        "import os, psutil\n"
        "from headrace.solvers.methods.direct import load_petsc\n"
        "petsc = load_petsc()\n"
        "assert petsc.COMM_SELF.size == 1 and 'UCX_TLS' not in os.environ\n"
        "assert not psutil.Process().net_connections('inet'), psutil.Process().net_connections('inet')\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("UCX_", "PMI"))}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
