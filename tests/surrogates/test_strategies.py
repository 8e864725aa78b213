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
from headrace.platform.spec import kinds
from headrace.surrogates.batch import Batch
from headrace.surrogates.capabilities import Capabilities
from headrace.surrogates.checkpoint import Predictor, load_checkpoint
from headrace.surrogates.datamodule import StoredDataModule
from headrace.surrogates.fit import fit
from headrace.surrogates.loss import LossContext
from headrace.surrogates.losses import RelativeL2
from headrace.surrogates.models import FNO, MLP
from headrace.surrogates.normalization import NormalizationSpec
from headrace.surrogates.normalizer import NormalizedNetwork, Normalizer
from headrace.surrogates.query import Query
from headrace.surrogates.strategies import STRATEGIES, AllAtOnce, Autoregressive, TimeConditioned
from headrace.surrogates.strategy import AbstractStrategy, TrainingStep
from headrace.surrogates.training import TrainingSpec

# The state is two of four input channels, and not the first two.
SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="mask"), FieldSpec(name="v"), FieldSpec(name="source"), FieldSpec(name="u")),
    outputs=(FieldSpec(name="u"), FieldSpec(name="v")),
    parameters=(FieldSpec(name="rate"),),
    domain=Grid(shape=(12,), extent=(1.0,), periodic=(True,)),
    times=(0.5, 1.0, 1.5),
)


PLAIN = Capabilities()
"""Of a network that takes fields and parameters, and no query."""


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
        self, inputs: Float[Tensor, "batch 4 points"], parameters: Float[Tensor, "batch 1"], query: Query
    ) -> Float[Tensor, "batch 1 2 points"]:
        v, source, u = inputs[:, 1], inputs[:, 2], inputs[:, 3]
        change = torch.stack([0.5 * (source - parameters * u), 0.5 * u], dim=1)
        return (change if self.is_increment else torch.stack([u, v], dim=1) + change)[:, None]


def mean_loss(strategy: AbstractStrategy, model: NormalizedNetwork, batch: Batch) -> float:
    context = LossContext(schema=SCHEMA, device=torch.device("cpu"), scales=model.normalizer)
    at = TrainingStep(step=0, steps=10)
    return batch.mean(strategy.losses(model, SCHEMA, RelativeL2().build(context), batch, at)).item()


def exact(strategy: Autoregressive) -> NormalizedNetwork:
    """Moments that were never learned: means of 0, deviations of 1."""
    normalizer = Normalizer(NormalizationSpec(), strategy.network_schema(SCHEMA, PLAIN))
    return NormalizedNetwork(Exact(strategy.predict), normalizer, PLAIN)


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
        assert mean_loss(strategy, model, batch) < 1e-6
        assert mean_loss(strategy, model, batch._replace(outputs=batch.outputs + 1.0)) > 0.1


def test_scales_are_those_of_what_the_network_sees_and_says() -> None:
    batch = Batch.of(trajectories())
    strategy = Autoregressive()
    scales = strategy.scales(SCHEMA, PLAIN, batch)
    assert scales.inputs.shape == (48, 4, 12) and scales.outputs.shape == (48, 1, 2, 12)
    # The rows of sample 5: its own constants, and the states before each output time.
    rows = scales.inputs[15:18]
    torch.testing.assert_close(rows[:, [0, 2]], batch.inputs[5:6, [0, 2]].expand(3, -1, -1))
    torch.testing.assert_close(rows[1:, [3, 1]], batch.outputs[5, :2])
    torch.testing.assert_close(rows[:, [3, 1]] + scales.outputs[15:18, 0], batch.outputs[5])


def test_a_sample_counts_once_however_many_rows_it_has() -> None:
    batch = Batch.of(trajectories())
    strategy = Autoregressive()
    normalizer = Normalizer(NormalizationSpec(samples=20), strategy.network_schema(SCHEMA, PLAIN))
    scales = strategy.scales(SCHEMA, PLAIN, batch)
    normalizer.update(scales.inputs, scales.outputs, batch.parameters)
    assert not normalizer.is_frozen
    normalizer.update(scales.inputs, scales.outputs, batch.parameters)
    assert normalizer.is_frozen


