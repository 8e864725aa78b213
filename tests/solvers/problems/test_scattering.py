"""Scattering: waves of a source and off a disk against exact ones, no echo from the layer, reciprocity, wrong input."""

import itertools
import math

import numpy as np
import pytest
from jaxtyping import Complex128, Float64
from pydantic import ValidationError
from scipy.special import h1vp, hankel1, jv, jvp

from headrace.platform.errors import InputError
from headrace.platform.sample import Request, Sample
from headrace.solvers import Scattering, solve
from headrace.solvers.sources.systems import SolverSource

Array = Float64[np.ndarray, "points points"]


def scattered(problem: Scattering, k: float, index: Array, **more: Array | float) -> Complex128[np.ndarray, "..."]:
    """The field on the grid; `source` and `angle` may be given."""
    fields = {"refractive_index": index, "wave_number": np.array([k]), "angle": np.array([more.pop("angle", 0.0)])}
    solution = solve(problem.discretize(fields | more), rtol=1e-10, method="direct")
    assert solution.status == "converged"
    _, outputs, parameters = problem.sample_arrays(fields, solution.value)
    assert parameters.tolist() == [np.float32(k), np.float32(fields["angle"][0])]
    return outputs[0, 0].astype(np.float64) + 1j * outputs[0, 1]


def around(n: int) -> tuple[Array, Array]:
    """Distance and direction from the middle."""
    x = np.linspace(-0.5, 0.5, n)
    return np.hypot(*np.meshgrid(x, x, indexing="ij")), np.arctan2(*reversed(np.meshgrid(x, x, indexing="ij")))


def of_a_source(n: int, k: float, absorbing: float = 0.15) -> float:
    """The relative error away from a Gaussian source, whose waves are (i/4) H₀(kr) times its transform there."""
    width, (r, _) = 0.05, around(n)
    problem = Scattering(resolution=n, wave_number=k, absorbing=absorbing)
    u = scattered(problem, k, np.ones((n, n)), source=np.exp(-(r**2) / (2.0 * width**2)))
    far = r > 0.3
    exact = 0.25j * hankel1(0, k * r[far]) * 2.0 * np.pi * width**2 * math.exp(-((k * width) ** 2) / 2.0)
    return float(np.linalg.norm(u[far] - exact) / np.linalg.norm(exact))


def test_waves_of_a_source_are_of_fourth_order_and_do_not_come_back() -> None:
    errors = [of_a_source(n, 8.0 * math.pi) for n in (33, 45, 61)]
    rates = [math.log(a / b) / math.log(60 / 44) for a, b in itertools.pairwise(errors)]
    assert errors[-1] < 2e-3 and min(rates) > 3.5
    assert of_a_source(41, 2.0 * math.pi) < 2e-3
    thin, thick = of_a_source(41, 4.0 * math.pi, 0.1), of_a_source(41, 4.0 * math.pi, 0.3)
    assert 2.0 * thick < thin < 3e-3


def off_a_disk(n: int, k: float, m: float = 1.3, a: float = 0.25) -> float:
    """The relative error beside a disk of index m, whose waves are a series of Bessel functions (Mie)."""
    h, count = 1.0 / (n - 1), 8
    x = np.linspace(-0.5, 0.5, n)
    squares = np.zeros((n, n))
    for dx, dy in itertools.product(((np.arange(count) + 0.5) / count - 0.5) * h, repeat=2):
        inside = np.hypot(*np.meshgrid(x + dx, x + dy, indexing="ij")) < a
        squares += np.where(inside, m * m, 1.0) / count**2
    u = scattered(Scattering(resolution=n, wave_number=k, contrast=m * m - 1.0), k, np.sqrt(squares))
    r, theta = around(n)
    exact = np.zeros((n, n), dtype=np.complex128)
    for order in range(-20, 21):
        matrix = np.array(
            [[hankel1(order, k * a), -jv(order, m * k * a)], [h1vp(order, k * a), -m * jvp(order, m * k * a)]]
        )
        outside, within = np.linalg.solve(matrix, [-jv(order, k * a), -jvp(order, k * a)])
        wave = np.where(
            r < a, within * jv(order, m * k * r) - jv(order, k * r), outside * hankel1(order, k * np.maximum(r, a))
        )
        exact += 1j**order * wave * np.exp(1j * order * theta)
    exact *= np.exp(0.5j * k)  # the plane wave has its phase 0 at the left side, not in the middle
    return float(np.linalg.norm(u - exact) / np.linalg.norm(exact))


