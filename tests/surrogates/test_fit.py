"""fit in one process: it learns, reports, keeps checkpoints, goes on from them, and says why it stopped."""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback

from headrace.platform.errors import InputError, RunFailed
from headrace.platform.fields import SampleSchema
from headrace.platform.sample import SampleBatch
from headrace.platform.spec import kinds
from headrace.surrogates.batch import Batch
from headrace.surrogates.checkpoint import Predictor, load_checkpoint
from headrace.surrogates.datamodule import StoredDataModule, StreamDataModule
from headrace.surrogates.fit import fit
from headrace.surrogates.loss import AbstractLoss, LossContext
from headrace.surrogates.losses import LOSSES
from headrace.surrogates.metrics import per_sample
from headrace.surrogates.models.fno import FNO
from headrace.surrogates.normalization import NormalizationSpec
from headrace.surrogates.optimizers import AdamW
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


@pytest.fixture(scope="module")
def held_out(schema: SampleSchema, make_samples: Callable[..., SampleBatch]) -> SampleBatch:
    return make_samples(schema, 9, seed=1)


def stored(samples: SampleBatch, held_out: SampleBatch | None = None, batch_size: int = 4) -> StoredDataModule:
    return StoredDataModule(samples=samples, batch_size=batch_size, validation=held_out)


def weights(path: Path | None) -> Mapping[str, torch.Tensor]:
    assert path is not None
    return load_checkpoint(path).weights


def test_learns_a_map_and_its_reports_are_true(
    schema: SampleSchema, samples: SampleBatch, held_out: SampleBatch, tmp_path: Path
) -> None:
    reports: Reports = []
    training = TRAINING.model_copy(
        update={"steps": 80, "validate_every": 40, "batch_size": 8, "optimizer": AdamW(learning_rate=1e-2)}
    )
    result = fit(
        surrogate=SURROGATE,
        training=training,
        schema=schema,
        data=stored(samples, held_out, 8),
        report=lambda step, metrics: reports.append((step, metrics)),
        checkpoint_dir=tmp_path,
    )
    assert (result.steps, result.samples_seen, result.stopped) == (80, 640, "all 80 steps done")
    assert 0 <= result.wait_share <= 1 and result.seconds > 0
    final = {name: value for step, metrics in reports if step == 80 for name, value in metrics.items()}
    errors = per_sample(
        Predictor.from_checkpoint(tmp_path / "last.pt").predict(held_out.inputs), held_out.outputs, schema.domain
    )
    assert final["validation/relative_l2"] == pytest.approx(errors["relative_l2"].mean(), rel=1e-4)
    for number, level in enumerate(("smooth", "rough")):
        assert final[f"validation/relative_l2/{level}"] == pytest.approx(
            errors["relative_l2"][number::2].mean(), rel=1e-4
        )
    assert final["validation/relative_l2"] < 0.1
    assert final["train/learning_rate"] == pytest.approx(1e-7)
    assert [step for step, metrics in reports if "train/loss" in metrics] == list(range(5, 81, 5))
    assert [step for step, metrics in reports if "validation/relative_l2" in metrics] == [40, 80]


@pytest.mark.parametrize("kind", kinds("headrace.losses", LOSSES).values())
def test_the_first_reported_loss_is_that_of_the_initial_network(
    kind: type[AbstractLoss], schema: SampleSchema, samples: SampleBatch
) -> None:
    reports: Reports = []
    training = TRAINING.model_copy(update={"steps": 1, "loss": kind(), "log_every": 1})
    data = stored(samples)
    fit(surrogate=SURROGATE, training=training, schema=schema, data=data, seed=3, report=lambda *r: reports.append(r))
    batch = samples.take(data.rows(0))
    torch.manual_seed(3)
    network = SURROGATE.build(schema)
    mean, std = (moment(batch.inputs, axis=(0, 2, 3), keepdims=True) for moment in (np.mean, np.std))
    with torch.no_grad():
        output = network(torch.from_numpy((batch.inputs - mean) / std), torch.zeros(4, 0))
    prediction = output * batch.outputs.std().item() + batch.outputs.mean().item()

    class Learned:
        """The scales that one batch gives."""

        def in_standard_deviations(self, outputs: torch.Tensor) -> torch.Tensor:
            return outputs / batch.outputs.std().item()

    loss = kind().build(LossContext(schema=schema, device=torch.device("cpu"), scales=Learned()))
    expected = loss(prediction, Batch.of(batch)).mean().item()
    assert reports[0][1]["train/loss"] == pytest.approx(expected, rel=1e-4)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def kept(*steps: int) -> list[str]:
    return ["last.pt", *(f"step-{step:06d}.{ending}" for step in steps for ending in ("manifest.json", "pt"))]