class ExactInTime(nn.Module):
    """u = source e^{-rate t}, v = mask t; it notes the times that it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Tensor] = []

    def forward(
        self, inputs: Float[Tensor, "batch 4 points"], parameters: Float[Tensor, "batch 2"], query: Query
    ) -> Float[Tensor, "batch 1 2 points"]:
        rate, time = parameters[:, :1], parameters[:, 1:]
        self.asked.append(time[:, 0])
        return torch.stack([inputs[:, 2] * torch.exp(-rate * time), inputs[:, 0] * time], dim=1)[:, None]


@pytest.mark.parametrize("num_times", [1, 2, 3])
def test_times_are_drawn_for_training_and_all_are_forecast(num_times: int) -> None:
    strategy = TimeConditioned(num_times=num_times)
    batch = Batch.of(trajectories())
    network = ExactInTime()
    model = NormalizedNetwork(network, Normalizer(NormalizationSpec(), strategy.network_schema(SCHEMA, PLAIN)), PLAIN)
    at = torch.tensor(SCHEMA.times)[None, :, None]
    u = batch.inputs[:, 2:3] * torch.exp(-batch.parameters[:, :, None] * at)
    batch = batch._replace(outputs=torch.stack([u, batch.inputs[:, :1] * at], dim=2))
    forecast = strategy.forecast(model, SCHEMA, batch.inputs, batch.parameters)
    torch.testing.assert_close(forecast, batch.outputs)
    assert [set(asked.tolist()) for asked in network.asked] == [{time} for time in SCHEMA.times]
    seen = set()
    for seed in range(3):
        network.asked.clear()
        torch.manual_seed(seed)
        assert mean_loss(strategy, model, batch) < 1e-6
        (asked,) = network.asked
        rows = asked.reshape(len(batch.inputs), num_times).tolist()
        assert all(len(set(row)) == num_times for row in rows), "the times of a sample differ"
        seen.add(tuple(map(tuple, rows)))
        torch.manual_seed(seed)
        mean_loss(strategy, model, batch)
        assert torch.equal(network.asked[1], asked), "torch's generator alone decides, which is seeded for every step"
        assert mean_loss(strategy, model, batch._replace(outputs=batch.outputs + 1.0)) > 0.1
    assert {time for rows in seen for row in rows for time in row} == set(SCHEMA.times) and len(seen) == 3


class Asking(nn.Module):
    """Says the time it was asked for, and a random number, everywhere; it notes what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Query] = []

    def forward(
        self, inputs: Float[Tensor, "batch 4 points"], parameters: Float[Tensor, "batch 1"], query: Query
    ) -> Float[Tensor, "batch 1 2 points"]:
        self.asked.append(query)
        assert query.time is not None and query.noise is not None
        values = torch.stack([query.time, query.noise[:, 0]], dim=1)
        return values[:, None, :, None].expand(-1, 1, 2, inputs.shape[2])


def test_a_network_is_asked_for_what_it_declares_and_nothing_else() -> None:
    strategy, can = TimeConditioned(num_times=2), Capabilities(time=True, points=True, noise=3)
    seen = strategy.network_schema(SCHEMA, can)
    assert seen.parameters == SCHEMA.parameters, "the time is no parameter of a network that takes it as a query"
    network = Asking()
    model = NormalizedNetwork(network, Normalizer(NormalizationSpec(), seen), can, seen.domain)
    batch = Batch.of(trajectories())

    def forecast(seed: int) -> Tensor:
        return strategy.forecast(model, SCHEMA, batch.inputs, batch.parameters, torch.Generator().manual_seed(seed))

    found = forecast(0)
    assert torch.equal(found[3, :, 0, 5], torch.tensor([0.5, 1.0, 1.5]) / 1.5)
    assert torch.equal(forecast(0), found) and not torch.equal(forecast(1), found)
    query = network.asked[0]
    assert query.noise is not None and query.noise.shape == (16, 3)
    assert query.points is not None
    torch.testing.assert_close(query.points, torch.arange(12)[:, None] / 12)
    # Every sample of a training step is asked for its times, and the loss is told which.
    told: list[Batch] = []

    def loss(prediction: Tensor, window: Batch) -> Tensor:
        told.append(window)
        return prediction.flatten(1).mean(1)

    network.asked.clear()
    strategy.losses(model, SCHEMA, loss, batch, TrainingStep(step=0, steps=1))
    (window,), (query,) = told, network.asked
    assert window.times is not None and query.time is not None
    torch.testing.assert_close(query.time.reshape(16, 2), window.times / 1.5)
    for row in range(16):
        places = [SCHEMA.times.index(time) for time in window.times[row].tolist()]
        assert torch.equal(window.outputs[row], batch.outputs[row, places])
    assert torch.equal(window.indices, batch.indices) and torch.equal(window.weights, batch.weights)


def test_a_window_of_a_rollout_knows_its_times() -> None:
    batch, told = Batch.of(trajectories()), list[Batch]()

    def loss(prediction: Tensor, window: Batch) -> Tensor:
        told.append(window)
        return prediction.flatten(1).mean(1)

    strategy = Autoregressive(rollout=2)
    strategy.losses(exact(strategy), SCHEMA, loss, batch, TrainingStep(step=0, steps=1))
    (window,) = told
    assert window.times is not None
    for row in range(16):
        places = [SCHEMA.times.index(time) for time in window.times[row].tolist()]
        assert torch.equal(window.outputs[row], batch.outputs[row, places])
    assert {places for places in map(tuple, window.times.tolist())} == {(0.5, 1.0), (1.0, 1.5)}