def test_waves_off_a_disk_are_those_of_mie() -> None:
    coarse, fine = off_a_disk(29, 4.0 * math.pi), off_a_disk(57, 4.0 * math.pi)
    assert fine < 3e-3
    assert math.log2(coarse / fine) > 1.6  # the rim of the disk is a jump


def test_what_is_sent_the_other_way_comes_back_the_other_way() -> None:
    """A medium and a wave that are mirrored scatter a mirrored wave."""
    problem = Scattering(resolution=33)
    index = problem.draw(0)["refractive_index"]
    u = scattered(problem, 10.0, index, angle=0.4)
    mirrored = scattered(problem, 10.0, np.ascontiguousarray(index[:, ::-1]), angle=-0.4)
    # The phase of the plane wave is 0 in a corner, which moves.
    assert np.abs(mirrored[:, ::-1] * np.exp(1j * 10.0 * math.sin(0.4)) - u).max() < 1e-5 * np.abs(u).max()


@pytest.mark.parametrize("level", Scattering().levels())
def test_samples_are_solved_and_fade_with_the_contrast(level: str) -> None:
    source = SolverSource(problem=Scattering(resolution=41), mix={level: 1.0})
    (sample,) = source.samples([0])
    assert isinstance(sample, Sample) and sample.provenance.relative_residual <= 1e-8
    assert sample.outputs.shape == (1, 2, 41, 41) and sample.inputs.min() >= 1.0
    assert (sample.inputs[0, [0, -1]] == 1.0).all() and sample.inputs.max() > 1.01
    faint = SolverSource(problem=Scattering(resolution=41, contrast=1e-3), mix={level: 1.0})
    (other,) = faint.samples([0])
    assert isinstance(other, Sample) and np.abs(other.outputs).max() < 0.02 * np.abs(sample.outputs).max()


def test_where_the_wave_comes_from_may_be_chosen_and_changes_nothing_else() -> None:
    source = SolverSource(problem=Scattering(resolution=33))
    (drawn,) = source.build().solve([Request(index=3, level="default")])
    (chosen,) = source.build().solve([Request(index=3, level="default", parameters={"angle": 1.5})])
    assert isinstance(drawn, Sample) and isinstance(chosen, Sample)
    np.testing.assert_array_equal(drawn.inputs, chosen.inputs)
    assert chosen.parameters.tolist() == [drawn.parameters[0], 1.5] and drawn.parameters[1] != 1.5
    assert not np.array_equal(drawn.outputs, chosen.outputs)
    with pytest.raises(InputError, match="wave_number"):
        list(source.build().solve([Request(index=3, level="default", parameters={"wave_number": 3.0})]))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"wave_number": 80.0},
            "a wave number of 80 has 4.1 points a shortest wave, expected 6 or more. Take",
        ),
        ({"wave_number": 0.0}, "above 0"),
        ({"contrast": 0.0}, "greater than 0"),
    ],
)
def test_waves_that_the_grid_does_not_carry_are_refused(values: dict[str, float], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Scattering.model_validate(values)


def test_a_medium_that_is_none_is_refused() -> None:
    problem = Scattering(resolution=17, wave_number=6.0)
    fields = problem.draw(0)
    with pytest.raises(ValueError, match="expected a positive refractive_index and wave_number, got -1 and 6"):
        problem.discretize(fields | {"refractive_index": np.full((17, 17), -1.0)})
