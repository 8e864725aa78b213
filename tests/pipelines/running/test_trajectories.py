"""Forecasts over time, and the choice of grid and step before a run."""

import io

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

from headrace.pipelines.recipe.config import RunConfig, validate
from headrace.pipelines.report.trajectories import animation, over_time, rollout_errors
from headrace.pipelines.running.budget import with_costs
from headrace.pipelines.running.numerics import with_numerics
from headrace.pipelines.running.pilots import Settled, settled
from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.solvers.evolution.accuracy import Choice, choose_numerics
from headrace.solvers.methods import Multigrid
from headrace.solvers.numerics import Numerics
from headrace.solvers.sources import trajectories
from headrace.solvers.sources.trajectories import EvolutionSource

TIMES = (0.5, 1.0, 1.5, 2.0)


def schema(shape: tuple[int, ...]) -> SampleSchema:
    domain = Grid(shape=shape, extent=(1.0,) * len(shape), periodic=(True,) * len(shape))
    return SampleSchema(inputs=(FieldSpec(name="u"),), outputs=(FieldSpec(name="u"),), domain=domain, times=TIMES)


def test_a_forecast_holds_until_it_knows_no_more_than_the_mean() -> None:
    truth = np.random.default_rng(0).normal(size=(3, 4, 1, 16))
    error = np.zeros_like(truth)
    error[1] = np.array([0.1, 0.5, 2.0, 0.1]).reshape(4, 1, 1) * truth[1].std(axis=-1, keepdims=True)
    error[2] = np.array([0.1, np.nan, np.inf, 0.0]).reshape(4, 1, 1)
    groups = {"all": np.array([True, True, True]), "second": np.array([False, True, False])}
    found = over_time(truth + error, truth, schema((16,)).domain, TIMES, groups)
    assert found["times"] == list(TIMES)
    second = found["groups"]["second"]
    assert second["vrmse"]["median"] == pytest.approx([0.1, 0.5, 2.0, 0.1])
    assert second["horizon"] == 1.0 and second["lost"] == 1.0
    # One of three broke: the median is another's, and the tail is beyond all bounds.
    whole = found["groups"]["all"]["vrmse"]
    assert whole["median"][1:3] == pytest.approx([0.5, 2.0]) and whole["p95"][1:3] == [np.inf, np.inf]
    # The first never fails, the third holds until 0.5.
    assert found["groups"]["all"]["horizon"] == 1.0 and found["groups"]["all"]["lost"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("shape", [(16,), (12, 10), (6, 5, 4)])
def test_a_forecast_moves_from_one_output_time_to_the_next(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(3, 4, 1, *shape)).astype(np.float32)
    prediction = truth.copy()
    prediction[1, 2] = np.nan
    arrays = {
        "truth": truth,
        "prediction": prediction,
        "relative_l2": np.array([0.2, 0.1, 0.3]),
        "index": np.arange(3),
        "level": np.array(["easy"] * 3),
    }
    with Image.open(io.BytesIO(animation(arrays, schema(shape)))) as movie:
        assert movie.format == "GIF" and movie.n_frames == 4


def test_errors_over_time_are_drawn_for_every_level() -> None:
    truth = np.random.default_rng(0).normal(size=(4, 4, 1, 16))
    groups = {"all": np.ones(4, dtype=bool), "easy": np.arange(4) < 2, "hard": np.arange(4) >= 2}
    figure = rollout_errors(over_time(0.9 * truth, truth, schema((16,)).domain, TIMES, groups), ["easy", "hard"])
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines[:4]] == ["easy", "hard", "all", "all, 95th percentile"]


def recipe(**data: object) -> dict[str, object]:
    problem = {"kind": "burgers", "resolution": 32, "horizon": 0.25, "snapshots": 2}
    return {"data": {"problem": problem, "samples": 8} | data, "tracking": {"enabled": False}}


def config_of(**data: object) -> RunConfig:
    return validate(recipe(**data), "generate")


def test_an_accuracy_becomes_a_grid_and_a_step_for_every_level() -> None:
    config = config_of(accuracy=0.05, mix={"viscous": 1.0, "medium": 1.0})
    settled, choices = with_numerics(config, Console(quiet=True))
    assert [choice.level for choice in choices] == ["viscous", "medium"]
    assert settled.data is not None and dict(settled.data.numerics) == {c.level: c.numerics for c in choices}
    source = settled.source("train")
    assert isinstance(source, EvolutionSource) and source.numerics == settled.data.numerics
    # A run that is gone on with has them in its recipe, and keeps them.
    again, none = with_numerics(settled, Console(quiet=True))
    assert again == settled and none == []


def test_numerics_of_the_recipe_are_taken_as_they_are() -> None:
    config = config_of(numerics={"default": {"refinement": 2, "step": 0.01}})
    settled, choices = with_numerics(config, Console(quiet=True))
    assert settled is config and not choices
    source = settled.source("train")
    assert isinstance(source, EvolutionSource) and source.numerics["default"] == Numerics(refinement=2, step=0.01)


