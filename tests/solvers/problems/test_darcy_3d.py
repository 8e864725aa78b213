"""Darcy flow in the cube: order, conservation, agreement with two dimensions, and what it refuses."""

import numpy as np
import pytest
import scipy.sparse.linalg

from headrace.solvers import Darcy, Darcy3D
from headrace.solvers.random_inputs.permeability import TwoPhase
from headrace.solvers.systems.system import LinearSystem

PI = np.pi


def solved(system: LinearSystem) -> np.ndarray:
    u, info = scipy.sparse.linalg.cg(system.matrix, system.rhs, rtol=1e-11, maxiter=5000)
    assert info == 0
    return u


def test_second_order_against_a_manufactured_solution() -> None:
    """u = sin πx sin 2πy sin πz with a = 1 + x/2 + y z."""
    errors, spacings = [], []
    for n in (9, 14, 21):
        x, y, z = np.meshgrid(*[np.linspace(0, 1, n)] * 3, indexing="ij")
        sx, sy, sz = np.sin(PI * x), np.sin(2 * PI * y), np.sin(PI * z)
        u, a = sx * sy * sz, 1 + x / 2 + y * z
        u_x, u_y, u_z = (
            PI * np.cos(PI * x) * sy * sz,
            2 * PI * sx * np.cos(2 * PI * y) * sz,
            PI * sx * sy * np.cos(PI * z),
        )
        fields = {"permeability": a, "source": 6 * PI**2 * a * u - 0.5 * u_x - z * u_y - y * u_z}
        value = solved(Darcy3D(resolution=n).discretize(fields))
        errors.append(np.sqrt(np.mean((value.reshape((n - 2,) * 3) - u[1:-1, 1:-1, 1:-1]) ** 2)))
        spacings.append(1 / (n - 1))
    orders = np.diff(np.log(errors)) / np.diff(np.log(spacings))
    assert orders.min() > 1.9, (errors, orders)


def test_two_phase_flow_conserves_mass() -> None:
    problem = Darcy3D(resolution=14, permeability=TwoPhase(low=1.0, high=100.0), source=2.5)
    system = problem.discretize(problem.draw(4))
    assert system.operator is not None
    u = solved(system).reshape((12,) * 3)
    leaves = sum(
        flux.take(-1, axis=k).sum() - flux.take(0, axis=k).sum() for k, flux in enumerate(system.operator.fluxes(u))
    )
    # The solve ends at 1e-11 of the source, in the norm.
    assert leaves == pytest.approx(2.5 * 12**3 / 13**2, rel=1e-9)


def test_faces_take_harmonic_means_and_every_axis_is_alike() -> None:
    n = 7
    a = np.exp(np.random.default_rng(0).standard_normal((n, n, n)))
    operator = Darcy3D(resolution=n).discretize({"permeability": a}).operator
    assert operator is not None
    for axis in range(3):
        along = np.moveaxis(a, axis, 0)[:, 1:-1, 1:-1]
        expected = 2.0 / (1.0 / along[1:] + 1.0 / along[:-1])
        np.testing.assert_allclose(np.moveaxis(operator.conductances[axis], axis, 0), expected, rtol=1e-14)


def test_a_slice_is_the_operator_of_two_dimensions() -> None:
    n = 9
    flat = Darcy(resolution=n).draw(0)["permeability"]
    cube = Darcy3D(resolution=n).discretize({"permeability": np.repeat(flat[:, :, None], n, axis=2)}).operator
    square = Darcy(resolution=n).discretize({"permeability": flat}).operator
    assert cube is not None and square is not None
    for axis in range(2):
        np.testing.assert_array_equal(cube.conductances[axis][:, :, 3], square.conductances[axis])


def test_draws_are_reproducible_and_held_by_single_precision() -> None:
    for level in Darcy3D().levels():
        problem = Darcy3D(resolution=12).at_level(level)
        a = problem.draw(7)["permeability"]
        assert a.shape == (12, 12, 12) and a.min() > 0.0 and np.array_equal(a, a.astype(np.float32))
        assert np.array_equal(a, problem.draw(7)["permeability"])
        assert not np.array_equal(a, problem.draw(8)["permeability"])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"permeability": np.ones((8, 8))}, r"permeability has shape \(8, 8\), expected \(8, 8, 8\)"),
        ({"permeability": np.zeros((8, 8, 8))}, "permeability has the value 0, expected positive values"),
        ({"permeability": np.full((8, 8, 8), np.nan)}, "permeability has 512 values that are not finite"),
        ({}, r"expected the array permeability and, if wanted, source; got \[\]"),
    ],
)
def test_bad_arrays_are_refused(fields: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Darcy3D(resolution=8).discretize(fields)
