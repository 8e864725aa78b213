"""Certificates: residuals of predictions, solutions that go on from them, and the defect of forecasts."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from headrace.platform.errors import InputError
from headrace.platform.sample import Sample
from headrace.platform.spec import kinds
from headrace.solvers import (
    AbstractEvolution,
    AbstractProblem,
    Burgers,
    ConvectionDiffusion,
    Darcy,
    Elasticity,
    Helmholtz,
    NonlinearDiffusion,
    Poisson,
    Scattering,
    SolverSource,
    certify,
    forecast_defect,
    solve,
)
from headrace.solvers.sources.all_sampled import SAMPLED
from headrace.solvers.sources.source_of import source_of

KINDS = kinds("headrace.problems", SAMPLED).values()
EVOLUTIONS = [one for one in KINDS if issubclass(one, AbstractEvolution)]
STEADY = [one for one in KINDS if issubclass(one, AbstractProblem)]
VARIANTS = [*(one() for one in STEADY), Poisson(boundary="neumann"), Poisson(boundary="periodic")]


def small(problem: AbstractProblem) -> AbstractProblem:
    fields = type(problem).model_fields
    points = 9 if "resolution" in fields and len(problem.schema().domain.shape) == 3 else 24
    return problem.overridden({"resolution": points}) if "resolution" in fields else problem


def solved(problem: AbstractProblem) -> Sample:
    (sample,) = SolverSource.model_validate({"problem": problem, "rtol": 1e-10}).samples([1])
    assert isinstance(sample, Sample), sample
    return sample


@pytest.mark.parametrize(
    "problem", VARIANTS, ids=lambda one: f"{type(one).__name__}{one.model_dump(exclude_defaults=True)}"
)
def test_the_stored_solution_of_every_problem_solves_its_equation(problem: AbstractProblem) -> None:
    problem = small(problem)
    sample = solved(problem)
    try:
        found = certify(problem, sample.inputs, sample.outputs, sample.parameters, rtol=1e-8, method="direct")
    except InputError:
        # Some say themselves that their inputs do not tell the equation.
        assert isinstance(problem, ConvectionDiffusion | Scattering) or getattr(problem, "output", "") == "grid"
        return
    assert found.relative_residual < 1e-3, "single precision leaves little"
    assert found.finished is not None and found.finished.outputs is not None
    scale = np.abs(sample.outputs).max()
    assert np.allclose(found.finished.outputs, sample.outputs, rtol=0.0, atol=2e-6 * scale)
    assert found.finished.solution.relative_residual <= 1e-8

    worse = sample.outputs + 0.1 * scale * np.random.default_rng(0).standard_normal(sample.outputs.shape).astype("f4")
    assert certify(problem, sample.inputs, worse, sample.parameters).relative_residual > 100 * found.relative_residual


def test_a_good_prediction_saves_iterations_and_a_bad_one_costs_some() -> None:
    problem = Darcy(resolution=65)
    sample = solved(problem)
    x = np.linspace(0.0, np.pi, 65)
    smooth = (np.sin(x)[:, None] * np.sin(x))[None, None]
    near = sample.outputs + 1e-6 * sample.outputs.max() * smooth
    far = sample.outputs + 0.3 * np.random.default_rng(0).standard_normal(sample.outputs.shape)
    for prediction, saves in ((near, True), (far, False)):
        found = certify(problem, sample.inputs, prediction, rtol=1e-8, method="cg").finished
        assert found is not None and found.outputs is not None
        assert (found.iterations_saved > 5) is saves and found.solution.relative_residual <= 1e-8
        assert found.solution.num_iterations > 0


@pytest.mark.parametrize("method", ["direct", "multigrid", "cg", "gcrodr", "amg", "auto"])
def test_every_method_goes_on_from_a_prediction(method: str) -> None:
    problem = Darcy(resolution=33)
    system = problem.discretize(problem.draw(2))
    exact = solve(system, 1e-12, "direct").value
    guess = exact * (1.0 + 1e-3 * np.cos(np.arange(exact.size)))
    found = solve(system, 1e-9, method, initial=guess)
    assert found.status == "converged" and system.relative_residual(found.value) <= 1e-9
    assert found.relative_residual == system.relative_residual(found.value)
    assert np.linalg.norm(found.value - exact) < 1e-6 * np.linalg.norm(exact)
    again = solve(system, 1e-8, method, initial=found.value)
    assert (again.method, again.num_iterations) == ("initial", 0) and np.array_equal(again.value, found.value)


def test_newton_starts_from_the_prediction() -> None:
    problem = NonlinearDiffusion(resolution=33)
    system = problem.discretize(problem.draw(0))
    cold = solve(system, method="gmres")
    warm = solve(system, method="gmres", initial=cold.value * 1.001)
    assert warm.status == "converged" and warm.num_iterations < cold.num_iterations


def test_a_field_with_its_boundary_is_taken_for_the_unknowns_inside() -> None:
    problem = Helmholtz(resolution=47)
    system = problem.discretize(problem.draw(0))
    cold = solve(system, 1e-9)
    field = np.pad(cold.value.reshape(45, 45), 1)[None, None]
    assert solve(system, 1e-8, initial=field).num_iterations == 0
    assert solve(system, 1e-8, initial={"pressure": field[0, 0]}).num_iterations == 0
    with pytest.raises(InputError, match="fields a, b"):
        solve(system, initial={"a": field, "b": field})
    for wrong, words in ((np.zeros(7), "of shape \\(7,\\)"), (np.full((47, 47), np.nan), "not finite")):
        with pytest.raises(InputError, match=words):
            solve(system, initial=wrong)


def test_what_the_inputs_do_not_tell_is_said() -> None:
    problem = ConvectionDiffusion(resolution=24)
    sample = solved(problem)
    with pytest.raises(InputError, match="stream function"):
        certify(problem, sample.inputs, sample.outputs)
    on_grid = Elasticity(output="grid", grid_points=16)
    with pytest.raises(InputError, match="mesh"):
        certify(on_grid, np.zeros((3, 16, 16)), np.zeros((1, 2, 16, 16)))


@pytest.mark.parametrize("kind", EVOLUTIONS, ids=lambda one: one.__name__)
def test_a_trajectory_of_every_equation_has_no_more_defect_than_a_restart(kind: type[AbstractEvolution]) -> None:
    problem = kind()
    short = {"horizon": problem.horizon / 8.0, "snapshots": 3}
    problem = problem.overridden(short | ({"resolution": 32} if "resolution" in kind.model_fields else {}))
    (sample,) = source_of(problem).samples([0])
    assert isinstance(sample, Sample), sample
    found = forecast_defect(problem, sample.inputs, sample.outputs, sample.parameters)
    assert found.times == problem.times and found.num_steps > 0
    assert (found.relative <= problem.restarts_within).all(), found.relative
    # What is wrong at one time is a defect there, and of the interval that starts from it, nowhere else.
    wrong = sample.outputs.copy()
    wrong[0] *= 1.2
    other = forecast_defect(problem, sample.inputs, wrong, sample.parameters).relative
    assert other[0] == pytest.approx(0.2, abs=0.05) and other[2] <= problem.restarts_within


def test_the_defect_of_a_few_intervals_is_had_at_a_part_of_the_price() -> None:
    problem = Burgers(resolution=32, snapshots=8)
    (sample,) = source_of(problem).samples([0])
    assert isinstance(sample, Sample)
    whole = forecast_defect(problem, sample.inputs, sample.outputs, sample.parameters)
    few = forecast_defect(problem, sample.inputs, sample.outputs, sample.parameters, most=2)
    assert few.times == (problem.times[3], problem.times[7]) and few.num_steps * 4 == whole.num_steps
    with pytest.raises(InputError, match="outputs"):
        forecast_defect(problem, sample.inputs, sample.outputs[:3], sample.parameters)


def test_finished_tells_what_was_saved_and_what_was_lost() -> None:
    problem = Darcy(resolution=33)
    sample = solved(problem)
    found = certify(problem, sample.inputs, sample.outputs, rtol=1e-3)
    assert found.finished is not None and found.finished.solution.method == "initial"
    slower = dataclasses.replace(found.finished.solution, seconds=3.0, num_iterations=9)
    lost = dataclasses.replace(found.finished, solution=slower)
    assert lost.seconds_saved < 0 and lost.iterations_saved == lost.by_itself.num_iterations - 9


def test_the_page_runs_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[2] / "docs" / "certified-predictions.md"
    [code] = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    exec(compile(code, str(page), "exec"), {})
    residual, by_hand, defects = capsys.readouterr().out.splitlines()
    assert 1e-3 < float(residual.split()[0]) < 0.1 and float(by_hand.split()[1]) <= 1e-8 and "e-0" in defects
