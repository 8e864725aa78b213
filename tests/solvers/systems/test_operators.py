"""The diffusion operator against its own matrix and against a plain sum over neighbours."""

import itertools

import numpy as np
import pytest

from headrace.solvers import DiffusionOperator, LinearSystem


def random_operator(shape: tuple[int, ...], periodic: tuple[bool, ...], *, reaction: bool = False) -> DiffusionOperator:
    rng = np.random.default_rng(5)
    conductances = tuple(
        rng.uniform(0.5, 2.0, tuple(n + (k == axis and not periodic[axis]) for k, n in enumerate(shape)))
        for axis in range(len(shape))
    )
    return DiffusionOperator(
        conductances=conductances, periodic=periodic, reaction=rng.uniform(0.1, 1.0, shape) if reaction else None
    )


SHAPES = [((7,), (False,)), ((7,), (True,)), ((1,), (True,)), ((2, 3), (True, True)), ((1, 1, 1), (False,) * 3)]
SHAPES += [((4, 5), periodic) for periodic in itertools.product([False, True], repeat=2)]
SHAPES += [((3, 4, 5), periodic) for periodic in itertools.product([False, True], repeat=3)]


@pytest.mark.parametrize("reaction", [False, True])
@pytest.mark.parametrize(("shape", "periodic"), SHAPES)
def test_matrix_and_application_are_the_sum_over_faces(
    shape: tuple[int, ...], periodic: tuple[bool, ...], reaction: bool
) -> None:
    operator = random_operator(shape, periodic, reaction=reaction)
    u = np.random.default_rng(1).standard_normal(shape)
    expected = np.zeros(shape) if operator.reaction is None else operator.reaction * u
    for point in itertools.product(*map(range, shape)):
        for axis, n in enumerate(shape):
            for step, face in ((-1, point[axis]), (1, point[axis] + 1)):
                neighbour = list(point)
                neighbour[axis] += step
                at = list(point)
                at[axis] = face % n if periodic[axis] else face
                outside = not periodic[axis] and not 0 <= neighbour[axis] < n
                neighbour[axis] %= n
                value = 0.0 if outside else u[tuple(neighbour)]
                expected[point] += operator.conductances[axis][tuple(at)] * (u[point] - value)
    matrix = operator.to_csr()
    np.testing.assert_allclose(operator.apply(u), expected, atol=1e-14)
    np.testing.assert_allclose(matrix @ u.ravel(), expected.ravel(), atol=1e-14)
    np.testing.assert_allclose(matrix.diagonal(), matrix.toarray().diagonal())
    np.testing.assert_allclose(matrix.toarray(), matrix.toarray().T)
    assert all(np.all(np.diff(matrix.indices[a:b]) > 0) for a, b in itertools.pairwise(matrix.indptr))
    if min(shape) > 2:
        np.testing.assert_allclose(operator.diagonal().ravel(), matrix.diagonal())


def neumann(n: int) -> DiffusionOperator:
    closed_x, closed_y = np.ones((n + 1, n)), np.ones((n, n + 1))
    closed_x[[0, -1]] = closed_y[:, [0, -1]] = 0.0
    return DiffusionOperator(conductances=(closed_x, closed_y))


def test_a_closed_box_is_singular_and_can_be_grounded() -> None:
    operator = neumann(5)
    assert operator.singular
    rhs = np.random.default_rng(0).standard_normal(25)
    rhs -= rhs.mean()
    system = LinearSystem.from_operator(operator, rhs)
    assert system.structure.singular and system.structure.positive_definite
    x = system.without_mean(np.linalg.solve(system.regular_matrix.toarray(), rhs))
    assert system.relative_residual(x) < 1e-13
    assert abs(x.mean()) < 1e-14
    np.testing.assert_allclose(system.matrix @ np.ones(25), 0.0, atol=1e-15)


def test_a_closed_box_with_a_net_source_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sums to 25, expected 0: the system has no solution. Balance the source"):
        LinearSystem.from_operator(neumann(5), np.ones(25))


def test_a_reaction_or_an_open_face_makes_it_regular() -> None:
    closed = neumann(4)
    assert not DiffusionOperator(conductances=closed.conductances, reaction=np.full((4, 4), 1e-3)).singular
    opened = closed.conductances[0].copy()
    opened[0, 2] = 1.0
    assert not DiffusionOperator(conductances=(opened, closed.conductances[1])).singular
    assert DiffusionOperator(conductances=(np.ones((3, 4)), np.ones((3, 4))), periodic=(True, True)).singular


@pytest.mark.parametrize(
    ("conductances", "periodic"),
    [((np.ones((3, 3)), np.ones((3, 3))), (False, False)), ((np.ones(3),), (True, True)), ((), ())],
)
def test_shapes_that_do_not_fit_are_refused(conductances: tuple[np.ndarray, ...], periodic: tuple[bool, ...]) -> None:
    with pytest.raises(ValueError, match="expected one array of conductances for each of 1 to 3 axes"):
        DiffusionOperator(conductances=conductances, periodic=periodic)
