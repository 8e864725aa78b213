"""The verification under attack: methods that lie, right-hand sides of every size and kind, and the honest ones."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

from headrace.platform.spec import kind_of, kinds
from headrace.solvers import (
    ALL_METHODS,
    AbstractSolver,
    ConvectionDiffusion,
    Darcy,
    DiffusionOperator,
    Direct,
    Helmholtz,
    LinearSystem,
    RunningSolver,
    Solution,
    SolveStatus,
    solve,
)
from headrace.solvers.methods.amg import AMG
from headrace.solvers.methods.gcrodr import GCRODR
from headrace.solvers.methods.recycled_cg import RecycledCG
from headrace.solvers.random_inputs.permeability import TwoPhase
from headrace.solvers.systems.system import NonlinearSystem, Structure
from headrace.solvers.systems.verified import solve_batch_verified, solve_verified

RTOL = 1e-8
SIZES = (1e-300, 1e-200, 1e-120, 1e-60, 1e-30, 1e-17, 1.0, 1e12, 1e17, 1e30, 1e60, 1e120, 1e200, 1e300)
METHODS = [method() for method in kinds("headrace.methods", ALL_METHODS).values()]


def darcy(seed: int = 0) -> LinearSystem:
    problem = Darcy(resolution=12)
    system = problem.discretize(problem.draw(seed))
    # As different from point to point as a right-hand side can be: a permuted answer is a wrong one.
    return replace(system, rhs=np.random.default_rng(seed).standard_normal(system.num_unknowns))


def general(seed: int = 0) -> LinearSystem:
    matrix = darcy(seed).matrix + scipy.sparse.diags_array(np.full(99, 0.5), offsets=1, shape=(100, 100))
    return LinearSystem.from_matrix(matrix, np.random.default_rng(seed).standard_normal(100))


def complex_one(seed: int = 0) -> LinearSystem:
    rng = np.random.default_rng(seed)
    matrix = darcy(seed).matrix + 1j * scipy.sparse.diags_array(rng.uniform(0.1, 1.0, 100))
    return LinearSystem.from_matrix(matrix, rng.standard_normal(100) + 1j * rng.standard_normal(100))


SYSTEMS = {"operator": darcy, "matrix": general, "complex": complex_one}


def truth(system: LinearSystem) -> np.ndarray:
    return scipy.sparse.linalg.splu(system.matrix.tocsc()).solve(system.rhs)


def _overwrite(system: LinearSystem) -> np.ndarray:
    """Makes b what the wrong x solves."""
    x = np.ones(system.num_unknowns, dtype=system.rhs.dtype)
    system.rhs[:] = system.apply(x)
    return x


def _overwrite_matrix(system: LinearSystem) -> np.ndarray:
    """Makes A what any x solves: the answer is that of twice the matrix."""
    x = 0.5 * truth(system)
    values = system.operator.conductances if system.operator is not None else (system.matrix.data,)
    for array in values:
        array *= 2.0
    return x


def _near(system: LinearSystem) -> np.ndarray:
    """Wrong by some tolerances in one value alone."""
    x = truth(system)
    x[7] += 1e-5 * np.abs(x).max()
    return x


def _masked(system: LinearSystem) -> np.ndarray:
    return np.ma.masked_array(truth(system), mask=np.arange(system.num_unknowns) == 3)


LIES: dict[str, Callable[[LinearSystem], object]] = {
    "zero": lambda system: np.zeros_like(system.rhs),
    "ones": lambda system: np.ones_like(system.rhs),
    "nan": lambda system: np.full_like(system.rhs, np.nan),
    "one nan": lambda system: np.where(np.arange(system.num_unknowns) == 5, np.nan, truth(system)),
    "inf": lambda system: np.full_like(system.rhs, np.inf),
    "huge": lambda system: np.full_like(system.rhs, 1e308),
    "largest": lambda system: 1e200 * truth(system),
    "rhs itself": lambda system: system.rhs,
    "near": _near,
    "scaled": lambda system: (1.0 + 1e-7) * truth(system),
    "negative": lambda system: -truth(system),
    "reversed": lambda system: truth(system)[::-1],
    "transposed": lambda system: truth(system).reshape(10, 10).T.ravel(),
    "rolled": lambda system: np.roll(truth(system), 1),
    "truncated": lambda system: truth(system)[:-1],
    "one value": lambda system: truth(system)[:1],
    "scalar": lambda system: np.array(1.0),
    "number": lambda system: 1.0,
    "none": lambda system: None,
    "list": lambda system: truth(system).tolist(),
    "column": lambda system: truth(system)[:, None],
    "row": lambda system: truth(system)[None],
    "field": lambda system: truth(system).reshape(10, 10),
    "masked": _masked,
    "object": lambda system: truth(system).astype(object),
    "text": lambda system: truth(system).astype("U40"),
    "float16": lambda system: truth(system).real.astype(np.float16),
    "float32": lambda system: truth(system).real.astype(np.float32),
    "complex64": lambda system: truth(system).astype(np.complex64),
    "rounded to single": lambda system: truth(system).real.astype(np.float32).astype(system.rhs.dtype),
    "whole": lambda system: truth(system).real.astype(np.int64),
    "truth value": lambda system: truth(system).astype(bool),
    "imaginary added": lambda system: truth(system) + 1j * np.abs(truth(system)).max(),
    "real part": lambda system: (truth(system) + (1j if np.isrealobj(system.rhs) else 0)).real.copy() * (1 + 1e-6),
    "overwrites b": _overwrite,
    "overwrites A": _overwrite_matrix,
}


class Liar(RunningSolver):
    """Returns what it was made for and claims that it has converged."""

    def __init__(self, lie: Callable[[LinearSystem], object]) -> None:
        self._lie = lie

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        return Solution(
            value=self._lie(system),  # type: ignore[arg-type]
            status=SolveStatus.converged,
            relative_residual=0.0,
            num_iterations=1,
            seconds=0.0,
            method="liar",
            backward_error=0.0,
        )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", SYSTEMS)
def test_no_lie_passes(kind: str, size: float) -> None:
    for name, lie in LIES.items():
        system = SYSTEMS[kind](1)
        system = replace(system, rhs=size * system.rhs)
        with np.errstate(all="ignore"):
            solution = solve_verified(Liar(lie), system, RTOL)
        assert solution.status is not SolveStatus.converged, name
        assert not solution.relative_residual <= RTOL, name
        assert isinstance(solution.value, np.ndarray) and solution.value.shape == (100,), name


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", SYSTEMS)
def test_an_honest_answer_passes_at_every_size(kind: str, size: float) -> None:
    system = SYSTEMS[kind](2)
    at_one = truth(system)
    solution = solve_verified(Liar(truth), replace(system, rhs=size * system.rhs), RTOL)
    assert solution.status is SolveStatus.converged
    assert solution.relative_residual < 1e-13
    np.testing.assert_allclose(solution.value / size, at_one, rtol=1e-10, atol=1e-12 * np.abs(at_one).max())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: kind_of(type(method)))
def test_every_method_solves_at_every_size(method: AbstractSolver, size: float) -> None:
    for kind in ("operator", "matrix"):
        system = SYSTEMS[kind](3)
        if method.mismatch(system) is None:
            solution = solve(replace(system, rhs=size * system.rhs), RTOL, method)
            assert solution.status is SolveStatus.converged, str(solution)
            expected = truth(system)
            np.testing.assert_allclose(solution.value / size, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("method", METHODS, ids=lambda method: kind_of(type(method)))
def test_every_method_leaves_alone_what_it_is_given_and_what_it_has_returned(method: AbstractSolver) -> None:
    for kind in ("operator", "matrix"):
        if method.mismatch(SYSTEMS[kind](4)) is not None:
            continue
        running, kept = method.build(), []
        for seed in (4, 5, 4):
            system, twin = SYSTEMS[kind](seed), SYSTEMS[kind](seed)
            value = running.solve(system, RTOL).value
            kept.append((value, value.copy()))
            assert not np.shares_memory(value, system.rhs)
            np.testing.assert_array_equal(system.rhs, twin.rhs)
            np.testing.assert_array_equal(system.matrix.toarray(), twin.matrix.toarray())
            if system.operator is not None and twin.operator is not None:
                for one, other in zip(system.operator.conductances, twin.operator.conductances, strict=True):
                    np.testing.assert_array_equal(one, other)
        for value, copy in kept:
            np.testing.assert_array_equal(value, copy)


class Forgetful(RunningSolver):
    """Honest, but all that it returns is one and the same workspace; a batch lacks a solution, or has one more."""

    def __init__(self, surplus: int = 0) -> None:
        self._surplus, self._workspace = surplus, np.zeros(100)

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        self._workspace[:] = truth(system)
        return replace(Liar(truth).solve(system, rtol), value=self._workspace)

    def solve_batch(self, systems: Sequence[LinearSystem], rtol: float) -> list[Solution]:
        found = [self.solve(system, rtol) for system in systems]
        return found[: self._surplus] if self._surplus < 0 else found + found[: self._surplus]


def test_what_was_accepted_does_not_change_afterwards() -> None:
    running = Forgetful()
    first = solve_verified(running, darcy(1), RTOL)
    solve_verified(running, darcy(2), RTOL)
    assert darcy(1).relative_residual(first.value) < RTOL
    # In a batch, the last system's solution stands in the place of all.
    statuses = [one.status for one in solve_batch_verified(running, [darcy(1), darcy(2)], RTOL)]
    assert statuses == [SolveStatus.residual_too_large, SolveStatus.converged]


@pytest.mark.parametrize("surplus", [-1, 1])
def test_a_batch_has_as_many_solutions_as_systems(surplus: int) -> None:
    with pytest.raises(ValueError, match="solutions of 3 systems"):
        solve_batch_verified(Forgetful(surplus), [darcy(1), darcy(2), darcy(3)], RTOL)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: kind_of(type(method)))
def test_nothing_on_the_right_has_one_answer(method: AbstractSolver) -> None:
    for kind in ("operator", "matrix"):
        system = SYSTEMS[kind](3)
        system = replace(system, rhs=np.zeros(100))
        if method.mismatch(system) is None:
            solution = solve(system, RTOL, method)
            assert solution.status is SolveStatus.converged
            assert solution.relative_residual == 0.0 and not solution.value.any()
        tiny = solve_verified(Liar(lambda system: np.full(100, 1e-300)), system, RTOL)
        assert tiny.status is not SolveStatus.converged and tiny.relative_residual == np.inf


def _given(b: np.ndarray) -> dict[str, np.ndarray]:
    whole = np.rint(10.0 * b)
    frozen = b.copy()
    frozen.setflags(write=False)
    wide = np.zeros((100, 3))
    wide[:, 1] = b
    return {
        "float32": b.astype(np.float32),
        "float16": b.astype(np.float16),
        "int": whole.astype(np.int64),
        "int8": whole.astype(np.int8),
        "bool": b > 0.0,
        "strided": np.repeat(b, 2)[::2],
        "backwards": b[::-1].copy()[::-1],
        "column of rows": wide[:, 1],
        "column of columns": np.asfortranarray(wide)[:, 1],
        "read-only": frozen,
        "big-endian": b.astype(">f8"),
        "long double": b.astype(np.longdouble),
        "subclass": np.asarray(b).view(np.recarray),
    }


@pytest.mark.parametrize("kind", ["operator", "matrix"])
@pytest.mark.parametrize("name", _given(np.ones(100)))
def test_numbers_of_every_kind_are_taken_for_what_they_are(name: str, kind: str) -> None:
    system = SYSTEMS[kind](6)
    b = _given(system.rhs)[name]
    plain = np.array(b.tolist(), dtype=np.float64)
    given = (
        LinearSystem.from_operator(system.operator, b)
        if system.operator is not None
        else LinearSystem.from_matrix(system.matrix, b)
    )
    for method in ("auto", "direct", "multigrid" if kind == "operator" else "gcrodr"):
        solution = solve(given, RTOL, method)
        assert solution.status is SolveStatus.converged
        rest = plain - system.matrix @ solution.value
        assert np.linalg.norm(rest) <= 1.01 * RTOL * np.linalg.norm(plain)


@pytest.mark.parametrize(
    "b",
    [
        np.ones(100).astype(object),
        np.ones(100).astype("U8"),
        np.ma.masked_array(np.ones(100), mask=np.arange(100) == 3),
        np.ones(100).astype("M8[s]"),
        np.ones(99),
        np.ones((100, 1)),
        np.ones((10, 10)),
    ],
    ids=["object", "text", "masked", "dates", "short", "column", "field"],
)
def test_what_is_no_vector_of_numbers_is_refused_at_the_door(b: np.ndarray) -> None:
    system = darcy()
    assert system.operator is not None
    with pytest.raises(ValueError, match="expected|masked|unknowns"):
        LinearSystem.from_operator(system.operator, b)
    with pytest.raises(ValueError, match="expected|masked"):
        LinearSystem.from_matrix(system.matrix, b)
    with pytest.raises(ValueError, match="expected|unknowns"):
        replace(system, rhs=b)


def test_complex_numbers_are_solved_for_or_refused() -> None:
    """Fault 29."""
    system = darcy()
    operator, b = system.operator, system.rhs
    assert operator is not None
    for rhs in (1j * b, b + 1j * b[::-1], (b * (1 + 2j)).astype(np.complex64)):
        with pytest.raises(ValueError, match="complex"):
            LinearSystem.from_operator(operator, rhs)
        with pytest.raises(ValueError, match="complex"):
            replace(system, rhs=rhs.astype(np.complex128))
        given = LinearSystem.from_matrix(system.matrix, rhs)
        for method in ("auto", "direct"):
            solution = solve(given, RTOL, method)
            assert solution.status is SolveStatus.converged and solution.value.dtype == np.complex128
            rest = rhs - system.matrix @ solution.value
            assert np.linalg.norm(rest) <= RTOL * np.linalg.norm(rhs)
    # Equal residuals of the real and of the whole system would be a coincidence.
    with pytest.raises(ValueError, match="real"):
        operator.relative_residual(1j * b, b)
    with pytest.raises(ValueError, match="expected"):
        DiffusionOperator(conductances=tuple(1j * c for c in operator.conductances))


@pytest.mark.parametrize("shift", [-1000, -700, -300, 300, 700, 1000])
def test_residuals_scale_to_the_last_bit(shift: int) -> None:
    """Fault 30: powers of 2 change no bit of a relative residual, as long as no value is subnormal."""
    for make in (darcy, general, complex_one):
        system = make(7)
        x = truth(system) * (1.0 + 1e-6 * np.random.default_rng(1).standard_normal(100))

        def times(values: np.ndarray) -> np.ndarray:
            return values * 2.0**shift

        scaled = replace(system, rhs=times(system.rhs)).relative_residual(times(x))
        assert scaled == pytest.approx(system.relative_residual(x), rel=1e-12)


def test_newtons_steps_are_vectors_of_the_system() -> None:
    system = general(1)
    stage = NonlinearSystem(
        guess=np.zeros(100),
        residual=lambda x: system.matrix @ x - system.rhs,
        linearize=lambda x: replace(system, rhs=system.rhs - system.matrix @ x),
        structure=Structure(),
        scale=float(np.linalg.norm(system.rhs)),
    )
    for name, lie in LIES.items():
        if name in ("near", "scaled", "rounded to single", "overwrites b", "overwrites A", "real part"):
            continue  # inexact steps are Newton's daily bread, and its residual is not in the method's hands
        with np.errstate(all="ignore"):
            solution = solve_verified(Liar(lie), stage, RTOL)
        assert solution.status is not SolveStatus.converged, name
    assert solve_verified(Liar(truth), stage, RTOL).status is SolveStatus.converged
    for scale in (0.0, -1.0):
        with pytest.raises(ValueError, match="scale"):
            replace(stage, scale=scale)
    for scale in (np.nan, np.inf):
        assert solve_verified(Liar(truth), replace(stage, scale=scale), RTOL).status is not SolveStatus.converged


@pytest.mark.parametrize("size", [1e-250, 1e250])
def test_newton_works_at_every_size(size: float) -> None:
    system = darcy(1)
    b = size * system.rhs
    stage = NonlinearSystem(
        guess=np.zeros(100),
        residual=lambda x: system.apply(x) - b,
        linearize=lambda x: replace(system, rhs=b - system.apply(x)),
        structure=system.structure,
        scale=size,
    )
    for method in ("multigrid", "gcrodr", "direct", "auto"):
        solution = solve(stage, RTOL, method)
        assert solution.status is SolveStatus.converged, str(solution)
        np.testing.assert_allclose(solution.value / size, truth(system), rtol=1e-5, atol=1e-7)


def test_backward_error_accepts_what_double_precision_can_do_and_no_more() -> None:
    """Fault 33: a Helmholtz system near a resonance, at a tolerance that no answer in double precision reaches."""
    problem = Helmholtz(resolution=33, boundary="neumann").at_level("medium")
    system = problem.discretize(problem.draw(13))
    for method in ("direct", "auto", Direct(package="scipy")):
        solution = solve(system, 1e-12, method)
        assert solution.status is SolveStatus.converged, str(solution)
        assert solution.relative_residual < 1e-11
        if solution.relative_residual > 1e-12:
            assert solution.backward_error is not None and solution.backward_error <= 2.0**-50
            assert "backward error" in solution.detail
    # Going on from a solution comes to no other judgement.
    again = solve(system, 1e-12, "direct", initial=0.5 * solution.value)
    assert again.status is SolveStatus.converged, str(again)
    x = solution.value
    for wrong in (x * (1 + 1e-9), x + 1e-9 * np.abs(x).max() * np.sin(np.arange(x.size))):
        assert solve_verified(Liar(lambda system, wrong=wrong: wrong), system, 1e-12).status is not (
            SolveStatus.converged
        )


def test_a_small_backward_error_alone_says_nothing_of_a_singular_matrix() -> None:
    neumann = scipy.sparse.diags_array([-np.ones(99), np.full(100, 2.0), -np.ones(99)], offsets=[-1, 0, 1]).tolil()
    neumann[0, 0] = neumann[-1, -1] = 1.0
    for b in (np.ones(100), np.sin(np.arange(100.0))):
        system = LinearSystem.from_matrix(neumann.tocsr(), b)
        for c in (1e17, 1e30, 1e200):
            solution = solve_verified(Liar(lambda system, c=c: np.full(100, c)), system, 1e-12)
            assert solution.status is not SolveStatus.converged


def test_an_undeclared_singular_system_is_named() -> None:
    """Fault 34."""
    neumann = scipy.sparse.diags_array([-np.ones(99), np.full(100, 2.0), -np.ones(99)], offsets=[-1, 0, 1]).tolil()
    neumann[0, 0] = neumann[-1, -1] = 1.0
    b = np.random.default_rng(0).standard_normal(100)
    system = LinearSystem.from_matrix(neumann.tocsr(), b - b.mean(), symmetric=True)
    for method in ("amg", "gmres", "gcrodr", "minres", "direct", "auto"):
        solution = solve(system, RTOL, method)
        assert solution.status is not SolveStatus.converged, method
        assert solution.detail
    assert "constants" in solve(system, RTOL, "amg").detail


def test_amg_goes_on_when_it_misses_by_a_hair() -> None:
    """Fault 34."""
    problem = Darcy(resolution=64, permeability=TwoPhase(low=1e-6, high=1.0, length_scale=0.02))
    system = problem.discretize(problem.draw(0))
    solution = solve(system, RTOL, AMG())
    assert solution.status is SolveStatus.converged, str(solution)


@pytest.mark.parametrize("method", [RecycledCG(), GCRODR(), AMG(), *METHODS], ids=lambda method: kind_of(type(method)))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_breaks_down(method: AbstractSolver, value: float) -> None:
    """Fault 34: `max_iterations` would say that more of them might help."""
    for kind in ("operator", "matrix"):
        system = SYSTEMS[kind](3)
        if method.mismatch(system) is not None:
            continue
        rhs = system.rhs.copy()
        rhs[17] = value
        with np.errstate(all="ignore"):
            solution = solve(replace(system, rhs=rhs), RTOL, method)
        assert solution.status is not SolveStatus.converged
        assert solution.status is not SolveStatus.max_iterations, str(solution)
        assert not solution.relative_residual <= RTOL


def test_direct_by_name_is_as_good_as_auto() -> None:
    """Fault 35."""
    problem = ConvectionDiffusion(resolution=65, diffusivity=1e-6, scheme="central")
    for seed in (1, 2):
        system = problem.discretize(problem.draw(seed))
        for method in ("direct", "auto"):
            solution = solve(system, RTOL, method)
            assert solution.status is SolveStatus.converged, str(solution)
