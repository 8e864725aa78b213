"""Denominators that are guarded, and scores that do not depend on units: the right values, and what is told."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from headrace.platform.fields import Grid, SampleSchema
from headrace.platform.sample import SampleBatch
from headrace.surrogates import metrics
from headrace.surrogates.batch import Batch
from headrace.surrogates.datamodule import StoredDataModule
from headrace.surrogates.fit import FitResult, fit
from headrace.surrogates.loss import AbstractLoss, LossContext
from headrace.surrogates.losses import RelativeH1, RelativeL2
from headrace.surrogates.models.fno import FNO
from headrace.surrogates.module import SurrogateModule
from headrace.surrogates.normalization import NormalizationSpec
from headrace.surrogates.strategies import Autoregressive
from headrace.surrogates.training import TrainingSpec

LINE = Grid(shape=(64,), extent=(1.0,), periodic=(True,))
NETWORK = FNO(modes=3, width=8, layers=2, projection_width=8)


def waves(count: int = 8, times: int = 2) -> np.ndarray:
    """Sines of amplitudes from 0.5 to 2."""
    x = np.arange(64) / 64
    amplitude = np.linspace(0.5, 2.0, count)[:, None, None, None]
    return amplitude * np.sin(2 * np.pi * (x + np.arange(times)[:, None, None] / 7)) + np.zeros((count, times, 1, 64))


def test_flat_fields_do_not_rule_the_mean_and_others_keep_their_exact_value() -> None:
    truth = waves()
    truth[3, 1] = 1.0
    off = truth + 1e-3
    found = metrics.per_sample(off, truth, LINE)["vrmse"]
    # The floor is sqrt(1e-7) of the standard deviation over the data set.
    plain = 1e-3 / np.maximum(truth.std(-1)[:, :, 0], np.sqrt(1e-7) * truth.std())
    assert found == pytest.approx(plain.mean(1), rel=1e-9)
    assert metrics.guarded(truth)["flat"].tolist() == [row == 3 for row in range(8)]
    assert not metrics.guarded(truth)["zero"].any()
    assert metrics.over_time(off, truth, LINE, ("vrmse",))["vrmse"] == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("name", metrics.METRICS)
def test_a_zero_truth_is_scored_against_the_field_s_scale(name: str) -> None:
    truth = waves(16, times=1)
    truth[5] = 0.0
    off = truth + 1e-3 * truth.std()
    found = metrics.per_sample(off, truth, LINE, (name,))[name]
    assert np.isfinite(found).all()
    # 1e-3 of the scale over 3.2e-4 of it; the others lie far below.
    assert found[5] == pytest.approx(1e-3 / np.sqrt(1e-7), rel=0.05)
    assert np.delete(found, 5).max() < 0.01
    assert metrics.per_sample(truth, truth, LINE, (name,))[name][5] < 1e-100
    assert metrics.guarded(truth)["zero"].tolist() == [row == 5 for row in range(16)]


@pytest.mark.parametrize("factor", [1e-30, 1e-22, 1e-10, 1.0, 1e19, 1e30])
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_no_metric_depends_on_units_or_precision(factor: float, precision: type) -> None:
    truth = waves()
    truth[3], truth[2, 1] = 0.0, 0.7
    rng = np.random.default_rng(0)
    off = truth + 0.1 * rng.standard_normal(truth.shape)
    reference = metrics.per_sample(off, truth, LINE)
    found = metrics.per_sample((factor * off).astype(precision), (factor * truth).astype(precision), LINE)
    for name, values in reference.items():
        assert found[name] == pytest.approx(values, rel=1e-5), name


def test_a_field_s_scale_is_its_deviation_and_of_a_constant_one_its_size() -> None:
    truth = np.zeros((3, 2, 4, 5, 5), np.float32)
    rng = np.random.default_rng(1)
    truth[:, :, 0] = 1e6 + rng.standard_normal((3, 2, 5, 5))
    truth[:, :, 1] = -7.0
    truth[:, :, 2] = 1e-30 * rng.standard_normal((3, 2, 5, 5))
    whole = truth.astype(np.float64)
    expected = [whole[:, :, 0].std(), 7.0, whole[:, :, 2].std(), 1.0]
    assert metrics.field_scale(truth) == pytest.approx(expected, rel=1e-9)


@pytest.fixture(scope="module")
def schema(make_schema: Callable[..., SampleSchema]) -> SampleSchema:
    return make_schema((16, 16))


@pytest.fixture(scope="module")
def zero_among_16(schema: SampleSchema, make_samples: Callable[..., SampleBatch]) -> SampleBatch:
    samples = make_samples(schema, 16)
    inputs, outputs = samples.inputs.copy(), samples.outputs - 3
    inputs[4] = outputs[4] = 0.0
    return dataclasses.replace(samples, inputs=inputs, outputs=outputs)


def trained(
    schema: SampleSchema, samples: SampleBatch, held_out: SampleBatch, **changes: object
) -> tuple[FitResult, dict[str, float]]:
    last: dict[str, float] = {}

    def report(step: int | None, found: Mapping[str, float]) -> None:
        last.update(found)

    training = TrainingSpec(steps=40, batch_size=16, validate_every=40, **changes)
    data = StoredDataModule(samples=samples, batch_size=16, validation=held_out)
    return fit(surrogate=NETWORK, training=training, schema=schema, data=data, report=report), last


@pytest.mark.parametrize("loss", [RelativeL2(), RelativeH1()])
def test_a_zero_target_among_16_ends_no_training_and_is_counted(
    loss: AbstractLoss, schema: SampleSchema, zero_among_16: SampleBatch, make_samples: Callable[..., SampleBatch]
) -> None:
    held_out = make_samples(schema, 8, seed=1)
    held_out = dataclasses.replace(held_out, outputs=held_out.outputs - 3)
    result, last = trained(schema, zero_among_16, held_out, loss=loss)
    assert result.steps == 40 and result.zero_targets == 40
    # Unguarded it is 1e18. The zero target weighs heavily, as a relative loss asks; the others are learned, too.
    assert last["train/loss"] < 20.0 and last["validation/relative_l2"] < 1.0


def test_a_relative_loss_floors_alike_in_both_precisions() -> None:
    truth = torch.zeros(2, 1, 1, 64, dtype=torch.float64)
    truth[1] = torch.sin(torch.arange(64.0, dtype=torch.float64))
    values = []
    for dtype in (torch.float32, torch.float64):
        scale = torch.ones(1, dtype=dtype)
        values.append(metrics.relative_l2(truth.to(dtype) + 0.1, truth.to(dtype), LINE, scale).double())
    torch.testing.assert_close(values[0], values[1], rtol=1e-6, atol=0.0)
    assert values[0][0].item() == pytest.approx(0.1 / np.sqrt(1e-7), rel=1e-5)


def test_increments_are_guarded_by_the_size_of_the_states(make_schema: Callable[..., SampleSchema]) -> None:
    """What is said of an increment is in units of increments, which are small beside the field."""
    schema = make_schema((8,), num_times=4)
    schema = dataclasses.replace(schema, outputs=schema.inputs[:1], times=(1.0, 2.0, 3.0, 4.0))
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((32, 2, 8)).astype(np.float32)
    outputs = np.stack([inputs[:, :1] * (1 + 0.01 * k) for k in range(1, 5)], axis=1)
    spec = TrainingSpec(strategy=Autoregressive(), normalization=NormalizationSpec(samples=0))
    module = SurrogateModule(surrogate=NETWORK, training=spec, schema=schema, seed=0)
    batch = Batch.of(SampleBatch(indices=np.arange(32), inputs=inputs, outputs=outputs, parameters=np.zeros((32, 0))))
    module.on_train_batch_start(batch, 0)
    deviations = spec.strategy.deviations(module.model, schema)
    context = LossContext(
        schema=schema, device=torch.device("cpu"), scales=module.model.normalizer, deviations=deviations
    )
    assert context.field_scale(batch.outputs).item() == pytest.approx(100, rel=0.05)
    state = spec.strategy.model_copy(update={"predict": "state"})
    assert state.deviations(module.model, schema) is None


@pytest.mark.parametrize("factor", [1e-22, 1.0, 1e19])
def test_validation_during_training_is_what_is_evaluated_afterwards_at_any_scale(
    factor: float, schema: SampleSchema, make_samples: Callable[..., SampleBatch]
) -> None:
    samples, held_out = make_samples(schema, 32), make_samples(schema, 9, seed=1)
    samples, held_out = (
        dataclasses.replace(one, outputs=(factor * one.outputs.astype(np.float64)).astype(np.float32))
        for one in (samples, held_out)
    )
    module = SurrogateModule(surrogate=NETWORK, training=TrainingSpec(batch_size=4), schema=schema, seed=0)
    module.on_train_batch_start(Batch.of(samples), 0)
    score = module.validate(held_out)
    batch = Batch.of(held_out)
    with torch.no_grad():
        prediction = module(batch.inputs, batch.parameters).numpy()
    expected = metrics.per_sample(prediction, held_out.outputs, schema.domain)["relative_l2"]
    assert score["validation/relative_l2"] == pytest.approx(expected.mean(), rel=1e-5)
    assert score["validation/relative_l2/rough"] == pytest.approx(expected[1::2].mean(), rel=1e-5)
    assert 0.1 < expected.mean() < 10.0
