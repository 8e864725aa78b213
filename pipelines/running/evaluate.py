"""Held-out errors: scores a checkpoint on samples that never passed through the reservoir."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from headrace.pipelines.recipe.cautions import untested
from headrace.pipelines.report import pictures
from headrace.pipelines.report.notes import of_errors, of_forecasts, of_labels, of_training
from headrace.pipelines.report.palette import in_order
from headrace.pipelines.report.trajectories import over_time
from headrace.pipelines.run_dir import RunDir, data_sets, write_json
from headrace.pipelines.running.label_errors import from_summary, too_large
from headrace.pipelines.running.session import Session
from headrace.pipelines.running.tracked import track_model
from headrace.platform.allocator import keep_freed_memory
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.errors import InputError
from headrace.platform.sample import SampleBatch
from headrace.surrogates.checkpoint import Predictor, load_checkpoint
from headrace.surrogates.metrics import METRICS, field_scale, guarded, per_sample, quantile

log = logging.getLogger(__name__)

NUM_PICTURED = 64


def statistics(values: Float[np.ndarray, " samples"]) -> dict[str, float | None]:
    """Mean, spread and tail of errors; null for what is not finite, with the number of errors that are not."""
    if not np.isfinite(values).all():
        median, p95 = (_or_none(float(quantile(values, share))) for share in (0.5, 0.95))
        lost = int(np.count_nonzero(~np.isfinite(values)))
        return {"mean": None, "std": None, "median": median, "p95": p95, "max": None, "not_finite": lost}
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        "median": float(quantile(values, 0.5)),
        "p95": float(quantile(values, 0.95)),
        "max": float(np.max(values)),
    }


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


def held_out_sets(directory: Path) -> dict[str, Path]:
    """The test sets of a folder by name: `test`, or `test_16` and `test_32`; or the data set that the folder is.

    Raises:
        InputError: there is none.
    """
    found = data_sets(directory)
    sets = found if len(found) == 1 else {name: path for name, path in found.items() if name.startswith("test")}
    if not sets:
        raise InputError.single(
            str(directory), "without a test set", "a data set, or a folder with one named test", "Name one with --data."
        )
    return sets


def evaluate(run: RunDir, sets: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """Score the newest checkpoint of a run; writes `evaluation.json` and `evaluation.npz`.

    Args:
        run: the run.
        sets: data set directories by name; default: the run's own test sets. One set is split by difficulty level,
            several are scored as they are.

    Raises:
        InputError: there is no checkpoint or no data, or they do not fit each other.
    """
    keep_freed_memory()
    sets = sets or held_out_sets(Path(run.read_summary().data_folder or run.path))
    predictor: Predictor | None = None
    levels: dict[str, dict[str, Any]] = {}
    rollout: dict[str, Any] = {}
    notes: list[str] = []
    for number, (name, directory) in enumerate(sets.items()):
        stored = StoredSamples.open(directory)
        predictor = predictor or Predictor(load_checkpoint(run.checkpoint, schema=stored.schema))
        predictor.check_schema(stored.schema, str(directory))
        batch = stored.read_all()
        prediction = predictor.predict(batch.inputs, batch.parameters)
        # Over the whole set, whichever part of it a number is of.
        scale = field_scale(batch.outputs)
        errors = per_sample(prediction, batch.outputs, stored.schema.domain, scale=scale)
        is_guarded = guarded(batch.outputs, scale)
        names = np.array([item.level for item in batch.provenance])
        notes.extend(of_forecasts(prediction, batch.outputs, stored.schema, names.tolist(), batch.indices.tolist()))
        groups = {name if len(sets) > 1 else "all": np.ones(len(batch), dtype=bool)}
        if len(sets) == 1:
            groups |= {level: names == level for level in in_order(set(names.tolist()), run.levels)}
        for group, rows in groups.items():
            levels[group] = (
                {"count": int(rows.sum())}
                | {kind: int(found[rows].sum()) for kind, found in is_guarded.items()}
                | {metric: statistics(values[rows]) for metric, values in errors.items()}
            )
        if len(stored.schema.times) > 1:
            found = over_time(prediction, batch.outputs, stored.schema.domain, stored.schema.times, groups)
            rollout = {**found, "groups": {**rollout.get("groups", {}), **found["groups"]}}
        if number == 0:
            _keep_pictured(run, batch, prediction, names, errors["relative_l2"])
    notes.extend(of_errors(levels))
    result = {"split": ", ".join(sets), "metrics": list(METRICS), "levels": levels, "notes": notes}
    if rollout:
        result["rollout"] = rollout
    write_json(run.path / "evaluation.json", result)
    return result


def _keep_pictured(
    run: RunDir,
    batch: SampleBatch,
    prediction: Float[np.ndarray, "batch time channels *grid"],
    levels: np.ndarray,
    errors: Float[np.ndarray, " batch"],
) -> None:
    # From the best to the worst, evenly in rank, so that the pictures show the spread and not a choice.
    order = np.argsort(errors)
    rows = order[np.unique(np.linspace(0, len(order) - 1, min(NUM_PICTURED, len(order))).round().astype(int))]
    np.savez_compressed(
        run.path / "evaluation.npz",
        inputs=batch.inputs[rows],
        truth=batch.outputs[rows],
        prediction=prediction[rows],
        index=batch.indices[rows],
        level=levels[rows],
        relative_l2=errors[rows],
    )


def _or_inf(mean: float | None) -> float:
    """What the metrics take; they say for themselves what becomes of what is not finite."""
    return np.inf if mean is None else mean


def _notes(session: Session, evaluation: Mapping[str, Any]) -> list[str]:
    """What the run itself has to say: of its training, of what was not tested."""
    config, summary = session.config, session.summary
    trains_on_stream = summary.command == "run"
    notes: list[str] = []
    if summary.training is not None:
        train = summary.splits.get("train", summary.samples)
        notes.extend(of_training(summary.training, config.stream if trains_on_stream else None, train))
    if config.data is not None and trains_on_stream:
        notes.extend(untested(config.data, "test", evaluation["levels"]))
        notes.extend(too_large(from_summary(summary.label_errors), config.data.label_error))
    notes.extend(of_labels(evaluation["levels"], summary.label_errors))
    return notes


def conclude(session: Session, sets: Mapping[str, Path] | None = None, train: Path | None = None) -> None:
    """Evaluate a trained run and hand errors, pictures, model and data sets to the tracking server.

    Args:
        session: the run.
        sets: see `evaluate`.
        train: the data set that was trained on; default: the run's own.
    """
    assert session.config.surrogate is not None
    with session.phase("evaluate"):
        evaluation = evaluate(session.run, sets)
        session.note(errors=evaluation["levels"], notes=[*_notes(session, evaluation), *evaluation["notes"]])
    with session.phase("track results"):
        session.record(
            {
                f"test/{metric}" + ("" if level == "all" else f"/{level}"): _or_inf(values[metric]["mean"])
                for level, values in evaluation["levels"].items()
                for metric in evaluation["metrics"]
            }
        )
        held_out = sets or held_out_sets(session.run.path)
        with np.load(session.run.path / "evaluation.npz") as arrays:
            kept = dict(arrays)
        schema = StoredSamples.open(next(iter(held_out.values()))).schema
        session.tracker.log_figure(pictures.prediction_grid(kept, schema), "pictures/predictions.png")
        track_model(session, {"train": train or session.run.data("train"), **held_out})
        session.tracker.log_file(session.run.path / "evaluation.json")
