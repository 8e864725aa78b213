"""What GCRO-DR, recycled conjugate gradients and PETSc's Krylov methods promise beyond solving systems."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from pydantic import ValidationError

from headrace.solvers import (
    CG,
    GCRODR,
    GMRES,
    MINRES,
    AbstractSolver,
    BiCGStab,
    Darcy,
    DiffusionOperator,
    LinearSystem,
    RecycledCG,
    SolveStatus,
    solve,
    solve_sequence,
)
from headrace.solvers.methods import krylov, krylov_kernels
from headrace.solvers.methods.direct import petsc_is_installed
from headrace.solvers.methods.preconditioner import PreconditionerName, compressed_rows, make_preconditioner
from headrace.solvers.systems.verified import solve_verified

needs_petsc = pytest.mark.skipif(not petsc_is_installed(), reason="PETSc is not installed")
PETSC: tuple[AbstractSolver, ...] = (
    CG(),
    CG(preconditioner="ssor"),
    CG(preconditioner="none"),
    CG(preconditioner="stale"),
    MINRES(),
    MINRES(preconditioner="none"),
    GMRES(),
    GMRES(preconditioner="ssor", omega=1.5),
    BiCGStab(),
)


def darcy_systems(n: int, count: int) -> list[LinearSystem]:
    problem = Darcy(resolution=n)
    return [problem.discretize(problem.draw(seed)) for seed in range(count)]


def slow_drift(count: int) -> list[LinearSystem]:
    """Matrices that change by one percent from one to the next, and right-hand sides that have nothing in common."""
    rng = np.random.default_rng(3)
    cx, cy = rng.uniform(0.5, 2.0, (31, 30)), rng.uniform(0.5, 2.0, (30, 31))
    return [
        LinearSystem.from_operator(
            DiffusionOperator(conductances=(cx * (1.0 + 0.01 * step), cy)), rng.standard_normal(900)
        )
        for step in range(count)
    ]


def closed_box() -> LinearSystem:
    """Neumann boundaries everywhere: constants are mapped to 0."""
    rng = np.random.default_rng(0)
    cx, cy = rng.uniform(1.0, 2.0, (21, 20)), rng.uniform(1.0, 2.0, (20, 21))
    cx[[0, -1]] = 0.0
    cy[:, [0, -1]] = 0.0
    rhs = rng.standard_normal(400)
    return LinearSystem.from_operator(DiffusionOperator(conductances=(cx, cy)), rhs - rhs.mean())


def mean_iterations(method: AbstractSolver, systems: list[LinearSystem], order: str = "auto") -> float:
    solutions = solve_sequence(systems, method=method, order=order)  # type: ignore[arg-type]
    assert all(solution.status is SolveStatus.converged for solution in solutions)
    return float(np.mean([solution.num_iterations for solution in solutions[1:]]))


def test_recycling_saves_iterations_and_sorting_does_not_lose_them() -> None:
    systems = darcy_systems(50, 8)
    recycled = mean_iterations(GCRODR(), systems)
    assert recycled < 0.8 * mean_iterations(GCRODR(recycled=0), systems)
    assert recycled <= 1.1 * mean_iterations(GCRODR(), systems, "none")


def test_single_precision_bases_cost_few_iterations() -> None:
    """And no accuracy: 1e-12 is far below what single precision resolves."""
    systems = darcy_systems(50, 4)
    single, double = (mean_iterations(GCRODR(basis=basis), systems) for basis in ("single", "double"))  # type: ignore[arg-type]
    # Where one cycle could do it all, single precision begins another after six digits.
    assert single <= 1.2 * double
    assert solve(systems[0], rtol=1e-12, method=GCRODR()).status is SolveStatus.converged


def test_the_same_system_again_takes_far_fewer_iterations() -> None:
    problem = Darcy(resolution=50).at_level("rough")
    system = problem.discretize(problem.draw(0))
    first, again = solve_sequence([system, system], method=GCRODR(recycled=20, basis="double"), order="none")
    # 20 products renew the recycled space; the rest is less than half of what the first solve took.
    assert again.num_iterations - 20 < 0.5 * first.num_iterations


def test_recycled_space_is_renewed_for_every_system() -> None:
    """C = A M⁻¹ Y with orthonormal C, after solves of other systems."""
    running = GCRODR(recycled=20, basis="double").build()
    systems = darcy_systems(40, 3)
    for system in systems:
        assert solve_verified(running, system, 1e-8).status is SolveStatus.converged
    u = running._directions
    assert u is not None and u.shape[0] in (19, 20)  # 19: a complex pair was not parted
    image = np.stack([systems[-1].matrix @ row for row in u])
    # What the last cycles of the last system knew of it, up to the loss of orthogonality that they tolerate.
    np.testing.assert_allclose(image @ image.T, np.eye(len(u)), atol=1e-8)


@pytest.mark.parametrize(
    "method", [GCRODR(), GCRODR(basis="double"), RecycledCG(), RecycledCG(recycled=0), *PETSC], ids=str
)
def test_singular_systems_get_the_solution_of_mean_0(method: AbstractSolver) -> None:
    system = closed_box()
    if method.mismatch(system):
        pytest.skip(str(method.mismatch(system)))
    solution, exact = solve(system, rtol=1e-10, method=method), solve(system, rtol=1e-11, method="direct")
    assert solution.status is SolveStatus.converged, str(solution)
    assert abs(solution.value.mean()) < 1e-12
    # The residual times the condition number, a few hundred.
    np.testing.assert_allclose(solution.value, exact.value, atol=1e-7 * np.abs(exact.value).max())


def test_recycled_cg_learns_from_a_slowly_changing_sequence() -> None:
    systems = slow_drift(6)
    for preconditioner in ("icc0", "none"):
        plain = mean_iterations(RecycledCG(recycled=0, preconditioner=preconditioner), systems)  # type: ignore[arg-type]
        taught = mean_iterations(RecycledCG(preconditioner=preconditioner), systems)  # type: ignore[arg-type]
        # The ten products that renew A W are counted.
        assert taught < 0.9 * plain


def test_recycled_cg_without_recycling_is_conjugate_gradients() -> None:
    """Iteration for iteration: SciPy's, with the same preconditioner."""
    system = darcy_systems(30, 1)[0]
    count = 0

    def counted(_: np.ndarray) -> None:
        nonlocal count
        count += 1

    inverse = 1.0 / system.matrix.diagonal()
    jacobi = scipy.sparse.linalg.LinearOperator(system.matrix.shape, matvec=lambda x: inverse * np.ravel(x))
    scipy.sparse.linalg.cg(system.matrix, system.rhs, rtol=0.9e-8, M=jacobi, callback=counted)
    ours = solve(system, rtol=1e-8, method=RecycledCG(recycled=0, preconditioner="jacobi"))
    # One more or less: a residual at the tolerance falls on either side by rounding.
    assert abs(ours.num_iterations - count) <= 1


