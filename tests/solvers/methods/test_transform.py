"""Fast transforms against a direct method on every pair of boundaries, and against exact solutions."""

import itertools

import numpy as np
import pytest

from headrace.solvers import DiffusionOperator, LinearSystem, SolveStatus
from headrace.solvers.methods.transform import Transform
from headrace.solvers.systems.verified import solve_batch_verified, solve_verified

# Multiples of the conductance at both ends of an axis; None wraps around. (1, 2) and (0, 1) have no fast transform.
ENDS: list[tuple[float, float] | None] = [None, (1, 1), (0, 0), (2, 2), (0, 2), (2, 0), (0, 1), (1, 2)]


def constant_operator(
    shape: tuple[int, ...], conductances: tuple[float, ...], ends: tuple[tuple[float, float] | None, ...], s: float = 0
) -> DiffusionOperator:
    arrays = []
    for axis, (c, end) in enumerate(zip(conductances, ends, strict=True)):
        faces = np.full(tuple(n + (k == axis and end is not None) for k, n in enumerate(shape)), float(c))
        if end is not None:
            along = np.moveaxis(faces, axis, 0)
            along[0], along[-1] = c * end[0], c * end[1]
        arrays.append(faces)
    return DiffusionOperator(
        conductances=tuple(arrays),
        periodic=tuple(end is None for end in ends),
        reaction=np.full(shape, float(s)) if s else None,
    )


def system_of(operator: DiffusionOperator, rhs: np.ndarray) -> LinearSystem:
    if operator.singular:
        rhs = rhs - rhs.mean()
    return LinearSystem.from_operator(operator, rhs.ravel(), constant_coefficients=True)


def assert_exact(operator: DiffusionOperator) -> None:
    system = system_of(operator, np.random.default_rng(0).standard_normal(operator.shape))
    assert Transform().mismatch(system) is None
    solution = solve_verified(Transform().build(), system, 1e-12)
    assert solution.status is SolveStatus.converged, str(solution)
    expected = system.without_mean(np.linalg.solve(system.regular_matrix.toarray(), system.rhs))
    # Condition numbers are a few hundred.
    np.testing.assert_allclose(solution.value, expected, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("s", [0.0, 0.3, -0.37])
@pytest.mark.parametrize("n", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("ends", ENDS)
def test_every_pair_of_ends_in_one_dimension(ends: tuple[float, float] | None, n: int, s: float) -> None:
    operator = constant_operator((n,), (1.7,), (ends,), s)
    if operator.singular and n == 1:
        return  # 0 x = 0
    assert_exact(operator)


@pytest.mark.parametrize("ends", itertools.product(ENDS, ENDS), ids=str)
def test_every_combination_in_two_dimensions(ends: tuple[tuple[float, float] | None, ...]) -> None:
    for s in (0.0, -0.21):
        assert_exact(constant_operator((7, 6), (1.0, 2.5), ends, s))


@pytest.mark.parametrize("ends", itertools.product([None, (1, 1), (0, 0), (0, 1)], repeat=3), ids=str)
def test_combinations_in_three_dimensions(ends: tuple[tuple[float, float] | None, ...]) -> None:
    assert_exact(constant_operator((4, 5, 6), (1.0, 2.0, 0.5), ends))


@pytest.mark.parametrize(
    ("ends", "offset", "exact"),
    [
        # nodes between Dirichlet ends, cells between closed ends, cells between Dirichlet faces
        ((1.0, 1.0), 1.0, lambda x: np.sin(3 * np.pi * x)),
        ((0.0, 0.0), 0.5, lambda x: np.cos(3 * np.pi * x)),
        ((2.0, 2.0), 0.5, lambda x: np.sin(3 * np.pi * x)),
    ],
)
def test_poisson_converges_with_order_two(ends: tuple[float, float], offset: float, exact: object) -> None:
    """-Δu = f with u a product of two waves: the error against the exact solution falls by 4."""
    errors = []
    for n in (16, 32, 64):
        count = n - 1 if offset == 1.0 else n
        x = (np.arange(count) + offset) / n
        u = exact(x)[:, None] * exact(x)[None, :]  # type: ignore[operator]
        operator = constant_operator((count, count), (n**2, n**2), (ends, ends))
        solution = solve_verified(Transform().build(), system_of(operator, 18 * np.pi**2 * u), 1e-10)
        assert solution.status is SolveStatus.converged
        errors.append(np.abs(solution.value - u.ravel()).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, 2.0, atol=0.1)


def test_a_batch_is_what_its_members_are_alone() -> None:
    rng = np.random.default_rng(2)
    one = constant_operator((9, 8), (1.0, 2.0), ((1, 1), None))
    other = constant_operator((9, 8), (1.0, 3.0), ((1, 1), None))
    again = constant_operator((9, 8), (1.0, 2.0), ((1, 1), None))
    systems = [system_of(operator, rng.standard_normal(72)) for operator in [one, other, again] * 15]
    together = solve_batch_verified(Transform().build(), systems, 1e-12)
    for system, solution in zip(systems, together, strict=True):
        alone = solve_verified(Transform().build(), system, 1e-12)
        assert solution.status is alone.status is SolveStatus.converged
        np.testing.assert_allclose(solution.value, alone.value, rtol=1e-13, atol=1e-15)


def test_a_resonance_breaks_down() -> None:
    eigenvalue = 4.0 * np.sin(np.pi / 20) ** 2 + 4.0 * np.sin(3 * np.pi / 20) ** 2
    operator = constant_operator((9, 9), (1.0, 1.0), ((1, 1), (1, 1)), -eigenvalue)
    solution = solve_verified(Transform().build(), system_of(operator, np.ones(81)), 1e-8)
    assert solution.status is SolveStatus.breakdown
    # Two modes, by the symmetry of the square.
    assert "the operator is singular: 2 of its eigenvalues vanish" in solution.detail


def test_coefficients_that_vary_break_down_and_say_where() -> None:
    operator = constant_operator((5, 6), (1.0, 2.0), ((1, 1), (0, 0)))
    operator.conductances[1][2, 3] = 2.1
    running = Transform().build()
    solution = solve_verified(running, system_of(operator, np.ones(30)), 1e-8)
    assert solution.status is SolveStatus.breakdown
    assert "the conductances between neighbours along axis 1 vary from 2 to 2.1" in solution.detail
    operator = constant_operator((5, 6), (1.0, 2.0), ((1, 1), (0, 0)))
    assert solve_verified(running, system_of(operator, np.ones(30)), 1e-8).status is SolveStatus.converged
    bad = solve_verified(running, system_of(operator, np.full(30, np.nan)), 1e-8)
    assert bad.status is SolveStatus.breakdown and "not finite" in bad.detail


def test_mismatch_says_why() -> None:
    operator = constant_operator((5, 6), (1.0, 2.0), ((1, 1), (0, 0)))
    varying = LinearSystem.from_operator(operator, np.ones(30))
    assert "the coefficients of this one vary" in (Transform().mismatch(varying) or "")
    general = LinearSystem.from_matrix(operator.to_csr(), np.ones(30))
    assert "this is a general matrix" in (Transform().mismatch(general) or "")
