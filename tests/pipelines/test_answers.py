"""What commands answer: to a person, to a program, and where letters cannot be written."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from headrace.pipelines.answers import Answer, console, errors_table, run_answer, show, write_in_any_encoding
from headrace.pipelines.running.progress import RunProgress
from headrace.pipelines.summary import RunSummary

METRICS = ("relative_l2", "relative_h1", "vrmse")
SCORES = {"count": 3, **{name: {"mean": 0.1, "std": 0.02, "p95": 0.2} for name in METRICS}}


def test_data_follow_the_words_or_stand_instead_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    show(Answer(words=["[bold]a:smile: word"], data={"a": 1}), as_json=False)
    assert capsys.readouterr().out == "[bold]a:smile: word\n", "a path may hold what others take for markup"
    show(Answer(words=["words"], warnings=["beware"], data={"a": 1}), as_json=True)
    told = capsys.readouterr()
    assert told.out == 'words\n{"a": 1}\n' and told.err == "beware\n"
    show(Answer(words=["words"], data={"a": Path("x")}, instead=True), as_json=True)
    assert capsys.readouterr().out == '{"a": "x"}\n'


def test_a_run_tells_its_errors_and_where_things_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.html").touch()
    summary = RunSummary().changed(
        status="finished", samples={"stored": 5, "failed": 1}, errors={"all": SCORES, "smooth": SCORES}
    )
    answer = run_answer(summary, tmp_path, "said first")
    show(answer, as_json=True)
    told = capsys.readouterr().out
    first, *_, last = told.splitlines()
    assert first == "said first" and f"report     {tmp_path / 'report.html'}" in told
    assert "5 stored, 1 failed, 0 duplicates dropped" in told and "checkpoint" not in told
    assert "smooth" not in told.replace(last, ""), "the only level is said once"
    errors = {"all": SCORES, "smooth": SCORES}
    assert json.loads(last) == {
        "run": str(tmp_path), "status": "finished", "errors": errors, "samples": {"stored": 5, "failed": 1}
    }  # fmt: skip


def test_letters_that_cannot_be_written_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    write_in_any_encoding()
    table = Table()
    table.add_row("σ²")
    show(Answer(words=["a ± b", table, *errors_table({"all": SCORES})]), as_json=False)
    assert b"a +- b" in written.getvalue() and b"(mean +- standard deviation)" in written.getvalue()
    assert b"??" in written.getvalue()  # of what has no plainer letter
    with RunProgress(console) as progress:
        progress.update(phase="solving", planned=4, stored=2)
    assert b"solving - 2/4 samples" in written.getvalue()


def test_the_command_line_writes_ascii_where_it_must() -> None:
    program = Path(sys.executable).with_name("headrace")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "NO_COLOR": "1"}
    done = subprocess.run([program, "list", "problems"], env=environment, capture_output=True, check=False)
    assert done.returncode == 0 and b"darcy" in done.stdout, done.stderr
