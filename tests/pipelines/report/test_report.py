"""The page of a run: complete, self-contained, safe with any text, and written whatever is missing."""

import html.parser
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from headrace.pipelines.report import curves, pictures
from headrace.pipelines.report.record import read_run
from headrace.pipelines.report.report import asked, write_report
from headrace.pipelines.report.words import duration, percent, quantity
from headrace.pipelines.run_dir import RunDir
from headrace.pipelines.running.session import cost_per_level
from headrace.platform.dataset.writer import write_dataset
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.sample import Failure, Provenance, SampleBatch


@pytest.fixture(autouse=True)
def coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time, and its resolution is nothing that these tests look at."""
    monkeypatch.setattr(pictures, "DPI", 30)


LEVELS = ("smooth", "medium", "rough")
NASTY = "<script>alert('x')</script>"

RECIPE = {
    "name": "darcy-fno",
    "seed": 0,
    "data": {
        "problem": {"kind": "darcy", "resolution": 32},
        "mix": {"smooth": 1, "medium": 1, "rough": 2},
        "samples": 3000,
        "validation": 60,
        "test": 150,
    },
    "solver": {"method": {"kind": "auto"}, "rtol": 1e-8, "order": "greedy", "sequence_length": 32},
    "stream": {"reservoir": {"kind": "reservoir", "capacity": 2000, "watermark": 256}},
    "surrogate": {"kind": "fno", "modes": 12, "width": 32, "layers": 4},
    "training": {
        "steps": 1200,
        "batch_size": 16,
        "loss": {"kind": "relative_l2"},
        "optimizer": {"kind": "adamw", "learning_rate": 3e-3, "weight_decay": 1e-4},
        "schedule": {"kind": "one_cycle"},
    },
}


def smooth_field(rng: np.random.Generator, points: int, length: float) -> np.ndarray:
    """A Gaussian random field with a Gaussian spectrum, mean 0 and variance 1."""
    k = np.fft.fftfreq(points, 1 / points)
    damping = np.exp(-0.5 * length**2 * (k[:, None] ** 2 + k[None, :] ** 2))
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((points, points))) * damping).real
    return (field - field.mean()) / field.std()


def fake_run(directory: Path, *, num_samples: int = 40, points: int = 32, name: str = "darcy-fno") -> Path:
    """A run's folder as a good run leaves it, with synthetic fields of known error."""
    rng = np.random.default_rng(0)
    directory.mkdir(parents=True, exist_ok=True)
    inputs, truth, prediction, level = [], [], [], []
    bubble = np.outer(*[np.sin(np.pi * np.linspace(0, 1, points))] * 2)
    for number in range(num_samples):
        hardness = number % 3
        inputs.append(np.exp((0.5 + 0.5 * hardness) * smooth_field(rng, points, 0.35 - 0.1 * hardness)))
        truth.append(0.07 * bubble * (1 + 0.3 * smooth_field(rng, points, 0.3)))
        noise = bubble * smooth_field(rng, points, 0.15) * (0.004 + 0.004 * hardness) * rng.lognormal(0, 0.4)
        prediction.append(truth[-1] + 0.07 * noise / 0.1)
        level.append(LEVELS[hardness])
    fields = {
        "inputs": np.array(inputs, dtype=np.float32)[:, None],
        "truth": np.array(truth, dtype=np.float32)[:, None, None],
        "prediction": np.array(prediction, dtype=np.float32)[:, None, None],
    }
    errors = np.linalg.norm((fields["prediction"] - fields["truth"]).reshape(num_samples, -1), axis=1)
    errors /= np.linalg.norm(fields["truth"].reshape(num_samples, -1), axis=1)
    names = np.array(level)
    np.savez(
        directory / "evaluation.npz", **fields, index=np.arange(num_samples) + 100, level=names, relative_l2=errors
    )
    groups = {"all": errors} | {group: errors[names == group] for group in LEVELS}
    metrics = {"relative_l2": 1.0, "relative_h1": 3.1, "relative_l1": 0.9, "relative_linf": 1.7, "vrmse": 1.4}
    evaluation = {
        "split": "test",
        "metrics": list(metrics),
        "levels": {
            group: {"count": len(values)} | {metric: statistics(scale * values) for metric, scale in metrics.items()}
            for group, values in groups.items()
        },
    }
    (directory / "evaluation.json").write_text(json.dumps(evaluation))
    (directory / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | {"name": name}, sort_keys=False))
    (directory / "metrics.jsonl").write_text("\n".join(json.dumps(row) for row in fake_metrics(rng)) + "\n")
    (directory / "run.json").write_text(json.dumps(fake_summary(name, evaluation["levels"], points)))
    return directory


