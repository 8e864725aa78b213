"""A step of fit: what it is told, what it tells, and what its gradient is."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from headrace.platform.fields import SampleSchema
from headrace.platform.sample import SampleBatch
from headrace.surrogates.datamodule import StoredDataModule
from headrace.surrogates.fit import fit
from headrace.surrogates.models.fno import FNO
from headrace.surrogates.strategies import AllAtOnce
from headrace.surrogates.strategy import TrainingStep
from headrace.surrogates.training import TrainingSpec

SURROGATE = FNO(modes=3, width=8, layers=2, projection_width=8)
TRAINING = TrainingSpec(steps=12, batch_size=4, validate_every=5, checkpoint_every=4, keep_checkpoints=2, log_every=5)

Reports = list[tuple[int | None, Mapping[str, float]]]


@pytest.fixture(scope="module")
def schema(make_schema: Callable[..., SampleSchema]) -> SampleSchema:
    return make_schema((8, 8))


@pytest.fixture(scope="module")
def samples(schema: SampleSchema, make_samples: Callable[..., SampleBatch]) -> SampleBatch:
    return make_samples(schema, 30)


def stored(samples: SampleBatch) -> StoredDataModule:
    return StoredDataModule(samples=samples, batch_size=4)


def test_what_was_observed_is_told_sample_by_sample(schema: SampleSchema, samples: SampleBatch) -> None:
    told: list[tuple[np.ndarray, np.ndarray]] = []
    reports: Reports = []
    data = stored(samples)
    fit(
        surrogate=SURROGATE,
        training=TRAINING,
        schema=schema,
        data=data,
        report=lambda step, metrics: reports.append((step, metrics)),
        observe=lambda indices, losses: told.append((indices, losses)),
    )
    # Reported after 5, 10 and the last of 12 steps of 4 samples.
    assert [len(indices) for indices, _ in told] == [20, 20, 8]
    expected = samples.indices[np.concatenate([data.rows(step) for step in range(12)])]
    assert np.concatenate([indices for indices, _ in told]).tolist() == expected.tolist()
    means = [metrics["train/loss"] for _, metrics in reports if "train/loss" in metrics]
    assert [losses.mean() for _, losses in told] == pytest.approx(means, rel=1e-5)


def test_a_step_is_told_where_training_stands_and_what_to_draw_from(
    schema: SampleSchema, samples: SampleBatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TrainingStep] = []
    plain = AllAtOnce.losses

    def noting(self: AllAtOnce, model: object, schema: object, loss: object, batch: object, at: TrainingStep) -> object:
        seen.append(at)
        return plain(self, model, schema, loss, batch, at)

    monkeypatch.setattr(AllAtOnce, "losses", noting)
    common = {"surrogate": SURROGATE, "training": TRAINING, "schema": schema, "data": stored(samples)}
    fit(**common, checkpoint_dir=tmp_path)
    assert [at.step for at in seen] == list(range(12)) and {at.steps for at in seen} == {12}
    assert seen[3].progress == pytest.approx(0.25) and seen[0].generator is torch.default_generator
    seen.clear()
    fit(**common, resume=tmp_path / "step-000008.pt")
    assert [at.step for at in seen] == [8, 9, 10, 11]


def test_mixed_precision_trains_with_clipped_gradients(schema: SampleSchema, samples: SampleBatch) -> None:
    training = TRAINING.model_copy(update={"steps": 2, "precision": "bf16-mixed", "gradient_clip": 1e-9})
    clipped, free = Gradients(), Gradients()
    fit(surrogate=SURROGATE, training=training, schema=schema, data=stored(samples), callbacks=[clipped])
    assert clipped.norms and max(clipped.norms) < 2e-9
    fit(
        surrogate=SURROGATE,
        training=training.model_copy(update={"gradient_clip": None}),
        schema=schema,
        data=stored(samples),
        callbacks=[free],
    )
    assert min(free.norms) > 1e-6


class Gradients(Callback):
    """Notes the norm of the gradient that each step went along."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        pieces = [weight.grad.square().sum() for weight in module.parameters() if weight.grad is not None]
        self.norms.append(torch.stack(pieces).sum().sqrt().item())