def test_the_time_has_a_scale_of_its_own() -> None:
    strategy = TimeConditioned()
    assert [field.name for field in strategy.network_schema(SCHEMA, PLAIN).parameters] == ["rate", "time"]
    batch = Batch.of(trajectories())
    normalizer = Normalizer(NormalizationSpec(samples=20), strategy.network_schema(SCHEMA, PLAIN))
    scales = strategy.scales(SCHEMA, PLAIN, batch)
    assert scales.parameters is not None and scales.parameters.shape == (48, 2)
    for is_frozen in (False, True):  # 16 samples a time, whatever the number of their times
        normalizer.update(scales.inputs, scales.outputs, scales.parameters, len(batch.parameters))
        assert normalizer.is_frozen is is_frozen
    moments = normalizer.parameter_moments
    torch.testing.assert_close(moments.mean[1].item(), float(np.mean(SCHEMA.times)))
    torch.testing.assert_close(moments.std[1].item(), float(np.std(SCHEMA.times)))
    torch.testing.assert_close(moments.mean[0].item(), batch.parameters.double().mean().item())


def test_scalars_alone_and_a_time_are_enough_to_learn_from(tmp_path: Path) -> None:
    """A trajectory without input fields, by an MLP; gone on with from a checkpoint it ends in the same weights."""
    schema = dataclasses.replace(SCHEMA, inputs=(), parameters=(FieldSpec(name="rate"), FieldSpec(name="size")))
    rng = np.random.default_rng(0)
    parameters = rng.uniform(0.5, 1.5, size=(64, 2)).astype(np.float32)
    x = 2.0 * np.pi * np.arange(12) / 12
    decay = parameters[:, 1:] * np.exp(-parameters[:, :1] * np.array(SCHEMA.times))
    outputs = decay[:, :, None, None] * np.stack([np.sin(x), np.cos(x)])
    samples = SampleBatch(
        indices=np.arange(64),
        inputs=np.zeros((64, 0, 12), dtype=np.float32),
        outputs=outputs.astype(np.float32),
        parameters=parameters,
    )

    training = TrainingSpec.model_validate(
        {
            "strategy": {"kind": "time_conditioned"},
            "steps": 150,
            "batch_size": 16,
            "checkpoint_every": 50,
            "optimizer": {"kind": "adamw", "learning_rate": 3e-3},
        }
    )

    def train(folder: Path, resume: Path | None) -> Path:
        result = fit(
            surrogate=MLP(hidden=(32, 32)),
            training=training,
            schema=schema,
            data=StoredDataModule(samples=samples, batch_size=16),
            checkpoint_dir=folder,
            resume=resume,
            num_threads=1,
        )
        assert result.checkpoint is not None
        return result.checkpoint

    whole = train(tmp_path / "whole", None)
    prediction = Predictor.from_checkpoint(whole).predict(samples.inputs, parameters)
    assert prediction.shape == samples.outputs.shape
    error = np.linalg.norm(prediction - samples.outputs) / np.linalg.norm(samples.outputs)
    mean = np.linalg.norm(samples.outputs - samples.outputs.mean(axis=1, keepdims=True)) / np.linalg.norm(
        samples.outputs
    )
    assert error < 0.5 * mean, "the error of a network that does not look at the time is at least the mean's"
    again = train(tmp_path / "again", tmp_path / "whole" / "step-000050.pt")
    first, second = load_checkpoint(whole).weights, load_checkpoint(again).weights
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (dataclasses.replace(SCHEMA, times=(0.0,)), "one output time: there is none to choose. direct learns it"),
        (dataclasses.replace(SCHEMA, times=(0.5, 1.0)), "num_times of 3 is more than the 2 output times of a sample"),
    ],
)
def test_a_problem_without_times_to_choose_is_refused(schema: SampleSchema, words: str) -> None:
    reason = TrainingSpec(strategy=TimeConditioned(num_times=3)).mismatch(schema)
    assert reason is not None and reason.startswith("strategy time_conditioned: ") and words in reason
    assert TimeConditioned(num_times=3).mismatch(SCHEMA) is None


@pytest.mark.parametrize("kind", kinds("headrace.strategies", STRATEGIES).values())
def test_a_surrogate_trained_by_any_strategy_forecasts_all_times_from_its_checkpoint(
    kind: type[AbstractStrategy], tmp_path: Path
) -> None:
    strategy = kind()
    if reason := strategy.mismatch(SCHEMA):
        pytest.skip(reason)
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
    assert load_checkpoint(tmp_path / "old.pt").strategy == AllAtOnce()


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
