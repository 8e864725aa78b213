"""Pictures: what they show is compared with the numbers they were given, read back from the figure."""

import dataclasses
import io

import numpy as np
import pytest

from headrace.pipelines.report import curves, pictures
from headrace.pipelines.report.palette import level_colours
from headrace.platform.fields import FieldSpec, Grid, Mesh, SampleSchema


def fields(shape: tuple[int, ...], count: int = 5) -> dict[str, np.ndarray]:
    """Held-out samples whose errors fall with their row: 0.5, 0.4, ..."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((count, 1, 1, *shape))
    scale = np.linspace(0.5, 0.1, count).reshape(-1, *[1] * (truth.ndim - 1))
    return {
        "inputs": np.exp(3 * rng.standard_normal((count, 1, *shape))),
        "truth": truth,
        "prediction": truth * (1 + scale),
        "index": np.arange(count) + 1000,
        "level": np.array(["easy", "hard"] * count)[:count],
        "relative_l2": scale.ravel(),
    }


def schema(shape: tuple[int, ...], extent: tuple[float, ...]) -> SampleSchema:
    return SampleSchema(
        inputs=(FieldSpec(name="permeability", unit="m^2"),),
        outputs=(FieldSpec(name="pressure"),),
        domain=Grid(shape=shape, extent=extent, periodic=(False,) * len(shape)),
    )


def test_fields_on_a_mesh_are_drawn_on_their_triangles() -> None:
    points = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0], [1.0, 0.5]])
    mesh = Mesh(points=points, cells=np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]))
    on_mesh = dataclasses.replace(schema((5,), (1.0,)), domain=mesh)
    arrays = fields((5,))
    figure = pictures.prediction_grid(arrays, on_mesh)
    first = [axes.collections[0] for axes in figure.axes if axes.collections][:4]
    np.testing.assert_array_equal(first[1].get_array(), arrays["truth"][4, 0, 0])
    assert first[1].get_clim() == first[2].get_clim()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=30)
    assert buffer.getvalue().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="live on a mesh"):
        pictures.energy_spectrum(arrays, on_mesh)


def test_samples_are_chosen_by_rank() -> None:
    errors = np.array([0.3, 0.1, 0.5, 0.2, 0.4])
    assert pictures.ranked(errors) == [("best", 1), ("median", 0), ("worst", 2)]
    many = np.random.default_rng(0).permutation(101) / 100
    assert [many[row] for _, row in pictures.ranked(many)] == [0.0, 0.5, 0.95, 1.0]


def test_truth_and_prediction_share_colours_and_x_points_right() -> None:
    arrays = fields((6, 4))
    figure = pictures.prediction_grid(arrays, schema((6, 4), (3.0, 2.0)))
    maps = [axes.images[0] for axes in figure.axes if axes.images]
    _, truth, prediction, error = maps[:4]
    best = 4
    assert truth.get_clim() == prediction.get_clim()
    both = np.concatenate([arrays["truth"][best].ravel(), arrays["prediction"][best].ravel()])
    assert truth.get_clim() == (both.min(), both.max())
    low, high = error.get_clim()
    assert low == -high
    np.testing.assert_array_equal(truth.get_array(), arrays["truth"][best, 0, 0].T)
    np.testing.assert_allclose(error.get_array(), 0.1 * arrays["truth"][best, 0, 0].T)
    assert truth.get_extent() == [0.0, 3.0, 0.0, 2.0]
    assert truth.origin == "lower"
    words = " ".join(axes.get_title() + axes.get_ylabel() for axes in figure.axes)
    assert "permeability [m^2]" in words and "pressure" in words
    assert "best: 10 %" in words and "hard, sample 1003" not in words and "easy, sample 1004" in words


@pytest.mark.parametrize("shape", [(16,), (8, 8), (6, 6, 4)])
def test_fields_of_every_dimension_are_drawn(shape: tuple[int, ...]) -> None:
    figure = pictures.prediction_grid(fields(shape))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=30)
    assert buffer.getvalue().startswith(b"\x89PNG")
    if len(shape) == 1:
        assert [len(axes.lines) for axes in figure.axes[:3]] == [1, 2, 2]


@pytest.mark.parametrize("shape", [(16,), (8, 8)])
def test_samples_without_input_fields_are_drawn_without_them(shape: tuple[int, ...]) -> None:
    given = fields(shape)
    given["inputs"] = given["inputs"][:, :0]
    plain = dataclasses.replace(schema(shape, (1.0,) * len(shape)), inputs=())
    figure = pictures.prediction_grid(given, plain)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert not any("input" in title for title in titles) and titles[-1] == "prediction - truth"
    assert len(titles) == (2 if len(shape) == 1 else 3)
    stored = {"inputs": given["inputs"], "outputs": given["truth"], "index": given["index"], "level": given["level"]}
    assert [axes.get_title() for axes in pictures.sample_grid(stored, plain).axes if axes.get_title()] == ["pressure"]


def test_nothing_is_left_in_pyplot() -> None:
    from matplotlib import pyplot

    pictures.prediction_grid(fields((8, 8)))
    assert pyplot.get_fignums() == []


def test_a_plane_wave_has_all_its_energy_in_its_band() -> None:
    x, y = np.meshgrid(np.arange(32) / 32, np.arange(32) / 32, indexing="ij")
    wave = 2.0 * np.cos(2 * np.pi * (3 * x + 4 * y))
    k, energy = pictures.radial_spectrum(wave[None], (True, True))
    assert k[np.argmax(energy)] == 5
    assert energy[5] == pytest.approx(2.0)  # the mean square of 2 cos
    assert np.delete(energy, 5).max() < 1e-25


@pytest.mark.parametrize("shape", [(16,), (9, 12), (5, 6, 7)])
def test_the_bands_add_up_to_the_mean_square(shape: tuple[int, ...]) -> None:
    noise = np.random.default_rng(1).standard_normal((4, *shape))
    _, energy = pictures.radial_spectrum(noise, (True,) * len(shape))
    assert energy.sum() == pytest.approx(np.mean(noise**2), rel=1e-12)


def test_the_window_keeps_the_energy_and_removes_the_jump() -> None:
    ramp = np.linspace(0, 1, 64)[None]
    _, sharp = pictures.radial_spectrum(ramp, (True,))
    _, windowed = pictures.radial_spectrum(ramp, (False,))
    assert windowed[16:].sum() < 1e-3 * sharp[16:].sum()
    noise = np.random.default_rng(2).standard_normal((2000, 64))
    assert pictures.radial_spectrum(noise, (False,))[1].sum() == pytest.approx(1.0, rel=0.02)  # 2000 draws: 4 sigma


def test_series_are_sorted_and_finite() -> None:
    rows = [
        {"seconds": 3.0, "step": 2, "train/loss": 0.5},
        {"seconds": 1.0, "step": 1, "train/loss": 1.0},
        {"seconds": 2.0, "step": None, "stream/fill": 0.1},
        {"seconds": 4.0, "step": 3, "train/loss": float("nan")},
        {"seconds": 5.0, "step": 4, "train/loss": None},
    ]
    step, loss = curves.series(rows, "train/loss", "step")
    assert (step.tolist(), loss.tolist()) == ([1, 2], [1.0, 0.5])
    assert curves.series(rows, "stream/fill", "step")[0].size == 0
    assert curves.series(rows, "absent")[1].size == 0


def test_what_names_a_row_is_not_cut_off() -> None:
    given = fields((12,), count=30) | {"level": np.array(["viscous"] * 30)}
    given["inputs"] = 0.75 * given["inputs"] / given["inputs"].max() - 0.25  # numbers such as -0.25 on the axis
    figure = pictures.prediction_grid(given)
    figure.canvas.draw()
    for axes in figure.axes:
        box = axes.yaxis.label.get_window_extent()
        assert axes.get_ylabel() == "" or box.x0 > 0.0, axes.get_ylabel()


def test_the_numbers_of_a_colour_bar_are_not_cut_off() -> None:
    given = fields((8, 8))
    given["prediction"] = given["truth"] + np.linspace(-0.8, 0.8, 64).reshape(8, 8)  # ticks such as -0.75
    figure = pictures.prediction_grid(given)
    figure.canvas.draw()
    bars = [child for axes in figure.axes for child in axes.child_axes]
    labels = [label for bar in bars for label in bar.get_yticklabels() if label.get_text()]
    assert "−0.75" in {label.get_text() for label in labels}
    assert all(label.get_window_extent().x1 < figure.bbox.width for label in labels)


def test_the_running_median_ignores_one_bad_batch() -> None:
    values = np.full(21, 2.0)
    values[10] = 1e6
    np.testing.assert_array_equal(curves.smoothed(values, 5), np.full(21, 2.0))


def test_a_level_has_one_colour_in_every_picture() -> None:
    levels = ("smooth", "rough")
    rows = [{"seconds": 1.0, "step": s, "validation/relative_l2": 0.2, "validation/relative_l2/rough": 0.3,
             "validation/relative_l2/smooth": 0.1} for s in (1, 2)]  # fmt: skip
    axes = curves.validation_error(rows, levels).axes[0]
    lines = {line.get_label(): line.get_color() for line in axes.lines}
    cost = {level: {"cpu_seconds": 1.0, "whole_samples": 4} for level in levels}
    bars = curves.solver_cost(cost).axes[0]
    assert list(lines) == ["smooth", "rough", "all"]
    assert len(set(lines.values())) == 3
    for level, bar in zip(levels, bars.patches, strict=True):
        assert level_colours(levels, levels)[level] == lines[level]
        assert tuple(bar.get_facecolor()) == pytest.approx(_rgba(lines[level]))
    assert {text.get_text() for text in bars.texts} == {"250 ms; all 4: 1 s"}


def test_bars_of_the_cost_are_as_long_as_their_axis_says() -> None:
    cost = {
        "easy": {"cpu_seconds": 8.0, "whole_samples": 400},
        "hard": {"cpu_seconds": 6.0, "whole_samples": 20},
        "lost": {"cpu_seconds": 1.0, "whole_samples": 0},
    }
    axes = curves.solver_cost(cost, "trajectory", ("hard", "easy", "lost")).axes[0]
    assert axes.get_xlabel() == "CPU ms a trajectory, failures included"
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([300.0, 20.0, 0.0])
    assert [text.get_text() for text in axes.texts] == ["300 ms; all 20: 6 s", "20 ms; all 400: 8 s", "none stored"]
    dear = curves.solver_cost({"easy": {"cpu_seconds": 50.0, "whole_samples": 4}}).axes[0]
    assert dear.get_xlabel() == "CPU s a sample, failures included" and dear.patches[0].get_width() == 12.5


def test_a_colour_is_a_levels_own_whichever_others_are_there() -> None:
    levels = ("smooth", "medium", "rough")
    whole = level_colours(levels, levels)
    assert list(whole) == list(levels) and len(set(whole.values())) == 3 and pictures.COLOURS[0] not in whole.values()
    assert level_colours(["rough"], levels) == {"rough": whole["rough"]}
    assert list(level_colours(["other", "rough"], levels)) == ["rough", "other"]


def test_errors_of_more_than_all_are_whole_numbers() -> None:
    arrays = fields((5,)) | {"relative_l2": np.array([1.512, 0.8, 0.9959, 0.031, 1234.5])}
    figure = pictures.prediction_grid(arrays, schema((5,), (1.0,)))
    said = [axes.get_ylabel().partition("\n")[0] for axes in figure.axes if axes.get_ylabel()]
    assert said == ["best: 3.1 %", "median: 100 %", "worst: 123450 %"]


def test_forecasts_say_their_time() -> None:
    arrays = fields((5,))
    steady = pictures.prediction_grid(arrays, schema((5,), (1.0,)))
    late = pictures.prediction_grid(arrays, dataclasses.replace(schema((5,), (1.0,)), times=(0.5, 1.25)))
    heads = [[axes.get_title() for axes in figure.axes] for figure in (steady, late)]
    assert not any("t = " in head for head in heads[0])
    assert [head for head in heads[1] if head][1] == "pressure at t = 1.25: truth, prediction"
    assert (
        pictures.energy_spectrum(arrays, dataclasses.replace(schema((5,), (1.0,)), times=(0.5, 2.0)))
        .axes[0]
        .get_title(loc="left")
        == "Energy spectrum at t = 2"
    )


def _rgba(colour: str) -> tuple[float, ...]:
    return (*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0)


def test_errors_per_level_keep_their_counts() -> None:
    axes = curves.error_distribution(fields((4, 4)), ("hard", "easy")).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["hard (2)", "easy (3)"]
    assert axes.get_xscale() == "log"