def test_a_replay_solves_no_pilots() -> None:
    raw = recipe(accuracy=0.05) | {"stream": {"mode": "replay", "recording": "earlier"}}
    raw |= {"surrogate": {"kind": "fno", "modes": 4}, "training": {"steps": 2, "batch_size": 2}}
    config = validate(raw, "run")
    assert with_numerics(config, Console(quiet=True)) == (config, [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"accuracy": 2.0}}, "data.accuracy is 2.0"),
        ({"data": {"numerics": {"hard": {"step": 0.1}}}}, "data.numerics.hard is not a level of the data"),
        (
            {"data": {"numerics": {"default": {"step": 0.0}}}},
            "data.numerics.default.step is 0.0; expected greater than 0",
        ),
        ({"data": {"problem": {"viscosity": -1.0}}}, "data.problem.viscosity is -1; expected viscosity above 0."),
        (
            {"data": {"levels": {"own": {"viscosity": {"low": -1.0, "high": 1.0, "scale": "linear"}}}}},
            "data.levels.own.viscosity is -1 to 1; expected viscosity above 0.",
        ),
        (
            {"data": {"problem": {"kind": "flow_past_obstacles", "obstacle_side": 0.1}}},
            "data.problem is not consistent; expected an obstacle_side of 2, 4, 6, ... cells",
        ),
        ({"data": {"problem": {"viscosity": "thin"}}}, 'data.problem.viscosity is "thin"; expected a valid number'),
        ({"data": {"problem": {"viscosity": {"low": 1.0, "hihg": 2.0}}}}, "data.problem.viscosity.hihg is unknown"),
        ({"data": {"problem": {"snapshots": [0.1, 2.0]}}}, "output times up to the horizon"),
        ({"solver": {"rtol": 1e-6}}, "an equation in time is followed by its own integrator"),
        (
            {"data": {"problem": {"kind": "darcy"}, "numerics": {"default": {"step": 0.1}}}},
            "expected nothing: darcy does not step in time",
        ),
        (
            {"data": {"problem": {"kind": "heat_in_media"}}, "solver": {"order": "greedy"}},
            'solver.order is "greedy"; expected nothing: trajectories are followed in the order of their numbers',
        ),
        (
            {"data": {"problem": {"kind": "heat_in_media"}}, "solver": {"method": {"kind": "transform"}}},
            "solver.method is transform; expected a method that fits heat_in_media at level default: Transforms need",
        ),
        (
            {"data": {"problem": {"kind": "heat_in_media"}}, "deterministic": True},
            "solver.method is auto; expected a method whose solutions do not depend on what it solved before",
        ),
        ({"data": {"times_per_part": 3}}, "data.times_per_part is 3; expected nothing, or a part of the trajectory: 2"),
        ({"data": {"times_per_part": 0}}, "data.times_per_part is 0"),
        (
            {"data": {"problem": {"kind": "darcy"}, "times_per_part": 1}},
            "expected nothing, or a part of the trajectory: darcy does not step in time",
        ),
    ],
)
def test_what_an_equation_in_time_cannot_take_is_said(changes: dict[str, object], words: str) -> None:
    raw = recipe()
    for section, values in changes.items():
        if not isinstance(values, dict):
            raw[section] = values
            continue
        there = raw.setdefault(section, {})
        assert isinstance(there, dict)
        problem = values.pop("problem", None)
        there.update(values)
        if isinstance(problem, dict):
            there["problem"] = problem if "kind" in problem else there["problem"] | problem
    with pytest.raises(InputError) as raised:
        validate(raw, "generate")
    assert words in " ".join(str(raised.value).split())


def test_the_systems_of_an_implicit_equation_are_solved_as_the_recipe_says() -> None:
    raw = recipe(problem={"kind": "heat_in_media", "resolution": 17}, mix={"linear": 1.0})
    raw["solver"] = {"method": {"kind": "multigrid"}, "rtol": 1e-6}
    source = validate(raw, "generate").source("train")
    assert isinstance(source, EvolutionSource) and source.method == Multigrid() and source.rtol == 1e-6


def test_parts_of_trajectories_are_for_strategies_that_can_learn_from_them() -> None:
    raw = recipe(times_per_part=1, samples=400)
    raw |= {"surrogate": {"kind": "fno", "modes": 4}, "training": {"steps": 2}}
    with pytest.raises(InputError, match="strategy direct: a trajectory comes in 2 parts"):
        validate(raw, "run")
    raw["training"] = {"strategy": {"kind": "autoregressive", "rollout": 2}, "steps": 2}
    with pytest.raises(InputError, match="a rollout of 2 is longer than a sample with 1 output time"):
        validate(raw, "run")
    raw["training"] = {"strategy": {"kind": "autoregressive"}, "steps": 2}
    config = validate(raw, "run")
    assert config.planned() == {"train": 800, "validation": 64, "test": 128}
    assert config.source("train").schema().parts == 2
    # Held-out trajectories are whole.
    assert config.source("validation").schema() == config.source("test").schema() == config.schema
    assert config.schema.parts == 1 and len(config.schema.times) == 2


