"""Files of a run: JSON that any program reads, and metrics without the steps that were done again."""

import json
from pathlib import Path

import numpy as np

from headrace.pipelines.run_dir import MetricsLog, finite, read_metrics, write_json


def strict(text: str) -> object:
    """JSON as the standard has it, which knows no Infinity."""

    def refuse(name: str) -> float:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def test_a_number_that_is_not_finite_is_null_in_every_file(tmp_path: Path) -> None:
    value = {"a": [1.0, float("inf"), {"b": (float("nan"), 2)}], "c": np.float64("-inf"), "d": "inf", "e": None}
    assert finite(value) == {"a": [1.0, None, {"b": [None, 2]}], "c": None, "d": "inf", "e": None}
    write_json(tmp_path / "x.json", value)
    assert strict((tmp_path / "x.json").read_text()) == finite(value)
    log = MetricsLog(tmp_path / "metrics.jsonl", 0.0)
    log.write({"validation/relative_l2": float("nan"), "train/loss": 0.5}, 10, 1.0)
    log.close()
    assert strict((tmp_path / "metrics.jsonl").read_text()) == {
        "seconds": 1.0,
        "step": 10,
        "validation/relative_l2": None,
        "train/loss": 0.5,
    }


def test_steps_that_were_done_again_are_told_once(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", 0.0)
    for step, loss in ((10, 1.0), (20, 0.9), (30, 0.8)):
        log.write({"train/loss": loss}, step, step)
        log.write({"stream/fill": 0.5}, None, step)
    log.write({"validation/relative_l2": 0.7}, 20, 20)
    log.write({"validation/relative_l2": 0.6}, 30, 30)
    # Killed, and gone on with from step 15: what came after it was never part of the weights.
    for step, loss in ((20, 0.91), (30, 0.81), (40, 0.7)):
        log.write({"train/loss": loss}, step, 100 + step)
    log.write({"validation/relative_l2": 0.55}, 25, 125)
    log.close()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row] == [
        (10, 1.0),
        (20, 0.91),
        (30, 0.81),
        (40, 0.7),
    ]
    assert [row["step"] for row in rows if "validation/relative_l2" in row] == [20, 25]
    assert sum("stream/fill" in row for row in rows) == 3
