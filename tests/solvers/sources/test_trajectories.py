"""From indices to trajectories, and the choice of grid and step."""

import dataclasses
import itertools
import pickle
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from headrace.platform.errors import InputError
from headrace.platform.sample import Failure, Request, Sample
from headrace.platform.samplers.sampler import Axis
from headrace.platform.seeding import generator
from headrace.platform.spec import kinds
from headrace.solvers.evolution.accuracy import choose_numerics
from headrace.solvers.evolution.evolution import AbstractEvolution, Draw, Snapshot, looked_at
from headrace.solvers.evolution.semilinear import AbstractSemilinear
from headrace.solvers.evolution.stepper import Stepper
from headrace.solvers.numerics import Numerics
from headrace.solvers.problems import Burgers, KuramotoSivashinsky, NavierStokes, ShallowWater
from headrace.solvers.sampled import DEFAULT_LEVEL
from headrace.solvers.sources.all_sampled import SAMPLED
from headrace.solvers.sources.trajectories import EvolutionSource

EVERY = [one for one in kinds("headrace.problems", SAMPLED).values() if issubclass(one, AbstractEvolution)]


def quick(kind: type[AbstractEvolution]) -> AbstractEvolution:
    """A few steps of an equation on a grid that takes moments."""
    problem = kind()
    changes = {"horizon": 10.0 * problem.default_step, "snapshots": 3}
    is_small = len(problem.grid.shape) == 1 and isinstance(problem, AbstractSemilinear)
    return problem.overridden(changes if is_small else changes | {"resolution": 32})


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_a_sample_of_every_level_is_followed(kind: type[AbstractEvolution]) -> None:
    problem = quick(kind)
    levels = [DEFAULT_LEVEL, *problem.levels()]
    source = EvolutionSource.model_validate({"problem": problem.model_dump(), "mix": dict.fromkeys(levels, 1.0)})
    schema = source.schema()
    results = list(source.samples(range(12)))
    assert sorted(result.provenance.index for result in results if isinstance(result, Sample)) == list(range(12))
    assert len({result.provenance.level for result in results if isinstance(result, Sample)}) > 1
    for sample in results:
        assert isinstance(sample, Sample), sample
        assert sample.inputs.shape == (schema.num_input_channels, *schema.domain.shape)
        assert sample.outputs.shape == (3, schema.num_output_channels, *schema.domain.shape)
        assert sample.parameters.shape == (schema.num_parameters,)
        assert sample.provenance.status == "integrated" and sample.provenance.num_iterations >= 3
        for array in (sample.inputs, sample.outputs, sample.parameters):
            assert array.dtype == np.float32 and np.isfinite(array).all()
        assert np.abs(sample.outputs[-1]).max() > 0.0


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_an_equation_travels_and_comes_back(kind: type[AbstractEvolution]) -> None:
    source = EvolutionSource(problem=kind())
    assert pickle.loads(pickle.dumps(source)) == source
    assert EvolutionSource.model_validate_json(source.model_dump_json()) == source


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_a_refined_grid_shows_the_same_start(kind: type[AbstractEvolution]) -> None:
    problem = quick(kind)
    coarse = problem.draw(generator(1, "draw"))
    fine = problem.refined(2).draw(generator(1, "draw"))
    assert coarse.scalars == fine.scalars
    for name, field in coarse.fields.items():
        # At points but for the mean that some equations take away, which is that of other points. The mean of four
        # values beside a cell's centre differs from the one there by h² / 32 times the Laplacian, about 20 std of the
        # field over the square of its correlation length, a fifth of the box or 6 of 32 cells.
        tolerance = 0.02 if problem.grid.location == "cells" else 2e-3
        if "mask" in fine.fields:
            tolerance = 0.06  # the flow goes around obstacles of two cells
        np.testing.assert_allclose(problem.restrict(fine.fields[name], 2), field, atol=tolerance * np.ptp(field))


@pytest.mark.parametrize(
    ("num_times", "expected"), [(1, {0}), (2, {0, 1}), (3, {0, 1, 2}), (4, {0, 1, 2, 3}), (10, {1, 4, 7, 9})]
)
def test_steps_are_looked_at_all_along_the_way(num_times: int, expected: set[int]) -> None:
    assert looked_at(num_times) == expected


def test_a_sample_is_the_same_whoever_solves_it() -> None:
    source = EvolutionSource(problem=quick(Burgers), mix={"viscous": 1.0, "shock": 1.0}, seed=3)
    together = {s.provenance.index: s for s in source.samples(range(9)) if isinstance(s, Sample)}
    for index in (7, 2):
        (alone,) = source.samples([index])
        assert isinstance(alone, Sample)
        for name in ("inputs", "outputs", "parameters"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(together[index], name))


def test_parameters_are_what_was_solved_with() -> None:
    source = EvolutionSource(problem=quick(NavierStokes))
    (sample,) = source.samples([5])
    assert isinstance(sample, Sample)
    draw = source.problem.draw(generator(0, "train", "fields", 5))
    assert sample.parameters.tolist() == list(draw.scalars.values())


