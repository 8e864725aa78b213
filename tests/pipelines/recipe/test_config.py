"""What a user hears about a recipe: every fault at once, each with its place, value, expectation and spelling."""

import json
import textwrap
from pathlib import Path

import jsonschema
import pytest
import yaml

from headrace.pipelines.recipe.config import RunConfig, load, parse, read_recipe, recipe_names, validate
from headrace.pipelines.running.online import lease_orders
from headrace.platform.errors import InputError
from headrace.platform.samplers.fixed_mix import FixedMix
from headrace.platform.samplers.loss_weighted import LossWeighted
from headrace.platform.samplers.stratified import STRATIFIED

RECIPE = """
name: test
data:
  problem: {kind: darcy, resolution: 17}
  mix: {smooth: 1, rough: 1}
  samples: 100
surrogate: {kind: fno, modes: 4, width: 8}
training:
  steps: 10
  batch_size: 8
stream:
  reservoir: {capacity: 64, watermark: 16}
"""


def faults(*overrides: str, text: str = RECIPE, command: str = "run") -> dict[str, str]:
    with pytest.raises(InputError) as caught:
        validate(parse(text, "recipe.yaml", overrides), command)  # type: ignore[arg-type]
    return {fault.where: str(fault) for fault in caught.value.faults}


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_right(name: str) -> None:
    raw = parse(read_recipe(name), name)
    config = validate(raw, "run" if "data" in raw else "train")
    again = validate(yaml.safe_load(config.to_yaml()), "run" if "data" in raw else "train")
    assert again.to_yaml() == config.to_yaml()


@pytest.mark.parametrize("name", recipe_names())
def test_the_schema_for_editors_accepts_every_recipe(name: str) -> None:
    jsonschema.validate(yaml.safe_load(read_recipe(name)), RunConfig.model_json_schema())


def test_the_schema_for_editors_rejects_a_wrong_key() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(RECIPE) | {"trainig": {}}, RunConfig.model_json_schema())


def test_an_override_changes_one_value() -> None:
    config = validate(parse(RECIPE, "recipe.yaml", ["training.steps=20", "data.problem.resolution=33"]))
    assert config.training is not None and config.training.steps == 20
    assert config.data is not None and config.data.problem.resolution == 33  # type: ignore[attr-defined]


def test_all_faults_of_a_file_are_found_at_once() -> None:
    found = faults(
        "data.problem.resolutoin=32",
        "training.batch_size=-3",
        "stream.reservoir.watermark=65",
        "surrogate.kind=fnoo",
        "extra=1",
        "solver.order=gready",
    )
    assert found["data.problem.resolutoin"].endswith('Did you mean "resolution"?')
    assert "-3" in found["training.batch_size"] and "greater than 0" in found["training.batch_size"]
    assert "must not exceed the capacity, 64" in found["stream.reservoir.watermark"]
    assert "fnoo" in found["surrogate.kind"] and 'Did you mean "fno"?' in found["surrogate.kind"]
    assert "expected one of name, seed, deterministic, data" in found["extra"]
    assert 'Did you mean "greedy"?' in found["solver.order"]
    assert len(found) == 6


