"""The stored data of `headrace train`: which are taken, what they must have in common, and what is said of them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from headrace.pipelines.cli import main
from headrace.pipelines.recipe.config import load
from headrace.pipelines.report.report import asked
from headrace.pipelines.report.used_data import used_data
from headrace.pipelines.running.training_data import TrainingData, described, locate_data, require_same
from headrace.pipelines.summary import RunSummary
from headrace.platform.dataset.writer import write_dataset
from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.sample import SampleBatch

SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="permeability", unit="m^2"),),
    outputs=(FieldSpec(name="pressure", unit="Pa"),),
    domain=Grid(shape=(14, 14), extent=(1.0, 1.0), periodic=(False, False), location="cells"),
)


def write(directory: Path, schema: SampleSchema = SCHEMA, count: int = 20, seed: int = 0, **metadata: Any) -> Path:
    rng = np.random.default_rng(seed)
    grid = schema.domain.shape
    batch = SampleBatch(
        indices=np.arange(count),
        inputs=rng.random((count, schema.num_input_channels, *grid), np.float32),
        outputs=rng.random((count, len(schema.times), schema.num_output_channels, *grid), np.float32),
        parameters=rng.random((count, schema.num_parameters), np.float32),
    )
    write_dataset(directory, schema, [batch], metadata)
    return directory


def on_grid(**changes: Any) -> SampleSchema:
    return dataclasses.replace(SCHEMA, domain=dataclasses.replace(SCHEMA.domain, **changes))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    write(folder / "train", imported_from="mine.npz", format="npz")
    write(folder / "test", seed=1, count=5)
    return folder


def headrace(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def test_the_template_needs_no_section_data_and_is_checked_with_them(data: Path) -> None:
    assert load("own_data", command="train").data is None
    done = headrace("check", "own_data", "--data", data)
    assert done.exit_code == 0, done.output
    assert "own_data is right: own-data, 20 samples of" in done.stdout and "scored on test" in done.stdout
    wrong = headrace("check", "own_data", "training.batch_size=21", "training.stepz=1", "--data", data)
    assert wrong.exit_code == 2 and "training.stepz" in wrong.stderr
    wrong = headrace("check", "own_data", "training.batch_size=21", "--data", data)
    assert wrong.exit_code == 2 and "expected at most 20" in wrong.stderr


@pytest.mark.parametrize("recipe", ["own_data", "darcy_external"])
def test_a_recipe_for_stored_data_is_right_without_a_section_data(recipe: str) -> None:
    done = headrace("check", recipe)
    assert done.exit_code == 0 and f"headrace train {recipe} --data DIR" in done.stdout
    # `run` cannot do it, and says what can.
    done = headrace("run", recipe)
    assert done.exit_code == 2 and "headrace train RECIPE --data DIR" in done.stderr


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (on_grid(location="nodes"), "location of the values: nodes, and not cells"),
        (on_grid(periodic=(True, False)), "periodic axes: (True, False), and not (False, False)"),
        (on_grid(extent=(1.0, 3.0)), "extent: (1.0, 3.0), and not (1.0, 1.0)"),
        (dataclasses.replace(SCHEMA, inputs=(FieldSpec(name="k", unit="m^2"),)), "inputs: k [m^2], and not"),
        (dataclasses.replace(SCHEMA, outputs=(FieldSpec(name="pressure"),)), "unit of pressure: [1], and not [Pa]"),
    ],
    ids=["location", "periodic", "extent", "names", "unit"],
)
def test_held_out_data_of_another_kind_are_refused_before_training(
    data: Path, schema: SampleSchema, words: str
) -> None:
    write(data / "test_other", schema)
    with pytest.raises(InputError) as error:
        TrainingData.open(load("own_data", command="train"), data)
    assert words in str(error.value) and str(data / "test_other") in str(error.value)


def test_held_out_data_on_a_finer_grid_are_fine_where_the_network_can_take_them(data: Path) -> None:
    write(data / "test_16", on_grid(shape=(16, 16)))
    assert set(TrainingData.open(load("own_data", command="train"), data).tests) == {"test", "test_16"}
    fixed = load("own_data", ["surrogate={kind: mlp}"], command="train")
    assert fixed.surrogate is not None and fixed.surrogate.capabilities.resolution == "fixed"
    with pytest.raises(InputError, match=r"test_16 is on a grid of \(16, 16\); expected the grid \(14, 14\)"):
        TrainingData.open(fixed, data)


def test_no_set_is_left_out_in_silence(data: Path) -> None:
    write(data / "validation_16")
    assert locate_data(data)["validation"] == data / "validation_16"
    write(data / "validation_32")
    with pytest.raises(InputError, match="validation_16 and validation_32; expected one validation set"):
        locate_data(data)
    (data / "train").rename(data / "train_32")
    assert locate_data(data)["validation"] == data / "validation_32", "that of the training set's resolution"
    write(data / "train_16")
    with pytest.raises(InputError, match="which holds train_16 and train_32; expected one train set"):
        locate_data(data)


def test_what_was_trained_on_is_told(data: Path) -> None:
    found = TrainingData.open(load("own_data", command="train"), data)
    used = found.described()
    summary = RunSummary(command="train", data_folder=str(data), data_sets=used)
    lines = dict(used_data(summary, found.schema))
    assert lines["Inputs"] == "permeability [m^2]" and lines["Outputs"] == "pressure [Pa]"
    assert lines["Set train"].startswith(f"20 samples on 14 x 14 points; hash {used['train'].content_hash[:16]} (")
    assert lines["Made by"] == "imported from mine.npz (npz); not known: the data do not say"
    # A manifest that was written for other samples is not believed.
    (data / "test" / "manifest.json").unlink()
    assert described({"test": data / "test"})["test"].content_hash == used["test"].content_hash


def test_training_goes_on_with_the_data_that_it_began_with(data: Path) -> None:
    before = described({"train": data / "train"})
    require_same(before, before)
    (data / "train").rename(data / "old")
    write(data / "train", seed=2)
    with pytest.raises(InputError, match="the data set train, .*/train is of 20 samples with the hash .* began with"):
        require_same(before, described({"train": data / "train"}))


def test_what_took_no_part_is_not_said_of_a_training_on_stored_data() -> None:
    recipe = load("smoke").asked()
    shown = dict(asked(recipe, command="train"))
    assert {"Surrogate", "Training"} <= shown.keys()
    assert shown.keys().isdisjoint({"Problem", "Mix", "Samples", "Solver"})
    replayed = dict(asked({**recipe, "stream": {"mode": "replay"}}, command="run"))
    assert replayed.keys().isdisjoint({"Problem", "Mix", "Samples", "Solver"})
    assert "Problem" in dict(asked(recipe, command="run"))
