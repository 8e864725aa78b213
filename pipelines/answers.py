"""What a command answers, and the one place that prints it."""

import codecs
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from headrace.pipelines.run_dir import finite
from headrace.pipelines.summary import RunSummary
from headrace.platform.errors import HeadraceError, InputError

console = Console()
_errors = Console(stderr=True)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a command.

    Attributes:
        words: for a person, one below the other; text is shown as it is, whatever brackets it has.
        warnings: for a person, too, apart from what was asked for.
        data: for a program, printed as one JSON object in the last line when it is asked for.
        instead: whether the data take the place of the words; else they follow them.
        status: with which the process ends.
    """

    words: Sequence[RenderableType] = ()
    warnings: Sequence[str] = ()
    data: object = None
    instead: bool = False
    status: int = 0


def show(answer: Answer, *, as_json: bool) -> None:
    """Print an answer."""
    for warning in answer.warnings:
        warn(warning)
    if not (as_json and answer.instead):
        for words in answer.words:
            if isinstance(words, str):
                console.out(words, highlight=False)
            else:
                console.print(words, highlight=False, soft_wrap=isinstance(words, Text))
    if as_json:
        click.echo(json.dumps(finite(answer.data), default=str, allow_nan=False))


def warn(text: str) -> None:
    """Say something at once, apart from the answer."""
    _errors.out(text, highlight=False)


def failure(error: HeadraceError) -> Answer:
    """The answer of a command that a user's input, or what happened, has stopped: its errors go apart, too."""
    faults = error.faults if isinstance(error, InputError) else ()
    data = {"error": str(error), "faults": [vars(fault) for fault in faults]}
    for line in [str(fault) for fault in faults] or [str(error)]:
        _errors.print("[bold red]error[/]", end=" ")
        warn(line)
    return Answer(data=data, status=error.exit_status)


# What to write where a terminal or a file has no such letter; others become question marks.
_IN_ASCII = {"·": "-", "–": "-", "±": "+-", "×": "x", "…": "...", "→": "->", "≤": "<=", "≥": ">=", "∞": "inf"}


def _plainer(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_IN_ASCII.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


codecs.register_error("headrace.plainer", _plainer)


def write_in_any_encoding() -> None:
    """Have letters that the terminal or the file has not, such as ±, printed as plainer ones: they stop nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="headrace.plainer")


def errors_table(levels: Mapping[str, Mapping[str, Any]]) -> list[RenderableType]:
    """The held-out errors by level; nothing where there are none."""
    if not levels:
        return []
    table = Table(title="Held-out errors (mean ± standard deviation)", title_justify="left")
    table.add_column("level")
    for name in ("samples", "relative L2", "95th percentile", "relative H1", "VRMSE"):
        table.add_column(name, justify="right")
    for level, values in levels.items():
        if level != "all" and len(levels) == 2 and "all" in levels:
            continue  # the only one: said already
        l2, h1, vrmse = values["relative_l2"], values["relative_h1"], values["vrmse"]
        table.add_row(
            level,
            str(values["count"]),
            _score(l2["mean"]) + ("" if _score(l2["mean"]) == "not finite" else f" ± {_score(l2['std'])}"),
            _score(l2["p95"]),
            _score(h1["mean"]),
            _score(vrmse["mean"]),
        )
    return [table]


def notes(said: Sequence[str]) -> list[RenderableType]:
    """What to know before relying on numbers, for a person."""
    return [Text.assemble(("note", "bold yellow"), f": {note}") for note in said]


def _score(value: float | None) -> str:
    """An error in digits; null, as files have it, is that of a prediction that is not finite."""
    return "not finite" if value is None or not math.isfinite(value) else f"{value:.4f}"


def run_answer(summary: RunSummary, run: Path, first: str = "") -> Answer:
    """What a run came to: its errors, where everything is.

    Args:
        summary: of the run.
        run: its folder.
        first: what is said before.
    """
    counts = summary.samples
    stored = f"{counts.stored} stored, {counts.failed} failed, {counts.duplicates} duplicates dropped"
    rows = {
        "samples": f"{counts.stored} trained on, of {summary.data_folder}" if summary.command == "train" else stored,
        "seconds": f"{summary.seconds:.0f}",
        "report": str(run / "report.html"),
        "checkpoint": str(run / "checkpoints" / "last.pt"),
        "data set": str(run / "data"),
        "MLflow": summary.tracking.url or "off",
    }
    there = {
        name: value
        for name, value in rows.items()
        if name not in ("report", "checkpoint", "data set") or Path(value).exists()
    }
    lines = [Text.assemble((f"{name:<10}", "bold"), f" {value}") for name, value in there.items()]
    written = summary.to_json()
    keys = ("status", "errors", "notes", "seconds", "samples", "training", "cost", "tracking")
    return Answer(
        words=[*([first] if first else []), *errors_table(summary.errors), *lines, *notes(summary.notes)],
        data={"run": str(run)} | {key: written[key] for key in keys if key in written},
    )