@pytest.mark.parametrize(
    ("override", "where", "words"),
    [
        ("training.batch_size=65", "training.batch_size", "at most stream.reservoir.capacity = 64"),
        ("surrogate.modes=12", "surrogate", "17"),
        (
            "stream.reservoir.min_simulations=9",
            "stream.reservoir.min_simulations",
            "at most training.batch_size = 8: a batch holds no more simulations",
        ),
        (
            "stream.reservoir.min_simulations=17",
            "stream.reservoir.min_simulations",
            "must not exceed the watermark, 16",
        ),
        (
            "stream.reservoir.level_weights={ruogh: 2}",
            "stream.reservoir.level_weights.ruogh",
            'one of data.mix: smooth, rough. Did you mean "rough"?',
        ),
        (
            "stream.reservoir.level_weights={rough: 0}",
            "stream.reservoir.level_weights.rough",
            "greater than 0",
        ),
        ("data.sampler.kind=fixd_mix", "data.sampler.kind", 'Did you mean "fixed_mix"?'),
        ("data.sampler={kind: loss_weighted, floor: 0}", "data.sampler.floor", "greater than 0"),
        ("data.mix.smoth=1", "data.mix.smoth", 'Did you mean "smooth"?'),
        ("data.samples=5", "data.samples", "at least 8: one batch of 8 for 1 rank(s)"),
        ("data.samples=12", "stream.reservoir.watermark", "at most 12, the training samples"),
        ("training.steps=200", "training.steps", "at most 50: 100 samples of at most 4 use(s) each"),
        ("resources.trainers.ranks=9", "stream.reservoir.watermark", "at most 11"),
        ("data.test=0", "data.test", "greater than 0"),
        ("data.mix={smooth: 0}", "data.mix", "at least one weight above 0"),
        ("data.levels={own: {resolution: 33}}", "data.levels.own", "keeps the grid"),
        ("data.levels={own: {resolutin: 33}}", "data.levels.own.resolutin", 'Did you mean "resolution"?'),
        ("name=../up", "name", "pattern"),
        ("solver.rtol=nan", "solver.rtol", "finite"),
        ("data.problem=darcy", "data.problem", "a section with keys of its own"),
        ("solver.method.kind=multigird", "solver.method.kind", 'Did you mean "multigrid"?'),
        ("solver.method={}", "solver.method.kind", "the kind"),
    ],
)
def test_a_fault_names_its_place_and_what_was_expected(override: str, where: str, words: str) -> None:
    found = faults(override, *(["stream.reservoir.max_uses=4"] if "steps" in override else []))
    assert words in found[where], found


@pytest.mark.parametrize(
    ("overrides", "where", "words"),
    [
        (["solver.order=greedy"], "solver.order", "decides on samples when they are leased, too late to sort them"),
        (
            ["data.samples=null", "data.budget=60"],
            "data.budget",
            "data.samples instead: a budget buys by the mix",
        ),
        (["deterministic=true"], "data.sampler", "fixed_mix: others go by what was observed in time"),
    ],
)
def test_what_a_sampler_decides_late_is_not_known_early(overrides: list[str], where: str, words: str) -> None:
    raw = parse(RECIPE, "recipe.yaml", ["data.sampler.kind=loss_weighted"])
    config = validate(raw)
    assert config.sampler("train") == LossWeighted() and config.sampler("test") == STRATIFIED
    assert lease_orders(config, shuffled=False) == {}
    found = faults("data.sampler.kind=loss_weighted", *overrides)
    assert words in found[where], found


def test_a_recipe_without_a_sampler_mixes_as_ever() -> None:
    config = validate(parse(RECIPE, "recipe.yaml", []))
    assert config.data is not None and config.data.sampler == FixedMix()
    assert yaml.safe_load(config.to_yaml())["data"]["sampler"] == {"kind": "fixed_mix"}


def test_levels_of_the_data_may_be_weighted() -> None:
    config = validate(parse(RECIPE, "recipe.yaml", ["stream.reservoir.level_weights={rough: 2.5}"]))
    assert dict(config.stream.reservoir.level_weights) == {"rough": 2.5}
    assert validate(yaml.safe_load(config.to_yaml())) == config
    jsonschema.validate(yaml.safe_load(config.to_yaml()), RunConfig.model_json_schema())


def test_a_method_that_does_not_fit_the_problem_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.solvers.methods import Direct

    # Every method here fits Darcy flow; one that does not would answer like this.
    monkeypatch.setattr(Direct, "mismatch", lambda self, target: "it wants a matrix with a nose")
    found = faults("solver.method.kind=direct")
    assert "fits darcy at level smooth: it wants a matrix with a nose" in found["solver.method"]
    assert '"auto" chooses one that fits' in found["solver.method"]


