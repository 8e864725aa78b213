"""docs/using-a-model.md: what it prints runs as it is printed, beside a run as the page's first line makes one."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from headrace.pipelines.cli import main
from headrace.pipelines.recipe.config import parse, read_recipe
from headrace.platform.tracking.models import ModelSpec
from headrace.platform.tracking.tracker import Tracker, TrackingSpec
from headrace.solvers import Darcy
from headrace.surrogates import FNO, OutsideTraining, TrainingSpec
from headrace.surrogates.checkpoint import Checkpoint, save_checkpoint
from headrace.surrogates.normalization import NormalizationSpec
from headrace.surrogates.normalizer import Normalizer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "using-a-model.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
COMMANDS = [block.strip() for language, block in BLOCKS if language == "shell"]


@pytest.fixture
def beside_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with `runs/darcy` and its model in `runs/mlflow.db`; nobody had to train it."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    problem, surrogate = Darcy(resolution=32), FNO(modes=2, width=2, layers=1)
    training = TrainingSpec(normalization=NormalizationSpec(log=("permeability",)))  # as the recipe has it
    schema = problem.schema()
    seen = np.stack([problem.draw(seed=seed)["permeability"] for seed in range(64)])
    checkpoint = Checkpoint(
        step=0,
        surrogate=surrogate,
        normalization=training.normalization,
        strategy=training.strategy,
        training={},
        schema=schema,
        weights=surrogate.build(schema).state_dict(),
        moments=Normalizer(training.normalization, schema).state_dict(),
        optimizer={},
        schedule={},
        ranges={"inputs": torch.tensor([[seen.min()], [seen.max()]]), "parameters": torch.zeros(2, 0)},
    )
    path = Path("runs", "darcy", "checkpoints", "last.pt")
    save_checkpoint(path, checkpoint)
    tracker = Tracker.start(TrackingSpec(system_metrics=False), run_name="darcy", config={})
    example = {"permeability": seen[:1].astype(np.float32)}
    name = str(parse(read_recipe("darcy_fno"), "darcy_fno")["name"])
    tracker.log_model(path, ModelSpec(name=name, schema=schema, example=example, alias="champion"))
    tracker.finish("finished", timeout=60.0)
    before = mlflow.get_tracking_uri()
    yield tmp_path
    mlflow.set_tracking_uri(before)
    os.environ.pop("MLFLOW_TRACKING_URI", None)


def test_every_line_runs_as_it_is_printed(beside_a_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    ran = 0
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(block, str(PAGE), "exec"), names)
            ran += 1
        elif block.startswith("headrace predict"):
            done = CliRunner().invoke(main, shlex.split(block)[1:], catch_exceptions=False)
            assert done.exit_code == 0, done.output
            ran += 1
    assert ran >= 9
    shown = capsys.readouterr().out
    assert re.search(r"^permeability \S+ to \S+; on 32x32 points$", shown, re.M)
    assert re.search(r"^permeability is 1e\+06 in sample 3; training saw ", shown, re.M)
    answer, pressure = names["answer"], names["pressure"]
    assert isinstance(answer, dict) and isinstance(pressure, np.ndarray)
    with np.load("predicted.npz") as predicted, np.load("again.npz") as again:
        assert np.array_equal(predicted["pressure"], again["pressure"])
        assert np.allclose(answer["pressure"], predicted["pressure"], rtol=1e-5, atol=1e-6)
        assert not predicted["outside_training"].any()
    with pytest.warns(OutsideTraining):
        names["model"].predict(names["strange"])  # type: ignore[attr-defined]


def test_the_other_commands_are_those_there_are() -> None:
    run, *_ = COMMANDS
    words = shlex.split(run)
    assert words[:3] == ["headrace", "run", "darcy_fno"]
    checked = CliRunner().invoke(main, ["check", "darcy_fno", *(word for word in words if "=" in word)])
    assert checked.exit_code == 0, checked.output
    [recipe] = [block for language, block in BLOCKS if language == "yaml"]
    assert TrackingSpec.model_validate(yaml.safe_load(recipe)["tracking"]).register == "champion"
    [serve] = [command for command in COMMANDS if command.startswith("mlflow models serve")]
    assert "--env-manager local --host 127.0.0.1" in serve  # as `test_a_server_answers` starts it
