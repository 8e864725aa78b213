"""The command line as a user meets it: words, exit status, `--json`."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from headrace.pipelines.cli import main
from headrace.platform.dataset.manifest import read_manifest
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.dataset.writer import write_dataset
from headrace.solvers import Darcy
from headrace.surrogates import load as load_model


def headrace(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def test_check_says_that_a_recipe_is_right() -> None:
    done = headrace("check", "smoke")
    assert done.exit_code == 0 and "smoke is right" in done.stdout


def test_check_says_everything_that_is_wrong_and_ends_with_2() -> None:
    done = headrace("check", "smoke", "training.stepz=3", "data.samples=0")
    assert done.exit_code == 2
    assert "training.stepz" in done.stderr and 'Did you mean "steps"?' in done.stderr
    assert "data.samples is 0" in done.stderr


def test_check_as_json_lists_the_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    done = headrace("check", "smoke", "training.stepz=3", "--json")
    assert done.exit_code == 2
    [fault] = json.loads(done.stdout.splitlines()[-1])["faults"]
    assert fault["where"] == "training.stepz"


def test_list_shows_what_a_recipe_may_name() -> None:
    listing = json.loads(headrace("list", "--json").stdout)
    assert {"darcy"} <= listing["problems"].keys()
    assert {"auto", "multigrid", "direct", "gcrodr"} <= listing["solvers"].keys()
    assert {"fixed_mix", "loss_weighted"} <= listing["samplers"].keys()
    assert {"fno"} <= listing["surrogates"].keys()
    assert {"relative_l2", "relative_h1"} <= listing["losses"].keys()
    assert {"neuraloperator", "hdf5"} <= listing["formats"].keys()
    assert {"darcy_fno", "smoke"} <= listing["recipes"].keys()
    assert all(line for entries in listing.values() for line in entries.values()), listing
    assert list(json.loads(headrace("list", "losses", "--json").stdout)) == ["losses"]


def test_list_answers_a_wrong_word_with_the_nearest() -> None:
    done = headrace("list", "problem")
    assert done.exit_code == 2 and 'Did you mean "problems"?' in done.stderr


def test_schema_is_a_json_schema_and_nothing_else() -> None:
    assert json.loads(headrace("schema").stdout)["properties"].keys() >= {"data", "training"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "nowhere"], "a folder that `headrace run` or `headrace train` made"),
        (["report", "nowhere"], "with a run.json in it"),
        (["train", "smoke", "--data", "nowhere"], "a folder with data sets named train and test"),
        (["import", "nowhere", "--out", "x"], "a file or a folder that exists"),
        (["export", "nowhere", "--format", "hdf5", "--out", "x"], "a run's folder, or one with data sets in it"),
        (["export", "nowhere", "--format", "hdf6", "--out", "x"], 'Did you mean "hdf5"?'),
        (["submit", "smoke", "--address", "localhost"], "http://HOST:8265"),
        (["submit", "smoke", "--address", "http://127.0.0.1:9"], "Nothing answers there"),
        (["run", "smoke", "--out", "taken"], "a new or empty folder"),
        (["generate", "smoke", "--out", "taken"], "a new or empty folder"),
        (["run", "smoke", "tracking.uri=http://127.0.0.1:9"], "tracking.uri"),
        (["run", "smoke", "resources.address=127.0.0.1:9"], "the address of a running Ray cluster"),
        (["predict", "nowhere", "x.npy", "--out", "y.npy"], "with a run.json in it"),
    ],
)
def test_bad_input_is_answered_before_anything_starts(in_folder: Path, arguments: list[str], words: str) -> None:
    (in_folder / "taken").mkdir()
    (in_folder / "taken" / "file").touch()
    if "resources.address=127.0.0.1:9" in arguments:
        # In a process of its own: this one may hold a cluster already.
        program = Path(sys.executable).with_name("headrace")
        apart = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        status, said = apart.returncode, apart.stderr
    else:
        done = headrace(*arguments)
        status, said = done.exit_code, done.stderr
    assert status == 2, said
    assert words in " ".join(said.split())
    assert sorted(path.name for path in in_folder.iterdir()) == ["taken"], "nothing may be left behind"


def test_an_unknown_command_ends_with_2() -> None:
    assert headrace("rum").exit_code == 2


@pytest.mark.timeout(300)
def test_a_run_leaves_everything_it_promises(finished: Any) -> None:
    path, result = finished.path, finished.result
    assert result["status"] == "finished"
    assert result["samples"] == {"planned": 120, "stored": 120, "failed": 0, "duplicates": 0}
    errors = result["errors"]
    assert isinstance(errors, dict) and list(errors) == ["all", "smooth", "rough"], "as the recipe mixes them"
    assert 0 < errors["all"]["relative_l2"]["mean"] < 1
    for name in ("report.html", "run.json", "recipe.yaml", "checkpoints/last.pt", "evaluation.json", "metrics.jsonl"):
        assert (path / name).stat().st_size > 0, name
    assert yaml.safe_load((path / "recipe.yaml").read_text())["training"]["steps"] == 600
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    seen = set().union(*lines)
    assert seen >= {"train/loss", "validation/relative_l2", "stream/fill", "stream/reuse", "test/relative_l2"}


def test_check_tells_what_a_run_has_cost(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.path.parent.parent)
    done = headrace("check", *finished.arguments, "--json")
    found = json.loads(done.stdout.splitlines()[-1])["estimate"]
    spent = json.loads((finished.path / "run.json").read_text())["cost"]
    each = {level: entry["cpu_seconds"] / entry["whole_samples"] for level, entry in spent.items()}
    assert found["costs"] == pytest.approx(each) and found["costs_from"] == f"runs/{finished.path.name}"


def test_data_sets_say_which_problem_made_them(finished: Any) -> None:
    for split in ("train", "validation", "test"):
        manifest = read_manifest(finished.path / "data" / split)
        provenance = StoredSamples.open(finished.path / "data" / split).provenance()
        assert manifest is not None and manifest.problem is not None
        assert Darcy.model_validate(manifest.problem).resolution == manifest.schema.domain.shape[0]
        assert {one.spec_hash for one in provenance} == {manifest.source_hash}


def test_held_out_samples_are_none_of_those_trained_on(finished: Any) -> None:
    path = finished.path / "data"
    fields = {
        split: {array.tobytes() for array in StoredSamples.open(path / split).read_all().inputs}
        for split in ("train", "validation", "test")
    }
    assert {split: len(values) for split, values in fields.items()} == {"train": 96, "validation": 8, "test": 16}
    assert not fields["train"] & fields["test"]
    assert not fields["train"] & fields["validation"]
    assert not fields["validation"] & fields["test"]


def test_the_run_is_in_mlflow_with_a_model_that_predicts(finished: Any) -> None:
    import os

    import mlflow

    result = finished.result
    tracking = result["tracking"]
    assert isinstance(tracking, dict)
    client = mlflow.MlflowClient(tracking_uri=tracking["uri"])
    found = client.get_run(tracking["run_id"])
    assert found.info.status == "FINISHED"
    assert found.data.params["training.steps"] == "600"
    assert found.data.metrics["test/relative_l2"] == pytest.approx(
        result["errors"]["all"]["relative_l2"]["mean"]  # type: ignore[index]
    )
    # In a process of its own, as somebody else would load it; MLflow keeps its tracking address in global state.
    script = (
        "import mlflow, numpy as np;"
        f"model = mlflow.pyfunc.load_model('runs:/{tracking['run_id']}/smoke');"
        "said = model.predict({'permeability': np.ones((2, 17, 17), np.float32)});"
        "print(said['pressure'].shape, said['outside_training'].tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "MLFLOW_TRACKING_URI": str(tracking["uri"])},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "(2, 17, 17) [False, False]" in done.stdout, done.stderr
    context = {one.tags[0].value: one.dataset for one in found.inputs.dataset_inputs}
    assert {name: one.name for name, one in context.items()} == {"training": "darcy train", "test": "darcy test"}
    manifest = read_manifest(finished.path / "data" / "train")
    assert manifest is not None and manifest.content_hash.startswith(context["training"].digest)
    assert json.loads(context["training"].profile)["num_samples"] == 96
    note = found.data.tags["mlflow.note.content"]
    assert "**smoke**: the surrogate `fno`, trained in 600 steps on 96 samples of darcy (17x17 points)." in note
    assert f"headrace predict runs:/{tracking['run_id']}/smoke INPUT --out FILE" in note


def test_evaluate_report_predict_export_and_train_go_on_from_a_run(finished: Any, in_folder: Path) -> None:
    path, result = finished.path, finished.result
    errors = json.loads(headrace("evaluate", path, "--json").stdout.splitlines()[-1])["errors"]
    assert errors == result["errors"]
    assert json.loads(headrace("report", path, "--json").stdout)["report"] == str(path / "report.html")

    exported = headrace("export", path, "--format", "hdf5", "--out", "exported", "--json")
    assert len(json.loads(exported.stdout)["files"]) == 3
    imported = headrace("import", "exported", "--out", "imported", "--json")
    assert json.loads(imported.stdout.splitlines()[-1])["sets"] == {"test": 16, "train": 96, "validation": 8}

    np.save("inputs.npy", np.ones((2, 1, 17, 17), np.float32))
    predicted = headrace("predict", path, "inputs.npy", "--out", "outputs.npy", "--json")
    assert predicted.exit_code == 0, predicted.output
    assert np.load("outputs.npy").shape == (2, 1, 1, 17, 17)
    known = load_model(path).valid_range
    stored = StoredSamples.open(path / "data" / "train").read_all()
    assert known.is_known and known.inputs["permeability"].low == stored.inputs.min()
    assert known.inputs["permeability"].high == stored.inputs.max()
    np.save("wrong.npy", np.ones((2, 3, 17, 17), np.float32))
    wrong = headrace("predict", path, "wrong.npy", "--out", "other.npy")
    assert wrong.exit_code == 2 and "Inputs have 3 channels, the schema has 1 (permeability)" in wrong.stderr


@pytest.mark.timeout(300)
def test_training_on_the_stored_samples_of_another_run_tells_of_them(finished: Any, in_folder: Path) -> None:
    small = ("training.steps=20", "training.batch_size=8", "surrogate.modes=4", "surrogate.width=8")
    foreign = ("data={problem: {kind: burgers}, mix: {shock: 1}, samples: 76543}", "stream.reservoir.capacity=4711")
    done = headrace("train", "own_data", *small, *foreign, "--data", finished.path, "--out", "again", "--json")
    assert done.exit_code == 0, done.output
    assert "train does not use the recipe's data, stream" in done.stderr
    assert f"96 trained on, of {finished.path}" in " ".join(done.stdout.split())
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["training"]["steps"] == 20
    assert 0 < result["errors"]["all"]["relative_l2"]["mean"] < 1.5

    # The page tells of the data that were there, and of nothing that the recipe says of others.
    page = Path("again/report.html").read_text()
    used = json.loads(Path("again/run.json").read_text())["data_sets"]
    manifest = read_manifest(finished.path / "data" / "train")
    assert manifest is not None and used["train"]["content_hash"] == manifest.content_hash
    assert list(used) == ["train", "validation", "test"]
    words = (manifest.content_hash[:16], "96 samples on 17 x 17 points", "Headrace, problem darcy (resolution 17")
    assert all(word in page for word in words), page
    assert "permeability" in page and "pressure" in page
    for word in ("burgers", "shock", "4711", "76543", "reservoir", "solver took"):
        assert word not in re.sub(r"<img[^>]*>|<style>.*?</style>", "", page, flags=re.DOTALL), word
    assert yaml.safe_load(Path("again/recipe.yaml").read_text()).keys().isdisjoint({"data", "solver", "stream"})

    # What it began with, it goes on with; and it is scored on nothing else.
    other = dataclasses.replace(manifest.schema, domain=dataclasses.replace(manifest.schema.domain, location="cells"))
    batches = StoredSamples.open(finished.path / "data" / "test").batches(64)
    write_dataset(Path("cells"), other, batches, {})
    wrong = headrace("evaluate", "again", "--data", "cells")
    assert wrong.exit_code == 2 and "location of the values: nodes, and not cells" in wrong.stderr


@pytest.mark.timeout(300)
def test_two_ranks_train_together(ray_cluster: None, in_folder: Path) -> None:
    done = headrace("run", "smoke", "training.steps=10", "resources.trainers.ranks=2", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["training"]["ranks"] == 2
    assert result["training"]["steps"] == 10
    shards = sorted(path.name for path in (Path(result["run"]) / "data" / "train").glob("shard-*.zarr"))
    assert shards == ["shard-0.zarr", "shard-1.zarr"]
    assert result["samples"]["stored"] == 120


@pytest.mark.timeout(300)
def test_generate_stores_every_split(ray_cluster: None, in_folder: Path) -> None:
    done = headrace("generate", "smoke", "data.samples=40", "--out", "data-set", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["samples"] == {"planned": 64, "stored": 64, "failed": 0, "duplicates": 0}
    assert sum(level["samples"] for level in result["cost"].values()) == 64
    assert {path.name for path in Path("data-set/data").iterdir()} == {"train", "validation", "test"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ctrl_c_leaves_a_readable_data_set_and_no_process(in_folder: Path) -> None:
    """On a cluster of its own: the whole group of processes gets the signal, as from a terminal."""
    import os
    import signal
    import time

    import psutil

    from headrace.platform.dataset.reader import StoredSamples

    program = str(Path(sys.executable).with_name("headrace"))
    command = [program, "run", "smoke", "training.steps=100000", "data.samples=5000", "--out", "run"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Who runs the tests in the background has them ignore Ctrl-C, and all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    log = Path("run/metrics.jsonl")
    deadline = time.monotonic() + 200
    try:
        while not (log.is_file() and "train/loss" in log.read_text()):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.5)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        os.killpg(process.pid, signal.SIGINT)
        _, words = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted; what was stored is safe" in words
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    assert json.loads(Path("run/run.json").read_text())["status"] == "interrupted"
    stored = StoredSamples.open("run/data/train").read_all()
    assert len(stored) >= 64
    assert len(set(stored.indices.tolist())) == len(stored)
    assert np.isfinite(stored.outputs).all()
