"""Normalisation against NumPy over everything that was streamed."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from headrace.platform.errors import InputError
from headrace.platform.fields import SampleSchema
from headrace.platform.sample import SampleBatch
from headrace.surrogates.batch import Batch
from headrace.surrogates.normalization import NormalizationSpec
from headrace.surrogates.normalizer import Normalizer, RunningMoments


def test_moments_of_a_stream_are_those_of_all_of_it() -> None:
    rng = np.random.default_rng(0)
    # A mean of 1e6 beside a spread of 1 leaves nothing of E[x^2] - E[x]^2 in single precision.
    values = rng.standard_normal((1000, 3)) * [1.0, 1e-3, 50.0] + [1e6, 0.0, -3.0]
    moments = RunningMoments(3)
    for chunk in np.split(values, [1, 8, 300, 301, 977]):
        moments.update(torch.from_numpy(chunk))
    assert moments.count.item() == 1000
    assert np.allclose(moments.mean, values.mean(0), rtol=1e-12)
    assert np.allclose(moments.std, values.std(0), rtol=1e-9)


def test_a_channel_that_does_not_vary_is_not_blown_up() -> None:
    moments = RunningMoments(2)
    moments.update(torch.tensor([[0.1, 0.0]] * 7, dtype=torch.float32))
    assert moments.std.tolist() == [1.0, 1.0]


def streamed(normalizer: Normalizer, samples: SampleBatch, size: int) -> None:
    for start in range(0, len(samples), size):
        normalizer.update(*Batch.of(samples.take(range(start, min(start + size, len(samples)))))[:3])


@pytest.fixture
def schema(make_schema: Callable[..., SampleSchema]) -> SampleSchema:
    return make_schema((6, 5), num_times=2, num_parameters=3)


@pytest.fixture
def samples(schema: SampleSchema, make_samples: Callable[..., SampleBatch]) -> SampleBatch:
    return make_samples(schema, 40)


def test_normalised_inputs_have_mean_0_and_deviation_1(schema: SampleSchema, samples: SampleBatch) -> None:
    normalizer = Normalizer(NormalizationSpec(samples=0), schema)
    streamed(normalizer, samples, 7)
    batch = Batch.of(samples)
    inputs, parameters = normalizer.normalize(batch.inputs, batch.parameters)
    # Float32 inputs: each value is rounded to 2^-24 of itself.
    for values in (inputs.movedim(1, -1).reshape(-1, 2), parameters):
        assert np.allclose(values.mean(0), 0, atol=1e-5)
        assert np.allclose(values.std(0, correction=0), 1, atol=1e-5)


def test_a_problem_of_scalars_alone_is_normalised(samples: SampleBatch, schema: SampleSchema) -> None:
    schema = dataclasses.replace(schema, inputs=())
    samples = dataclasses.replace(samples, inputs=samples.inputs[:, :0])
    normalizer = Normalizer(NormalizationSpec(samples=0), schema)
    streamed(normalizer, samples, 7)
    batch = Batch.of(samples)
    inputs, parameters = normalizer.normalize(batch.inputs, batch.parameters)
    assert inputs.shape == batch.inputs.shape
    # Float32 inputs: each value is rounded to 2^-24 of itself.
    assert np.allclose(parameters.mean(0), 0, atol=1e-5)


def test_outputs_come_back_in_physical_units(schema: SampleSchema, samples: SampleBatch) -> None:
    normalizer = Normalizer(NormalizationSpec(), schema)
    streamed(normalizer, samples, 8)
    outputs = torch.from_numpy(samples.outputs)
    mean, std = samples.outputs.mean(), samples.outputs.std()
    assert torch.allclose(normalizer.denormalize((outputs - mean) / std), outputs, rtol=1e-4)
    assert torch.allclose(normalizer.in_standard_deviations(outputs), outputs / std, rtol=1e-5)


def test_freezes_after_its_samples_and_stays_frozen_in_a_checkpoint(schema: SampleSchema, samples: SampleBatch) -> None:
    normalizer = Normalizer(NormalizationSpec(samples=16), schema)
    streamed(normalizer, samples, 8)
    first = samples.take(range(16))
    assert normalizer.samples_seen.item() == 16
    assert np.allclose(normalizer.input_moments.mean, first.inputs.mean((0, 2, 3), dtype=np.float64))

    again = Normalizer(NormalizationSpec(samples=16), schema)
    again.load_state_dict(normalizer.state_dict())
    streamed(again, samples, 8)
    assert all(torch.equal(a, b) for a, b in zip(again.buffers(), normalizer.buffers(), strict=True))


def test_never_freezes_when_told_so(schema: SampleSchema, samples: SampleBatch) -> None:
    normalizer = Normalizer(NormalizationSpec(samples=0), schema)
    streamed(normalizer, samples, 8)
    assert normalizer.samples_seen.item() == 40


class TestLogarithm:
    def test_is_taken_of_the_named_field_alone(self, schema: SampleSchema, samples: SampleBatch) -> None:
        inputs = np.exp(samples.inputs / 10)
        normalizer = Normalizer(NormalizationSpec(log=("permeability",)), schema)
        batch = Batch.of(dataclasses.replace(samples, inputs=inputs))
        normalizer.update(batch.inputs, batch.outputs, batch.parameters)
        scaled, _ = normalizer.normalize(batch.inputs, batch.parameters)
        log = np.log(inputs[:, 0].astype(np.float64))
        assert np.allclose(scaled[:, 0], (log - log.mean()) / log.std(), atol=1e-5)
        source = inputs[:, 1].astype(np.float64)
        assert np.allclose(scaled[:, 1], (source - source.mean()) / source.std(), atol=1e-5)

    def test_of_an_unknown_field_is_a_mismatch(self, schema: SampleSchema) -> None:
        reason = NormalizationSpec(log=("permiability",)).mismatch(schema)
        assert reason == "log names permiability, the inputs are permeability, source"
        assert NormalizationSpec(log=("permeability",)).mismatch(schema) is None

    def test_of_a_field_that_is_not_positive_is_an_error(self, schema: SampleSchema, samples: SampleBatch) -> None:
        normalizer = Normalizer(NormalizationSpec(log=("source",)), schema)
        with pytest.raises(InputError, match=r"training\.normalization\.log: expected positive fields"):
            streamed(normalizer, samples, 8)
