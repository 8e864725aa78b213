"""The page of a run: one HTML file that holds everything it shows and asks nothing of the network."""

import base64
import logging
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from jinja2 import ChainableUndefined, Environment, PackageLoader
from matplotlib.figure import Figure

from headrace.pipelines.recipe.config import UNUSED
from headrace.pipelines.report import curves, pictures, trajectories
from headrace.pipelines.report.palette import in_order
from headrace.pipelines.report.rates import solving_rate
from headrace.pipelines.report.record import RunRecord, mapping, read_run
from headrace.pipelines.report.used_data import used_data
from headrace.pipelines.report.words import duration, error_text, percent, quantity, spec_text, when_text
from headrace.pipelines.summary import LevelCost, RunSummary
from headrace.platform.fields import Mesh, SampleSchema
from headrace.platform.spec import kinds
from headrace.solvers.problem import AbstractProblem
from headrace.solvers.sources.all_sampled import SAMPLED

log = logging.getLogger(__name__)

METRIC_NAMES = {
    "relative_l2": "relative L2",
    "relative_h1": "relative H1",
    "relative_l1": "relative L1",
    "relative_linf": "relative L∞",
    "vrmse": "VRMSE (1 = predicting the mean)",
}
SPLITS = {"samples": "for training", "validation": "for validation", "test": "for the test"}
MAX_FAILURES = 50

# Pictures of the stream: heading, quantity, and each metric with its name in the legend.
STREAM_CURVES: dict[str, tuple[str, str, dict[str, str]]] = {
    "rate": (
        "Samples a second",
        "samples / s",
        {"stream/samples_per_second": "solved", "train/samples_per_second": "trained on"},
    ),
    "fill": ("Reservoir fill", "share of its capacity", {"stream/fill": "fill"}),
    "reuse": ("Reuse", "times trained on, mean", {"stream/reuse": "reuse"}),
    "age": ("Age of the samples", "seconds, mean", {"stream/age_seconds": "age"}),
    "wait": ("Trainer waiting for data", "share of the time", {"train/wait_share": "waiting"}),
}


def write_report(directory: Path) -> Path:
    """Write `report.html` into a run's folder, and each of its pictures into `pictures/` there.

    Args:
        directory: the run's folder; whatever is missing in it is named on the page.

    Returns:
        The path of the page.
    """
    record = read_run(directory)
    folder = directory / "pictures"
    inlined: dict[str, str] = {}
    for name, figure in figures(record):
        folder.mkdir(exist_ok=True)
        figure.savefig(folder / f"{name}.png", format="png")
        inlined[name] = _inlined(folder / f"{name}.png")
    if movie := _movie(record):
        folder.mkdir(exist_ok=True)
        (folder / "forecast.gif").write_bytes(movie)
        inlined["forecast"] = f"data:image/gif;base64,{base64.b64encode(movie).decode('ascii')}"
    environment = Environment(
        loader=PackageLoader("headrace.pipelines.report"),
        autoescape=True,
        undefined=ChainableUndefined,  # a run that ended early lacks anything
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration, "quantity": quantity, "error": error_text}
    page = environment.get_template("report.html").render(context(record), pictures=inlined)
    path = directory / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def figures(record: RunRecord) -> Iterator[tuple[str, Figure]]:
    """Every picture that the run has the numbers for, by name; one that cannot be drawn is left out with a warning."""
    rows, arrays, schema = record.metrics, record.arrays, record.schema
    rollout = record.rollout
    on_mesh = schema is not None and isinstance(schema.domain, Mesh)
    present = {name for row in rows for name, value in row.items() if value is not None}
    wanted: list[tuple[str, bool, Callable[[], Figure]]] = [
        ("loss", "train/loss" in present, partial(curves.training_loss, rows)),
        ("validation", "validation/relative_l2" in present, partial(curves.validation_error, rows, record.levels)),
        ("samples", bool(record.examples), lambda: pictures.sample_grid(record.examples, cast(SampleSchema, schema))),
        ("predictions", bool(arrays), partial(pictures.prediction_grid, arrays, schema)),
        ("distribution", bool(arrays), partial(curves.error_distribution, arrays, record.levels)),
        ("spectrum", bool(arrays) and not on_mesh, partial(pictures.energy_spectrum, arrays, schema)),
        ("rollout", bool(rollout), lambda: trajectories.rollout_errors(rollout, record.levels)),
        ("cost", bool(record.cost), partial(curves.solver_cost, record.cost, record.unit, record.levels)),
    ]
    for name, (title, ylabel, lines) in STREAM_CURVES.items():
        shown = {key: label for key, label in lines.items() if key in present}
        wanted.append((name, bool(shown), partial(curves.stream_curve, rows, shown, title, ylabel)))
    for name, possible, draw in wanted:
        if possible:
            try:
                yield name, draw()
            except (KeyError, ValueError, IndexError, TypeError) as error:  # a run's page is written whatever it holds
                log.warning("the picture %s of %s is left out: %s", name, record.path, error)