def test_recycled_cg_drops_a_space_that_lost_definiteness() -> None:
    systems = darcy_systems(30, 2)
    running = RecycledCG().build()
    running._w = np.ones((5, systems[0].num_unknowns), dtype=np.float32)
    assert solve_verified(running, systems[0], 1e-8).status is SolveStatus.converged


def test_recycled_cg_says_what_is_not_positive_definite() -> None:
    matrix = scipy.sparse.diags_array(np.where(np.arange(50) == 20, -1.0, 1.0 + np.arange(50.0)))
    system = LinearSystem.from_matrix(matrix, np.ones(50), positive_definite=True)
    for preconditioner, words in (("icc0", "preconditioner icc0"), ("none", "not positive definite")):
        solution = solve(system, method=RecycledCG(preconditioner=preconditioner))  # type: ignore[arg-type]
        assert solution.status is SolveStatus.breakdown
        assert words in solution.detail


@needs_petsc
@pytest.mark.parametrize("method", PETSC, ids=str)
def test_what_petsc_claims_is_the_true_residual(method: AbstractSolver) -> None:
    """Also on coefficients of badly different sizes, where a preconditioned residual is another one."""
    a = 10.0 ** np.random.default_rng(1).uniform(-3.0, 3.0, (20, 20))
    system = Darcy(resolution=20).discretize({"permeability": a})
    if method == CG(preconditioner="none") or method == MINRES(preconditioner="none"):
        pytest.skip("takes thousands of iterations")
    solution = solve(system, rtol=1e-8, method=method)
    assert solution.status is SolveStatus.converged, str(solution)
    assert solution.relative_residual <= 1e-8


