"""What an earlier version left behind stays readable: data set, ledger, checkpoint, recipe, record.

`tests/earlier/run-0.1.0.tar.xz` is the folder of

    headrace run smoke data.samples=24 data.validation=4 data.test=4 data.problem.resolution=17 training.steps=20
        training.checkpoint_every=10 surrogate.width=8 surrogate.modes=4 surrogate.layers=2 deterministic=true
        solver.method.kind=multigrid resources.trainers.threads=1 tracking.enabled=false

by version 0.1.0 at commit a9be96c, without pictures, page and Ray's folder.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from headrace.pipelines.cli import main
from headrace.platform.dataset.manifest import read_manifest
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.ledger.ledger import Ledger
from headrace.platform.seeding import generator
from headrace.solvers import Darcy, solve
from headrace.surrogates import Predictor
from headrace.surrogates.checkpoint import load_checkpoint

ARCHIVE = Path(__file__).parents[2] / "earlier" / "run-0.1.0.tar.xz"


@pytest.fixture
def earlier(in_folder: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(in_folder, filter="data")
    return in_folder / "run"


def invoke(*arguments: str) -> dict[str, object]:
    done = CliRunner().invoke(main, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_its_samples_are_those_of_today(earlier: Path) -> None:
    """Level, seed and index still say the same sample."""
    stored = StoredSamples.open(earlier / "data" / "train").read_all()
    assert len(stored) == 24 and set(stored.indices.tolist()) == set(range(24))
    problem = Darcy(resolution=17)
    for row in (0, 11, 23):
        of = stored.provenance[row]
        fields = problem.at_level(of.level).draw(generator(0, "train", "fields", of.index))
        solution = solve(problem.discretize(fields), method="direct")
        inputs, outputs, _ = problem.sample_arrays(fields, solution.value)
        np.testing.assert_array_equal(stored.inputs[row], inputs)
        np.testing.assert_allclose(stored.outputs[row], outputs, rtol=1e-5, atol=1e-9)


def test_its_data_sets_have_their_manifests(earlier: Path) -> None:
    for split, count in (("train", 24), ("validation", 4), ("test", 4)):
        manifest = read_manifest(earlier / "data" / split)
        assert manifest is not None and manifest.count == count
        assert manifest.content_hash == StoredSamples.open(earlier / "data" / split).content_hash()


def test_its_ledger_counts(earlier: Path) -> None:
    with Ledger.open(earlier / "ledger.sqlite") as ledger:
        counts = ledger.counts("train")
        assert (counts.planned, counts.stored, counts.failed) == (24, 24, 0)
        assert sum(len(indices) for indices in ledger.committed("train").values()) == 24


def test_its_surrogate_predicts_what_it_did(earlier: Path) -> None:
    held_out = StoredSamples.open(earlier / "data" / "test").read_all()
    predictor = Predictor.from_checkpoint(earlier / "checkpoints" / "last.pt")
    errors = predictor.predict(held_out.inputs, held_out.parameters) - held_out.outputs
    size = np.sqrt((held_out.outputs**2).reshape(4, -1).sum(1))
    relative = np.sqrt((errors**2).reshape(4, -1).sum(1)) / size
    told = json.loads((earlier / "run.json").read_text())["errors"]["all"]["relative_l2"]["mean"]
    assert relative.mean() == pytest.approx(told, rel=2e-2)  # told in the trapezoidal norm, with halves at the boundary


def test_it_is_shown_scored_and_told_of(earlier: Path) -> None:
    assert invoke("status", str(earlier))["status"] == "finished"
    told = json.loads((earlier / "run.json").read_text())["errors"]
    errors = invoke("evaluate", str(earlier))["errors"]
    for level in ("all", "smooth", "rough"):
        assert errors[level]["relative_l2"]["mean"] == pytest.approx(told[level]["relative_l2"]["mean"], rel=1e-4)
    page = Path(str(invoke("report", str(earlier))["report"])).read_text()
    assert "darcy" in page and "rough" in page


@pytest.mark.ray
@pytest.mark.slow
def test_it_is_gone_on_with_to_the_same_end(ray_cluster: None, earlier: Path) -> None:
    """Cut back to its middle, the run ends with the weights that the earlier version ended with."""
    there = load_checkpoint(earlier / "checkpoints" / "step-000020.pt")
    for name in ("step-000020.pt", "step-000020.manifest.json", "step-000020.reservoir-0.npz", "last.pt"):
        (earlier / "checkpoints" / name).unlink()
    (earlier / "training.json").unlink()
    record = json.loads((earlier / "run.json").read_text())
    (earlier / "run.json").write_text(json.dumps({**record, "status": "running"}))
    invoke("resume", str(earlier))
    here = load_checkpoint(earlier / "checkpoints" / "last.pt")
    assert here.step == there.step == 20
    for name, weights in there.weights.items():
        # Another processor may round differently; ten steps of training do not blow that up.
        torch.testing.assert_close(here.weights[name], weights, rtol=1e-4, atol=1e-6)
