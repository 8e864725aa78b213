"""Draw every problem at three of its levels and measure what a sample costs.

    python docs/make_gallery.py [--throughput] [KIND ...]

With `--throughput` only the table is measured, and pictures stay as they are. It writes `docs/gallery/KIND.webp` and
`docs/gallery/costs.json`, which are committed; the page is put together from them and from the problems' own docstrings
when the documentation is built.
"""

import json
import os
import platform
import sys
import time
from datetime import date
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from matplotlib.tri import Triangulation
from PIL import Image

from headrace.platform.fields import Domain, Mesh, SampleSchema
from headrace.platform.sample import Sample, SampleBatch
from headrace.solvers.sampled import DEFAULT_LEVEL, AbstractSampled
from headrace.solvers.sources.all_sampled import SAMPLED
from headrace.solvers.sources.source_of import source_of

FOLDER = Path(__file__).parent / "gallery"
LINES = 96  # output times of a picture over time
SECONDS = 4.0  # of one level, over which its cost is averaged; and of the defaults
MOST = 512  # samples at once
LOG_SPAN = 50.0  # a positive field that spans more is drawn on a logarithmic scale


def problems() -> dict[str, AbstractSampled]:
    """Every built-in problem that works as it comes, by its kind."""
    found = {}
    for kind in SAMPLED:
        name = str(kind.model_fields["kind"].default)
        if name != "external":
            found[name] = kind.model_validate({"kind": name})
    return found


def first(problem: AbstractSampled, level: str) -> tuple[Sample, SampleSchema]:
    """The first sample of a level, and what it looks like; in 1-D at many times, since it is drawn over time."""
    if len(problem.schema().domain.shape) == 1 and len(problem.schema().times) > 1:
        problem = problem.overridden({"snapshots": LINES})
    source = source_of(problem, mix={level: 1.0}, seed=0, split="train")
    sample = next(iter(source.samples([0])))
    if not isinstance(sample, Sample):
        raise RuntimeError(f"{level}: {sample}")
    return sample, source.schema()


def cost(problem: AbstractSampled, level: str) -> tuple[float, int]:
    """The CPU seconds of a sample, and over how many that is the mean; the source is warm by then."""
    source = source_of(problem, mix={level: 1.0}, seed=0, split="train")
    list(source.samples([0]))
    seconds: list[float] = []
    began, size = time.perf_counter(), 1
    while not seconds or (time.perf_counter() - began < SECONDS and len(seconds) < 64):
        start = 1 + len(seconds)
        seconds += [
            one.provenance.cpu_seconds for one in source.samples(range(start, start + size)) if isinstance(one, Sample)
        ]
        size = min(2 * size, 16)
    return float(np.mean(seconds)), len(seconds)


def throughput(problem: AbstractSampled) -> tuple[float, int]:
    """Whole samples a second of one core at a problem's defaults, and of how many: from the draw to a stacked batch.

    The source is warm, and gets as many at once as it is worth its while: ever more, until the time is up.
    """
    spec = source_of(problem, seed=0, split="train")
    source = spec.build()
    list(source.solve(spec.requests([0])))
    began, start, size, best = time.perf_counter(), 1, 1, (0.0, 0)
    while True:
        clock = time.process_time()
        found = [one for one in source.solve(spec.requests(range(start, start + size))) if isinstance(one, Sample)]
        if found:
            SampleBatch.stack(found)
        best = max(best, (len(found) / (time.process_time() - clock), len(found)))
        start += size
        spent = time.perf_counter() - began
        # Twice as many take about as long as all so far.
        if size == MOST or spent > SECONDS / 2:
            return best
        size *= 2


