"""`headrace predict --certify`: residuals of a run's predictions, and solutions that go on from them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from headrace.pipelines.certify import certifier, certify_predictions
from headrace.pipelines.cli import main
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.errors import InputError
from headrace.solvers import Burgers, Darcy, EvolutionSource, NonlinearDiffusion, Numerics, SolverSource, solve

CONSOLE = Console(quiet=True)


def headrace(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def test_predictions_of_a_run_are_finished_by_its_solver(finished: Any, in_folder: Path) -> None:
    truth = StoredSamples.open(finished.path / "data" / "test").read_all()
    np.savez("in.npz", inputs=truth.inputs)
    done = headrace("predict", finished.path, "in.npz", "--out", "out.npz", "--certify", "--to-rtol", "1e-9", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])["certified"]
    assert told["finished"] == len(truth) and "solutions finished to 1e-09" in done.stdout
    with np.load("out.npz") as arrays:
        # The labels are solutions to 1e-8, in single precision.
        assert np.allclose(arrays["certified"], truth.outputs, rtol=1e-4, atol=1e-6)
        assert not np.allclose(arrays["outputs"], truth.outputs, rtol=1e-3)
        problem = Darcy(resolution=17)
        system = problem.discretize({"permeability": truth.inputs[0, 0].astype(np.float64)})
        x = arrays["outputs"][0, 0, 0, 1:-1, 1:-1].astype(np.float64).ravel()
        assert arrays["relative_residual"][0] == pytest.approx(system.relative_residual(x))
        assert told["num_iterations"] == np.median(arrays["num_iterations"])
        from_it = solve(system, 1e-9, method="multigrid", initial=x)
        assert arrays["num_iterations"][0] == from_it.num_iterations


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--to-rtol", "1e-8"], "nothing without --certify"),
        (["--certify", "--to-rtol", "1e-20"], "rtol is 1e-20"),
        (["--certify", "--level", "nice"], "expected a level of the run"),
        (["--certify", "--times", "0.5"], "nothing with --certify"),
    ],
)
def test_options_that_do_not_fit_are_said_with_status_2(
    finished: Any, in_folder: Path, options: list[str], words: str
) -> None:
    np.save("in.npy", np.ones((1, 17, 17)))
    done = headrace("predict", finished.path, "in.npy", "--out", "out.npz", *options)
    assert done.exit_code == 2 and words in " ".join(done.stderr.split()), done.output
    assert not Path("out.npz").exists()
    done = headrace("predict", finished.path, "in.npy", "--out", "out.npy", "--certify")
    assert done.exit_code == 2 and "ends in .npz or .h5" in done.stderr


def test_levels_that_are_other_equations_must_be_named() -> None:
    problem = NonlinearDiffusion(resolution=24)
    source = SolverSource(problem=problem, mix={"smooth": 1.0, "rough": 1.0})  # type: ignore[arg-type]
    fields = problem.draw(0)
    inputs, outputs, parameters = problem.sample_arrays(fields, solve(problem.discretize(fields)).value)
    arrays = inputs[None], outputs[None], parameters[None]
    with pytest.raises(InputError, match="different equations for the same inputs"):
        certify_predictions(source, *arrays, console=CONSOLE)
    found = certify_predictions(source, *arrays, console=CONSOLE, level="rough")
    assert found.arrays["relative_residual"][0] > 0.01 and "relative residual" in found.words[0]
    same = SolverSource(problem=Darcy(resolution=24), mix={"smooth": 1.0, "rough": 1.0})  # type: ignore[arg-type]
    certify_predictions(same, *arrays, console=CONSOLE)


def test_a_forecast_has_a_defect_and_is_not_solved_on() -> None:
    problem = Burgers(resolution=32, horizon=0.1, snapshots=3)
    # Levels that differ in what is drawn, and in their steps, are one equation.
    numerics = {"viscous": Numerics(step=0.02), "shock": Numerics(step=0.005)}
    source = EvolutionSource(problem=problem, mix=dict.fromkeys(numerics, 1.0), numerics=numerics)  # type: ignore[arg-type]
    (sample,) = source.samples([0])
    arrays = sample.inputs[None], sample.outputs[None], sample.parameters[None]  # type: ignore[union-attr]
    found = certify_predictions(source, *arrays, console=CONSOLE)
    assert found.arrays["defect"].shape == (1, 3) and found.arrays["defect"].max() < 1e-3
    assert "defect" in found.words[0] and found.summary["defect"] < 1e-3
    with pytest.raises(InputError, match="solved from its start"):
        certify_predictions(source, *arrays, console=CONSOLE, to_rtol=1e-8)


def test_a_run_on_data_from_elsewhere_has_no_equation(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"command": "train", "status": "finished"}')
    with pytest.raises(InputError, match="name no problem"):
        certifier(str(tmp_path), CONSOLE, asked=True, times=None, to_rtol=None, level=None)
