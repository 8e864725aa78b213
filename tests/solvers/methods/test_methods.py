"""Every method against an independent solver; what multigrid and GCRO-DR promise beyond that."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

from headrace.platform.errors import InputError
from headrace.platform.spec import kind_of, kinds
from headrace.solvers import (
    ALL_METHODS,
    CG,
    GCRODR,
    GMRES,
    AbstractSolver,
    Auto,
    BiCGStab,
    Darcy,
    DiffusionOperator,
    Direct,
    LinearSystem,
    Multigrid,
    RecycledCG,
    SolveStatus,
    solve,
    solve_sequence,
)
from headrace.solvers.methods.direct import petsc_is_installed
from headrace.solvers.random_inputs.permeability import LogNormal, TwoPhase
from headrace.solvers.sequences.sorting import greedy_order
from headrace.solvers.systems.verified import solve_verified

VARIANTS: tuple[AbstractSolver, ...] = (
    *(method() for method in kinds("headrace.methods", ALL_METHODS).values()),
    Direct(package="scipy"),
    GCRODR(recycled=0, subspace=60),
    GCRODR(recycled=1, subspace=30, basis="double"),
    GCRODR(preconditioner="jacobi"),
    GCRODR(preconditioner="none"),
    GCRODR(preconditioner="ssor", omega=1.5),
    RecycledCG(preconditioner="ssor", omega=1.5),
    RecycledCG(preconditioner="jacobi", recycled=4, window=6),
    CG(preconditioner="ssor", omega=1.5),
    CG(preconditioner="stale"),
    GMRES(preconditioner="stale"),
    BiCGStab(preconditioner="jacobi"),
    *((Direct(package="petsc"), Direct(package="mumps")) if petsc_is_installed() else ()),
)


def name_of(variant: AbstractSolver) -> str:
    changed = variant.model_dump(exclude_defaults=True)
    return "-".join([kind_of(type(variant)), *(f"{key}={value}" for key, value in changed.items())])


def skip_unless_it_fits(method: AbstractSolver, system: LinearSystem) -> None:
    reason = method.mismatch(system)
    if reason is not None:
        pytest.skip(reason)


def darcy_system(n: int, seed: int = 0, level: str = "rough") -> LinearSystem:
    problem = Darcy(resolution=n).at_level(level)
    return problem.discretize(problem.draw(seed))


def convection_diffusion(n: int) -> LinearSystem:
    """Upwind convection-diffusion: not symmetric, diagonally dominant."""
    step = scipy.sparse.diags_array([-np.ones(n - 1), np.ones(n)], offsets=[-1, 0])
    second = scipy.sparse.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    one = scipy.sparse.eye_array(n)
    matrix = scipy.sparse.kron(second + 0.7 * step, one) + scipy.sparse.kron(one, second + 0.2 * step)
    return LinearSystem.from_matrix(matrix, np.linspace(1, 2, n * n))


def helmholtz(n: int) -> LinearSystem:
    """-Δu - k² u with a few negative eigenvalues: symmetric, indefinite."""
    second = scipy.sparse.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    one = scipy.sparse.eye_array(n)
    shift = (9.0 / (n + 1)) ** 2 * scipy.sparse.eye_array(n * n)
    matrix = scipy.sparse.kron(second, one) + scipy.sparse.kron(one, second) - shift
    return LinearSystem.from_matrix(matrix, np.ones(n * n), symmetric=True)


@pytest.mark.parametrize("n", [5, 6, 32, 33, 50])
@pytest.mark.parametrize("method", VARIANTS, ids=name_of)
def test_agrees_with_an_independent_solver(method: AbstractSolver, n: int) -> None:
    system = darcy_system(n)
    skip_unless_it_fits(method, system)
    solution = solve(system, rtol=1e-10, method=method)
    expected = scipy.sparse.linalg.spsolve(system.matrix.tocsc(), system.rhs)
    assert solution.status is SolveStatus.converged
    assert solution.relative_residual <= 1e-10
    # A relative residual of 1e-10 times the condition number, at most 1e4 here.
    np.testing.assert_allclose(solution.value, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("make", [convection_diffusion, helmholtz])
@pytest.mark.parametrize("method", VARIANTS, ids=name_of)
def test_general_matrices(method: AbstractSolver, make: object) -> None:
    system = make(20)  # type: ignore[operator]
    skip_unless_it_fits(method, system)
    solution = solve(system, rtol=1e-9, method=method)
    expected = scipy.sparse.linalg.spsolve(system.matrix.tocsc(), system.rhs)
    assert solution.status is SolveStatus.converged, str(solution)
    np.testing.assert_allclose(solution.value, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("method", VARIANTS, ids=name_of)
def test_a_sequence_comes_back_under_the_original_index(method: AbstractSolver) -> None:
    systems = [darcy_system(n, seed) for seed, n in enumerate([20, 20, 17, 20])]
    skip_unless_it_fits(method, systems[0])
    for system, solution in zip(systems, solve_sequence(systems, rtol=1e-9, method=method), strict=True):
        assert solution.status is SolveStatus.converged
        np.testing.assert_allclose(system.matrix @ solution.value, system.rhs, atol=2e-9 * np.linalg.norm(system.rhs))


@pytest.mark.parametrize("method", VARIANTS, ids=name_of)
def test_singular_system_is_never_converged(method: AbstractSolver) -> None:
    matrix = scipy.sparse.diags_array(np.array([1.0, 0.0, 2.0, 3.0])).tolil()
    matrix[1, 0] = 1.0
    system = LinearSystem.from_matrix(matrix, np.array([1.0, 5.0, 1.0, 1.0]))
    skip_unless_it_fits(method, system)
    solution = solve(system, method=method)
    assert solution.status is not SolveStatus.converged


@pytest.mark.parametrize("n", [32, 33, 64, 65, 100, 128, 129, 257])
@pytest.mark.parametrize(
    ("permeability", "bound"),
    [
        (LogNormal(), 8),
        (LogNormal(length_scale=0.1, log_std=1.5), 9),
        (TwoPhase(low=1.0, high=4.0), 9),
        (TwoPhase(low=1.0, high=20.0), 12),
        (TwoPhase(low=1.0, high=100.0), 14),
    ],
    ids=["log-normal", "rough", "contrast 4", "contrast 20", "contrast 100"],
)
def test_multigrid_iterations_are_bounded_on_every_grid(n: int, permeability: LogNormal | TwoPhase, bound: int) -> None:
    problem = Darcy(resolution=n, permeability=permeability)
    for solution in solve_sequence([problem.discretize(problem.draw(seed)) for seed in range(2)], method="multigrid"):
        assert solution.status is SolveStatus.converged
        assert solution.num_iterations <= bound


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 30), (31, 3), (40, 17), (17, 40)])
def test_multigrid_takes_rectangles(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    nx, ny = shape
    operator = DiffusionOperator(
        conductances=(rng.uniform(0.5, 2.0, (nx + 1, ny)), rng.uniform(0.5, 2.0, (nx, ny + 1)))
    )
    system = LinearSystem.from_operator(operator, rng.standard_normal(nx * ny))
    solution = solve(system, rtol=1e-12, method="multigrid")
    assert solution.status is SolveStatus.converged
    np.testing.assert_allclose(
        solution.value, scipy.sparse.linalg.spsolve(system.matrix.tocsc(), system.rhs), rtol=1e-8, atol=1e-12
    )


@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_multigrid_does_not_depend_on_units(scale: float) -> None:
    """Permeability of rock is 1e-15 m²; single precision must not underflow."""
    problem = Darcy(resolution=40)
    a = problem.draw(2)["permeability"]
    one = solve(problem.discretize({"permeability": a}), method="multigrid")
    other = solve(problem.discretize({"permeability": scale * a}), method="multigrid")
    assert other.status is SolveStatus.converged and other.num_iterations == one.num_iterations
    np.testing.assert_allclose(other.value * scale, one.value, rtol=1e-6)


def test_multigrid_reaches_double_precision() -> None:
    assert solve(darcy_system(65), rtol=1e-12, method="multigrid").status is SolveStatus.converged


@pytest.mark.parametrize("method", VARIANTS, ids=name_of)
def test_a_system_that_is_not_finite_does_not_spoil_the_next(method: AbstractSolver) -> None:
    good = darcy_system(20)
    skip_unless_it_fits(method, good)
    assert good.operator is not None
    bad = LinearSystem.from_operator(good.operator, np.where(np.arange(324) == 100, np.nan, 1.0))
    running = method.build()
    solve_verified(running, good, 1e-8)
    assert solve_verified(running, bad, 1e-8).status is not SolveStatus.converged
    assert solve_verified(running, good, 1e-8).status is SolveStatus.converged


def test_multigrid_solves_zero_right_hand_side() -> None:
    operator = darcy_system(20).operator
    assert operator is not None
    solution = solve(LinearSystem.from_operator(operator, np.zeros(324)), method="multigrid")
    assert solution.status is SolveStatus.converged and not solution.value.any()


def test_greedy_order_goes_to_the_nearest_that_is_left() -> None:
    points = np.array([[0.0], [5.0], [1.0], [6.0], [2.1]])
    assert greedy_order(points).tolist() == [0, 2, 4, 1, 3]


def test_iterations_end_at_the_cap_and_the_residual_is_the_true_one() -> None:
    system = darcy_system(40)
    for method in (Multigrid(max_iterations=2), GCRODR(max_iterations=5)):
        solution = solve(system, method=method)
        assert solution.status is SolveStatus.max_iterations
        true = np.linalg.norm(system.rhs - system.matrix @ solution.value) / np.linalg.norm(system.rhs)
        assert solution.relative_residual == pytest.approx(true, rel=1e-9)
        assert true > 1e-8


def test_mismatch_says_why_and_what_to_use() -> None:
    indefinite = helmholtz(5)
    assert Multigrid().mismatch(Darcy()) is None
    assert Multigrid().mismatch(indefinite) == (
        "Multigrid needs a diffusion operator on a 2-D or 3-D grid, this is a general matrix; use auto or direct."
    )
    assert Auto().mismatch(indefinite) is None and Direct().mismatch(indefinite) is None
    with pytest.raises(InputError, match="method is multigrid; expected a method that can solve this. Multigrid needs"):
        solve(indefinite, method="multigrid")
    with pytest.raises(
        InputError,
        match=r'method is "multigird"; expected one of amg, auto, .*multigrid.*\. Did you mean "multigrid"\?',
    ):
        solve(indefinite, method="multigird")
    complex_system = LinearSystem.from_matrix(scipy.sparse.eye_array(3) * 1j, np.ones(3, dtype=complex))
    assert "complex" in (GCRODR().mismatch(complex_system) or "")
    np.testing.assert_allclose(solve(complex_system, method="direct").value, -1j * np.ones(3))


def test_auto_takes_multigrid_where_it_fits_and_names_what_did_the_work() -> None:
    assert solve(darcy_system(20)).method == "multigrid"
    assert solve(convection_diffusion(6)).method == "direct"


@pytest.mark.skipif(not petsc_is_installed(), reason="needs PETSc")
@pytest.mark.parametrize("method", ["amg", "gmres", "direct"])
def test_what_petsc_raises_does_not_end_the_process(method: str) -> None:
    """What an error leaves half made crashes when it is freed: at the next solve, or at the end of the process."""
    code = f"""
