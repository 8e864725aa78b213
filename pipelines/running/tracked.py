"""What a finished training hands to MLflow beside its numbers: the model, the data sets, a description."""

from collections.abc import Mapping
from pathlib import Path

from headrace.pipelines.running.session import Session
from headrace.platform.dataset.manifest import Manifest, read_manifest
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.spec import kind_of, plug_ins_of
from headrace.platform.tracking.models import ModelSpec, model_name
from headrace.platform.tracking.store import DataSetRecord
from headrace.surrogates.checkpoint import load_checkpoint
from headrace.surrogates.named import Given, by_model_name

CONTEXTS = {"train": "training", "validation": "validation"}


def track_model(session: Session, sets: Mapping[str, Path]) -> None:
    """Hand over the newest checkpoint as a model that serves, the data sets it stands on, and what it is in words.

    Args:
        session: the run.
        sets: the data set `train`, and those that the model was scored on.
    """
    config, tracker = session.config, session.tracker
    assert config.surrogate is not None and config.training is not None
    records = [data_set(name, path) for name, path in sets.items()]
    for record in records:
        tracker.log_dataset(record)
    first = StoredSamples.open(next(path for name, path in sets.items() if name != "train")).batch([0])
    schema = load_checkpoint(session.run.checkpoint).schema
    given = Given(inputs=first.inputs, parameters=first.parameters, is_batch=True)
    tracker.log_model(
        session.run.checkpoint,
        ModelSpec(
            name=config.name,
            schema=schema,
            example=by_model_name(given, schema),
            free_grid=config.surrogate.capabilities.resolution == "free",
            takes_noise=config.surrogate.capabilities.noise > 0,
            requirements=tuple(one.requirement for one in plug_ins_of(config)),
            alias=config.tracking.register,
        ),
    )
    tracker.describe(description(session, records))


def data_set(name: str, path: Path) -> DataSetRecord:
    """A data set as MLflow shows it: its problem or folder, its hash, how many samples of which levels."""
    stored = StoredSamples.open(path)
    manifest = read_manifest(path)
    made_by = manifest.problem if manifest is not None else None
    problem = str(made_by["kind"]) if made_by is not None else path.parent.name
    grid = "x".join(map(str, stored.schema.domain.shape))
    return DataSetRecord(
        name=f"{problem} {name}",
        context=CONTEXTS.get(name, "test"),
        digest=_digest(stored, manifest),
        folder=str(path.resolve()),
        num_samples=len(stored),
        profile={
            "levels": manifest.levels if manifest is not None else {},
            "inputs": [spec.name for spec in stored.schema.inputs],
            "outputs": [spec.name for spec in stored.schema.outputs],
            "parameters": [spec.name for spec in stored.schema.parameters],
            "points": grid,
            "times": len(stored.schema.times),
        },
    )


def _digest(stored: StoredSamples, manifest: Manifest | None) -> str:
    return manifest.content_hash if manifest is not None else stored.content_hash()


def description(session: Session, records: list[DataSetRecord]) -> str:
    """What the run is, for whoever finds it in MLflow: Markdown."""
    config, summary, tracker = session.config, session.summary, session.tracker
    assert config.surrogate is not None and config.training is not None
    train, *held_out = records
    steps = summary.training.steps if summary.training is not None else config.training.steps
    kind = kind_of(type(config.surrogate))
    lines = [
        f"**{config.name}**: the surrogate `{kind}`, trained in {steps} steps on {train.num_samples} samples of "
        f"{train.name.removesuffix(' train')} ({train.profile['points']} points).",
        "",
    ]
    for level, values in summary.errors.items():
        error = values.get("relative_l2")
        if isinstance(error, Mapping):
            lines.append(f"- held-out relative L2 error, {level}: {error['mean']:.4g} ({values.get('count')} samples)")
    lines += [f"- {one.context} data: `{one.folder}`, hash `{one.digest[:16]}`" for one in (train, *held_out)]
    lines += [f"- needs the plug-in {one}" for one in summary.plug_ins]
    uri = f"runs:/{tracker.run_id}/{model_name(config.name)}"
    if config.tracking.register is not None:
        uri = f"models:/{config.name}@{config.tracking.register}"
    lines += [
        "",
        f"Use it: `headrace predict {uri} INPUT --out FILE`, or `headrace.surrogates.load({uri!r})` in Python.",
    ]
    return "\n".join(lines)