def test_the_last_step_is_always_validated_reported_and_kept(
    schema: SampleSchema, samples: SampleBatch, held_out: SampleBatch, tmp_path: Path
) -> None:
    reports: Reports = []
    result = fit(
        surrogate=SURROGATE,
        training=TRAINING.model_copy(update={"steps": 11}),
        schema=schema,
        data=stored(samples, held_out),
        report=lambda step, metrics: reports.append((step, metrics)),
        checkpoint_dir=tmp_path,
    )
    assert [step for step, metrics in reports if "train/loss" in metrics] == [5, 10, 11]
    assert [step for step, metrics in reports if "validation/relative_l2" in metrics] == [5, 10, 11]
    # Written after 4, 8 and 11; two numbered ones are kept.
    assert files(tmp_path) == kept(8, 11)
    assert result.checkpoint == tmp_path / "last.pt"
    assert load_checkpoint(tmp_path / "last.pt").step == 11


def test_last_is_a_copy_where_the_file_system_has_no_hard_links(
    schema: SampleSchema, samples: SampleBatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError("operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    fit(surrogate=SURROGATE, training=TRAINING, schema=schema, data=stored(samples), checkpoint_dir=tmp_path)
    assert files(tmp_path) == kept(8, 12)
    assert (tmp_path / "last.pt").read_bytes() == (tmp_path / "step-000012.pt").read_bytes()


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    schema: SampleSchema, samples: SampleBatch, tmp_path: Path
) -> None:
    whole = fit(
        surrogate=SURROGATE, training=TRAINING, schema=schema, data=stored(samples), checkpoint_dir=tmp_path / "a"
    )

    def broken(size: int, _: int) -> SampleBatch:
        step = next(steps)
        if step == 9:
            raise ConnectionError("the shard is gone")
        return samples.take(order.rows(step))

    steps, order = iter(range(12)), stored(samples)
    with pytest.raises(ConnectionError):
        fit(
            surrogate=SURROGATE,
            training=TRAINING,
            schema=schema,
            data=StreamDataModule(pull=broken, batch_size=4),
            checkpoint_dir=tmp_path / "b",
        )
    rest = fit(
        surrogate=SURROGATE,
        training=TRAINING,
        schema=schema,
        data=stored(samples),
        checkpoint_dir=tmp_path / "b",
        resume=tmp_path / "b" / "last.pt",
    )
    assert (rest.steps, rest.samples_seen) == (12, 16)
    a, b = weights(whole.checkpoint), weights(rest.checkpoint)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_finished_run_has_nothing_to_resume(schema: SampleSchema, samples: SampleBatch, tmp_path: Path) -> None:
    fit(surrogate=SURROGATE, training=TRAINING, schema=schema, data=stored(samples), checkpoint_dir=tmp_path)
    again = fit(
        surrogate=SURROGATE, training=TRAINING, schema=schema, data=stored(samples), resume=tmp_path / "last.pt"
    )
    assert (again.steps, again.samples_seen, again.stopped) == (12, 0, "all 12 steps done")


def test_a_dry_stream_stops_training_with_its_reason(
    schema: SampleSchema, samples: SampleBatch, held_out: SampleBatch, tmp_path: Path
) -> None:
    reports: Reports = []
    stream = iter([samples.take(range(4))] * 7)
    result = fit(
        surrogate=SURROGATE,
        training=TRAINING,
        schema=schema,
        data=StreamDataModule(pull=lambda size, step: next(stream, None), batch_size=4, validation=held_out),
        report=lambda step, metrics: reports.append((step, metrics)),
        checkpoint_dir=tmp_path,
    )
    assert (result.steps, result.samples_seen) == (7, 28)
    assert result.stopped == "stream exhausted after 7 of 12 steps"
    assert load_checkpoint(tmp_path / "last.pt").step == 7
    assert reports[-1][0] == 7 and "validation/relative_l2" in reports[-1][1]


def test_a_stream_without_a_sample_leaves_no_checkpoint(schema: SampleSchema, tmp_path: Path) -> None:
    result = fit(
        surrogate=SURROGATE,
        training=TRAINING,
        schema=schema,
        data=StreamDataModule(pull=lambda size, step: None, batch_size=4),
        checkpoint_dir=tmp_path,
    )
    assert (result.steps, result.checkpoint) == (0, None)
    assert not list(tmp_path.iterdir())


def test_the_same_seed_gives_the_same_weights_and_leaves_torch_s_generator_alone(
    schema: SampleSchema, samples: SampleBatch, tmp_path: Path
) -> None:
    state = torch.get_rng_state()
    training = TRAINING.model_copy(update={"steps": 2})
    paths = [
        fit(
            surrogate=SURROGATE,
            training=training,
            schema=schema,
            data=stored(samples),
            seed=seed,
            checkpoint_dir=tmp_path / str(number),
        ).checkpoint
        for number, seed in enumerate((5, 5, 6))
    ]
    assert torch.equal(torch.get_rng_state(), state)
    first, second, third = (weights(path) for path in paths)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


def test_trains_in_double_precision(schema: SampleSchema, samples: SampleBatch, tmp_path: Path) -> None:
    training = TRAINING.model_copy(update={"steps": 2, "precision": "64-true"})
    result = fit(
        surrogate=SURROGATE, training=training, schema=schema, data=stored(samples, samples), checkpoint_dir=tmp_path
    )
    assert {tensor.dtype for tensor in weights(result.checkpoint).values()} == {torch.float64}


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_is_not_finite_ends_the_run_before_it_is_kept(
    log_every: int, schema: SampleSchema, samples: SampleBatch, tmp_path: Path
) -> None:
    spoilt = samples.take(range(4))
    spoilt.inputs[2, 0, 3, 3] = math.nan
    stream = iter([samples.take(range(4))] * 5 + [spoilt] * 7)
    step = 6 if log_every == 1 else 8
    words = (
        rf"the loss is not finite at step {step}: at step 6 that of 1 of 4 samples is not: 2 \(level smooth\). "
        "Of sample 2 the input permeability is not finite: leave such samples out."
    )
    with pytest.raises(RunFailed, match=words):
        fit(
            surrogate=SURROGATE,
            training=TRAINING.model_copy(update={"log_every": log_every}),
            schema=schema,
            data=StreamDataModule(pull=lambda size, step: next(stream), batch_size=4),
            checkpoint_dir=tmp_path,
        )
    assert load_checkpoint(tmp_path / "last.pt").step == 4


def test_what_does_not_fit_is_said_before_anything_starts(
    schema: SampleSchema, samples: SampleBatch, tmp_path: Path
) -> None:
    def start(surrogate: FNO = SURROGATE, training: TrainingSpec = TRAINING, resume: Path | None = None) -> None:
        fit(surrogate=surrogate, training=training, schema=schema, data=stored(samples), resume=resume)

    with pytest.raises(InputError, match="surrogate: expected one that fits the problem. modes 9 is too large"):
        start(surrogate=FNO(modes=9))
    with pytest.raises(InputError, match="training: expected one that fits the problem. normalization: log names"):
        start(training=TrainingSpec(normalization={"log": ["depth"]}))
    fit(
        surrogate=SURROGATE,
        training=TRAINING.model_copy(update={"steps": 1}),
        schema=schema,
        data=stored(samples),
        checkpoint_dir=tmp_path,
    )
    with pytest.raises(InputError, match=r'of the surrogate .*"width":8.*; expected the recipe\'s, .*"width":9'):
        start(surrogate=SURROGATE.model_copy(update={"width": 9}), resume=tmp_path / "last.pt")
    with pytest.raises(InputError, match="normalised by .*512.*; expected the recipe's, .*16"):
        start(
            training=TRAINING.model_copy(update={"normalization": NormalizationSpec(samples=16)}),
            resume=tmp_path / "last.pt",
        )


def test_says_its_story_and_nothing_else(
    schema: SampleSchema,
    samples: SampleBatch,
    held_out: SampleBatch,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    fit(surrogate=SURROGATE, training=TRAINING, schema=schema, data=stored(samples, held_out))
    assert capfd.readouterr() == ("", "")
    assert not [str(warning.message) for warning in recwarn]


def test_what_is_drawn_in_a_step_is_the_same_after_a_resume(
    schema: SampleSchema, samples: SampleBatch, tmp_path: Path
) -> None:
    class Draws(Callback):
        def __init__(self) -> None:
            self.drawn: list[float] = []

        def on_train_batch_end(self, *_: object) -> None:
            self.drawn.append(torch.rand(1).item())

    training = TRAINING.model_copy(update={"steps": 6, "checkpoint_every": 3, "keep_checkpoints": 5})
    whole, rest = Draws(), Draws()
    before = torch.random.get_rng_state()
    common = {"surrogate": SURROGATE, "training": training, "schema": schema, "seed": 7}
    fit(**common, data=stored(samples), checkpoint_dir=tmp_path, callbacks=[whole])
    fit(**common, data=stored(samples), resume=tmp_path / "step-000003.pt", callbacks=[rest])
    assert len(set(whole.drawn)) == 6 and rest.drawn == whole.drawn[3:]
    assert torch.equal(torch.random.get_rng_state(), before)
