"""Kinds of other packages: what they may import, and what a broken one does to those who do not use it."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# At its top all that a package may want, in the order in which a circle of imports would bite.
PLUG_IN = """
from typing import Literal
from headrace.surrogates import FNO, MLP, AbstractLoss, AbstractStrategy, AbstractSurrogate, RelativeL2
from headrace.solvers import AbstractEvolution, AbstractProblem, Darcy, solve
from headrace.solvers.methods.direct import Direct
from headrace.surrogates.optimizers import AdamW
from headrace.surrogates.schedules import OneCycle
from headrace.surrogates.strategies import AllAtOnce

class Problem(Darcy):
    kind: Literal["mine"] = "mine"

class Method(Direct):
    kind: Literal["mine"] = "mine"

class Surrogate(MLP):
    kind: Literal["mine"] = "mine"

class Strategy(AllAtOnce):
    kind: Literal["mine"] = "mine"

class Loss(RelativeL2):
    kind: Literal["mine"] = "mine"

class Optimizer(AdamW):
    kind: Literal["mine"] = "mine"

class Schedule(OneCycle):
    kind: Literal["mine"] = "mine"
"""
GROUPS = {
    "problems": "Problem", "methods": "Method", "surrogates": "Surrogate", "strategies": "Strategy", "losses": "Loss",
    "optimizers": "Optimizer", "schedules": "Schedule",
}  # fmt: skip
USED = (
    "data.problem.kind=mine", "solver.method.kind=mine", "surrogate={kind: mine}", "training.strategy={kind: mine}",
    "training.loss={kind: mine}", "training.optimizer={kind: mine}", "training.schedule={kind: mine}",
)  # fmt: skip


def install(folder: Path, code: str, points: dict[str, str]) -> None:
    """Put a package of its own into a folder: a module, and what an installer writes about it."""
    (folder / "their_plug_in.py").write_text(code)
    info = folder / "their_plug_in-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-plug-in\nVersion: 0.1\n")
    lines = [f"[headrace.{group}]\nmine = their_plug_in:{name}\n" for group, name in points.items()]
    (info / "entry_points.txt").write_text("".join(lines))


def python(folder: Path, *arguments: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    """Run Python where the package is installed."""
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": encoding}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


def headrace(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(folder, "-m", "headrace.pipelines.cli", *arguments)


@pytest.mark.parametrize(
    "first",
    [
        "their_plug_in",
        "headrace.solvers.problems",
        "headrace.solvers.selection",
        "headrace.solvers.sources.all_sampled",
        "headrace.surrogates.losses",
        "headrace.surrogates.models",
        "headrace.surrogates.training",
        "headrace.surrogates.checkpoint",
    ],
)
def test_public_names_work_in_a_plug_in_of_all_groups(tmp_path: Path, first: str) -> None:
    install(tmp_path, PLUG_IN, GROUPS)
    script = f"""
        import importlib, json
        importlib.import_module({first!r})
        from headrace.pipelines.recipe.config import load
        from headrace.platform.spec import broken_plug_ins
        config = load("smoke", {USED!r})
        used = [config.data.problem, config.solver.method, config.surrogate, config.training.strategy]
        used += [config.training.loss, config.training.optimizer, config.training.schedule]
        print(json.dumps([[type(one).__module__ for one in used], [str(one) for one in broken_plug_ins()]]))
        """
    done = python(tmp_path, "-c", textwrap.dedent(script))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["their_plug_in"] * len(GROUPS), []]


def test_a_broken_plug_in_is_named_and_stops_only_recipes_that_use_it(tmp_path: Path) -> None:
    install(tmp_path, "import a_library_that_is_gone", {"problems": "Problem", "losses": "Loss"})
    told = (
        "The plug-in mine of their-plug-in 0.1 (headrace.{}) cannot be used: "
        "ModuleNotFoundError: No module named 'a_library_that_is_gone'"
    )
    for recipe, group in (("data.problem.kind=mine", "problems"), ("training.loss={kind: mine}", "losses")):
        uses = headrace(tmp_path, "check", "smoke", recipe)
        assert uses.returncode == 2 and "Traceback" not in uses.stderr, uses.stderr
        assert '.kind is "mine", a plug-in that is broken; expected a kind that can be used.' in uses.stderr
        assert told.format(group) in uses.stderr
    other = headrace(tmp_path, "check", "smoke")
    assert other.returncode == 0 and "smoke is right" in other.stdout, other.stderr
    assert other.stderr.count(told.format("problems")) == other.stderr.count(told.format("losses")) == 1
    listed = headrace(tmp_path, "list")
    assert listed.returncode == 0 and "darcy" in listed.stdout
    assert listed.stderr.count(told.format("problems")) == 1 and "Traceback" not in listed.stderr


def test_the_doctor_names_a_broken_plug_in(tmp_path: Path) -> None:
    install(tmp_path, "class Loss: ...", {"losses": "Loss"})
    script = """
        import json
        from headrace.pipelines.doctor import doctor, probes
        print(json.dumps([vars(one) for one in doctor.plug_ins(lambda: probes.probe(probes.PLUG_INS))]))
        """
    done = python(tmp_path, "-c", textwrap.dedent(script))
    assert done.returncode == 0, done.stderr
    [finding] = json.loads(done.stdout)
    assert finding["status"] == "warn"
    words = "cannot be used: their_plug_in:Loss is not a Spec with a kind"
    assert finding["detail"] == f"The plug-in mine of their-plug-in 0.1 (headrace.losses) {words}"
