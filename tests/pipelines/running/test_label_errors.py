"""The error of labels in a run: measured before it starts, taken over from an earlier run, told, and held against."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from headrace.pipelines.check import check_recipe
from headrace.pipelines.recipe.config import RunConfig, validate
from headrace.pipelines.report.notes import of_labels
from headrace.pipelines.running import estimate
from headrace.pipelines.running.label_errors import (
    from_summary,
    known_label_errors,
    label_errors,
    measured_for,
    say_label_errors,
    told,
    too_large,
)
from headrace.pipelines.running.numerics import with_needed
from headrace.pipelines.running.pilots import settled
from headrace.platform.errors import InputError
from headrace.solvers import AbstractEvolution, Burgers, EvolutionSource, KuramotoSivashinsky
from headrace.solvers.label_error import LabelError

QUIET = Console(quiet=True)


def config_of(**data: object) -> RunConfig:
    problem = {"kind": "darcy", "resolution": 17}
    return validate(
        {"name": "labels", "data": {"problem": problem, "samples": 8, "mix": {"smooth": 1, "rough": 1}} | data},
        "generate",
    )


def test_labels_are_measured_and_those_that_are_too_wrong_are_told() -> None:
    config = config_of()
    smooth, rough = label_errors(config, QUIET)
    assert (smooth.level, rough.level) == ("smooth", "rough")
    assert smooth.worst is not None and rough.worst is not None and smooth.worst < 0.01 < 0.05 < rough.worst < 0.3
    (warning,) = too_large([smooth, rough], 0.02)
    assert "rough" in warning and "smooth" not in warning and "data.accuracy=0.02" in warning
    assert too_large([smooth, rough], 0.5) == too_large([smooth, rough], None) == []
    console = Console(record=True, width=400)
    say_label_errors([smooth, rough], config, console)
    said = console.export_text()
    assert "error of labels: smooth 0." in said and "of 4 pilots" in said and "caution: labels miss" in said


def test_nothing_is_measured_where_nobody_asks() -> None:
    assert label_errors(config_of(label_error=None), QUIET) == []
    assert settled(config_of(label_error=None), QUIET).seconds == 0.0


def test_what_an_earlier_run_has_measured_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "RUNS", tmp_path)
    config = config_of()
    assert known_label_errors(config) == []
    errors = label_errors(config, QUIET)
    (tmp_path / "earlier").mkdir()
    summary = {"label_errors": measured_for(config, errors)}
    (tmp_path / "earlier" / "run.json").write_text(json.dumps(summary))
    again = known_label_errors(config)
    assert [one.worst for one in again] == [one.worst for one in errors]
    assert sum(one.cpu_seconds for one in label_errors(config, QUIET)) == 0.0
    # Of a finer grid nothing is known.
    assert known_label_errors(config_of(numerics={"rough": {"refinement": 2}})) == []
    assert from_summary(summary["label_errors"]) == errors


def test_a_check_tells_what_is_known_and_measures_with_pilots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "RUNS", tmp_path)
    assert not any(line.startswith("labels") for line in check_recipe("smoke", (), QUIET).words)
    answer = check_recipe("smoke", ["data.label_error=0.02"], QUIET, pilots=True)
    assert any(line.startswith("labels   smooth 0.") for line in answer.words)
    assert any("labels miss the solution of their equation by up to rough" in warning for warning in answer.warnings)
    # With an accuracy they are as good as that, and as it comes the recipe says how bad they may be.
    assert not check_recipe("smoke", ["data.label_error=0.02", "data.accuracy=0.02"], QUIET, pilots=True).warnings
    assert not check_recipe("smoke", (), QUIET, pilots=True).warnings


def test_an_accuracy_of_a_steady_problem_becomes_a_grid_for_every_level() -> None:
    found = settled(config_of(accuracy=0.02), QUIET)
    smooth, rough = found.choices
    assert smooth.numerics.refinement == 1 and rough.numerics.refinement in (2, 4, 8)
    assert rough.numerics.step is None and rough.error <= 0.02 < rough.trials[-2].error
    assert all(one.worst is not None and one.worst <= 0.025 for one in found.label_errors)
    assert found.config.data is not None and found.config.data.numerics["rough"].refinement > 1
    with pytest.raises(InputError, match="data.accuracy is 1e-09; expected one that level smooth reaches"):
        settled(config_of(accuracy=1e-9, mix={"smooth": 1}), QUIET)


def test_a_step_of_what_has_no_time_is_refused() -> None:
    with pytest.raises(InputError, match=r"data.numerics.rough.step is 0.1; expected nothing: darcy does not step"):
        config_of(numerics={"rough": {"step": 0.1}})


def test_a_surrogate_as_good_as_its_labels_is_limited_by_them() -> None:
    labels = {"rough": LabelError(level="rough", worst=0.02, median=0.01, num_pilots=4).to_json()}
    (note,) = of_labels({"all": {"relative_l2": 0.02}, "rough": {"relative_l2": 0.025}}, labels)
    assert "At rough the surrogate is limited by its labels: it misses them by 2.5" in note
    assert of_labels({"rough": {"relative_l2": 0.2}}, labels) == []
    unknown = {"rough": LabelError(level="rough", reason="one grid").to_json()}
    assert of_labels({"rough": {"relative_l2": 0.001}}, unknown) == []
    assert told([LabelError(level="rough", reason="one grid")]).startswith("rough not measured (one grid)")


def test_levels_that_need_a_finer_grid_get_it_and_others_keep_theirs() -> None:
    burgers = {"kind": "burgers", "resolution": 64}

    def refinements(**data: object) -> dict[str, int]:
        config = config_of(**{"problem": burgers, "mix": {"viscous": 1, "medium": 1, "shock": 1}} | data)
        found = with_needed(config).data
        assert found is not None
        return {level: numerics.refinement for level, numerics in found.numerics.items()}

    assert refinements() == {"medium": 2, "shock": 4}
    assert refinements(problem=burgers | {"resolution": 200}) == {"shock": 2}
    assert refinements(numerics={"shock": {"refinement": 1}}) == {"shock": 1, "medium": 2}
    assert refinements(levels={"shock": {"viscosity": 0.1}}) == {"medium": 2}
    assert refinements(accuracy=0.05) == {}


@pytest.mark.parametrize("kind", [Burgers, KuramotoSivashinsky])
def test_labels_of_what_needs_a_finer_grid_are_right_with_it(kind: type[AbstractEvolution]) -> None:
    problem = kind(horizon=0.3 * kind().horizon, snapshots=3)
    level = list(problem.points_needed)[-1]
    needed = problem.refinement_needed(level)
    assert needed > 1
    finer = EvolutionSource.model_validate(
        {"problem": problem.model_dump(), "mix": {level: 1.0}, "numerics": {level: {"refinement": needed}}}
    ).label_error(level, num_pilots=2)
    assert finer.worst is not None and finer.worst < 0.02
