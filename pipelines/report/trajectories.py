"""Forecasts over time: their errors at every output time, and the pictures of a run in time."""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from headrace.pipelines.report.palette import COLOURS, level_colours
from headrace.pipelines.report.pictures import (
    ERROR_MAP,
    FIELD_MAP,
    Arrays,
    blank_figure,
    blank_panel,
    colour_bar,
    first_names,
    plane,
)
from headrace.platform.fields import Domain, SampleSchema, require_grid
from headrace.surrogates import metrics

LOST_AT = 1.0
"""VRMSE of predicting the spatial mean: from there on a forecast knows nothing."""
MILLISECONDS_A_FRAME = 150
MOST_FRAMES = 60


def over_time(
    prediction: Float[np.ndarray, "batch time channels *grid"],
    truth: Float[np.ndarray, "batch time channels *grid"],
    domain: Domain,
    times: Sequence[float],
    groups: Mapping[str, Bool[np.ndarray, " batch"]],
) -> dict[str, Any]:
    """Errors at every output time, and how long forecasts hold.

    Args:
        prediction: forecasts.
        truth: what the solver says.
        domain: where the fields live.
        times: the output times.
        groups: rows by name.

    Returns:
        `times`, and for each group the median and 95th percentile of the relative L2 error and of VRMSE at every time,
        `horizon`, the median of the last times before VRMSE reaches 1, and `lost`, the share of samples that reach it.
    """
    errors = metrics.over_time(prediction, truth, domain, ("relative_l2", "vrmse"))
    # A forecast that is not finite has reached it, too.
    is_lost = ~(errors["vrmse"] < LOST_AT)
    first_lost = np.where(is_lost.any(axis=1), is_lost.argmax(axis=1), len(times))
    held = np.concatenate([[0.0], times])[first_lost]
    return {
        "times": list(times),
        "groups": {
            name: {
                metric: {
                    "median": metrics.quantile(values[rows], 0.5).tolist(),
                    "p95": metrics.quantile(values[rows], 0.95).tolist(),
                }
                for metric, values in errors.items()
            }
            | {"horizon": float(np.median(held[rows])), "lost": float(is_lost.any(axis=1)[rows].mean())}
            for name, rows in groups.items()
        },
    }


def rollout_errors(rollout: Mapping[str, Any], levels: Sequence[str] = ()) -> Figure:
    """VRMSE over time: the median of each level, and the 95th percentile of all, dashed."""
    figure, axes = blank_panel("Error of forecasts", "time", "VRMSE")
    times, groups = rollout["times"], rollout["groups"]
    found = set(groups) - {"all"}
    for level, colour in level_colours(found if len(found) > 1 else (), levels).items():
        axes.plot(times, groups[level]["vrmse"]["median"], color=colour, linewidth=1.2, marker=".", label=level)
    if "all" in groups:
        whole = groups["all"]["vrmse"]
        axes.plot(times, whole["median"], color=COLOURS[0], linewidth=2.4, marker="o", markersize=4, label="all")
        axes.plot(times, whole["p95"], color=COLOURS[0], linewidth=1.4, linestyle="--", label="all, 95th percentile")
    axes.axhline(LOST_AT, color="#9ca3af", linewidth=0.9)
    axes.set_yscale("log")
    axes.legend(fontsize=8.5, frameon=False)
    return figure


def animation(arrays: Arrays, schema: SampleSchema) -> bytes:
    """A GIF of the forecast with the median error: truth, prediction and their difference, from one time to the next.

    Of the first output channel; of a 3-D grid the middle plane. At most 60 times are shown.

    Args:
        arrays: as in `prediction_grid`.
        schema: names, times and where the fields live.
    """
    order = np.argsort(arrays["relative_l2"], kind="stable")
    row = int(order[len(order) // 2])
    truth, prediction = (
        np.stack([plane(field) for field in arrays[name][row, :, 0]]) for name in ("truth", "prediction")
    )
    shown = np.unique(np.linspace(0, len(truth) - 1, min(len(truth), MOST_FRAMES)).round().astype(int))
    figure = blank_figure(8.1, 2.9, left=0.45, right=0.7, bottom=0.3, top=0.65)
    axes = figure.subplots(1, 3, gridspec_kw={"wspace": 0.35})
    is_line = truth.ndim == 2
    draw = (_lines if is_line else partial(_maps, figure))(axes, truth, prediction, schema)
    heads = (f"truth: {first_names(schema)[1]}", "prediction", "prediction - truth")
    for panel, head in zip(axes, heads, strict=True):
        panel.set_title(head, fontsize=10, fontweight="bold")
    name, frames = f"{arrays['level'][row]}, sample {arrays['index'][row]}", []
    for number in shown.tolist():
        draw(number)
        figure.suptitle(f"{name}: time {schema.times[number]:.3g}", fontsize=9)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("P", palette=Image.Palette.ADAPTIVE))
    target = io.BytesIO()
    frames[0].save(
        target, "GIF", save_all=True, append_images=frames[1:], duration=MILLISECONDS_A_FRAME, loop=0, optimize=True
    )
    return target.getvalue()


def _lines(
    axes: Sequence[Axes], truth: np.ndarray, prediction: np.ndarray, schema: SampleSchema
) -> Callable[[int], None]:
    x = require_grid(schema.domain).coordinates()[0]
    shown = (truth, prediction, prediction - truth)
    lines = [panel.plot(x, values[0], color=COLOURS[0])[0] for panel, values in zip(axes, shown, strict=True)]
    for panel, values in zip(axes, (np.stack([truth, prediction]),) * 2 + (prediction - truth,), strict=True):
        panel.set_ylim(*_limits(values))
        panel.tick_params(labelsize=8)

    def draw(number: int) -> None:
        for line, values in zip(lines, shown, strict=True):
            line.set_ydata(values[number])

    return draw


def _maps(
    figure: Figure, axes: Sequence[Axes], truth: np.ndarray, prediction: np.ndarray, schema: SampleSchema
) -> Callable[[int], None]:
    low, high = _limits(np.stack([truth, prediction]))
    error = prediction - truth
    bound = max(map(abs, _limits(error)))
    norms = (Normalize(low, high), Normalize(low, high), Normalize(-bound, bound))
    shown, colours = (truth, prediction, error), (FIELD_MAP, FIELD_MAP, ERROR_MAP)
    extent = require_grid(schema.domain).extent
    images = [
        panel.imshow(values[0].T, origin="lower", cmap=colour, norm=norm, extent=(0.0, extent[0], 0.0, extent[1]))
        for panel, values, colour, norm in zip(axes, shown, colours, norms, strict=True)
    ]
    for panel, image in zip(axes, images, strict=True):
        panel.set_xticks([])
        panel.set_yticks([])
        colour_bar(figure, panel, image)

    def draw(number: int) -> None:
        for image, values in zip(images, shown, strict=True):
            image.set_data(values[number].T)

    return draw


def _limits(values: np.ndarray) -> tuple[float, float]:
    """The range of what is finite; a forecast may have blown up."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    return (low, high) if high > low else (low - 1.0, high + 1.0)