def test_a_parameter_that_was_chosen_is_used_and_changes_nothing_else_that_is_drawn() -> None:
    problem = quick(Burgers).overridden({"viscosity": {"low": 0.01, "high": 0.1, "scale": "log"}})
    source = EvolutionSource(problem=problem)
    assert source.sampler_context().axes == {"default": {"viscosity": Axis(low=0.01, high=0.1, scale="log")}}
    (drawn,) = source.samples([5])
    value = 0.07
    (chosen,) = source.build().solve([Request(index=5, level="default", parameters={"viscosity": value})])
    assert isinstance(drawn, Sample) and isinstance(chosen, Sample)
    names = list(problem.scalars)
    assert (
        chosen.parameters[names.index("viscosity")] == np.float32(value) != drawn.parameters[names.index("viscosity")]
    )
    np.testing.assert_array_equal(chosen.inputs, drawn.inputs)
    fixed = EvolutionSource(problem=problem.overridden({"viscosity": float(np.float32(value))}))
    assert fixed.sampler_context().axes == {"default": {}}, "a number is no choice"
    # By hand: the same start, followed with the other number.
    draw = problem.draw(generator(0, "train", "fields", 5))
    draw = dataclasses.replace(draw, scalars={**draw.scalars, "viscosity": float(np.float32(value))})
    (followed,) = Stepper(problem).parts([draw], len(problem.times))
    np.testing.assert_array_equal(chosen.outputs, followed.outputs[0])
    assert np.abs(chosen.outputs - drawn.outputs).max() > 1e-3


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(index=5, level="default", parameters={"viscosity": 0.2}), "expected a value from 0.01 to 0.1"),
        (Request(index=5, level="default", parameters={"viscosty": 0.02}), 'Did you mean "viscosity"'),
        (Request(index=5, level="shock"), 'sample 5 of train is level "shock"; expected one of default'),
    ],
)
def test_a_request_for_what_there_is_not_is_refused(request_: Request, words: str) -> None:
    problem = quick(Burgers).overridden({"viscosity": {"low": 0.01, "high": 0.1, "scale": "log"}})
    with pytest.raises(InputError) as raised:
        list(EvolutionSource(problem=problem).build().solve([request_]))
    assert words in str(raised.value)


def test_a_trajectory_that_blows_up_is_a_failure_with_its_reason() -> None:
    problem = KuramotoSivashinsky(viscosity=1.0, start={"std": 1e4}, horizon=50.0)
    source = EvolutionSource(problem=problem, numerics={DEFAULT_LEVEL: Numerics(step=5.0)})
    built = source.build()
    results = list(built.solve(source.requests([0, 1])))
    assert all(isinstance(result, Failure) and "blew up before t = " in result.reason for result in results)
    assert built.report()["failed"] == 2


def test_what_a_step_is_too_long_for_is_followed_again_with_a_shorter_one() -> None:
    problem = Burgers(viscosity=0.05, horizon=1.0, snapshots=4)
    source = EvolutionSource(problem=problem, numerics={DEFAULT_LEVEL: Numerics(step=0.25)})
    built = source.build()
    results = list(built.solve(source.requests(range(4))))
    truth = Stepper(problem, Numerics(step=1e-3))
    for result in results:
        assert isinstance(result, Sample)
        draw = problem.draw(generator(0, "train", "fields", result.provenance.index))
        expected = truth.follow([draw]).outputs[0]
        assert np.linalg.norm(result.outputs - expected) < 0.02 * np.linalg.norm(expected)
    report = built.report()
    assert report["failed"] == 0 and report["rescued"] == 4
    told = str(report["rescues"])
    assert "a step differs from two half steps" in told and "; solved with step" in told
    assert all("at most 0.25" not in result.provenance.solver for result in results if isinstance(result, Sample))


def test_the_chosen_grid_and_step_meet_the_accuracy() -> None:
    problem = Burgers(resolution=32, viscosity={"low": 4e-3, "high": 5e-3}, horizon=0.5, snapshots=4)
    told: list[str] = []
    choice = choose_numerics(problem, 0.02, level="shock", seed=0, num_pilots=3, tell=told.append)
    assert choice.numerics.refinement > 1, "32 points do not hold such a front"
    assert choice.error <= 0.02 and told
    assert all(trial.error > 0.02 for trial in choice.trials[:-1])
    # Other samples, against a solution that is finer by far.
    chosen = Stepper(problem, choice.numerics)
    truth = Stepper(problem, Numerics(refinement=16, step=choice.numerics.step / 16.0))
    errors = []
    for number in range(4):
        a, b = (
            stepper.follow([stepper.fine.draw(generator(9, "other", number))]).outputs for stepper in (chosen, truth)
        )
        errors.append(np.linalg.norm(a - b) / np.linalg.norm(b))
    assert np.median(errors) < 0.02


def test_an_equation_that_sets_its_steps_is_solved_once_on_a_grid() -> None:
    told: list[str] = []
    problem = ShallowWater(resolution=16, dim=1, snapshots=2)
    choice = choose_numerics(problem, 0.1, level="default", seed=0, num_pilots=2, tell=told.append)
    assert choice.numerics.step == problem.shortest_interval
    assert len(told) == len(choice.trials) + 1, told