@needs_petsc
def test_stale_factors_serve_neighbours_and_are_made_anew_for_others() -> None:
    for method in (CG(preconditioner="stale"), GMRES(preconditioner="stale"), BiCGStab(preconditioner="stale")):
        running = method.build()
        counts = []
        for system in [*slow_drift(6), *darcy_systems(32, 2)]:
            solution = solve_verified(running, system, 1e-8)
            assert solution.status is SolveStatus.converged
            counts.append(solution.num_iterations)
        # Exact factors take one iteration (of two products in BiCGStab), a neighbour's a few.
        assert counts[0] <= 2
        assert 1 < counts[1] <= 20
        assert counts[-2] > counts[0]


@needs_petsc
def test_ssor_is_worth_its_omega() -> None:
    system = darcy_systems(65, 1)[0]
    plain, relaxed = (solve(system, method=CG(preconditioner="ssor", omega=omega)) for omega in (1.0, 1.8))
    assert relaxed.num_iterations < 0.7 * plain.num_iterations


@needs_petsc
def test_more_fill_takes_fewer_iterations() -> None:
    system = darcy_systems(40, 1)[0]
    for method in (CG, GMRES):
        counts = [solve(system, method=method(levels=levels)).num_iterations for levels in (0, 2, 5)]
        assert counts[0] > counts[1] > counts[2]


@needs_petsc
def test_failures_are_a_status_with_a_reason() -> None:
    matrix = scipy.sparse.diags_array(np.where(np.arange(50) == 20, -1.0, 1.0 + np.arange(50.0))).tocsr()
    indefinite = LinearSystem.from_matrix(matrix, np.ones(50), positive_definite=True)
    solution = solve(indefinite, method=CG(preconditioner="none"))
    assert solution.status is SolveStatus.breakdown and "positive definite" in solution.detail
    singular = matrix.copy()
    singular.data[20] = 0.0
    solution = solve(LinearSystem.from_matrix(singular, np.ones(50)), method=GMRES())
    assert solution.status is SolveStatus.breakdown and "pivot" in solution.detail
    solution = solve(darcy_systems(30, 1)[0], method=GMRES(max_iterations=3))
    assert solution.status is SolveStatus.max_iterations and solution.num_iterations == 3


def test_mismatch_goes_by_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    general = LinearSystem.from_matrix(scipy.sparse.eye_array(3), np.ones(3))
    symmetric = LinearSystem.from_matrix(scipy.sparse.eye_array(3), np.ones(3), symmetric=True)
    complex_system = LinearSystem.from_matrix(scipy.sparse.eye_array(3) * 1j, np.ones(3, dtype=complex))
    assert RecycledCG().mismatch(symmetric) == (
        "Recycled CG needs a positive definite matrix, this one is not known to be; use gcrodr."
    )
    assert "complex" in (GCRODR().mismatch(complex_system) or "")
    assert GCRODR().mismatch(general) is None
    monkeypatch.setattr(krylov, "petsc_is_installed", lambda: True)
    assert CG().mismatch(symmetric) == (
        "Conjugate gradients need a positive definite matrix, this one is not known to be; use minres or gmres."
    )
    assert MINRES().mismatch(general) == "MINRES needs a symmetric matrix, this one is not known to be; use gmres."
    assert MINRES().mismatch(symmetric) is None
    assert GMRES().mismatch(general) is None and CG().mismatch(Darcy()) is None
    assert "complex" in (GMRES().mismatch(complex_system) or "")
    monkeypatch.setattr(krylov, "petsc_is_installed", lambda: False)
    assert "not installed" in (BiCGStab().mismatch(general) or "")


def test_configuration_says_what_is_wrong() -> None:
    with pytest.raises(ValidationError, match="recycled is 40; expected less than subspace, which is 40"):
        GCRODR(recycled=40)
    with pytest.raises(ValidationError, match="less than 2"):
        CG(preconditioner="ssor", omega=2.0)
    with pytest.raises(ValidationError, match="preconditioner"):
        MINRES(preconditioner="ilu")  # type: ignore[arg-type]