def statistics(values: np.ndarray) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)),
        "median": float(np.median(values)),
        "p95": float(np.percentile(values, 95)),
        "max": float(values.max()),
    }


def fake_metrics(rng: np.random.Generator) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(0, 1200, 5):
        loss = 0.05 + 0.9 * np.exp(-step / 150) * rng.lognormal(0, 0.15)
        rows.append({"seconds": 8 + 0.1 * step, "step": step, "train/loss": loss, "train/learning_rate": 1e-3})
    for step in range(100, 1201, 100):
        row: dict[str, Any] = {"seconds": 8 + 0.1 * step, "step": step}
        for number, level in enumerate(("", "/smooth", "/medium", "/rough")):
            row[f"validation/relative_l2{level}"] = (0.03 + 0.01 * number) * (1 + 10 * np.exp(-step / 200))
        rows.append(row)
    for second in range(2, 130, 2):
        rows.append(
            {
                "seconds": second,
                "step": None,
                "stream/samples_per_second": 28 + rng.normal(),
                "stream/stored": 28 * second,
                "stream/fill": min(1.0, second / 70),
                "stream/reuse": 0.05 * second,
                "stream/age_seconds": min(35.0, 0.5 * second),
                "train/samples_per_second": 160 + 4 * rng.normal(),
                "train/wait_share": 0.3 * np.exp(-second / 20),
            }
        )
    return rows


def fake_summary(name: str, errors: dict[str, Any], points: int) -> dict[str, Any]:
    schema = SampleSchema(
        inputs=(FieldSpec(name="permeability"),),
        outputs=(FieldSpec(name="pressure"),),
        domain=Grid(shape=(points, points), extent=(1.0, 1.0), periodic=(False, False)),
    )
    cost = {
        level: {
            "samples": count,
            "failed": number,
            "cpu_seconds": 12.5 * (number + 1),
            "wall_seconds": 13.0 * (number + 1),
            "iterations": 9 * count,
            "methods": {"multigrid": count - 10, "direct": 10},
        }
        for number, (level, count) in enumerate(zip(LEVELS, (800, 805, 1602), strict=True))
    }
    return {
        "name": name,
        "command": "run",
        "run_id": "darcy-fno-20260102-101500",
        "status": "finished",
        "started": "2026-01-02T10:15:00+00:00",
        "seconds": 141.2,
        "phases": {"tracking": 4.2, "stream and train": 126.0, "evaluate": 6.1},
        "samples": {"planned": 3210, "stored": 3207, "failed": 3, "duplicates": 0},
        "splits": {"train": {"planned": 3000, "stored": 2997, "failed": 3, "duplicates": 0}},
        "cost": cost,
        "solving": {
            "rescued": 1,
            "rescues": [{"index": 7, "level": "rough", "seed": 3, "reason": "multigrid: max_iterations"}],
            "warm_up_seconds": 1.25,
            "selection": {
                "strategy": "race",
                "winner": "multigrid",
                "seconds": 6.5,
                "best_fixed": {"structured, 900 unknowns": "multigrid"},
                "best_fixed_seconds": 6.25,
                "regret_seconds": 0.25,
                "methods": [
                    {
                        "label": "multigrid",
                        "systems": "structured, 900 unknowns",
                        "solves": 900,
                        "accepted": 899,
                        "seconds": 6.25,
                        "exploring_seconds": 0.0,
                    }
                ],
            },
        },
        "training": {
            "steps": 1200,
            "seconds": 121.4,
            "samples_seen": 19200,
            "samples_per_second": 158.2,
            "reuse": 6.4,
            "wait_share": 0.031,
            "ranks": 1,
            "parameters": 1188353,
        },
        "versions": {"python": "3.12.1", "headrace": "0.1.0", "torch": "2.15.0"},
        "git": {"commit": "77fa0b30680cd420b116167f68043e03dca1ed8d", "dirty": True},
        "machine": {"hostname": "mill", "cpu": "A CPU", "cores": 2, "memory_gib": 23.5, "gpus": [], "system": "Linux"},
        "tracking": {"uri": "sqlite:////runs/mlflow.db", "run_id": "abc123", "url": "headrace ui"},
        "schema": schema.to_json(),
        "errors": errors,
        "failures": [
            {
                "split": "train",
                "index": 17,
                "level": "rough",
                "reason": "no convergence in 200 iterations, residual 3e-5",
            },
            {"split": "train", "index": 18, "level": "rough", "reason": f"contrast {NASTY}"},
            {"split": "train", "index": 900, "level": "medium", "reason": "the matrix is singular"},
        ],
    }