def _movie(record: RunRecord) -> bytes | None:
    """The forecast in time, where there is one on a grid; None otherwise."""
    schema = record.schema
    if not record.arrays or schema is None or isinstance(schema.domain, Mesh) or len(schema.times) < 2:
        return None
    try:
        return trajectories.animation(record.arrays, schema)
    except (KeyError, ValueError, IndexError, TypeError) as error:  # as above
        log.warning("the forecast in time of %s is left out: %s", record.path, error)
        return None


def _selection(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """What choosing among methods came to; empty where there was nothing to choose."""
    selection = mapping(mapping(run.get("solving")).get("selection"))
    best = selection.get("best_fixed")
    # Runs of before knew one kind of systems.
    return selection if not isinstance(best, str) else {**selection, "best_fixed": {"": best}}


def context(record: RunRecord) -> dict[str, Any]:
    """All that the template shows, computed."""
    summary, cost = record.run, record.cost
    run = summary.to_json()
    training = summary.training.to_json() if summary.training else {}
    return {
        "record": record,
        "run": run,
        "name": run.get("name") or record.path.name,
        "status": run.get("status") or "unknown",
        "command": run.get("command") or "run",
        "started": when_text(summary.started or None),
        "seconds": run.get("seconds"),
        "samples": run.get("samples") or {},
        "splits": run.get("splits") or {},
        "asked": asked(record.recipe, command=summary.command or None),
        "used_data": used_data(summary, record.schema),
        "errors": record.errors,
        "metrics": [name for name in record.evaluation.get("metrics", ["relative_l2"]) if name in METRIC_NAMES],
        "metric_names": METRIC_NAMES,
        "split": record.evaluation.get("split", "test"),
        "numerics": run.get("numerics") or [],
        "label_errors": [one for one in mapping(run.get("label_errors")).values() if one.get("worst") is not None],
        "labels_unmeasured": [one for one in mapping(run.get("label_errors")).values() if one.get("worst") is None],
        "rollout": record.rollout,
        "cost": cost,
        "cost_total": cost_total(cost),
        "unit": record.unit,
        "solving": run.get("solving") or {},
        "selection": _selection(run),
        "training": training,
        "notes": list(dict.fromkeys([*summary.notes, *record.evaluation.get("notes", [])])),
        "phases": phases(summary),
        "stream": stream_summary(record.metrics, training, record.levels),
        "failures": summary.failures[:MAX_FAILURES],
        "num_failed": summary.samples.failed,
        "versions": run.get("versions") or {},
        "plug_ins": run.get("plug_ins") or [],
        "git": run.get("git"),
        "machine": run.get("machine") or {},
        "tracking": run.get("tracking") or {},
        "seed": record.recipe.get("seed"),
        "commands": commands(record),
        "num_pictured": len(record.arrays.get("index", ())),
    }


def _is_solved(problem: Mapping[str, Any]) -> bool:
    """Whether a method solves its systems: no program, no equation in time, has one."""
    found = kinds("headrace.problems", SAMPLED).get(str(problem.get("kind")))
    return found is None or issubclass(found, AbstractProblem)


def phases(summary: RunSummary) -> dict[str, float]:
    """Wall time by phase [s], those before the run's own clock first, and what no phase has counted."""
    before = {name: seconds for name, seconds in summary.phases.items() if name.endswith("before the start")}
    inside = {name: seconds for name, seconds in summary.phases.items() if name not in before}
    rest = summary.seconds - sum(inside.values())
    # A run that is at work, or was gone on with, has been longer than its phases say.
    return {**before, **inside, **({"all else: opening, waiting, closing": rest} if inside and rest >= 0.05 else {})}


def asked(recipe: Mapping[str, Any], command: str | None = None) -> list[tuple[str, str]]:
    """The recipe in a few lines: what a reader wants to know before any number; only what the command looked at."""
    if command in ("generate", "train"):
        unused = next(sections for name, sections in UNUSED.items() if name == command)
        recipe = {name: section for name, section in recipe.items() if name not in unused}
    if mapping(recipe.get("stream")).get("mode") == "replay":
        # What the recipe says of how samples are made was not looked at: those of the recording were taken.
        recipe = {name: section for name, section in recipe.items() if name not in ("data", "solver")}
    data, solver = mapping(recipe.get("data")), mapping(recipe.get("solver"))
    training, surrogate = mapping(recipe.get("training")), mapping(recipe.get("surrogate"))
    lines: list[tuple[str, str]] = []
    if data:
        lines.append(("Problem", spec_text(data.get("problem"))))
        mix = mapping(data.get("mix"))
        total = sum(mix.values()) or 1
        lines.append(("Mix", ", ".join(f"{level} {100 * weight / total:.0f} %" for level, weight in mix.items())))
        counts = [f"{data[key]} {word}" for key, word in SPLITS.items() if data.get(key)]
        if data.get("budget"):
            costs = [f"{level} {seconds:.3g} s" for level, seconds in mapping(data.get("costs")).items()]
            spent = f"what {data['budget']:g} CPU seconds of solvers buy for training, shared by the mix"
            counts = [f"{spent} (a sample of {', '.join(costs)})" if costs else spent, *counts]
        lines.append(("Samples", ", ".join(counts)))
        if data.get("times_per_part"):
            lines.append(("Parts", f"trained on in parts of {data['times_per_part']} output times, each counted below"))
        if data.get("accuracy") or data.get("numerics"):
            wanted = data.get("accuracy")
            chosen = [
                f"{level}: {one['refinement']} x the points"
                + ("" if one.get("step") is None else f", step {one['step']:.3g}")
                for level, one in mapping(data.get("numerics")).items()
            ]
            lines.append(("Solved with", "; ".join([f"accuracy {wanted:g}", *chosen] if wanted else chosen)))
        elif _is_solved(mapping(data.get("problem"))):
            rtol = solver.get("rtol", "by default")
            lines.append(("Solver", f"{spec_text(solver.get('method'))}, relative residual {rtol}"))
    if surrogate:
        lines.append(("Surrogate", spec_text(surrogate)))
    if training:
        strategy = mapping(training.get("strategy"))
        if strategy.get("kind", "direct") != "direct":
            lines.append(("Strategy", spec_text(strategy)))
        lines.append(("Training", f"{training.get('steps')} steps of {training.get('batch_size')} samples a rank"))
        parts = [spec_text(training.get(part)) for part in ("loss", "optimizer", "schedule") if training.get(part)]
        lines.append(("Optimisation", "; ".join(parts)))
    return [(name, text) for name, text in lines if text]


def cost_total(cost: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The solvers' cost of all levels together."""
    methods: Counter[str] = Counter()
    for level in cost.values():
        methods.update(level["methods"])
    numbers = [key for key, field in LevelCost.model_fields.items() if field.annotation in (int, float)]
    total = {key: sum(level[key] for level in cost.values()) for key in numbers}
    return {**total, "methods": dict(methods)}


def stream_summary(rows: curves.Rows, training: Mapping[str, Any], levels: Sequence[str] = ()) -> list[tuple[str, str]]:
    """How well solvers and trainer kept up with each other; what it says of levels comes in the order of `levels`."""
    lines: list[tuple[str, str]] = []
    if (rate := solving_rate(rows)) is not None:
        lines.append(("Solved, mean from the first to the last", f"{rate:.3g} samples / s"))
    if training.get("samples_per_second") is not None:
        lines.append(("Trained on", f"{training['samples_per_second']:.3g} samples / s"))
    if training.get("wait_share") is not None:
        lines.append(("Trainer waited for data", percent(training["wait_share"])))
    if training.get("reuse") is not None:
        lines.append(("Uses of a sample, mean", f"{training['reuse']:.3g}"))
    for name, word, unit in (
        ("stream/fill", "Reservoir fill, last", ""),
        ("stream/age_seconds", "Age, last mean", " s"),
    ):
        values = curves.series(rows, name)[1]
        if len(values):
            lines.append((word, f"{values[-1]:.3g}{unit}" if unit else percent(values[-1])))
    last = {name: value for row in rows for name, value in row.items() if name.startswith("stream/")}
    for name in in_order(last, [f"stream/came_in/{level}" for level in levels]):
        kind, _, level = name.removeprefix("stream/").partition("/")
        if kind == "came_in":
            served = percent(last.get(f"stream/served/{level}", 0.0))
            lines.append((f"Level {level}", f"{percent(last[name])} of what came in, {served} of what was served"))
        elif kind == "drift" and last[name] > 0.0:  # what is fixed cannot drift
            lines.append((f"Parameter {level}", f"served and came in are {last[name]:.2g} apart (Kolmogorov-Smirnov)"))
    return lines


def commands(record: RunRecord) -> list[str]:
    """What to type to get the run, its page and its errors again."""
    folder = shlex.quote(str(record.path))
    command = record.run.command or "run"
    recipe = shlex.quote(str(record.path / "recipe.yaml"))
    data = f" --data {shlex.quote(record.run.data_folder)}" if record.run.data_folder else ""
    again = f"headrace {command if command in ('run', 'generate', 'train') else 'run'} {recipe}{data}"
    git = record.run.git or {}
    checkout = [f"git checkout {git['commit']}"] if git.get("commit") else []
    evaluate = [] if command == "generate" else [f"headrace evaluate {folder}"]
    return [*checkout, again, *evaluate, f"headrace report {folder}"]


def _inlined(picture: Path) -> str:
    """The picture as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
