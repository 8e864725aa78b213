"""External programs through the command line: the ledger counts what they made and what they failed to make."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from headrace.pipelines.cli import main
from headrace.platform.dataset.reader import StoredSamples

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "docs" / "external_solvers"

PROGRAM = """
import sys
import numpy as np
from headrace_client import finalize, init, send
while run := init():
    if run.index % 3 == 1:
        sys.exit("index one of three")
    send(run, "u", np.full(run.shape, run.index + run.parameters["shift"]))
    finalize(run, relative_residual=1e-6 if run.index % 2 else None)
"""


def headrace(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def write_recipe(protocol: str) -> None:
    Path("program.py").write_text(PROGRAM)
    problem = {
        "kind": "external",
        "command": [sys.executable, "./program.py"],
        "protocol": protocol,
        "timeout_seconds": 60,
        "parameters": {"shift": {"low": 0, "high": 0.5}},
        "outputs": {"u": {}},
        "grid": {"shape": [6]},
    }
    recipe = {
        "data": {"problem": problem, "samples": 9, "validation": 2, "test": 2},
        "resources": {"solvers": {"actors": 2}},
    }
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))


@pytest.mark.timeout(300)
def test_the_ledger_counts_what_a_program_makes_and_what_it_fails_to_make(ray_cluster: None, in_folder: Path) -> None:
    write_recipe("files")
    done = headrace("generate", "recipe.yaml", "--out", "made", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1], parse_constant=pytest.fail)  # NaN is no JSON
    # Indices 1, 4, 7 of train and 1 of each held-out split.
    assert result["samples"] == {"planned": 13, "stored": 8, "failed": 5, "duplicates": 0}
    name = f"external: {Path(sys.executable).name}"
    assert result["cost"]["default"]["methods"] == {name: 8}
    assert result["cost"]["default"]["failed"] == 5
    summary = json.loads(Path("made/run.json").read_text(), parse_constant=pytest.fail)
    assert {failure["index"] for failure in summary["failures"] if failure["split"] == "train"} == {1, 4, 7}
    assert all("index one of three" in failure["reason"] for failure in summary["failures"])
    assert summary["solving"]["samples"] == 8 and summary["solving"]["failed"] == 5
    stored = StoredSamples.open("made/data/train").read_all()
    assert sorted(stored.indices.tolist()) == [0, 2, 3, 5, 6, 8]
    expected = stored.indices + stored.parameters[:, 0]
    assert np.array_equal(stored.outputs[:, 0, 0, 0], expected.astype(np.float32))
    for origin in stored.provenance:
        assert (origin.solver, origin.status) == (name, "unverified")
        assert np.isnan(origin.relative_residual) == (origin.index % 2 == 0)
    # The data set goes on to wherever others go.
    exported = headrace("export", "made", "--format", "hdf5", "--out", "exported")
    assert exported.exit_code == 0, exported.output
    assert json.loads(headrace("report", "made", "--json").stdout)["report"]


def test_check_names_a_program_that_is_missing(in_folder: Path) -> None:
    write_recipe("files")
    recipe = yaml.safe_load(Path("recipe.yaml").read_text())
    recipe["data"]["problem"]["command"] = ["./no_solver", "{shift}"]
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    done = headrace("check", "recipe.yaml")
    assert done.exit_code == 2
    words = "".join(done.stderr.split())
    assert f'data.problemisexternal;expectedonethatthismachinecansolve.Theprogram"{in_folder}/no_solver"' in words
    assert "isnotthere" in words


def test_list_names_external_programs() -> None:
    assert "external" in json.loads(headrace("list", "problems", "--json").stdout)["problems"]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler called cc")
def test_the_runs_of_the_page_run_as_printed(ray_cluster: None, in_folder: Path) -> None:
    for file in EXAMPLES.iterdir():
        shutil.copy(file, in_folder)
    client = ROOT / "solvers" / "external" / "client"
    subprocess.run(["cc", "-std=c99", "-O2", f"-I{client}", "diffusion.c", "-lm", "-o", "diffusion"], check=True)
    done = headrace("run", "diffusion.yaml", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["samples"] == {"planned": 76, "stored": 76, "failed": 0, "duplicates": 0}
    assert set(result["errors"]) == {"all", "default", "thick"}
    # The page's python3 is that of the PATH, which may have no NumPy here.
    command = f"data.problem.command=[{sys.executable}, ./heat.py]"
    done = headrace("generate", "heat.yaml", command, "--out", "heat-data", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["samples"]["stored"] == 16