class Page(html.parser.HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_tells_what_the_run_came_to(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    page = Page(write_report(run))
    errors = json.loads((run / "evaluation.json").read_text())["levels"]
    for level in ("all", *LEVELS):
        values = errors[level]["relative_l2"]
        assert f"{percent(values['mean'])} ± {percent(values['std'])}" in page.text
        assert percent(values["p95"]) in page.text and percent(values["max"]) in page.text
    assert "75.0 s" in page.text, "solver CPU seconds of all levels"
    assert "multigrid × 3177" in page.text
    assert "2 min 1 s on 1 rank" in page.text
    assert "never passed through the reservoir" in page.text
    assert "smooth 25 %, medium 25 %, rough 50 %" in page.text
    assert "no convergence in 200 iterations" in page.text
    assert "commit 77fa0b30680cd420b116167f68043e03dca1ed8d, with changes" in page.text
    assert f"headrace run {run}/recipe.yaml" in page.text
    assert "What is missing" not in page.text
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    names = {
        "loss",
        "validation",
        "predictions",
        "distribution",
        "spectrum",
        "cost",
        "rate",
        "fill",
        "reuse",
        "age",
        "wait",
    }
    assert len(images) == len(names)
    assert {path.stem for path in (run / "pictures").iterdir()} == names
    assert page.open == []


def test_a_run_of_before_tells_which_method_was_best(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "run", num_samples=6, points=8)
    run = json.loads((path / "run.json").read_text())
    run["solving"]["selection"]["best_fixed"] = "multigrid"
    (path / "run.json").write_text(json.dumps(run))
    assert "In hindsight multigrid alone would have taken" in Page(write_report(path)).text


def test_forecasts_stand_in_the_order_of_the_mix(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", num_samples=6, points=8)
    path = run / "evaluation.json"
    one = {
        "vrmse": {"median": [0.1, 0.2], "p95": [0.3, 2.0]},
        "relative_l2": {"median": [0.1, 0.2], "p95": [0.2, 0.4]},
        "lost": 0.25,
    }
    held = {"rough": 0.5, "smooth": 1.0, "all": 1.0}
    groups = {name: one | {"horizon": until} for name, until in held.items()}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rollout": {"times": [0.5, 1.0], "groups": groups}}))
    assert list(read_run(run).rollout["groups"]) == ["all", "smooth", "rough"]
    text = Page(write_report(run)).text
    assert "1 (the end)" in text and "0.500 (the end)" not in text


def test_a_single_level_is_not_said_twice(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", num_samples=6, points=8)
    summary = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(summary | {"cost": {"default": summary["cost"]["smooth"]}}))
    evaluation = json.loads((run / "evaluation.json").read_text())
    levels = {"all": evaluation["levels"]["all"], "default": evaluation["levels"]["all"]}
    (run / "evaluation.json").write_text(json.dumps(evaluation | {"levels": levels}))
    assert list(read_run(run).errors) == ["all"]
    cells = Page(write_report(run)).source.split("<td>")
    assert not any(cell.startswith("default<") for cell in cells) and any(cell.startswith("all<") for cell in cells)
    rows = [{"seconds": 1.0, "step": 1, "validation/relative_l2": 0.2, "validation/relative_l2/default": 0.2}]
    assert [line.get_label() for line in curves.validation_error(rows).axes[0].lines] == ["all"]


def test_what_was_asked_shows_lists() -> None:
    lines = dict(asked({"surrogate": {"kind": "mlp", "hidden": [256, 256], "parts": [{"kind": "x"}]}}))
    assert lines["Surrogate"] == "mlp (hidden [256, 256])"


def test_trajectories_in_parts_are_charged_whole(tmp_path: Path) -> None:
    # Two trajectories in four parts each, of which the second broke in its last part; and a whole one that is held out.
    schema = SampleSchema(
        inputs=(FieldSpec(name="u"),),
        outputs=(FieldSpec(name="u"),),
        domain=Grid(shape=(8,), extent=(1.0,), periodic=(True,)),
        times=tuple(0.25 * number for number in range(1, 9)),
    )
    run = RunDir(fake_run(tmp_path / "run", num_samples=6, points=8))
    for split, one, count in (("train", schema.in_parts(2), 7), ("test", schema, 1)):
        batch = SampleBatch(
            indices=np.arange(count),
            inputs=np.zeros((count, 1, 8), dtype=np.float32),
            outputs=np.zeros((count, len(one.times), 1, 8), dtype=np.float32),
            parameters=np.zeros((count, 0), dtype=np.float32),
            provenance=tuple(
                Provenance(
                    spec_hash="", seed=0, index=index, level="smooth", solver="ETDRK4", status="integrated",
                    relative_residual=0.0, num_iterations=10 * len(one.times), version="", wall_seconds=2.0,
                    cpu_seconds=1.0 * len(one.times),
                )
                for index in range(count)
            ),
        )  # fmt: skip
        write_dataset(run.data(split), one, [batch], {})
    broken = Failure(index=7, level="smooth", reason="it blew up", cpu_seconds=0.25, wall_seconds=0.25)
    cost = cost_per_level(run, {"train": [broken], "validation": [], "test": []})
    smooth = cost["smooth"]
    assert (smooth["samples"], smooth["whole_samples"], smooth["failed"]) == (8, 7 / 4 + 1, 1)
    assert smooth["cpu_seconds"] == 7 * 2.0 + 8.0 + 0.25
    run.summary.write_text(json.dumps(run.read_summary().changed(cost=cost).to_json()))
    page = Page(write_report(run.path))
    assert "22.2 s" in page.text and "8.1 s a trajectory" in page.text and "CPU a trajectory" in page.text
    assert "CPU a sample" not in page.text and "parts of trajectories in training" in page.text


@pytest.mark.parametrize("points", [(12,), (12, 10), (6, 7, 8)], ids=["1-D", "2-D", "3-D"])
def test_the_page_of_a_data_set_shows_samples_of_every_level(tmp_path: Path, points: tuple[int, ...]) -> None:
    schema = SampleSchema(
        inputs=(FieldSpec(name="velocity", components=2),),
        outputs=(FieldSpec(name="temperature", unit="K"),),
        domain=Grid(shape=points, extent=(1.0,) * len(points), periodic=(False,) * len(points)),
    )
    fields = np.random.default_rng(0).standard_normal((6, 3, *points)).astype(np.float32)
    batch = SampleBatch(
        indices=np.arange(6),
        inputs=fields[:, :2],
        outputs=fields[:, np.newaxis, 2:],
        parameters=np.zeros((6, 0), dtype=np.float32),
        provenance=tuple(
            Provenance(
                spec_hash="", seed=0, index=index, level="rough" if index == 5 else "smooth", solver="direct",
                status="converged", relative_residual=0.0, num_iterations=0, version="", wall_seconds=0.0,
                cpu_seconds=0.0,
            )
            for index in range(6)
        ),
    )  # fmt: skip
    write_dataset(tmp_path / "data" / "train", schema, [batch], {})
    run = {"command": "generate", "status": "finished", "schema": schema.to_json()}
    (tmp_path / "run.json").write_text(json.dumps(run))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (tmp_path / "metrics.jsonl").touch()
    record = read_run(tmp_path)
    assert record.missing == ()
    assert list(record.examples["level"]) == ["rough", "smooth", "smooth", "smooth"]
    page = write_report(tmp_path).read_text()
    assert (tmp_path / "pictures" / "samples.png").stat().st_size > 1000
    assert "The first training sample of each level" in page
    # Nothing of what generating does not look at.
    assert "Held-out errors" not in page and "headrace evaluate" not in page and "Optimisation" not in page


def test_the_page_asks_nothing_of_the_network(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run")
    summary = json.loads((run / "run.json").read_text())
    summary["tracking"]["url"] = "http://127.0.0.1:5000/#/experiments/1/runs/abc123"
    (run / "run.json").write_text(json.dumps(summary))
    page = Page(write_report(run))
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "base")
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
        assert not any(name.startswith("on") for name in attributes)
        if "href" in attributes:
            assert (tag, attributes["href"]) == ("a", "http://127.0.0.1:5000/#/experiments/1/runs/abc123")
    style = page.source.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", name=NASTY)
    summary = json.loads((run / "run.json").read_text())
    summary["tracking"]["url"] = "javascript:alert(1)"
    summary["cost"] = {NASTY: summary["cost"]["smooth"]}
    (run / "run.json").write_text(json.dumps(summary))
    page = Page(write_report(run))
    assert "<script" not in page.source
    assert page.text.count(NASTY) >= 4, "title, heading, recipe, level, reason: all shown as they were written"
    assert all(tag != "a" for tag, _ in page.elements)


@pytest.mark.parametrize(
    "kept",
    [
        (),
        ("run.json",),
        ("recipe.yaml",),
        ("run.json", "recipe.yaml", "metrics.jsonl"),
        ("evaluation.json",),
        ("evaluation.npz",),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, kept: tuple[str, ...]) -> None:
    run = fake_run(tmp_path / "run", num_samples=6, points=8)
    everything = ("run.json", "recipe.yaml", "metrics.jsonl", "evaluation.json", "evaluation.npz")
    for name in everything:
        if name not in kept:
            (run / name).unlink()
    page = Page(write_report(run))
    for name in everything:
        assert (f"{name} is not there" in page.text) == (name not in kept)


def test_a_run_that_failed_early_has_its_page(tmp_path: Path) -> None:
    summary = {
        "name": "x",
        "status": "failed",
        "reason": "the solver actor died",
        "samples": {"planned": 10, "stored": 0},
    }
    (tmp_path / "run.json").write_text(json.dumps(summary | {"cost": {"easy": {"failed": 2, "cpu_seconds": 1.5}}}))
    (tmp_path / "metrics.jsonl").write_text('{"seconds": 1, "step": 1, "train/loss": NaN}\n{"seconds": 2, "st')
    (tmp_path / "evaluation.json").write_text("{")
    page = Page(write_report(tmp_path))
    assert "The run is failed" in page.text
    assert "the solver actor died" in page.text
    assert "evaluation.json cannot be read" in page.text
    assert "nothing was evaluated" in page.text


def test_the_page_is_the_same_each_time(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", num_samples=6, points=8)
    first = write_report(run).read_text()
    assert len(read_run(run).metrics) > 100
    assert len(first) > 20_000
    assert write_report(run).read_text() == first


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (percent(0.01234), "1.23 %"),
        (percent(None), "–"),
        (quantity(1188353), "1,188,353"),
        (quantity(9.0), "9"),
        (quantity(9.123), "9.12"),
        (percent(0.17), "17.0 %"),
        (percent(1.0), "100 %"),
        (duration(0.0123), "12.3 ms"),
        (duration(0.00043), "0.430 ms"),
        (duration(0.203), "203 ms"),
        (duration(0.0), "0.0 s"),
        (duration(12.34), "12.3 s"),
        (duration(121.4), "2 min 1 s"),
        (duration(3725), "1 h 2 min"),
        (duration(None), "–"),
    ],
)
def test_numbers_read_well(shown: str, words: str) -> None:
    assert shown == words


def test_the_stream_tells_which_levels_and_parameters_were_served() -> None:
    from headrace.pipelines.report.report import stream_summary

    early = {"seconds": 1.0, "step": None, "stream/came_in/smooth": 1.0, "stream/served/smooth": 1.0}
    late = {
        "seconds": 2.0, "step": None, "stream/came_in/smooth": 0.5, "stream/came_in/rough": 0.5,
        "stream/served/smooth": 0.25, "stream/served/rough": 0.75, "stream/drift/contrast": 0.125,
    }  # fmt: skip
    told = stream_summary([early, late], {}, ["smooth", "rough"])
    assert [name for name, _ in told] == ["Level smooth", "Level rough", "Parameter contrast"], "in the mix's order"
    lines = dict(told)
    assert lines["Level rough"] == "50.0 % of what came in, 75.0 % of what was served"
    assert lines["Level smooth"] == "50.0 % of what came in, 25.0 % of what was served"
    assert lines["Parameter contrast"].startswith("served and came in are 0.12 apart")


def test_what_was_solved_a_second_counts_the_pauses_between_batches() -> None:
    from headrace.pipelines.report.report import stream_summary

    # 64 trajectories every 20 seconds after ten that went by with starting, then 100 seconds of training.
    rows = [
        {"seconds": float(second), "step": None, "stream/stored": min(64 * max(0, (second - 10) // 20), 320)}
        for second in range(0, 212, 2)
    ]
    rows[-1]["stream/drift/forcing"], rows[-1]["stream/drift/viscosity"] = 0.0, 0.25
    lines = dict(stream_summary(rows, {}))
    # The first batch comes with its last look before it: 320 in 82 seconds.
    assert lines["Solved, mean from the first to the last"] == "3.9 samples / s"
    assert "Parameter viscosity" in lines and "Parameter forcing" not in lines


def test_the_page_says_what_a_budget_buys_and_that_samples_are_parts() -> None:
    data = {"problem": {"kind": "burgers"}, "mix": {"viscous": 1.0, "shock": 3.0}, "test": 8, "times_per_part": 5}
    lines = dict(asked({"data": data | {"budget": 600.0, "costs": {"viscous": 0.01, "shock": 0.25}}}))
    assert lines["Samples"] == (
        "what 600 CPU seconds of solvers buy for training, shared by the mix (a sample of viscous 0.01 s, shock 0.25 s)"
        ", 8 for the test"
    )
    assert lines["Parts"] == "trained on in parts of 5 output times, each counted below"
    assert "Parts" not in dict(asked({"data": data | {"times_per_part": None, "samples": 20}}))
