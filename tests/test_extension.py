"""One of each kind in a package that Headrace does not know of: named by recipes, listed, tested unasked, and run.

`tests/extension` holds the package, as an installation would lay it out. Whoever adds a kind of one's own writes such a
file and such a line of entry points, and no test: the parametrised ones here find it.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tests" / "extension"
# What is in the package, by its name in test ids.
KINDS = {
    "problem": "rod",
    "equation in time": "decay",
    "method": "dense",
    "surrogate": "plane",
    "strategy": "curriculum",
    "loss": "mean_?square",
    "optimiser": "descent",
    "schedule": "line",
    "format": "archive",
    "sampler": "halves",
}


def python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(PACKAGE), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)


@pytest.mark.slow
def test_the_parametrised_tests_take_up_every_kind_and_pass(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    rooms = ["tests/solvers", "tests/surrogates", "tests/platform/samplers"]
    options = ["-q", "-p", "no:cacheprovider", "-k", "throwaway", f"--junitxml={report}"]
    done = python("-m", "pytest", *options, *rooms, folder=ROOT)
    assert done.returncode == 0, done.stdout[-3000:]
    passed = [
        case.get("name", "") for case in ElementTree.parse(report).iter("testcase") if case.find("skipped") is None
    ]
    missing = [
        kind for kind, name in KINDS.items() if not any(re.search(f"throwaway_?{name}", one, re.I) for one in passed)
    ]
    assert not missing, f"no test took up: {missing}; these ran: {passed}"


def test_the_kinds_are_listed_and_described(tmp_path: Path) -> None:
    done = python("-m", "headrace.pipelines.cli", "list", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    listing = json.loads(done.stdout.splitlines()[-1])
    found = {kind for entries in listing.values() for kind in entries if kind.startswith("throwaway")}
    assert len(found) == len(KINDS), found
    schema = python("-m", "headrace.pipelines.cli", "schema", folder=tmp_path)
    assert all(kind in schema.stdout for kind in found if "archive" not in kind)


def test_a_recipe_may_name_all_of_them(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        """
name: throwaway
data:
  problem: {kind: throwaway_rod}
  mix: {default: 1, stiff: 1}
  sampler: {kind: throwaway_halves}
  samples: 32
solver: {method: {kind: throwaway_dense}}
stream: {reservoir: {kind: reservoir, capacity: 32, watermark: 8}}
surrogate: {kind: mlp}
training:
  strategy: {kind: throwaway_curriculum}
  loss: {kind: throwaway_mean_square}
  optimizer: {kind: throwaway_descent}
  schedule: {kind: throwaway_line}
  steps: 10
"""
    )
    done = python("-m", "headrace.pipelines.cli", "check", str(recipe), folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = python(
        "-m", "headrace.pipelines.cli", "check", str(recipe), "surrogate.kind=throwaway_plane", folder=tmp_path
    )
    assert wrong.returncode == 2 and "throwaway_plane" in wrong.stderr and "Traceback" not in wrong.stderr


def test_a_run_tells_the_packages_and_versions_that_its_kinds_come_from(tmp_path: Path) -> None:
    script = """
import json
from headrace.pipelines.recipe.config import load
from headrace.pipelines.report.record import RunRecord
from headrace.pipelines.report.report import context
from headrace.pipelines.running.session import Session
from headrace.platform.spec import plug_ins_of

plain = load("smoke", ["tracking.enabled=false"])
mine = load("smoke", ["tracking.enabled=false", "training.loss.kind=throwaway_mean_square",
                      "training.optimizer={kind: throwaway_descent}"])
session = Session(mine, "train", None)
print(json.dumps({
    "plain": [str(one) for one in plug_ins_of(plain)],
    "requirements": [one.requirement for one in plug_ins_of(mine)],
    "plug_ins": session.summary.plug_ins,
    "versions": session.summary.versions["throwaway"],
    "shown": context(RunRecord(path=session.run.path, run=session.summary))["plug_ins"],
}))
"""
    done = python("-c", script, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    told = "throwaway 0.1 (throwaway_descent, throwaway_mean_square)"
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "plain": [],
        "requirements": ["throwaway==0.1"],
        "plug_ins": [told],
        "versions": "0.1",
        "shown": [told],
    }
