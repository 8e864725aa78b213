"""Trajectories from fields of one's own: those of drawn fields, for every equation; exact ones; wrong input."""

import numpy as np
import pytest

from headrace.platform.errors import InputError
from headrace.platform.sample import Sample
from headrace.platform.seeding import generator
from headrace.platform.spec import kinds
from headrace.solvers import Burgers, Flooding, ShallowWater, follow
from headrace.solvers.evolution.evolution import AbstractEvolution
from headrace.solvers.sources.all_sampled import SAMPLED
from headrace.solvers.sources.trajectories import EvolutionSource

EQUATIONS = [one for one in kinds("headrace.problems", SAMPLED).values() if issubclass(one, AbstractEvolution)]


def small(kind: type[AbstractEvolution]) -> AbstractEvolution:
    values: dict[str, object] = {"snapshots": 2}
    if "resolution" in kind.model_fields:
        values["resolution"] = 32
    problem = kind.model_validate(values)
    return problem.overridden({"horizon": 0.05 * problem.horizon})


@pytest.mark.parametrize("kind", EQUATIONS)
def test_from_drawn_fields_it_is_the_sample(kind: type[AbstractEvolution]) -> None:
    problem = small(kind)
    (sample,) = EvolutionSource(problem=problem, seed=3).samples([0])
    assert isinstance(sample, Sample)
    draw = problem.draw(generator(3, "train", "fields", 0))
    found = follow(problem, draw.fields, draw.scalars)
    assert found.failure is None and found.times == problem.times
    outputs = np.concatenate(list(found.fields.values()), axis=1)
    # Where a method learns from its warm-up, stages are solved to their tolerance by another way.
    assert outputs == pytest.approx(sample.outputs, rel=1e-4, abs=1e-5 * float(np.abs(sample.outputs).max()))
    assert found.num_steps == sample.provenance.num_iterations


def test_a_wave_of_ones_own_does_what_the_exact_one_does() -> None:
    # Hopf and Cole's transform of φ = 1 + a exp(-ν k² t) cos(k x): u = -2 ν φ' / φ.
    nu, k, a, x = 0.05, 2.0 * np.pi, 0.5, np.arange(128) / 128

    def exact(time: float) -> np.ndarray:
        decay = a * np.exp(-nu * k**2 * time)
        return 2.0 * nu * k * decay * np.sin(k * x) / (1.0 + decay * np.cos(k * x))

    problem = Burgers(resolution=128, length=1.0, horizon=0.2, snapshots=2)
    found = follow(problem, {"velocity": exact(0.0)}, {"viscosity": nu}, step=1e-3)
    assert found.failure is None and found.step == 1e-3 and found.parameters == {"viscosity": nu}
    assert np.abs(found.fields["velocity"][:, 0] - [exact(0.1), exact(0.2)]).max() < 1e-6


def test_what_cannot_be_followed_is_told() -> None:
    water = ShallowWater(dim=1, resolution=16, snapshots=1)
    still = {"depth": np.ones(16), "velocity": np.zeros((1, 16))}
    assert follow(water, still, {"gravity": 9.81}).failure is None
    dry = follow(water, still | {"depth": np.linspace(-1.0, 1.0, 16)}, {"gravity": 9.81})
    assert dry.failure is not None and "depth -1 at the start, expected above 0" in dry.failure
    bed = Flooding(dim=1, resolution=16, snapshots=1)
    below = follow(bed, still | {"depth": np.linspace(-1.0, 1.0, 16), "bottom": np.zeros(16)})
    assert below.failure is not None and "depth -1 at the start, expected 0 or more" in below.failure


@pytest.mark.parametrize(
    ("initial", "parameters", "words"),
    [
        ({}, {"viscosity": 0.1}, "initial.velocity is not given; expected an array of shape (1, 16)"),
        ({"velocity": np.zeros(16), "u": 0}, {"viscosity": 0.1}, 'initial is "u"; expected fields velocity'),
        ({"velocity": np.zeros(17)}, {"viscosity": 0.1}, "initial.velocity is of shape (17,); expected"),
        ({"velocity": np.zeros(16, complex)}, {"viscosity": 0.1}, "initial.velocity is of type complex128"),
        ({"velocity": np.full(16, np.nan)}, {"viscosity": 0.1}, "initial.velocity is 16 values not finite"),
        ({"velocity": np.zeros(16)}, {}, "parameters.viscosity is not given; expected a number, such as"),
        ({"velocity": np.zeros(16)}, {"nu": 1.0}, 'parameters is "nu"; expected numbers viscosity'),
        ({"velocity": np.zeros(16)}, {"viscosity": np.inf}, "parameters.viscosity is inf; expected a finite number"),
    ],
)
def test_wrong_input_is_named(initial: dict[str, np.ndarray], parameters: dict[str, float], words: str) -> None:
    with pytest.raises(InputError) as error:
        follow(Burgers(resolution=16), initial, parameters)
    assert words in str(error.value)


def test_a_step_that_is_none_is_named() -> None:
    with pytest.raises(InputError, match="step is -1; expected a positive time step"):
        follow(Burgers(resolution=16), {"velocity": np.zeros(16)}, {"viscosity": 0.1}, step=-1.0)
