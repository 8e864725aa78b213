"""`headrace status`: how far a run is, from its folder alone; it may be read while another process works on it."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headrace.pipelines.report.rates import solving_rate
from headrace.pipelines.run_dir import RunDir
from headrace.pipelines.summary import TrainingOutcome
from headrace.platform.ledger.ledger import Ledger

REFRESH_SECONDS = 1.0
_FAILURES = 5
RATE = "stream/mean_pace"  # of what is not at work any more; no row of metrics has it
# What says how it goes, and nothing of a run that has ended.
_OF_NOW = ("stream/pace", "stream/solvers", "stream/solvers_waiting")
# Metrics that are shown, with their labels; the newest value of each counts.
_SHOWN = {
    "stream/pace": "samples / s over a minute",
    RATE: "samples / s while they were solved",
    "stream/solvers": "solvers",
    "stream/solvers_waiting": "solvers that wait for resources",
    "stream/fill": "reservoir fill",
    "stream/reuse": "uses of a sample",
    "train/loss": "loss",
    "train/samples_per_second": "trained samples / s",
    "train/wait_share": "share of time waiting for data",
}
_ERROR = "validation/relative_l2"


def status(run: RunDir) -> dict[str, Any]:
    """What is known of a run now.

    Raises:
        InputError: the folder holds no run, or its summary or ledger is damaged.
    """
    summary = run.read_summary()
    is_killed = summary.status == "running" and not run.is_worked_on
    rows = run.read_metrics()
    newest, step, seconds = _newest_metrics(rows)
    if summary.status != "running" or is_killed:
        newest = {name: value for name, value in newest.items() if name not in _OF_NOW}
        newest |= _means(rows, summary.training)
    found: dict[str, Any] = {
        "run": str(run.path),
        "command": summary.command or None,
        "status": "killed" if is_killed else summary.status,
        "reason": f"nobody works on it any more; go on with: headrace resume {run.path}"
        if is_killed
        else summary.reason,
        "seconds": max(seconds, summary.seconds),
        "step": step,
        "metrics": {name: newest[name] for name in _SHOWN if name in newest},
        "validation": {
            name.removeprefix(_ERROR).lstrip("/") or "all": value
            for name, value in newest.items()
            if name.startswith(_ERROR)
        },
        "errors": summary.errors,
        "notes": summary.notes,
        "splits": {},
        "leases": {},
        "failures": [],
    }
    if run.ledger.is_file():
        with Ledger.open(run.ledger, read_only=True) as ledger:
            for split in ledger.splits:
                counts = ledger.counts(split)
                found["splits"][split] = {**asdict(counts), "waiting": counts.waiting}
                for failure in ledger.failures(split, _FAILURES):
                    found["failures"].append({"split": split, "index": failure.index, "reason": failure.reason})
            for lease in ledger.leases():
                found["leases"][lease.worker] = found["leases"].get(lease.worker, 0) + len(lease.indices)
    return found


def show(found: Mapping[str, Any]) -> RenderableType:
    """The status for a person."""
    head = Text(f"{found['run']}: {found['status']}, {found['seconds']:.0f} s", style="bold")
    parts: list[RenderableType] = [head]
    if found["reason"]:
        parts.append(Text(str(found["reason"]), style="red"))
    parts.extend(Text(f"note: {note}", style="yellow") for note in found["notes"])
    if found["splits"]:
        table = Table(box=None, pad_edge=False)
        for name in ("samples", "planned", "stored", "under way", "waiting", "failed", "duplicates dropped"):
            table.add_column(name, justify="left" if name == "samples" else "right")
        for split, counts in found["splits"].items():
            keys = ("planned", "stored", "leased", "waiting", "failed", "duplicates")
            table.add_row(split, *(str(counts[key]) for key in keys))
        parts.append(table)
    if found["leases"]:
        parts.append(Text("under way: " + ", ".join(f"{name} {n}" for name, n in found["leases"].items())))
    facts = [f"step {found['step']}"] if found["step"] else []
    facts += [f"{_SHOWN[name]} {value:.4g}" for name, value in found["metrics"].items()]
    if facts:
        parts.append(Text(", ".join(facts)))
    if found["validation"]:
        errors = ", ".join(f"{level} {value:.4f}" for level, value in found["validation"].items())
        parts.append(Text(f"validation error: {errors}"))
    for failure in found["failures"]:
        parts.append(Text(f"failed: {failure['split']} {failure['index']}: {failure['reason']}", style="yellow"))
    return Group(*parts)


def watch(run: RunDir, console: Console) -> dict[str, Any]:
    """Show the status until the run has ended, or was killed; Ctrl-C ends the watching."""
    found = status(run)
    with Live(show(found), console=console, auto_refresh=False) as live:
        while found["status"] == "running":
            time.sleep(REFRESH_SECONDS)
            found = status(run)
            live.update(show(found), refresh=True)
    return found


def _means(rows: Sequence[Mapping[str, Any]], training: TrainingOutcome | None) -> dict[str, float]:
    """Throughputs of all the work of a run that has ended: the last ones that were looked at are those of its end."""
    rate = solving_rate(rows)
    trained = {} if training is None else training.to_json()
    means = {} if rate is None else {RATE: rate}
    for name in ("samples_per_second", "wait_share"):
        if isinstance(value := trained.get(name), int | float):
            means[f"train/{name}"] = float(value)
    return means


def _newest_metrics(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], int, float]:
    """The newest value of each metric, the last step, and the time of the last line [s]."""
    newest: dict[str, float] = {}
    step, seconds = 0, 0.0
    for row in rows:
        values = dict(row)
        seconds = max(seconds, values.pop("seconds"))
        step = max(step, int(values.pop("step", None) or 0))
        # What is not finite is no JSON for a browser.
        newest.update({name: value for name, value in values.items() if value is not None and math.isfinite(value)})
    return newest, step, seconds
