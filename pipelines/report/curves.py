"""Curves and bars of a run: metrics over time, errors, costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from headrace.pipelines.report.palette import COLOURS, level_colours
from headrace.pipelines.report.pictures import GREY, Arrays, as_percent, blank_panel

type Rows = Sequence[Mapping[str, Any]]


def series(rows: Rows, name: str, over: str = "seconds") -> tuple[np.ndarray, np.ndarray]:
    """One metric as (x, y), over `seconds` or `step`; rows without either, or not finite, are left out."""
    pairs = [(row[over], row[name]) for row in rows if row.get(name) is not None and row.get(over) is not None]
    points = np.array(pairs, dtype=float).reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    points = points[np.argsort(points[:, 0], kind="stable")]
    return points[:, 0], points[:, 1]


def names_under(rows: Rows, prefix: str) -> list[str]:
    """The metrics whose name starts with a prefix, sorted."""
    return sorted({name for row in rows for name in row if name.startswith(prefix)})


def smoothed(values: Float[np.ndarray, " points"], window: int) -> Float[np.ndarray, " points"]:
    """The running median over `window` points, fewer at the ends: a single bad batch leaves no mark on it."""
    half = window // 2
    return np.array([np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))])


def training_loss(rows: Rows) -> Figure:
    """The training loss over steps, with its running median when there is enough of it."""
    figure, axes = blank_panel("Training loss", "step", "loss")
    step, loss = series(rows, "train/loss", "step")
    axes.plot(step, loss, color=COLOURS[0], linewidth=0.8, alpha=0.35 if len(loss) > 40 else 1.0)
    if len(loss) > 40:
        axes.plot(step, smoothed(loss, len(loss) // 20), color=COLOURS[0], linewidth=2.0, label="running median")
        axes.legend(fontsize=8.5, frameon=False)
    if (loss > 0).all():
        axes.set_yscale("log")
    return figure


def validation_error(rows: Rows, levels: Sequence[str] = (), metric: str = "relative_l2") -> Figure:
    """The validation error over steps: all samples, and each difficulty level, those of `levels` first."""
    figure, axes = blank_panel("Validation error", "step", metric.replace("_", " "))
    total = f"validation/{metric}"
    found = [name.removeprefix(f"{total}/") for name in names_under(rows, f"{total}/")]
    for level, colour in level_colours(found if len(found) > 1 else (), levels).items():
        step, error = series(rows, f"{total}/{level}", "step")
        axes.plot(step, error, color=colour, linewidth=1.2, marker=".", label=level)
    step, error = series(rows, total, "step")
    axes.plot(step, error, color=COLOURS[0], linewidth=2.4, marker="o", markersize=4, label="all")
    if (error > 0).all():
        axes.set_yscale("log")
        as_percent(axes.yaxis)
    axes.legend(fontsize=8.5, frameon=False)
    return figure


def stream_curve(rows: Rows, names: Mapping[str, str], title: str, ylabel: str) -> Figure:
    """Some metrics of the stream over time, from zero.

    Args:
        rows: the metrics.
        names: what each metric is called in the legend.
        title: the heading.
        ylabel: the quantity and its unit.
    """
    figure, axes = blank_panel(title, "seconds since the start", ylabel, height=2.7)
    for number, (name, label) in enumerate(names.items()):
        seconds, values = series(rows, name)
        if len(values):
            axes.plot(seconds, values, color=COLOURS[number], linewidth=1.8, label=label)
    axes.set_ylim(bottom=0)
    if len(names) > 1:
        axes.legend(fontsize=8.5, frameon=False)
    return figure


def error_distribution(arrays: Arrays, levels: Sequence[str] = ()) -> Figure:
    """The error of each sample, with the quartiles, per difficulty level, those of `levels` first."""
    colours = level_colours(arrays["level"].tolist(), levels)
    figure, axes = blank_panel(
        "Held-out error of each sample", "relative L2 error", "", height=0.95 + 0.65 * len(colours), left=1.35
    )
    groups = [arrays["relative_l2"][arrays["level"] == level] for level in colours]
    axes.boxplot(
        groups,
        orientation="horizontal",
        widths=0.55,
        showfliers=False,
        medianprops={"color": "#111827", "linewidth": 1.6},
        boxprops={"color": GREY},
        whiskerprops={"color": GREY},
        capprops={"color": GREY},
    )
    rng = np.random.default_rng(0)  # scatter, so that equal errors do not hide each other
    for place, (group, colour) in enumerate(zip(groups, colours.values(), strict=True), start=1):
        offset = rng.uniform(-0.16, 0.16, len(group))
        axes.plot(group, place + offset, linestyle="", marker="o", markersize=3.5, alpha=0.6, color=colour)
    if all((group > 0).all() for group in groups):
        axes.set_xscale("log")
        as_percent(axes.xaxis)
    labels = [f"{level} ({len(group)})" for level, group in zip(colours, groups, strict=True)]
    axes.set_yticks(range(1, len(groups) + 1), labels)
    axes.invert_yaxis()
    return figure


def solver_cost(cost: Mapping[str, Mapping[str, Any]], unit: str = "sample", levels: Sequence[str] = ()) -> Figure:
    """What a stored whole sample of each level costs, failed ones included; beside it what all of them have cost.

    Args:
        cost: what the solvers spent, by level.
        unit: what a whole sample is called.
        levels: all of the recipe, for order and colours.
    """
    colours = level_colours(cost, levels)
    each = {
        level: float(cost[level]["cpu_seconds"]) / stored if (stored := cost[level]["whole_samples"]) else 0.0
        for level in colours
    }
    scale, name = (1e3, "ms") if max(each.values(), default=0.0) < 1.0 else (1.0, "s")
    figure, axes = blank_panel(
        "Solver cost", f"CPU {name} a {unit}, failures included", "", height=0.95 + 0.45 * len(colours), left=1.1
    )
    values = [scale * seconds for seconds in each.values()]
    bars = axes.barh(list(colours), values, color=list(colours.values()), height=0.6)
    labels = []
    for level, value in zip(colours, values, strict=True):
        stored, spent = cost[level]["whole_samples"], float(cost[level]["cpu_seconds"])
        labels.append(f"{value:.3g} {name}; all {stored:.0f}: {spent:.3g} s" if stored else "none stored")
    axes.bar_label(bars, labels, padding=4, fontsize=8.5)
    axes.set_xlim(0, 2.0 * max([*values, 1e-9]))
    axes.grid(False, axis="y")
    axes.invert_yaxis()
    return figure