def test_an_autoregressive_strategy_needs_a_trajectory() -> None:
    raw = recipe(problem={"kind": "darcy", "resolution": 17})
    raw |= {"surrogate": {"kind": "fno", "modes": 4}, "training": {"strategy": {"kind": "autoregressive"}, "steps": 2}}
    with pytest.raises(InputError, match="strategy autoregressive: pressure is an output and no input"):
        validate(raw, "run")


def test_a_budget_buys_samples_by_what_they_cost() -> None:
    levels = {"viscous": 3.0, "shock": 1.0}
    config = config_of(budget=12.0, samples=None, mix=levels, costs={"viscous": 0.1, "shock": 0.5})
    # Nine seconds for the cheap level, three for the dear one.
    assert config.planned()["train"] == 90 + 6
    mix = config.source("train").mix
    assert mix["viscous"] / mix["shock"] == pytest.approx(15.0)
    assert dict(config.source("test").mix) == levels
    assert with_costs(config, Console(quiet=True)) == config


def test_costs_are_measured_where_the_recipe_has_none() -> None:
    config = config_of(budget=1.0, samples=None, mix={"viscous": 1.0, "shock": 1.0}, costs={"shock": 0.25})
    settled = with_costs(config, Console(quiet=True))
    assert settled.data is not None and settled.data.costs["shock"] == 0.25
    assert 0.0 < settled.data.costs["viscous"] < 0.25
    again = validate(yaml.safe_load(settled.to_yaml()), "generate")
    assert again.planned() == settled.planned() and again.source("train") == settled.source("train")


def test_the_time_of_pilots_is_told_once() -> None:
    config = config_of(accuracy=0.05, samples=None, budget=2.0, label_error=None)
    found = settled(config, Console(quiet=True))
    done = found.config
    assert found.choices and found.seconds > 0.0 and done.data is not None and done.data.costs
    # What was settled is taken as it is, by a run that goes on.
    assert settled(done, Console(quiet=True)) == Settled(config=done, choices=[], label_errors=[], seconds=0.0)


def test_pilots_have_the_threads_of_solvers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def chosen(*arguments: object, **options: object) -> Choice:
        seen.append(torch.get_num_threads())
        return choose_numerics(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(trajectories, "choose_numerics", chosen)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        settled(config_of(accuracy=0.05), Console(quiet=True))
        assert set(seen) == {1} and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_budget_that_is_too_small_for_the_training_is_told() -> None:
    raw = recipe(budget=0.5, samples=None, costs={"default": 0.1})
    raw |= {"surrogate": {"kind": "fno", "modes": 4}, "training": {"steps": 2}}
    with pytest.raises(InputError, match=r"data.samples is 5; expected at least 16: one batch of 16"):
        validate(raw, "run")
    data = raw["data"]
    assert isinstance(data, dict)
    data.pop("costs")
    data["budget"] = 1e-6
    with pytest.raises(InputError, match="data.budget is 1e-06; expected enough for the training. The budget buys 1 "):
        with_costs(validate(raw, "run"), Console(quiet=True))


def test_a_replay_takes_a_budget_with_its_costs_alone() -> None:
    raw = recipe(budget=60.0, samples=None) | {"stream": {"mode": "replay", "recording": "earlier"}}
    raw |= {"surrogate": {"kind": "fno", "modes": 4}, "training": {"steps": 2, "batch_size": 2}}
    with pytest.raises(InputError, match=r"data.costs is .*a replay solves nothing, and measures nothing"):
        validate(raw, "run")
    data = raw["data"]
    assert isinstance(data, dict)
    data["costs"] = {"default": 0.5}
    assert validate(raw, "run").planned()["train"] == 120


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"samples": None}, "data.samples is missing; expected a number, or data.budget in solver seconds"),
        ({"budget": 10.0}, "data.samples is 8; expected nothing beside data.budget = 10"),
        ({"budget": -1.0, "samples": None}, "data.budget is -1.0; expected greater than 0"),
        ({"costs": {"default": 1.0}}, "expected nothing without data.budget"),
        ({"budget": 1.0, "samples": None, "costs": {"hard": 1.0}}, "data.costs.hard is not a level of the data"),
    ],
)
def test_what_a_budget_cannot_be_is_said(data: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as raised:
        config_of(**data)
    assert words in " ".join(str(raised.value).split())


def test_levels_that_cannot_be_solved_cost_nothing_that_can_be_known() -> None:
    problem = {"kind": "kuramoto_sivashinsky", "viscosity": 1.0, "start": {"std": 1e4}, "horizon": 50.0}
    config = config_of(
        problem=problem, budget=1.0, samples=None, numerics={"default": {"step": 5.0}}, validation=1, test=1
    )
    with pytest.raises(InputError, match="pilot samples of level default, all failed.*blew up before t"):
        with_costs(config, Console(quiet=True))
