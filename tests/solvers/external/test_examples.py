"""The examples of docs/external_solvers.md, compiled and run as printed, against exact solutions; and MPI launchers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from headrace.platform.sample import Failure, Sample
from headrace.platform.seeding import generator
from headrace.solvers.external.spec import External
from headrace.solvers.sources.programs import ExternalSource

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "docs" / "external_solvers"
PAGE = ROOT / "docs" / "external_solvers.md"
CLIENT = ROOT / "solvers" / "external" / "client"

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler called cc")
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", f"-I{CLIENT}"]


def compiled(source: Path, out: Path) -> Path:
    done = subprocess.run(
        ["cc", *STRICT, str(source), "-lm", "-o", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(EXAMPLES / "diffusion.c", tmp_path_factory.mktemp("c") / "diffusion")


def example(recipe: str, **values: Any) -> External:
    problem = yaml.safe_load((EXAMPLES / recipe).read_text())["data"]["problem"]
    return External.model_validate({**problem, **values})


def samples(problem: External, count: int, **values: Any) -> list[Sample]:
    found = list(ExternalSource(problem=problem, seed=3, **values).samples(range(count)))
    assert all(isinstance(one, Sample) for one in found), found
    return [one for one in found if isinstance(one, Sample)]


def seed_of(index: int) -> int:
    return int(generator(3, "train", "external", index).integers(2**63))


@needs_compiler
@pytest.mark.parametrize("protocol", ["files", "pipe"])
def test_the_c_example_solves_its_equation(diffusion: Path, protocol: str) -> None:
    errors = []
    for points in (32, 64):
        grid = {"shape": [points], "extent": [1.0], "periodic": [True]}
        problem = example("diffusion.yaml", command=[str(diffusion)], protocol=protocol, grid=grid)
        worst = 0.0
        for sample in samples(problem, 3):
            velocity, viscosity = sample.parameters.astype(np.float64)
            x = np.arange(points) / points
            shift = (seed_of(sample.provenance.index) % 1000) / 1000
            assert np.allclose(sample.inputs[0], np.sin(2 * np.pi * (x - shift)), atol=1e-6)  # single precision
            assert np.all(sample.inputs[1] == sample.parameters[1])
            for time, found in zip(problem.times, sample.outputs[:, 0], strict=True):
                decay = np.exp(-4 * np.pi**2 * viscosity * time)
                exact = decay * np.sin(2 * np.pi * (x - shift - velocity * time))
                worst = max(worst, float(np.abs(found - exact).max()))
        errors.append(worst)
    # Second order in space; the errors of Runge-Kutta's fourth order are far below.
    assert errors[1] < 0.01
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_the_python_example_solves_its_equation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    errors = []
    for points in (17, 33):
        problem = example(
            "heat.yaml", command=[sys.executable, "./heat.py"], protocol="pipe", grid={"shape": [points, points]}
        )
        (sample,) = samples(problem, 1)
        amplitudes = np.random.default_rng(seed_of(0)).normal(size=(2, 2))
        x = np.linspace(0, 1, points)
        (diffusivity,) = sample.parameters.astype(np.float64)
        worst = 0.0
        for time, found in zip(problem.times, sample.outputs[:, 0], strict=True):
            exact = sum(
                amplitudes[i - 1, j - 1]
                * np.exp(-diffusivity * np.pi**2 * (i**2 + j**2) * time)
                * np.outer(np.sin(i * np.pi * x), np.sin(j * np.pi * x))
                for i in (1, 2)
                for j in (1, 2)
            )
            worst = max(worst, float(np.abs(found - exact).max()))
        errors.append(worst)
    # Second order in space; the steps in time are small enough not to be seen.
    assert 3.5 < errors[0] / errors[1] < 4.5


C_FAULTS = """
#include "headrace.h"
int main(void) {
    headrace_run run = HEADRACE_RUN;
    while (headrace_init(&run)) {
        double values[24] = {0}, what = headrace_parameter(&run, "what");
        switch ((int)what) {
            case 0: headrace_send(&run, "u", 0, values, 23); break;
            case 1: headrace_send(&run, "v", 0, values, 24); break;
            case 2: headrace_send(&run, "u", 1, values, 24); break;
            case 3: headrace_parameter(&run, "nothing"); break;
            case 4: headrace_fail(&run, "no \\"steady\\"\\n state \\xff"); continue;
            case 5: continue;
            case 6: break;
            case 7: headrace_send(&run, "u", 0, values, 24); run.relative_residual = -1.0; break;
            case 8: return 9;
            default:
                run.relative_residual = 1e-7;
                run.num_iterations = 12;
                printf("half a line of talk");
                headrace_send(&run, "u", 0, values, 24);
        }
        headrace_finalize(&run);
    }
    return run.error;
}
"""

C_WORDS = {
    0: "23 values, expected 2 x 12: u",
    1: "the recipe has no field to send that is called v",
    2: "time is 1, expected 0 to 0: u",
    3: "the recipe has no parameter nothing",
    4: "the program says: no  steady   state ",
    5: "headrace_init was called again before headrace_finalize",
    6: "u was sent at 0 times, expected 1",
    7: "relative_residual = -1",
    8: "exit code 9",
}


@needs_compiler
def test_faults_of_the_c_client_are_told_in_both_protocols(tmp_path: Path) -> None:
    (tmp_path / "faults.c").write_text(C_FAULTS)
    program = compiled(tmp_path / "faults.c", tmp_path / "faults")
    for protocol in ("files", "pipe"):
        values = {
            "kind": "external",
            "command": [str(program)],
            "protocol": protocol,
            "timeout_seconds": 30,
            "outputs": {"u": {"components": 2}},
            "grid": {"shape": [3, 4]},
        }
        for what in (*C_WORDS, 9):
            problem = External.model_validate({**values, "parameters": {"what": {"low": what, "high": what}}})
            (found,) = ExternalSource(problem=problem).samples([0])
            if what == 9:
                assert isinstance(found, Sample), found
                assert (found.provenance.relative_residual, found.provenance.num_iterations) == (1e-7, 12)
                continue
            assert isinstance(found, Failure)
            assert C_WORDS[what] in found.reason, (protocol, found.reason)


@needs_compiler
def test_the_header_is_valid_cpp_and_may_be_included_twice(tmp_path: Path) -> None:
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler called c++")
    body = C_FAULTS.split("int main")[0]
    (tmp_path / "other.cpp").write_text(body + "int other() { headrace_run run = HEADRACE_RUN; return run.error; }")
    (tmp_path / "main.cpp").write_text(body + body + "int main" + C_FAULTS.split("int main")[1])
    command = ["c++", "-std=c++11", "-Wall", "-Wextra", "-Werror", f"-I{CLIENT}", "main.cpp", "other.cpp", "-o", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


RANKS = """
    import os, sys, time
    rank = int(os.environ["PMI_RANK"])
    if rank == 0:
        import numpy as np
        from headrace_client import finalize, init, send
        while run := init():
            if run.parameters["late"]:
                time.sleep(100)
            send(run, "u", np.full(8, int(os.environ["PMI_SIZE"])))
            finalize(run)
    elif sys.argv[1] != "0.0":
        time.sleep(100)
