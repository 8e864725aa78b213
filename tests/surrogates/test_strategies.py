"""Strategies: what a network learns of a trajectory, and what it then forecasts."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.sample import SampleBatch
from headrace.surrogates.batch import Batch
from headrace.surrogates.checkpoint import Predictor, load_checkpoint
from headrace.surrogates.datamodule import StoredDataModule
from headrace.surrogates.fit import fit
from headrace.surrogates.losses import RelativeL2
from headrace.surrogates.models import FNO
from headrace.surrogates.normalization import NormalizationSpec, NormalizedNetwork, Normalizer
from headrace.surrogates.strategies import STRATEGIES, Autoregressive, Direct
from headrace.surrogates.strategy import AbstractStrategy
from headrace.surrogates.training import TrainingSpec

# The state is two of four input channels, and not the first two.
SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="mask"), FieldSpec(name="v"), FieldSpec(name="source"), FieldSpec(name="u")),
    outputs=(FieldSpec(name="u"), FieldSpec(name="v")),
    parameters=(FieldSpec(name="rate"),),
    domain=Grid(shape=(12,), extent=(1.0,), periodic=(True,)),
    times=(0.5, 1.0, 1.5),
)


def trajectories(count: int = 16, seed: int = 0) -> SampleBatch:
    """u' = source - rate u, v' = u by explicit steps of 0.5: the increments are known."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(count, 4, 12)).astype(np.float32)
    rate = rng.uniform(0.5, 1.0, size=(count, 1)).astype(np.float32)
    u, v, outputs = inputs[:, 3], inputs[:, 1], []
    for _ in SCHEMA.times:
        u, v = u + 0.5 * (inputs[:, 2] - rate * u), v + 0.5 * u
        outputs.append(np.stack([u, v], axis=1))
    return SampleBatch(
        indices=np.arange(count), inputs=inputs, outputs=np.stack(outputs, axis=1).astype(np.float32), parameters=rate
    )


class Exact(nn.Module):
    """The rule above as a network; what it is given and has to say is not normalised."""

    def __init__(self, predict: str) -> None:
        super().__init__()
        self.is_increment = predict == "increment"

    def forward(
        self, inputs: Float[Tensor, "batch 4 points"], parameters: Float[Tensor, "batch 1"]
    ) -> Float[Tensor, "batch 1 2 points"]:
        v, source, u = inputs[:, 1], inputs[:, 2], inputs[:, 3]
        change = torch.stack([0.5 * (source - parameters * u), 0.5 * u], dim=1)
        return (change if self.is_increment else torch.stack([u, v], dim=1) + change)[:, None]


def exact(strategy: Autoregressive) -> NormalizedNetwork:
    """Moments that were never learned: means of 0, deviations of 1."""
    normalizer = Normalizer(NormalizationSpec(), strategy.network_schema(SCHEMA))
    return NormalizedNetwork(Exact(strategy.predict), normalizer)


@pytest.mark.parametrize("predict", ["increment", "state"])
@pytest.mark.parametrize("rollout", [1, 2, 3])
def test_the_exact_rule_forecasts_a_trajectory_and_has_no_loss(predict: str, rollout: int) -> None:
    strategy = Autoregressive.model_validate({"predict": predict, "rollout": rollout})
    batch = Batch.of(trajectories())
    model = exact(strategy)
    torch.testing.assert_close(
        strategy.forecast(model, SCHEMA, batch.inputs, batch.parameters), batch.outputs, atol=1e-5, rtol=1e-5
    )
    for seed in range(3):  # the starts are random
        torch.manual_seed(seed)
        assert strategy.loss(model, SCHEMA, RelativeL2(), batch) < 1e-6
        assert strategy.loss(model, SCHEMA, RelativeL2(), batch._replace(outputs=batch.outputs + 1.0)) > 0.1


def test_scales_are_those_of_what_the_network_sees_and_says() -> None:
    batch = Batch.of(trajectories())
    strategy = Autoregressive()
    scales = strategy.scales(SCHEMA, batch)
    assert scales.inputs.shape == (48, 4, 12) and scales.outputs.shape == (48, 1, 2, 12)
    # The rows of sample 5: its own constants, and the states before each output time.
    rows = scales.inputs[15:18]
    torch.testing.assert_close(rows[:, [0, 2]], batch.inputs[5:6, [0, 2]].expand(3, -1, -1))
    torch.testing.assert_close(rows[1:, [3, 1]], batch.outputs[5, :2])
    torch.testing.assert_close(rows[:, [3, 1]] + scales.outputs[15:18, 0], batch.outputs[5])


