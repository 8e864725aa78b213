"""One of each kind in packages that Headrace does not know of: named by recipes, listed, tested unasked, and run.

`headrace init` writes the one package, as it does for a user, and pip installs it. `tests/extension` holds the other,
as an installation would lay it out: the kinds that `init` leaves out, and a network that is hard to please. Whoever
adds a kind of one's own writes such a file and such a line of entry points, and no test: the parametrised ones find it.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from headrace.pipelines.cli import main
from headrace.pipelines.scaffold import EXAMPLE, KINDS, files_of, write_package
from headrace.platform.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
# What is in the packages, as test ids show it: by the class or by the kind.
IDS = {
    "problem": "RodOnSprings",
    "equation in time": "SwiftHohenberg",
    "method": "throwaway_?dense",
    "surrogate of one's own": "Convolutions",
    "surrogate that is hard to please": "throwaway_?plane",
    "strategy": "EarlyTimesFirst",
    "loss": "Forgiving",
    "optimiser": "throwaway_?descent",
    "schedule": "throwaway_?line",
    "format": "throwaway_?archive",
    "sampler": "OneAfterTheOther",
}

Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `headrace init` writes."""
    folder = tmp_path_factory.mktemp("own")
    write_package(EXAMPLE, folder)
    return folder / EXAMPLE


