"""What a run says beside its numbers: what was flat, lost, not tested, or not done."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from headrace.pipelines.answers import errors_table, run_answer
from headrace.pipelines.cli import main
from headrace.pipelines.recipe.cautions import cautions, fed_steps, untested
from headrace.pipelines.recipe.config import load
from headrace.pipelines.recipe.sections import StreamSpec
from headrace.pipelines.report.notes import of_errors, of_forecasts, of_training
from headrace.pipelines.report.report import write_report
from headrace.pipelines.report.words import error_text
from headrace.pipelines.running.evaluate import statistics
from headrace.pipelines.summary import RunSummary, SampleCounts, TrainingOutcome
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.reservoir.spec import ReservoirSpec
from headrace.platform.sample import SampleBatch

SHORT = TrainingOutcome(steps=219, planned_steps=650, samples_seen=3504)
BOUNDED = StreamSpec(reservoir=ReservoirSpec(capacity=200, watermark=64, max_uses=4))


def test_a_training_that_ended_early_says_so_everywhere(tmp_path: Path) -> None:
    [note] = of_training(SHORT, BOUNDED, SampleCounts(planned=3000, stored=3000))
    assert note.startswith("training took 219 of 650 planned steps: the stream ended, and no sample had a use left")
    assert "max_uses = 4" in note and "when_used_up=go_on" in note and "with 3000 nothing is pushed out" in note
    summary = RunSummary(name="x", command="run", run_id="r", status="finished", training=SHORT, notes=[note])
    (tmp_path / "run.json").write_text(json.dumps(summary.to_json()))
    answer = run_answer(summary, tmp_path)
    assert "219 of 650 planned steps" in str(answer.words[-1])
    assert isinstance(answer.data, dict) and answer.data["notes"] == [note]
    assert answer.data["training"]["planned_steps"] == 650
    done = CliRunner().invoke(main, ["status", str(tmp_path)])
    assert "219 of 650 planned steps" in " ".join(done.stdout.split())
    page = write_report(tmp_path).read_text()
    assert "219 of 650 planned steps" in page and "<dd>219 of 650 planned</dd>" in page


def test_a_training_that_took_all_steps_says_nothing() -> None:
    assert of_training(TrainingOutcome(steps=650, planned_steps=650), BOUNDED, SampleCounts()) == []
    # Runs of before did not say how many steps were planned.
    assert of_training(TrainingOutcome(steps=219), BOUNDED, SampleCounts()) == []


@pytest.mark.parametrize("kind", ["fifo", "firo"])
def test_a_queue_that_ended_early_is_told_to_reuse(kind: str) -> None:
    stream = StreamSpec.model_validate({"reservoir": {"kind": kind}})
    [note] = of_training(SHORT, stream, SampleCounts(stored=10))
    assert f"A {kind} serves each sample once" in note


def test_zero_targets_are_counted_and_told() -> None:
    outcome = TrainingOutcome(steps=40, planned_steps=40, samples_seen=640, zero_targets=40)
    [note] = of_training(outcome, None, SampleCounts())
    assert note.startswith("40 of the 640 targets that were trained on are next to zero") and "0.00032" in note


class TestFedSteps:
    """How many steps are certain: of what allowed 750 a run took 219."""

    def test_counts_one_use_of_what_is_pushed_out(self) -> None:
        # 3000 samples, 200 of which stay to be used 4 times: 2800 + 800 rows, in batches of 16.
        assert fed_steps(3000, BOUNDED, 16) == 225
        assert fed_steps(150, BOUNDED, 16) == 150 * 4 // 16

    def test_is_unlimited_where_samples_are_used_again_and_again(self) -> None:
        assert fed_steps(100, StreamSpec(), 16) is None
        on = ReservoirSpec(capacity=200, watermark=64, max_uses=4, when_used_up="go_on")
        assert fed_steps(100, StreamSpec(reservoir=on), 16) is None

    @pytest.mark.parametrize("seed", range(3))
    def test_is_what_a_reservoir_comes_to_that_is_filled_as_fast_as_it_can_be(self, seed: int) -> None:
        schema = SampleSchema(
            inputs=(FieldSpec(name="a"),),
            outputs=(FieldSpec(name="u"),),
            domain=Grid(shape=(1,), extent=(1.0,), periodic=(False,)),
        )
        reservoir = ReservoirSpec(capacity=40, watermark=16, max_uses=4).build(schema, seed)
        nothing = np.zeros((600, 1, 1), np.float32)
        batch = SampleBatch(
            indices=np.arange(600), inputs=nothing, outputs=nothing[:, None], parameters=np.zeros((600, 0), np.float32)
        )
        put = steps = 0
        while not reservoir.exhausted:
            if put < 600:
                put += reservoir.try_put(batch, start=put)
                if put == 600:
                    reservoir.end()
            if reservoir.ready(8):
                steps += len(reservoir.take(8).indices) == 8
        certain = fed_steps(600, StreamSpec(reservoir=ReservoirSpec(capacity=40, watermark=16, max_uses=4)), 8)
        assert certain is not None
        # Where a batch comes more than once before the next sample, some are used a little more often.
        assert certain - 3 <= steps <= 1.2 * certain


def test_check_warns_of_steps_that_are_not_certain_and_levels_without_samples() -> None:
    arguments = ["stream.reservoir.max_uses=4", "stream.reservoir.capacity=20", "data.test=1", "data.validation=3"]
    said = cautions(load("smoke", arguments))
    assert [one.partition(":")[0] for one in said] == [
        "rough is in data.mix and has no test sample",
        "training may end after 19 of 40 steps",
    ]
    assert "data.test=3 or more" in said[0] and "stream.reservoir.capacity=96" in said[1]
    done = CliRunner().invoke(main, ["check", "smoke", *arguments, "--json"])
    assert done.exit_code == 0 and "caution: training may end after 19 of 40 steps" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["cautions"] == said
    assert cautions(load("smoke")) == []


def test_what_is_advised_has_a_sample_of_each_level() -> None:
    config = load("smoke", ["data.mix={often: 97, rare: 2, rarer: 1}", "data.levels={often: {}, rare: {}, rarer: {}}"])
    assert config.data is not None
    [said] = untested(config.data, "test", ["often"])
    assert said.startswith("rare, rarer are in data.mix and have no test sample") and "data.test=100 or more" in said
    assert cautions(load("smoke", ["data.mix={smooth: 99, rough: 1}", "data.test=100", "data.validation=100"])) == []


def test_flat_and_zero_samples_are_told_once() -> None:
    levels = {"all": {"count": 240, "flat": 3, "zero": 0}, "smooth": {"count": 120, "flat": 3, "zero": 0}}
    [note] = of_errors(levels)
    assert note.startswith("3 of 240 held-out samples are flat in space at some output time")
    two = of_errors({"test_16": {"count": 9, "flat": 0, "zero": 1}, "test_32": {"count": 9, "flat": 0, "zero": 0}})
    assert len(two) == 1 and two[0].startswith("1 of 9 held-out samples of test_16 are next to zero")
    assert of_errors({"all": {"count": 4}}) == [], "of runs of before"


SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="u"),),
    outputs=(FieldSpec(name="u"), FieldSpec(name="v")),
    domain=Grid(shape=(4,), extent=(1.0,), periodic=(True,)),
    times=(0.5, 1.0, 1.5),
)


def test_a_forecast_that_blew_up_names_level_range_time_and_what_to_change() -> None:
    truth = np.ones((4, 3, 2, 4), np.float32)
    truth[1, 0, 1, 0] = -2.0
    prediction = truth.copy()
    prediction[1, 2, 0] = np.nan
    prediction[3, 1, 1, 2], prediction[3, 2] = 1e7, np.inf
    levels = ["soft", "sharp", "soft", "soft"]
    [note] = of_forecasts(prediction, truth, SCHEMA, levels, [10, 11, 12, 13])
    assert note.startswith(
        "2 forecasts of 4 blew up (sharp 1, soft 1): v of sample 13 (soft) reaches 1.00e+07 at time 1, where the data "
        "lie from -2.00 to 1.00. Train it to follow its own predictions (training.strategy.rollout"
    )
    assert of_forecasts(truth + 0.5, truth, SCHEMA, levels, [10, 11, 12, 13]) == []
    steady = dataclasses.replace(SCHEMA, times=(0.0,))
    [note] = of_forecasts(prediction[1:2, 2:], truth[1:2, 2:], steady, ["sharp"], [11])
    assert note.startswith(
        "1 prediction of 1 blew up (sharp 1): u of sample 11 (sharp) reaches values that are not finite"
    )
    assert "rollout" not in note


def test_errors_that_are_not_finite_are_null_and_read_so() -> None:
    found = statistics(np.array([0.1, 0.2, 0.3, np.nan]))
    assert found == {"mean": None, "std": None, "median": 0.25, "p95": None, "max": None, "not_finite": 1}
    assert error_text(None, "vrmse") == error_text(float("inf"), "relative_l2") == "not finite"
    values = {"count": 4, "relative_l2": found, "relative_h1": found, "vrmse": found}
    [table] = errors_table({"all": values})
    assert list(table.columns[2].cells) == ["not finite"]  # type: ignore[attr-defined]
