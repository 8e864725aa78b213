"""Pictures of fields: beside their prediction, samples, spectra; and the blank panels that all pictures start from.

Every function returns a Matplotlib `Figure` made without pyplot, so that nothing global is left behind and threads do
not meet.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator, ScalarFormatter
from matplotlib.tri import Triangulation

from headrace.pipelines.report.palette import COLOURS
from headrace.platform.fields import Domain, FieldSpec, Grid, Mesh, SampleSchema, require_grid

type Arrays = Mapping[str, np.ndarray]

GREY = "#6b7280"
FIELD_MAP = "viridis"
INPUT_MAP = "cividis"
ERROR_MAP = "RdBu_r"
DPI = 144
# The samples of a picture, by their rank in error: a picture of the best one alone would flatter.
RANKS = (("best", 0.0), ("median", 0.5), ("95th percentile", 0.95), ("worst", 1.0))
# Columns of a picture of samples.
MOST_CHANNELS = 4
# A positive field that spans more than this is shown on a logarithmic scale.
LOG_SPAN = 50.0


def blank_figure(width: float, height: float, *, left: float, right: float, bottom: float, top: float) -> Figure:
    """A blank figure with margins in inches: Matplotlib's layout engines would take as long as all the drawing."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
    return figure


def blank_panel(
    title: str, xlabel: str, ylabel: str, *, height: float = 3.2, left: float = 0.75
) -> tuple[Figure, Axes]:
    """A figure with a single, empty diagram."""
    figure = blank_figure(5.4, height, left=left, right=0.15, bottom=0.55, top=0.4)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(xlabel, fontsize=9.5)
    axes.set_ylabel(ylabel, fontsize=9.5)
    axes.tick_params(labelsize=9)
    axes.grid(True, color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def as_percent(axis: Axis) -> None:
    """Ticks of a logarithmic axis at 1, 2 and 5 times powers of ten, in percent."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def ranked(errors: Float[np.ndarray, " samples"]) -> list[tuple[str, int]]:
    """Best, median, 95th percentile and worst sample as (rank, row); a sample is named once, by its worst rank."""
    order = np.argsort(errors, kind="stable")
    rows = {int(order[round(share * (len(order) - 1))]): name for name, share in RANKS}
    return [(name, row) for row, name in rows.items()]


def prediction_grid(arrays: Arrays, schema: SampleSchema | None = None) -> Figure:
    """Input, truth, prediction and error of the best, median, 95th-percentile and worst held-out sample.

    Truth and prediction share their colours, the error's are symmetric about zero. The first channel of input and
    output is shown, at the last time; of a 3-D grid the middle plane; a 1-D grid is drawn as lines, a mesh in the plane
    as its triangles.

    Args:
        arrays: inputs "n channels_in *grid", truth and prediction "n time channels_out *grid", index "n", level "n",
            relative_l2 "n".
        schema: names, units and extent, where they are known.
    """
    rows = ranked(arrays["relative_l2"])
    on_mesh = schema is not None and isinstance(schema.domain, Mesh) and schema.domain.dim == 2
    dimensions = 2 if on_mesh else arrays["inputs"].ndim - 2
    names, has_inputs = first_names(schema), arrays["inputs"].shape[1] > 0
    columns = (3 if dimensions == 1 else 4) - (not has_inputs)
    height = 2.15 * len(rows) + 0.45
    left = 1.05 if dimensions == 1 else 0.75  # lines have numbers on their axes
    figure = blank_figure(2.7 * columns, height, left=left, right=0.7, bottom=0.2, top=0.35)
    axes = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"wspace": 0.42, "hspace": 0.14})
    for line, (rank, row) in zip(axes, rows, strict=True):
        field = plane(arrays["inputs"][row, 0]) if has_inputs else None
        truth = plane(arrays["truth"][row, -1, 0])
        prediction = plane(arrays["prediction"][row, -1, 0])
        draw = _draw_lines if dimensions == 1 else _draw_maps
        draw(figure, line, field, truth, prediction, schema)
        share = 100 * arrays["relative_l2"][row]
        error = f"{share:.0f}" if share >= 99.5 else f"{share:#.2g}".rstrip(".")
        line[0].set_ylabel(
            f"{rank}: {error} %\n{arrays['level'][row]}, sample {arrays['index'][row]}",
            fontsize=9,
        )
    when = last_time(schema)
    heads = [f"input: {names[0]}", f"truth: {names[1]}{when}", f"prediction{when}", "prediction - truth"]
    if dimensions == 1:
        heads = [heads[0], f"{names[1]}{when}: truth, prediction", heads[3]]
    for head, top in zip(heads if has_inputs else heads[1:], axes[0], strict=True):
        top.set_title(head, fontsize=10, fontweight="bold")
    return figure


def sample_grid(arrays: Arrays, schema: SampleSchema) -> Figure:
    """Some samples as they are stored: a row for each, with its inputs and its outputs at the last time.

    Of more than `MOST_CHANNELS` channels the first inputs and outputs are shown; of a 3-D grid the middle plane.

    Args:
        arrays: inputs "n channels_in *grid", outputs "n time channels_out *grid", index "n", level "n".
        schema: names, units and where the fields live.
    """
    inputs, outputs = _channels(schema.inputs), _channels(schema.outputs)
    shown_out = min(len(outputs), max(MOST_CHANNELS - len(inputs), MOST_CHANNELS // 2))
    shown_in = min(len(inputs), MOST_CHANNELS - shown_out)
    columns, count = shown_in + shown_out, len(arrays["index"])
    domain = schema.domain
    x = domain.coordinates()[0] if isinstance(domain, Grid) and len(domain.shape) == 1 else None
    left = 0.75 if x is None else 1.05  # as above
    figure = blank_figure(2.7 * columns, 2.15 * count + 0.45, left=left, right=0.7, bottom=0.2, top=0.35)
    axes = figure.subplots(count, columns, squeeze=False, gridspec_kw={"wspace": 0.42, "hspace": 0.14})
    for row, line in enumerate(axes):
        fields = [*arrays["inputs"][row, :shown_in], *arrays["outputs"][row, -1, :shown_out]]
        for column, (panel, field) in enumerate(zip(line, map(plane, fields), strict=True)):
            colours = INPUT_MAP if column < shown_in else FIELD_MAP
            if x is not None:
                panel.plot(x, field, color=GREY if column < shown_in else COLOURS[0])
            else:
                norm = _norm_of(field) if column < shown_in else Normalize()
                _draw_map(figure, panel, field, domain, colours, norm)
        line[0].set_ylabel(f"{arrays['level'][row]}\nsample {arrays['index'][row]}", fontsize=9)
    shown = [f"{name}{last_time(schema)}" for name in outputs[:shown_out]]
    for head, panel in zip([*inputs[:shown_in], *shown], axes[0], strict=True):
        panel.set_title(head, fontsize=10, fontweight="bold")
    return figure


def _channels(fields: Sequence[FieldSpec]) -> list[str]:
    """A name for every channel, with its unit."""
    names = []
    for field in fields:
        unit = "" if field.unit == "1" else f" [{field.unit}]"
        parts = [""] if field.components == 1 else [f" {number + 1}" for number in range(field.components)]
        names += [field.name + part + unit for part in parts]
    return names


def first_names(schema: SampleSchema | None) -> tuple[str, str]:
    """Those of the first channels of input and output, with their units."""
    if schema is None:
        return "first channel", "first channel"
    return next(iter(_channels(schema.inputs)), "none"), _channels(schema.outputs)[0]


def last_time(schema: SampleSchema | None) -> str:
    """` at t = 1`, for what is shown at the last output time; empty of what is steady."""
    return "" if schema is None or schema.times == (0.0,) else f" at t = {schema.times[-1]:.3g}"


def plane(field: np.ndarray) -> np.ndarray:
    """A 1-D or 2-D field as it is; of a 3-D one the middle plane of the last axis."""
    return field if field.ndim < 3 else field[..., field.shape[-1] // 2]


def _draw_maps(
    figure: Figure,
    line: Sequence[Axes],
    field: np.ndarray | None,
    truth: np.ndarray,
    prediction: np.ndarray,
    schema: SampleSchema | None,
) -> None:
    low, high = float(min(truth.min(), prediction.min())), float(max(truth.max(), prediction.max()))
    error = prediction - truth
    bound = float(np.abs(error).max()) or 1.0
    shown: list[tuple[np.ndarray, str, Normalize]] = [] if field is None else [(field, INPUT_MAP, _norm_of(field))]
    shown += [
        (truth, FIELD_MAP, Normalize(low, high)),
        (prediction, FIELD_MAP, Normalize(low, high)),
        (error, ERROR_MAP, Normalize(-bound, bound)),
    ]
    domain = schema.domain if schema else None
    for axes, (values, colours, norm) in zip(line, shown, strict=True):
        _draw_map(figure, axes, values, domain, colours, norm)


def _norm_of(field: np.ndarray) -> Normalize:
    return LogNorm() if field.min() > 0 and field.max() > LOG_SPAN * field.min() else Normalize()


def _draw_map(
    figure: Figure, axes: Axes, values: np.ndarray, domain: Domain | None, colours: str, norm: Normalize
) -> None:
    """A map with its colour bar."""
    image = _mapped(axes, values, domain, colours, norm)
    axes.set_xticks([])
    axes.set_yticks([])
    colour_bar(figure, axes, image)


def colour_bar(figure: Figure, axes: Axes, image: ScalarMappable) -> None:
    """A bar beside a map that says what its colours mean."""
    bar = figure.colorbar(image, cax=axes.inset_axes((1.03, 0.0, 0.05, 1.0)))
    bar.ax.tick_params(labelsize=7.5)
    if not isinstance(image.norm, LogNorm):
        powers = ScalarFormatter()
        powers.set_powerlimits((-2, 3))
        bar.ax.yaxis.set_major_formatter(powers)
        bar.ax.yaxis.get_offset_text().set_fontsize(7.5)


def _mapped(axes: Axes, values: np.ndarray, domain: Domain | None, colours: str, norm: Normalize) -> ScalarMappable:
    if isinstance(domain, Mesh):
        axes.set_aspect("equal")
        triangles = Triangulation(domain.points[:, 0], domain.points[:, 1], domain.cells)
        return axes.tripcolor(triangles, values, shading="gouraud", cmap=colours, norm=norm, rasterized=True)
    extent = (0.0, domain.extent[0], 0.0, domain.extent[1]) if domain else None
    # Axis 0 of an array is x: transposed and with the origin below, x points right and y up.
    return axes.imshow(values.T, origin="lower", cmap=colours, norm=norm, extent=extent, interpolation="nearest")


def _draw_lines(
    figure: Figure,
    line: Sequence[Axes],
    field: np.ndarray | None,
    truth: np.ndarray,
    prediction: np.ndarray,
    schema: SampleSchema | None,
) -> None:
    x = schema.domain.coordinates()[0] if schema and isinstance(schema.domain, Grid) else np.arange(len(truth))
    if field is not None:
        line[0].plot(x, field, color=GREY)
    both, difference = line[-2:]
    both.plot(x, truth, color=COLOURS[0], label="truth")
    both.plot(x, prediction, color=COLOURS[1], linestyle="--", label="prediction")
    both.legend(fontsize=8, frameon=False)
    difference.axhline(0, color="#d1d5db", linewidth=0.8)
    difference.plot(x, prediction - truth, color=COLOURS[1])
    for axes in line:
        axes.tick_params(labelsize=8)


def radial_spectrum(
    fields: Float[np.ndarray, " samples *grid"], periodic: Sequence[bool]
) -> tuple[Float[np.ndarray, " bands"], Float[np.ndarray, " bands"]]:
    """The energy of a field in bands of wavenumber, averaged over samples.

    A Hann window, scaled to keep the mean square, is laid over each axis that is not periodic: the jump between its
    ends would otherwise fill all wavenumbers.

    Args:
        fields: real fields.
        periodic: whether each axis wraps around.

    Returns:
        Wavenumbers k = 0, 1, ... in periods per domain, and the energy of the modes with k - 1/2 <= |k| < k + 1/2. By
        Parseval's identity the bands up to the corner of the grid add up to the mean square of the (windowed) field.
    """
    shape = fields.shape[1:]
    for axis, (size, wraps) in enumerate(zip(shape, periodic, strict=True), start=1):
        if not wraps:
            window = np.hanning(size + 2)[1:-1]
            window = window / np.sqrt(np.mean(window**2))
            fields = fields * window.reshape(-1, *[1] * (fields.ndim - axis - 1))
    points = int(np.prod(shape))
    energy = np.mean(np.abs(np.fft.fftn(fields, axes=range(1, fields.ndim))) ** 2, axis=0) / points**2
    wavenumbers = np.meshgrid(*(np.fft.fftfreq(size, 1 / size) for size in shape), indexing="ij")
    band = np.rint(np.sqrt(sum(k**2 for k in wavenumbers))).astype(int)
    summed = np.bincount(band.ravel(), weights=energy.ravel())
    return np.arange(len(summed)), summed


def energy_spectrum(arrays: Arrays, schema: SampleSchema | None = None) -> Figure:
    """Radially averaged energy of truth, prediction and error (first output channel, last time) up to Nyquist.

    Raises:
        ValueError: the samples live on a mesh.
    """
    periodic = require_grid(schema.domain).periodic if schema else (False,) * (arrays["truth"].ndim - 3)
    heading = f"Energy spectrum{last_time(schema)}"
    figure, axes = blank_panel(heading, "wavenumber [periods per domain]", "energy")
    truth = np.asarray(arrays["truth"][:, -1, 0], dtype=float)
    prediction = np.asarray(arrays["prediction"][:, -1, 0], dtype=float)
    lines = (("truth", truth, "-"), ("prediction", prediction, "--"), ("error", prediction - truth, ":"))
    for number, (label, fields, style) in enumerate(lines):
        k, energy = radial_spectrum(fields, periodic)
        kept = slice(1, min(truth.shape[1:]) // 2 + 1)
        axes.loglog(k[kept], np.maximum(energy[kept], 1e-300), style, color=COLOURS[number], linewidth=1.9, label=label)
    axes.legend(fontsize=8.5, frameon=False)
    return figure