def test_a_device_that_an_equation_cannot_have_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.solvers.evolution import batched

    flow = "data.problem={kind: navier_stokes, resolution: 32, device: %s}"
    monkeypatch.setattr(batched, "cuda_is_available", lambda: False)
    found = faults(flow % "cuda", "data.mix={default: 1}")
    assert "told to use cuda, which torch does not find here; use device auto or cpu" in found["data.problem"]
    found = faults(flow % "cpu", "data.mix={far: 1}", "data.levels={far: {device: cuda}}")
    assert "told to use cuda, which torch does not find here" in found["data.levels.far"]
    replay = ["stream.mode=replay", "stream.recording=earlier"]
    validate(parse(RECIPE, "recipe.yaml", [flow % "cuda", "data.mix={default: 1}", *replay]))  # solves nothing
    found = faults(flow % "gpu", "data.mix={default: 1}")
    assert "expected one of auto, cpu, cuda" in found["data.problem.device"]
    found = faults(flow % "auto", "data.mix={default: 1}", "deterministic=true")
    assert "cpu: on a GPU the last bits of a sample depend on those beside it" in found["data.problem.device"]
    monkeypatch.setattr(batched, "cuda_is_available", lambda: True)
    config = validate(parse(RECIPE, "recipe.yaml", [flow % "cuda", "data.mix={default: 1}"]))
    assert config.data is not None and config.data.problem.device == "cuda"  # type: ignore[attr-defined]


def test_a_missing_section_is_named() -> None:
    found = faults(text="data: {problem: {kind: darcy}}")
    assert found["surrogate"] == "surrogate is missing; expected a section surrogate:, which run needs."
    assert "data.samples" in found and "training" in found
    assert set(faults(text="name: x", command="generate")) == {"data"}
    # A data set may be smaller than a batch, and on a grid that the network would not take.
    few = parse(RECIPE, "test", ["data.samples=4", "surrogate.modes=300"])
    assert validate(few, "generate").data is not None


def test_a_key_that_stands_twice_is_said_with_its_line() -> None:
    with pytest.raises(InputError, match=r'recipe.yaml, line 3.*the key "seed" stands twice'):
        parse("seed: 1\nname: x\nseed: 2\n", "recipe.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1, 2", "recipe.yaml, line 1"),
        ("- a\n- b", "recipe.yaml is a list"),
        ("just words", "recipe.yaml is a str"),
    ],
)
def test_what_is_not_a_recipe_is_said(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse(text, "recipe.yaml")


@pytest.mark.parametrize(
    ("override", "words"),
    [("training.steps", "expected KEY=VALUE"), ("name.x=1", "name is .*a section"), ("=3", "expected KEY=VALUE")],
)
def test_an_override_that_cannot_be_applied_is_said(override: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse(RECIPE, "recipe.yaml", [override])


def test_a_recipe_that_is_not_there_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match='Did you mean "darcy_fno"?'):
        load("darcy_fn")


def test_a_file_that_is_not_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="a YAML file in UTF-8"):
        load(str(tmp_path / "recipe.yaml"))


def test_exponents_without_a_point_are_numbers() -> None:
    assert validate(parse(RECIPE, "recipe.yaml", ["solver.rtol=1e-6"])).solver.rtol == 1e-6


def test_a_plug_in_from_another_package_is_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package adds a loss by an entry point; a recipe names it like a built-in one."""
    (tmp_path / "plugged.py").write_text(
        textwrap.dedent("""
        from typing import Literal
        from headrace.surrogates.losses import RelativeL2

        class Plugged(RelativeL2):
            kind: Literal["plugged"] = "plugged"
        """)
    )
    info = tmp_path / "plugged-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[headrace.losses]\nplugged = plugged:Plugged\n")
    script = textwrap.dedent("""
        import json
        from headrace.pipelines.recipe.config import load
        print(json.dumps(load("smoke", ["training.loss={kind: plugged}"]).training.loss.kind))
        """)
    import os
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == "plugged"


def test_a_run_that_only_generates_needs_no_surrogate() -> None:
    raw = parse(read_recipe("smoke"), "smoke", ["stream.mode=generate"])
    del raw["surrogate"], raw["training"]
    assert validate(raw, "run").stream.mode == "generate"
