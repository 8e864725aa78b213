"""The house: what may not be where, and that the tools see the package that Python sees."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("platform", "solvers", "surrogates", "pipelines")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def tree(*suffixes: str) -> list[Path]:
    """The files of the tree that are ours: what git tracks or would track, or all of an unpacked archive."""
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(git, capture_output=True, text=True) if shutil.which("git") else None
    if listing is not None and listing.returncode == 0:
        files = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:
        hidden = {".venv", ".git", "build", "dist", "runs"}
        files = [path for path in ROOT.rglob("*") if not hidden.intersection(path.relative_to(ROOT).parts)]
    return [path for path in files if path.is_file() and (not suffixes or path.suffix in suffixes)]


@pytest.mark.parametrize("room", ["platform", "tests"])
def test_has_no_package_that_shadows(room: str) -> None:
    # Below platform/ packages are headrace.platform.NAME; below tests/ pytest wants none (importlib mode).
    found = [
        str(path.relative_to(ROOT))
        for path in (ROOT / room).glob("__init__.py" if room == "platform" else "**/__init__.py")
    ]
    assert not found, f"{found}: a package called `platform` shadows the standard library's module"


@pytest.mark.parametrize("path", ["", str(ROOT)], ids=["root is the working folder", "root is on the path"])
def test_standard_library_platform_wins(path: str) -> None:
    script = "import platform; print(platform.__file__); print(platform.python_version())"
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    file, version = done.stdout.split()
    assert Path(file).parent == Path(os.__file__).parent
    assert version == ".".join(map(str, sys.version_info[:3]))


def test_every_folder_with_code_is_a_listed_package() -> None:
    folders = {path.parent.relative_to(ROOT) for path in tree(".py") if path.relative_to(ROOT).parts[0] in ROOMS}
    expected = {".".join(("headrace", *folder.parts)) for folder in folders}
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(expected)
    assert len(listed) == len(set(listed))


def test_every_package_but_platform_has_an_init() -> None:
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        folder = ROOT.joinpath(*package.split(".")[1:])
        assert (folder / "__init__.py").exists() == (package != "headrace.platform"), package


def test_view_shows_each_room_under_its_import_name() -> None:
    view = ROOT / ".view" / "headrace"
    assert sorted(link.name for link in view.iterdir()) == sorted(ROOMS)
    for room in ROOMS:
        assert os.readlink(view / room) == f"../../{room}", "the link must hold in every clone"
        assert (view / room).samefile(ROOT / room)
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {f"headrace.{room}": room for room in ROOMS}


def test_no_file_names_a_package_registry() -> None:
    # Put together here, so that this file does not name them either.
    hosts = [
        "py" + "pi.org",
        "python" + "hosted.org",
        "download.py" + "torch.org",
        "ana" + "conda.org",
        "npm" + "js.org",
    ]
    options = ["--index" + "-url", "--extra" + "-index-url", "--find" + "-links"]
    pattern = re.compile("|".join(map(re.escape, hosts + options)))
    naming = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tree()
        if (match := pattern.search(path.read_text(errors="ignore")))
    ]
    assert not naming
    assert not (ROOT / "uv.lock").exists(), "a uv.lock names the registry it was made from"


def test_constraints_pin_every_dependency_once() -> None:
    name = re.compile(r"^([A-Za-z0-9._-]+)")

    def normal(requirement: str) -> str:
        match = name.match(requirement)
        assert match, requirement
        return re.sub(r"[-_.]+", "-", match.group(1)).lower()

    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert all("==" in line for line in lines)
    pinned = [normal(line) for line in lines]
    assert len(pinned) == len(set(pinned))
    project = PROJECT["project"]
    wanted = [*PROJECT["build-system"]["requires"], *project["dependencies"]]
    wanted += [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    # An extra may name others of its own package.
    assert {normal(requirement) for requirement in wanted} - {project["name"]} <= set(pinned)


VIOLATIONS = {
    "platform/a.py": "import headrace.solvers\nimport pytorch_lightning\nimport numba\n",
    "solvers/b.py": "from headrace.surrogates import models\nimport ray\nimport torch\n",
    "solvers/methods/batched.py": "import torch\nimport scipy\n",
    "solvers/methods/above.py": "def f():\n    import headrace.solvers.selection.one\n",
    "solvers/selection/one.py": "import headrace.solvers.selection.two\n",
    "solvers/selection/two.py": "def f():\n    import headrace.solvers.selection.one\n",
    "surrogates/c.py": "import headrace.pipelines\nfrom petsc4py import PETSc\n",
    "pipelines/d.py": "import mlflow.pyfunc\n",
}


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A small house of the same plan: empty rooms, the real contracts."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / ".view", tmp_path / ".view", symlinks=True)
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    named = {name for contract in contracts for layer in contract.get("layers", ()) for name in layer.split(" | ")}
    for name in sorted(named):
        path = tmp_path.joinpath(*name.split(".")[1:])
        source = ROOT.joinpath(*name.split(".")[1:])
        if source.is_dir():
            path.mkdir(parents=True)
            if name != "headrace.platform":
                (path / "__init__.py").touch()
        else:
            path.with_suffix(".py").touch()
    return tmp_path


def lint_imports(house: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--no-logo"]
    environment = {**os.environ, "PYTHONPATH": ".view", "COLUMNS": "200"}
    return subprocess.run(command, cwd=house, env=environment, capture_output=True, text=True)


def test_contracts_pass_on_what_is_allowed(house: Path) -> None:
    (house / "solvers/methods/batched.py").write_text("import torch\nimport scipy\nimport headrace.platform.spec\n")
    (house / "surrogates/fit.py").write_text("import torch\nimport pytorch_lightning\nimport headrace.platform.spec\n")
    (house / "platform/stream/stream.py").write_text("import ray\nimport mlflow\nimport headrace.platform.ledger\n")
    (house / "pipelines/running/online.py").write_text(
        "import headrace.platform.stream.stream\nimport headrace.solvers.methods\n"
    )
    done = lint_imports(house)
    assert done.returncode == 0, done.stdout
    assert f"{len(PROJECT['tool']['importlinter']['contracts'])} kept, 0 broken" in done.stdout


def test_contracts_catch_what_is_not(house: Path) -> None:
    for name, text in VIOLATIONS.items():
        (house / name).write_text(text)
    done = lint_imports(house)
    assert done.returncode == 1
    broken = [
        "headrace.platform is not allowed to import headrace.solvers",
        "headrace.solvers is not allowed to import headrace.surrogates",
        "headrace.surrogates is not allowed to import headrace.pipelines",
        "headrace.solvers is not allowed to import ray",
        "headrace.pipelines is not allowed to import mlflow",
        "headrace.platform is not allowed to import numba",
        "headrace.surrogates is not allowed to import petsc4py",
        "headrace.platform is not allowed to import pytorch_lightning",
        "headrace.solvers is not allowed to import torch",
        "headrace.solvers.methods is not allowed to import headrace.solvers.selection",
        "No cycles are allowed in headrace.solvers.selection",
    ]
    for sentence in broken:
        assert sentence in done.stdout, done.stdout
    assert "headrace.solvers.methods.batched" not in done.stdout, "the batched methods may use torch"
    assert "7 broken" in done.stdout