def test_an_easier_level_is_solved_more_cheaply() -> None:
    problem = Burgers(resolution=64, horizon=0.5, snapshots=4)
    easy, hard = (choose_numerics(problem.at_level(level), 0.01, level=level, seed=0) for level in ("viscous", "shock"))
    assert easy.numerics.refinement < hard.numerics.refinement
    assert easy.numerics.step >= hard.numerics.step


def test_an_accuracy_that_no_grid_reaches_is_said() -> None:
    problem = Burgers(resolution=8, viscosity=5e-4, horizon=0.5, snapshots=2)
    with pytest.raises(InputError, match="on a grid up to 16 times as fine as the output's") as raised:
        choose_numerics(problem, 1e-4, level="default", seed=0, num_pilots=1)
    assert "raise the resolution or the accuracy" in str(raised.value)


def test_a_step_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        Numerics(step=0.0)


def test_the_parts_of_a_trajectory_are_the_trajectory() -> None:
    problem = quick(Burgers).overridden({"snapshots": 6})
    source = EvolutionSource(problem=problem, mix={"viscous": 1.0, "shock": 1.0}, seed=3)
    cut = source.model_copy(update={"times_per_part": 2})
    assert cut.schema().parts == 3 and cut.schema().times == source.schema().times[:2]
    whole = {s.provenance.index: s for s in source.samples(range(5)) if isinstance(s, Sample)}
    parts = {s.provenance.index: s for s in cut.samples(range(15)) if isinstance(s, Sample)}
    assert sorted(parts) == list(range(15))
    for index, trajectory in whole.items():
        mine = [parts[3 * index + number] for number in range(3)]
        np.testing.assert_array_equal(np.concatenate([part.outputs for part in mine]), trajectory.outputs)
        np.testing.assert_array_equal(mine[0].inputs, trajectory.inputs)
        for before, after in itertools.pairwise(mine):
            np.testing.assert_array_equal(after.inputs, before.outputs[-1])
        assert {part.provenance.level for part in mine} == {trajectory.provenance.level}
        assert sum(part.provenance.num_iterations for part in mine) == trajectory.provenance.num_iterations


def test_parts_come_as_they_are_solved_and_one_alone_is_the_same() -> None:
    problem = quick(Burgers).overridden({"snapshots": 6})
    source = EvolutionSource(problem=problem, times_per_part=2)
    indices = [sample.provenance.index for sample in source.samples(range(6)) if isinstance(sample, Sample)]
    assert indices == [0, 3, 1, 4, 2, 5]
    together = {s.provenance.index: s for s in source.samples(range(6)) if isinstance(s, Sample)}
    (alone,) = source.samples([4])
    assert isinstance(alone, Sample) and alone.provenance.index == 4
    np.testing.assert_array_equal(alone.outputs, together[4].outputs)
    np.testing.assert_array_equal(alone.inputs, together[4].inputs)


def test_a_trajectory_that_breaks_keeps_the_parts_before(monkeypatch: pytest.MonkeyPatch) -> None:
    follow = Burgers.follow

    def breaks(problem: Burgers, draws: Sequence[Draw], step: float) -> Iterator[Snapshot]:
        """What is thin is lost after the third output time, with whatever step."""
        thin = np.array([draw.scalars["viscosity"] < 0.01 for draw in draws])
        for number, snapshot in enumerate(follow(problem, draws, step)):
            state = np.where(thin[:, None, None], np.nan, snapshot.state) if number >= 3 else snapshot.state
            yield dataclasses.replace(snapshot, state=state)

    monkeypatch.setattr(Burgers, "follow", breaks)
    problem = quick(Burgers).overridden({"snapshots": 8, "viscosity": {"low": 1e-3, "high": 1e-1, "scale": "log"}})
    source = EvolutionSource(problem=problem, times_per_part=2)
    built = source.build()
    results = list(built.solve(source.requests(range(32))))
    assert sorted(r.index if isinstance(r, Failure) else r.provenance.index for r in results) == list(range(32))
    failures = [result for result in results if isinstance(result, Failure)]
    broken = {failure.index // 4 for failure in failures}
    assert 0 < len(broken) < 8
    assert sorted(failure.index for failure in failures) == [4 * t + part for t in sorted(broken) for part in (1, 2, 3)]
    assert all("blew up before t = " in failure.reason for failure in failures)
    for trajectory in broken:
        costs = [failure.wall_seconds for failure in failures if failure.index // 4 == trajectory]
        assert costs[0] > 0.0 and not any(costs[1:])
    assert built.report()["failed"] == len(failures)


@pytest.mark.parametrize(
    ("snapshots", "words"),
    [(5, "5 output times are no multiple of 2"), ((0.1, 0.3, 0.4, 1.0), "not evenly spaced from 0 on")],
)
def test_parts_that_do_not_divide_a_trajectory_are_refused(snapshots: object, words: str) -> None:
    problem = Burgers.model_validate({"snapshots": snapshots})
    with pytest.raises(ValueError, match=words):
        EvolutionSource(problem=problem, times_per_part=2)
