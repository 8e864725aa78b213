"""A loss that is not finite: whose it is, and why, in the words that a user reads."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from headrace.platform.errors import InputError, RunFailed
from headrace.platform.fields import SampleSchema
from headrace.platform.sample import SampleBatch
from headrace.surrogates.astray import Seen, astray
from headrace.surrogates.batch import Batch
from headrace.surrogates.datamodule import StreamDataModule
from headrace.surrogates.fit import fit
from headrace.surrogates.models.fno import FNO
from headrace.surrogates.normalization import NormalizationSpec
from headrace.surrogates.training import TrainingSpec


@pytest.fixture(scope="module")
def schema(make_schema: Callable[..., SampleSchema]) -> SampleSchema:
    return make_schema((8,))


@pytest.fixture(scope="module")
def samples(schema: SampleSchema, make_samples: Callable[..., SampleBatch]) -> SampleBatch:
    return dataclasses.replace(make_samples(schema, 8), indices=np.arange(40, 48))


def said(samples: SampleBatch, schema: SampleSchema, bad: list[int], log: tuple[str, ...] = ()) -> str:
    losses = torch.ones(8)
    fine = Seen.of(6, Batch.of(samples), losses)
    losses = losses.index_fill(0, torch.tensor(bad, dtype=torch.int64), np.nan)
    return astray([fine, Seen.of(7, Batch.of(samples), losses)], schema, log)


def test_names_samples_and_levels_and_the_field_that_is_not_finite(samples: SampleBatch, schema: SampleSchema) -> None:
    outputs = samples.outputs.copy()
    outputs[3, 0, 0, 2] = np.inf
    words = said(dataclasses.replace(samples, outputs=outputs), schema, [2, 3])
    assert words == (
        "at step 7 that of 2 of 8 samples is not: 42 (level smooth), 43 (level rough). Of sample 43 the output "
        "pressure is not finite: leave such samples out"
    )


def test_names_the_field_whose_logarithm_there_is_none_of(samples: SampleBatch, schema: SampleSchema) -> None:
    inputs = samples.inputs.copy()
    inputs[5, 1] = -3.0
    words = said(dataclasses.replace(samples, inputs=inputs), schema, [5], log=("source",))
    assert "the input source falls to -3, and training.normalization.log takes its logarithm" in words


def test_says_the_ranges_when_the_fields_are_as_they_should_be(samples: SampleBatch, schema: SampleSchema) -> None:
    words = said(samples, schema, list(range(8)))
    low, high = samples.inputs[:, 0].min(), samples.inputs[:, 0].max()
    assert "40 (level smooth)" in words and "44 (level smooth) and 3 more" in words
    assert f"permeability from {low:.3g} to {high:.3g}" in words and "pressure from" in words
    assert "try a smaller training.optimizer.learning_rate" in words
    assert said(samples, schema, []) == ""


def test_a_training_that_diverges_says_so(samples: SampleBatch, schema: SampleSchema) -> None:
    network = FNO(modes=2, width=4)
    training = TrainingSpec(steps=50, batch_size=8, optimizer={"kind": "adamw", "learning_rate": 1e30}, log_every=5)
    data = StreamDataModule(pull=lambda size, step: samples, batch_size=8)
    with pytest.raises(RunFailed, match=r"of 8 samples is not: 40 \(level smooth\).*went astray: try a smaller"):
        fit(surrogate=network, training=training, schema=schema, data=data)


def test_a_sample_without_a_logarithm_is_named_at_once(samples: SampleBatch, schema: SampleSchema) -> None:
    inputs = np.abs(samples.inputs) + 1
    inputs[6, 0, 1] = -0.5
    data = StreamDataModule(pull=lambda size, step: dataclasses.replace(samples, inputs=inputs), batch_size=8)
    training = TrainingSpec(steps=2, batch_size=8, normalization=NormalizationSpec(log=("permeability",)))
    words = r"Sample 46 has values of 0 or less in permeability \(down to -0.5\): leave it out"
    with pytest.raises(InputError, match=words):
        fit(surrogate=FNO(modes=2, width=4), training=training, schema=schema, data=data)