"""


@pytest.mark.parametrize("protocol", ["files", "pipe"])
def test_an_mpi_launcher_starts_the_ranks_and_takes_them_along(tmp_path: Path, protocol: str) -> None:
    launcher = Path(sys.executable).with_name("mpiexec")
    launcher = launcher if launcher.is_file() else Path(shutil.which("mpiexec.hydra") or "mpiexec")
    if shutil.which(str(launcher)) is None:
        pytest.skip("there is no mpiexec of MPICH")
    (tmp_path / "ranks.py").write_text("\n".join(line[4:] for line in RANKS.splitlines()))
    for late in (0.0, 1.0):
        problem = External.model_validate(
            {
                "launcher": [str(launcher), "-n", "2"],
                "command": [sys.executable, str(tmp_path / "ranks.py"), str(late)],
                "protocol": protocol,
                "timeout_seconds": 3.0 if late else 60.0,
                "parameters": {"late": {"low": late, "high": late}},
                "outputs": {"u": {}},
                "grid": {"shape": [8]},
            }
        )
        (found,) = ExternalSource(problem=problem).samples([0])
        if late:
            assert isinstance(found, Failure) and "was stopped" in found.reason
        else:
            assert isinstance(found, Sample), found
            assert np.all(found.outputs == 2.0)
    # A process that is kept ends soon after its source does.
    mine = [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(one.info["cmdline"] or [])]
    _, alive = psutil.wait_procs(mine, timeout=20)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


@needs_compiler
def test_the_page_shows_the_examples_and_its_commands_run(tmp_path: Path) -> None:
    """Every block is a file that the tests run, or commands that are run here; `headrace` has a test of its own."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    files = {path.read_text() for path in EXAMPLES.iterdir()}
    for language, text in blocks:
        if language in ("c", "python") and "while" in text:
            assert any(text in file for file in files), text
    for language, text in blocks:
        if language == "yaml":
            values = yaml.safe_load(text)
            External.model_validate(values.get("problem") or {**example("heat.yaml").model_dump(), **values})
    commands = [line for language, text in blocks if language == "sh" for line in text.splitlines()]
    shutil.copytree(EXAMPLES, tmp_path / "here")
    checked = 0
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands:
        if command.startswith(("headrace generate", "headrace run")):
            continue  # see tests/pipelines/running/test_external_run.py
        done = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path / "here",
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (command, done.stderr)
        checked += 1
    assert checked == 2
