"""`headrace export` of trained models, of a run and of a checkpoint; and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from headrace.pipelines.cli import main
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.surrogates.checkpoint import Checkpoint, save_checkpoint
from headrace.surrogates.models import MLP
from headrace.surrogates.normalization import NormalizationSpec
from headrace.surrogates.normalizer import Normalizer
from headrace.surrogates.strategies import AllAtOnce


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder, as far as an export looks at it."""
    schema = SampleSchema(
        inputs=(FieldSpec(name="k"),),
        outputs=(FieldSpec(name="u"),),
        domain=Grid(shape=(6,), extent=(1.0,), periodic=(False,)),
    )
    spec = NormalizationSpec()
    checkpoint = Checkpoint(
        step=1,
        surrogate=MLP(hidden=(4,)),
        normalization=spec,
        strategy=AllAtOnce(),
        training={},
        schema=schema,
        weights=MLP(hidden=(4,)).build(schema).state_dict(),
        moments=Normalizer(spec, schema).state_dict(),
        optimizer={},
        schedule={},
    )
    save_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt", checkpoint)
    (tmp_path / "run" / "run.json").write_text("{}")
    return tmp_path / "run"


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)], catch_exceptions=False)


def test_of_a_run(run: Path, tmp_path: Path) -> None:
    done = export(run, "--format", "torchscript", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    first, *rest = done.stdout.splitlines()
    assert first.startswith(f"{tmp_path / 'out' / 'model.torchscript.pt'}: differs from the surrogate by ")
    assert rest == [str(tmp_path / "out" / name) for name in ("card.json", "selftest.npz")]


def test_of_a_checkpoint_told_to_a_program(run: Path, tmp_path: Path) -> None:
    options = ("--precision", "float64", "--json")
    done = export(run / "checkpoints" / "last.pt", "--format", "torch-export", "--out", tmp_path / "out", *options)
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["relative_error"] <= 1e-12
    assert answer["card"]["precision"] == "float64"
    assert [Path(file).name for file in answer["files"]] == ["model.pt2", "card.json", "selftest.npz"]
    with np.load(answer["files"][2]) as pair:
        said = torch.export.load(answer["files"][0]).module()(torch.from_numpy(pair["inputs"]))
        np.testing.assert_allclose(said.numpy(), pair["outputs"], rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing", "--format", "onnx"), "nothing is not a run; expected a folder that `headrace run`"),
        (
            ("run", "--format", "torchscript", "--grid", "8"),
            "--grid is 8; expected the grid (6,) that it was trained on",
        ),
        (("run", "--format", "torchscript", "--grid", "eight"), "--grid is eight; expected points along each axis"),
        (("run", "--format", "torchscript", "--out", "run"), "--out is run; expected a new or empty folder"),
        (("run", "--format", "onxx"), 'torchscript. Did you mean "onnx"?'),
        (("run/run.json", "--format", "aoti"), "run/run.json: expected a Headrace checkpoint"),
    ],
)
def test_refuses(
    arguments: tuple[str, ...], words: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = export("--out", "out", *arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not Path("out").exists()


def test_a_run_without_a_checkpoint(run: Path, tmp_path: Path) -> None:
    (run / "checkpoints" / "last.pt").unlink()
    done = export(run, "--format", "torchscript", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "last.pt: expected a checkpoint file" in done.stderr
