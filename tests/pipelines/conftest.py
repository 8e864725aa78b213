"""What the tests of the command line share."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from headrace.pipelines.cli import main

# Deterministic, so that a run that was killed can be compared with this one, bit for bit.
SMOKE = (
    "smoke",
    "deterministic=true",
    "solver.method.kind=multigrid",
    "training.steps=600",
    "training.checkpoint_every=20",
    "resources.trainers.threads=1",
)


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new folder to work in, which tracks into itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@dataclass(frozen=True)
class Finished:
    """A run that ended well: its folder, what `--json` printed, and what it was asked."""

    path: Path
    result: dict[str, Any]
    arguments: tuple[str, ...] = SMOKE


@pytest.fixture(scope="session")
def finished(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The smoke recipe, carried out once for all tests that only look at a run, or go on from it."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        done = CliRunner().invoke(main, ["run", *SMOKE, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    return Finished(Path(result["run"]), result)