def test_incomplete_lu_is_exact_where_nothing_fills_in() -> None:
    matrix = scipy.sparse.diags_array(
        [np.full(9, -1.0), np.linspace(3, 4, 10), np.full(9, -0.5)], offsets=[-1, 0, 1]
    ).tocsr()
    x = np.arange(10.0)
    lu = make_preconditioner("ilu0", matrix)
    np.testing.assert_allclose(matrix @ lu.solve(x), x, atol=1e-13)
    np.testing.assert_allclose(lu.multiply(x), matrix @ x, atol=1e-13)


def test_incomplete_lu_keeps_the_entries_of_the_pattern() -> None:
    """(L U)ᵢⱼ = aᵢⱼ wherever aᵢⱼ is stored: the property that defines ILU(0)."""
    matrix = darcy_systems(8, 1)[0].matrix
    lu = make_preconditioner("ilu0", matrix)
    product = np.stack([lu.multiply(column) for column in np.eye(matrix.shape[0])], axis=1)
    stored = matrix.toarray() != 0
    np.testing.assert_allclose(product[stored], matrix.toarray()[stored], rtol=1e-12)


def test_ssor_is_the_product_that_defines_it() -> None:
    matrix = darcy_systems(8, 1)[0].matrix
    dense, omega = matrix.toarray(), 1.6
    diagonal = np.diag(np.diag(dense)) / omega
    expected = (
        (diagonal + np.tril(dense, -1)) @ np.linalg.inv(diagonal) @ (diagonal + np.triu(dense, 1)) / (2.0 - omega)
    )
    ssor = make_preconditioner("ssor", matrix, omega)
    product = np.stack([ssor.multiply(column) for column in np.eye(matrix.shape[0])], axis=1)
    np.testing.assert_allclose(product, expected, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["ilu0", "ssor", "jacobi", "none"])
def test_solving_undoes_multiplying(name: PreconditionerName) -> None:
    matrix = darcy_systems(12, 1)[0].matrix
    preconditioner = make_preconditioner(name, matrix, 1.3)
    x = np.random.default_rng(0).standard_normal(matrix.shape[0])
    np.testing.assert_allclose(preconditioner.solve(preconditioner.multiply(x)), x, atol=1e-10)


def test_missing_pivots_are_named() -> None:
    matrix = scipy.sparse.csr_array(np.array([[1.0, 2.0, 0.0], [3.0, 6.0, 1.0], [0.0, 1.0, 1.0]]))
    with pytest.raises(ArithmeticError, match="pivot of 0 in row 1"):
        make_preconditioner("ilu0", matrix)
    matrix = scipy.sparse.csr_array(np.array([[1.0, 2.0], [3.0, 0.0]]))
    with pytest.raises(ArithmeticError, match="0 on its diagonal"):
        make_preconditioner("ssor", matrix)
    with pytest.raises(ArithmeticError, match="0 on its diagonal"):
        make_preconditioner("jacobi", matrix)


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
@pytest.mark.parametrize("unknowns", [1, 1024, 2500])
def test_kernels_agree_with_numpy(rows: int, unknowns: int) -> None:
    rng = np.random.default_rng(0)
    basis, w = rng.standard_normal((rows + 1, unknowns)).astype(np.float32), rng.standard_normal(unknowns)
    along = np.empty(rows + 1)
    krylov_kernels.products(basis, rows, w, along)
    np.testing.assert_allclose(along[:rows], basis[:rows].astype(float) @ w, atol=1e-10)
    expected = w - along[:rows] @ basis[:rows].astype(float)
    square = krylov_kernels.subtract(basis, rows, along, w)
    np.testing.assert_allclose(w, expected, atol=1e-10 * np.abs(along).max())
    assert square == pytest.approx(w @ w)


def test_matrices_with_unsorted_rows_are_put_in_order() -> None:
    matrix = scipy.sparse.csr_array((np.array([2.0, 1.0, 3.0]), np.array([1, 0, 1]), np.array([0, 2, 3])), shape=(2, 2))
    indptr, indices, data = compressed_rows(matrix)
    assert indices.tolist() == [0, 1, 1] and data.tolist() == [1.0, 2.0, 3.0] and indptr.tolist() == [0, 2, 3]
    assert matrix.indices.tolist() == [1, 0, 1]
