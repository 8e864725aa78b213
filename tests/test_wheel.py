"""The wheel: built from a copy of the tree, put into an empty environment, run from another folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("platform", "solvers", "surrogates", "pipelines")
SHIPPED = {".c", ".cpp", ".f90", ".h", ".py", ".pyi", ".yaml", ".html", ".tmpl", ".typed"}

Run = Callable[..., str]


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the tree, built offline by the setuptools that is installed."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", out, copy)
    (built,) = out.glob("headrace-*.whl")
    return built


@pytest.fixture(scope="module")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a program of an environment that holds the wheel, in a folder that is not the tree."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    binaries = home / "bin"
    pip("--python", binaries / "python", "install", "--no-deps", "--no-index", wheel)
    # The dependencies are lent by the running environment. A .pth inside a folder that a .pth names is not read, so the
    # editable installation of the tree, which is one, stays behind.
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}

    def run(program: str, *arguments: str) -> str:
        command = [str(binaries / program), *arguments]
        done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_holds_every_file_of_the_rooms(wheel: Path) -> None:
    files = [
        path for room in ROOMS for path in (ROOT / room).rglob("*") if path.suffix in SHIPPED or path.name == "Makefile"
    ]
    expected = {f"headrace/{path.relative_to(ROOT)}" for path in files if "__pycache__" not in path.parts}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "headrace/pipelines/recipes/darcy_fno.yaml" in expected
    assert names >= expected, f"not in the wheel: {sorted(expected - names)}"
    rest = {name for name in names - expected if ".dist-info/" not in name}
    assert not rest, "nothing but the rooms, and no second top-level package"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_imports_come_from_the_wheel(run: Run) -> None:
    script = (
        "import headrace.platform.spec as spec, headrace.solvers as solvers; print(spec.__file__, solvers.__file__)"
    )
    for file in run("python", "-c", script).split():
        assert "/environment" in file
        assert not Path(file).is_relative_to(ROOT)


def test_standard_library_platform_is_untouched(run: Run) -> None:
    file = run("python", "-c", "import headrace.platform.spec, platform; print(platform.__file__)").strip()
    assert Path(file).name == "platform.py"
    assert "site-packages" not in file


def test_recipes_are_readable(run: Run) -> None:
    script = (
        "from importlib.resources import files; import yaml;"
        "print(yaml.safe_load((files('headrace.pipelines.recipes') / 'darcy_fno.yaml').read_text())['name'])"
    )
    assert run("python", "-c", script).strip() == "darcy-fno"


def test_command_line_runs(run: Run) -> None:
    told = run("headrace", "--help")
    for command in ("run", "check", "generate", "train", "evaluate", "report", "submit", "doctor"):
        assert command in told
    assert "darcy_fno" in run("headrace", "list", "recipes")