def test_a_sample_counts_once_however_many_rows_it_has() -> None:
    batch = Batch.of(trajectories())
    strategy = Autoregressive()
    normalizer = Normalizer(NormalizationSpec(samples=20), strategy.network_schema(SCHEMA))
    scales = strategy.scales(SCHEMA, batch)
    normalizer.update(scales.inputs, scales.outputs, batch.parameters)
    assert not normalizer.is_frozen
    normalizer.update(scales.inputs, scales.outputs, batch.parameters)
    assert normalizer.is_frozen


@pytest.mark.parametrize("strategy", [kind() for kind in STRATEGIES], ids=lambda strategy: strategy.kind)
def test_a_surrogate_trained_by_any_strategy_forecasts_all_times_from_its_checkpoint(
    strategy: AbstractStrategy, tmp_path: Path
) -> None:
    train, held_out = trajectories(64), trajectories(8, seed=1)
    result = fit(
        surrogate=FNO(modes=6, width=24, layers=2),
        training=TrainingSpec.model_validate(
            {"strategy": strategy.model_dump(), "steps": 150, "batch_size": 16, "validate_every": 150}
        ),
        schema=SCHEMA,
        data=StoredDataModule(samples=train, batch_size=16),
        checkpoint_dir=tmp_path,
        num_threads=1,
    )
    assert result.checkpoint is not None
    predictor = Predictor.from_checkpoint(result.checkpoint)
    prediction = predictor.predict(held_out.inputs, held_out.parameters)
    assert prediction.shape == held_out.outputs.shape
    error = np.linalg.norm(prediction - held_out.outputs) / np.linalg.norm(held_out.outputs)
    assert error < 0.35, "a network that has learned something"
    assert load_checkpoint(result.checkpoint).strategy == strategy


def test_a_checkpoint_of_before_there_were_strategies_is_of_the_direct_one(tmp_path: Path) -> None:
    result = fit(
        surrogate=FNO(modes=4, width=4, layers=1),
        training=TrainingSpec(steps=1, batch_size=4),
        schema=SCHEMA,
        data=StoredDataModule(samples=trajectories(), batch_size=4),
        checkpoint_dir=tmp_path,
        num_threads=1,
    )
    assert result.checkpoint is not None
    content = torch.load(result.checkpoint, weights_only=True)
    del content["strategy"]
    torch.save(content | {"format": 1}, tmp_path / "old.pt")
    assert load_checkpoint(tmp_path / "old.pt").strategy == Direct()


def test_another_strategy_does_not_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    def train(strategy: str, steps: int, resume: Path | None) -> Path | None:
        training = TrainingSpec.model_validate({"strategy": {"kind": strategy}, "steps": steps, "batch_size": 4})
        return fit(
            surrogate=FNO(modes=4, width=4, layers=1),
            training=training,
            schema=SCHEMA,
            data=StoredDataModule(samples=trajectories(), batch_size=4),
            checkpoint_dir=tmp_path,
            resume=resume,
            num_threads=1,
        ).checkpoint

    first = train("autoregressive", 1, None)
    with pytest.raises(InputError, match='of the strategy {"kind":"autoregressive"'):
        train("direct", 2, first)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": SCHEMA.inputs[:3]}, "u is an output and no input"),
        ({"times": (0.5, 1.5)}, "the output times are not evenly spaced from 0 on"),
        ({"times": (0.0,)}, "the output times are not evenly spaced from 0 on"),
        ({"times": (0.5,)}, r"a rollout of 2 is longer than a sample with 1 output time\(s\)"),
    ],
)
def test_a_problem_that_does_not_step_in_time_is_refused(changes: dict[str, object], words: str) -> None:
    strategy = Autoregressive(rollout=2)
    assert strategy.mismatch(SCHEMA) is None
    schema = dataclasses.replace(SCHEMA, **changes)  # type: ignore[arg-type]
    training = TrainingSpec(strategy=strategy)
    reason = training.mismatch(schema)
    assert reason is not None and reason.startswith("strategy autoregressive: ")
    with pytest.raises(InputError, match=words):
        fit(
            surrogate=FNO(modes=4),
            training=training,
            schema=schema,
            data=StoredDataModule(samples=trajectories(), batch_size=4),
        )
