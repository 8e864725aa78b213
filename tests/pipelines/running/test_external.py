"""Fields that others made: neuraloperator's Darcy flow, imported and trained on in a shortened form."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from headrace.pipelines.cli import main

DATA = Path(__file__).parents[4] / "shared" / "data" / "darcy_neuralop"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not DATA.is_dir(), reason=f"the data are not at {DATA}")
def test_imported_fields_are_learned_and_scored_on_both_grids(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    imported = CliRunner().invoke(main, ["import", str(DATA), "--out", "imported", "--json"])
    assert imported.exit_code == 0, imported.output
    sets = json.loads(imported.stdout.splitlines()[-1])["sets"]
    assert sets == {"train": 1000, "test_16": 50, "test_32": 50}
    done = CliRunner().invoke(
        main, ["train", "darcy_external", "training.steps=100", "--data", "imported", "--out", "run", "--json"]
    )
    assert done.exit_code == 0, done.output
    errors = json.loads(done.stdout.splitlines()[-1])["errors"]
    # Two of the twelve epochs; zero-shot must not fall apart either.
    assert errors["test_16"]["relative_l2"]["mean"] < 0.25
    assert errors["test_32"]["relative_l2"]["mean"] < 0.30
