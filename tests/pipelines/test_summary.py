"""The summary of a run: read back as it was written, by this version and the ones before."""

import json
from pathlib import Path

import pytest

from headrace.pipelines.run_dir import RunDir
from headrace.pipelines.summary import FORMAT, LevelCost, RunSummary, SampleCounts, read_summary
from headrace.platform.errors import InputError


def written(folder: Path, content: object) -> Path:
    path = folder / "run.json"
    path.write_text(json.dumps(content))
    return path


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    summary = RunSummary(format=FORMAT, name="x", samples=SampleCounts(planned=3, stored=2, failed=1, duplicates=0))
    summary = summary.changed(schema={"parts": 1}, cost={"easy": LevelCost(samples=2, methods={"direct": 2})})
    path = written(tmp_path, summary.to_json())
    assert json.loads(path.read_text()) == {
        "format": FORMAT,
        "name": "x",
        "samples": {"planned": 3, "stored": 2, "failed": 1, "duplicates": 0},
        "schema": {"parts": 1},
        "cost": {"easy": {"samples": 2, "methods": {"direct": 2}}},
    }
    assert read_summary(path) == summary and summary.sample_schema == {"parts": 1}
    assert summary.cost["easy"].cpu_seconds == 0.0 and summary.training is None


def test_a_file_without_a_number_is_of_the_format_before(tmp_path: Path) -> None:
    summary = read_summary(written(tmp_path, {"name": "x", "samples": {"stored": 3}, "of_another_day": [1]}))
    assert summary.format == 1 and summary.samples == SampleCounts(stored=3) and summary.samples.failed == 0
    assert summary.changed(status="failed").to_json()["of_another_day"] == [1], "kept, though nobody here reads it"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"format": FORMAT + 1},
            rf"of format {FORMAT + 1}; expected format {FORMAT} at most. A newer",
        ),
        ({"samples": {"stored": "many"}}, "unreadable; expected the JSON of a run. samples.stored: .*valid integer"),
        ([], "expected the JSON of a run. a list, and not the mapping"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, content: object, words: str) -> None:
    written(tmp_path, content)
    with pytest.raises(InputError, match=words):
        RunDir.open(tmp_path).read_summary()


def test_no_value_of_the_wrong_type_comes_in() -> None:
    with pytest.raises(ValueError, match="seconds"):
        RunSummary().changed(seconds="long")