import numpy as np, scipy.sparse
from headrace.solvers import LinearSystem, solve
system = LinearSystem.from_matrix(scipy.sparse.csr_array(np.diag([1.0, 2.0, 0.0, 3.0])), np.ones(4))
for _ in range(2):
    print(solve(system, method="{method}"))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("breakdown") == 2 and "[0]" not in result.stdout


def test_a_matrix_that_is_not_what_was_said_of_it_is_refused() -> None:
    lower = scipy.sparse.diags_array([-1.0, 2.0, -1.5], offsets=[-1, 0, 1], shape=(30, 30))
    with pytest.raises(ValueError, match="said to be symmetric, but is not: entries differ by 2e-01"):
        LinearSystem.from_matrix(lower, np.ones(30), positive_definite=True)
    system = LinearSystem.from_matrix(np.eye(3, dtype=int), [1, 2, 3], positive_definite=True)  # type: ignore[arg-type]
    np.testing.assert_allclose(solve(system).value, [1.0, 2.0, 3.0])


@pytest.mark.parametrize("method", [one for one in VARIANTS if not one.learns(Darcy(resolution=17))], ids=name_of)
def test_a_method_that_does_not_learn_gives_the_same_bits_after_other_systems(method: AbstractSolver) -> None:
    systems = [darcy_system(17, seed) for seed in range(3)]
    skip_unless_it_fits(method, systems[0])
    running = method.build()
    for system in systems[:-1]:
        running.solve(system, 1e-8)
    after = running.solve(systems[-1], 1e-8)
    alone = method.build().solve(systems[-1], 1e-8)
    assert np.array_equal(after.value, alone.value)


def test_which_methods_learn() -> None:
    problem = Darcy(resolution=17)
    assert not any(method.learns(problem) for method in (Multigrid(), Direct(), CG(), GMRES()))
    assert all(method.learns(problem) for method in (Auto(), GCRODR(), RecycledCG(), CG(preconditioner="stale")))