def draw_map(figure: Figure, axes: Axes, values: np.ndarray, domain: Domain, colours: str) -> None:
    """A field in the plane with its colours."""
    log = values.min() > 0 and values.max() > LOG_SPAN * values.min()
    norm = LogNorm() if log else Normalize()
    image: ScalarMappable
    if isinstance(domain, Mesh):
        axes.set_aspect("equal")
        triangles = Triangulation(domain.points[:, 0], domain.points[:, 1], domain.cells)
        image = axes.tripcolor(triangles, values, shading="gouraud", cmap=colours, norm=norm)
    else:
        extent = (0.0, domain.extent[0], 0.0, domain.extent[1])
        image = axes.imshow(values.T, origin="lower", cmap=colours, norm=norm, extent=extent, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    bar_of(figure, axes, image)


def bar_of(figure: Figure, axes: Axes, image: ScalarMappable) -> None:
    """A colour bar with small, short numbers."""
    bar = figure.colorbar(image, cax=axes.inset_axes((1.04, 0.0, 0.05, 1.0)))
    bar.ax.tick_params(labelsize=7)
    bar.ax.tick_params(which="minor", labelright=False)
    if not isinstance(image.norm, LogNorm):
        powers = ScalarFormatter()
        powers.set_powerlimits((-2, 3))
        bar.ax.yaxis.set_major_formatter(powers)
        bar.ax.yaxis.get_offset_text().set_fontsize(7)


def plane(field: np.ndarray) -> np.ndarray:
    """A field in the plane as it is; of one in space the middle plane."""
    return field[..., field.shape[-1] // 2] if field.ndim == 3 else field


def draw(samples: dict[str, Sample], schema: SampleSchema) -> Figure:
    """Levels side by side: what is given above what is found; in 1-D what is found over time."""
    domain = schema.domain
    line = not isinstance(domain, Mesh) and len(domain.shape) == 1
    given = bool(schema.inputs) and not line
    rows = 1 + given
    tall = 2.1
    if not line and not isinstance(domain, Mesh):
        tall = float(np.clip(2.1 * domain.extent[1] / domain.extent[0], 0.8, 2.1))
    width, height = 2.75 * len(samples) + 0.5, tall * rows + 0.25 * rows + 0.35
    figure = Figure(figsize=(width, height), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        0.42 / width, (0.45 if line else 0.1) / height, 1 - 0.6 / width, 1 - 0.32 / height, 0.4, 0.12
    )
    grid = figure.subplots(rows, len(samples), squeeze=False)
    for column, (level, sample) in enumerate(samples.items()):
        grid[0][column].set_title(level, fontsize=10, fontweight="bold")
        if given:
            draw_map(figure, grid[0][column], plane(sample.inputs[0]), domain, "cividis")
        axes = grid[-1][column]
        if line:
            assert not isinstance(domain, Mesh)
            times = (0.0, schema.times[-1])
            image = axes.imshow(
                sample.outputs[:, 0], origin="lower", aspect="auto", extent=(0.0, domain.extent[0], *times),
                interpolation="nearest",
            )  # fmt: skip
            axes.set_xlabel("x", fontsize=8, labelpad=1)
            axes.tick_params(labelsize=7)
            bar_of(figure, axes, image)
        else:
            draw_map(figure, axes, plane(sample.outputs[-1, 0]), domain, "viridis")
    if given:
        grid[0][0].set_ylabel(schema.inputs[0].name, fontsize=9)
    last = f"{schema.outputs[0].name}{f', t = {schema.times[-1]:g}' if len(schema.times) > 1 and not line else ''}"
    grid[-1][0].set_ylabel(f"t  ({last})" if line else last, fontsize=9)
    return figure


def processor() -> str:
    """What this machine calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "a processor without a name"


def machine() -> dict[str, str | int]:
    """What figures were measured on, and when."""
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    return {"date": date.today().isoformat(), "processor": processor(), "threads": threads}


def main(only: list[str], *, is_table: bool) -> None:
    """Draw and measure; what is not asked for stays as it was measured."""
    FOLDER.mkdir(exist_ok=True)
    record = FOLDER / "costs.json"
    costs = json.loads(record.read_text()) if record.exists() else {}
    for name, problem in problems().items():
        if only and name not in only:
            continue
        rate, count = throughput(problem)
        table = {"samples_per_second": float(f"{rate:.2g}"), "samples": count, **machine()}
        sys.stdout.write(f"{name}: {rate:.3g} samples a second, {count} at once\n")
        sys.stdout.flush()
        if is_table:
            costs[name]["defaults"] = table
            record.write_text(json.dumps(dict(sorted(costs.items())), indent=1) + "\n")
            continue
        levels = list(problem.levels()) or [DEFAULT_LEVEL]
        levels = list(dict.fromkeys((levels[0], levels[len(levels) // 2], levels[-1])))
        samples, measured = {}, {}
        for level in levels:
            samples[level], drawn = first(problem, level)
            seconds, count = cost(problem, level)
            measured[level] = {"cpu_seconds": float(f"{seconds:.2g}"), "samples": count}
        schema = problem.schema()
        memory = BytesIO()
        draw(samples, drawn).savefig(memory, format="png")
        picture = FOLDER / f"{name}.webp"
        Image.open(memory).convert("RGB").save(picture, quality=80, method=6)
        shape = [len(schema.domain.points)] if isinstance(schema.domain, Mesh) else list(schema.domain.shape)
        costs[name] = {
            "levels": measured, "defaults": table, "shape": shape, "times": len(schema.times), **machine(),
        }  # fmt: skip
        record.write_text(json.dumps(dict(sorted(costs.items())), indent=1) + "\n")
        told = ", ".join(f"{level} {one['cpu_seconds']:g} s" for level, one in measured.items())
        sys.stdout.write(f"{name}: {told}; {picture.stat().st_size // 1024} KiB\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main([word for word in sys.argv[1:] if word != "--throughput"], is_table="--throughput" in sys.argv)