@pytest.fixture(scope="module")
def python(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Python:
    """Runs Python where both packages are installed."""
    site = tmp_path_factory.mktemp("site")
    offline = ["--disable-pip-version-check", "--no-build-isolation", "--no-deps", "--no-index", "--quiet"]
    install = [sys.executable, "-m", "pip", "install", *offline, "--target", str(site), "--editable", str(package)]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # The folder itself stands for the line that an editable installation adds to the path of an environment.
    path = [str(site), str(package), str(ROOT / "tests" / "extension"), os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}

    def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_parametrised_tests_take_up_every_kind_and_pass(python: Python, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    rooms = ["tests/solvers", "tests/surrogates", "tests/platform/samplers"]
    names = "throwaway or " + " or ".join([EXAMPLE, *(name for name in IDS.values() if name.isalpha())])
    options = ["-q", "-p", "no:cacheprovider", "-k", names, f"--junitxml={report}"]
    done = python("-m", "pytest", *options, *rooms, folder=ROOT)
    assert done.returncode == 0, done.stdout[-3000:]
    passed = [
        case.get("name", "") for case in ElementTree.parse(report).iter("testcase") if case.find("skipped") is None
    ]
    missing = [kind for kind, name in IDS.items() if not any(re.search(name, one, re.I) for one in passed)]
    assert not missing, f"no test took up: {missing}; these ran: {passed}"


def test_the_kinds_are_listed_and_described(python: Python, tmp_path: Path) -> None:
    done = python("-m", "headrace.pipelines.cli", "list", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    listing = json.loads(done.stdout.splitlines()[-1])
    found = {kind for entries in listing.values() for kind in entries if kind.startswith((f"{EXAMPLE}_", "throwaway"))}
    assert len(found) == len(IDS), found
    schema = python("-m", "headrace.pipelines.cli", "schema", folder=tmp_path)
    assert all(kind in schema.stdout for kind in found if "archive" not in kind)


def test_a_recipe_may_name_all_of_them(python: Python, package: Path, tmp_path: Path) -> None:
    others = (
        "solver.method.kind=throwaway_dense",
        "training.optimizer.kind=throwaway_descent",
        "training.schedule.kind=throwaway_line",
    )
    check = ("-m", "headrace.pipelines.cli", "check", str(package / "recipe.yaml"), *others)
    done = python(*check, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = python(*check, "surrogate={kind: throwaway_plane}", folder=tmp_path)
    assert wrong.returncode == 2 and "throwaway_plane" in wrong.stderr and "Traceback" not in wrong.stderr


@pytest.mark.slow
def test_the_package_passes_its_own_tests(python: Python, package: Path) -> None:
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", folder=package)
    assert done.returncode == 0 and "5 passed" in done.stdout, done.stdout[-3000:]


def test_the_package_is_tidy(package: Path) -> None:
    ruff = [sys.executable, "-m", "ruff"]
    config = ("--no-cache", "--config", str(ROOT / "pyproject.toml"))
    # Docstrings of every method would take the lines that the examples have.
    check = subprocess.run([*ruff, "check", *config, "--ignore", "D,I", str(package)], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout
    done = subprocess.run([*ruff, "format", *config, "--check", str(package)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_prints_what_init_writes(kind: str) -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    printed = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    written = files_of(EXAMPLE)[Path(EXAMPLE, f"{kind}.py")]
    assert len(written.splitlines()) < 40
    assert written in printed, f"docs/extending.md prints another {kind}.py than headrace init writes"


@pytest.mark.parametrize("name", ["recipe.yaml", "pyproject.toml"])
def test_the_page_prints_the_other_files_as_they_are_written(name: str) -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    printed = re.findall(r"^```(?:yaml|toml)\n(.*?)^```$", page, re.M | re.S)
    written = files_of(EXAMPLE)[Path(name)]
    assert any(block in written for block in printed if len(block.splitlines()) > 5), name


@pytest.mark.parametrize("name", ["1d", "my-pdes", "class", "_mine", "mine_", "größe", "a b", "../x", "", "a\n"])
def test_a_name_that_is_no_package_s_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the name of a Python package"):
        write_package(name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["numpy", "platform", "tests", "headrace"])
def test_a_name_that_would_hide_another_package_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a name that no package has"):
        write_package(name, tmp_path)


def test_a_wrong_name_ends_with_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["init", "mine"]).exit_code == 0
    refused = CliRunner().invoke(main, ["init", "mine"])
    assert refused.exit_code == 2 and len(refused.stderr.splitlines()) == 1 and "mine exists" in refused.stderr


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("mine", "dangling"):
        with pytest.raises(InputError, match=f"{name} exists"):
            write_package(name, tmp_path)
    assert (tmp_path / "mine").read_text() == "precious"


def test_another_name_goes_everywhere(tmp_path: Path) -> None:
    files = write_package("waves", tmp_path)
    texts = [(tmp_path / path).read_text(encoding="utf-8") for path in files]
    assert len(files) == 12 and EXAMPLE not in "".join(texts)
    assert 'Literal["waves_rod"]' in (tmp_path / "waves" / "waves" / "problem.py").read_text(encoding="utf-8")


def test_a_run_tells_the_packages_and_versions_that_its_kinds_come_from(python: Python, tmp_path: Path) -> None:
    script = """
import json
from headrace.pipelines.recipe.config import load
from headrace.pipelines.report.report import write_report
from headrace.pipelines.running.session import Session
from headrace.platform.spec import plug_ins_of

plain = load("smoke", ["tracking.enabled=false"])
mine = load("smoke", ["tracking.enabled=false", "training.loss={kind: my_pdes_forgiving}",
                      "training.schedule={kind: throwaway_line}", "training.optimizer={kind: throwaway_descent}"])
session = Session(mine, "train", None)
print(json.dumps({
    "plain": [str(one) for one in plug_ins_of(plain)],
    "requirements": [one.requirement for one in plug_ins_of(mine)],
    "plug_ins": session.summary.plug_ins,
    "versions": session.summary.versions["throwaway"],
    "shown": "; ".join(session.summary.plug_ins) in write_report(session.run.path).read_text(),
}))
"""
    done = python("-c", script, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    told = ["my_pdes 0.1 (my_pdes_forgiving)", "throwaway 0.1 (throwaway_descent, throwaway_line)"]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "plain": [],
        "requirements": ["my_pdes==0.1", "throwaway==0.1"],
        "plug_ins": told,
        "versions": "0.1",
        "shown": True,
    }
