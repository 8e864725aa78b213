"""A compiled model called from C and from Fortran, by the programs that are written beside it."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from headrace.surrogates.portable.export import export_model
from headrace.surrogates.strategies import AllAtOnce

HERE = Path(__file__).parent
TORCH = Path(torch.__path__[0])

pytestmark = pytest.mark.timeout(400)  # of waiting for a processor


def need(*programs: str) -> None:
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"no {' and no '.join(missing)}")


def run(folder: Path, *command: str, threads: str = "1") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def made(folder: Path, target: str) -> str:
    """What `make TARGET` prints, which has to go well."""
    done = run(folder, "make", "--no-print-directory", f"TORCH={TORCH}", "CXXFLAGS=-O0", target)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(compiled: Any) -> Path:
    """The model with the library that calls it."""
    need("make", "gcc", "g++")
    made(compiled.folder, "libheadrace_model.so")
    return Path(compiled.folder)


def difference(told: str) -> float:
    assert told.splitlines()[-1].startswith("3 samples, relative difference ")
    return float(told.split()[-1])


def test_c_says_what_the_surrogate_says(folder: Path) -> None:
    assert difference(made(folder, "check-c")) <= 1e-6


def test_fortran_says_what_the_surrogate_says(folder: Path) -> None:
    need("gfortran")
    assert difference(made(folder, "check-fortran")) <= 1e-6


def test_the_caller_sets_the_threads(folder: Path) -> None:
    """One is one, three are more; and OpenMP is as the program has set it, whatever the model may use."""
    run(folder, "gcc", "-fopenmp", "-I.", str(HERE / "threads.c"), "-o", "threads", "-L.", "-lheadrace_model",
        "-Wl,-rpath,$ORIGIN", f"-Wl,-rpath-link,{TORCH / 'lib'}").check_returncode()  # fmt: skip
    for asked, most in (("1", 1), ("3", 5)):
        done = run(folder, "./threads", "model.aoti.pt2", "512", asked, threads="2")
        assert done.returncode == 0, done.stderr
        now, before, after = map(int, done.stdout.split())
        assert (now == 1) if asked == "1" else (1 < now <= most)
        assert before == after == 2


@pytest.mark.parametrize("language", ["c", "fortran"])
def test_errors_are_one_line(language: str, folder: Path, make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    target = {"c": "example_c", "fortran": "example_f"}[language]
    if language == "fortran":
        need("gfortran")
    made(folder, target)
    done = run(folder, f"./{target}", "nosuch.pt2", "selftest.bin")
    assert done.returncode == 1
    told = (done.stderr if language == "c" else done.stdout).splitlines()
    assert len(told) == 1 and "nosuch.pt2 cannot be loaded: " in told[0]


def test_c_refuses_what_it_cannot_do(folder: Path) -> None:
    """A batch of none, a NULL, an input that there is not: told, and no crash."""
    program = r"""
    #include <stdio.h>
    #include "headrace_model.h"
    static void say(int result) { printf("%d %s\n", result, headrace_model_error()); }
    int main(void) {
      headrace_model *model = headrace_model_open("model.aoti.pt2");
      const double *inputs[2] = {NULL, NULL};
      double *outputs[1] = {NULL};
      printf("%s\n", headrace_model_error());
      say(headrace_model_run_double(model, 0, inputs, outputs));
      say(headrace_model_run_double(model, 2, inputs, outputs));
      say(headrace_model_run_double(NULL, 2, inputs, outputs));
      say((int)headrace_model_input_size(model, 2));
      say((int)headrace_model_output_extent(model, 0, 4));
      say(headrace_model_set_threads(-1));
      printf("%s %s %s\n", headrace_model_input_name(model, 0), headrace_model_input_name(model, 1),
             headrace_model_output_name(model, 0));
      printf("%d %d\n", headrace_model_output_rank(model, 0), (int)headrace_model_output_extent(model, 0, 3));
      headrace_model_close(model);
      headrace_model_close(NULL);
      return 0;
    }
    """
    (folder / "refuses.c").write_text(program)
    run(folder, "gcc", "refuses.c", "-o", "refuses", "-L.", "-lheadrace_model", "-Wl,-rpath,$ORIGIN",
        f"-Wl,-rpath-link,{TORCH / 'lib'}").check_returncode()  # fmt: skip
    done = run(folder, "./refuses")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "",
        "1 the batch is 0, expected 1 or more",
        "1 inputs is NULL",
        "1 the model is NULL: was it opened?",
        "-1 input 2 was asked for, there are 2",
        "-1 axis 4 was asked for, there are 4",
        "1 -1 threads were asked for",
        "inputs parameters outputs",
        "4 7",
    ]


def test_the_sources_come_with_this_format_alone(
    make_checkpoint: Callable[..., Path], tmp_path: Path, folder: Path
) -> None:
    assert {"headrace_model.h", "headrace_model.cpp", "headrace_model.f90", "example.c", "example.f90", "Makefile"} <= {
        file.name for file in folder.iterdir()
    }
    from headrace.surrogates.models import MLP

    export_model(make_checkpoint(MLP(hidden=(4,)), AllAtOnce(), (5,)), "torchscript", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.h"))
