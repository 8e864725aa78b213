"""Autoregressive: from one output time to the next, again and again."""

import dataclasses
from collections.abc import Callable
from typing import Literal

from jaxtyping import Float, Int64

from headrace.platform.fields import FieldSpec, SampleSchema
from headrace.platform.lazy_torch import Tensor, torch
from headrace.platform.spec import Count
from headrace.surrogates.batch import Batch
from headrace.surrogates.capabilities import Capabilities
from headrace.surrogates.loss import Loss
from headrace.surrogates.normalization import NormalizedNetwork, Scales
from headrace.surrogates.strategy import AbstractStrategy, TrainingStep


class Autoregressive(AbstractStrategy):
    """The network goes from one output time to the next; its own predictions are its next inputs.

    In every training step each sample starts at a random output time and is followed for `rollout` times, with
    gradients through all of them. With `increment` the network predicts by how much the state changes, in units of the
    standard deviation of such changes: of a small step, the state itself is mostly what went in.

    Good values: rollout 1 to start with, 2 to 8 for forecasts that stay stable for longer, at as many times the cost.

    Attributes:
        rollout: times that are followed in a training step.
        predict: whether the network says the next state or the change.
    """

    kind: Literal["autoregressive"] = "autoregressive"
    rollout: Count = 1
    predict: Literal["increment", "state"] = "increment"

    def mismatch(self, schema: SampleSchema) -> str | None:
        """Why the output times are not such a sequence, or None when they are."""
        fields = {spec.name: spec for spec in schema.inputs}
        for spec in schema.outputs:
            if fields.get(spec.name) != spec:
                return f"{spec.name} is an output and no input: its next value does not follow from the last"
        if not schema.is_evenly_timed:
            return "the output times are not evenly spaced from 0 on"
        if self.rollout > len(schema.times):
            return f"a rollout of {self.rollout} is longer than a sample with {len(schema.times)} output time(s)"
        return None

    def network_schema(self, schema: SampleSchema, capabilities: Capabilities) -> SampleSchema:
        """The problem with one output time, the next."""
        return dataclasses.replace(schema, times=schema.times[:1])

    def scales(self, schema: SampleSchema, capabilities: Capabilities, batch: Batch) -> Scales:
        """All states but the last of every sample, and what the network has to say of each."""
        states = _states(schema, batch)
        before, after = states[:, :-1], states[:, 1:]
        said = after - before if self.predict == "increment" else after
        inputs = batch.inputs
        entering = inputs[:, None].expand(-1, before.shape[1], *inputs.shape[1:]).clone()
        entering[:, :, _state_channels(schema).to(inputs.device)] = before
        return Scales(entering.flatten(0, 1), said.flatten(0, 1)[:, None])

    def deviations(
        self, model: NormalizedNetwork, schema: SampleSchema
    ) -> Callable[[], Float[Tensor, " channels_out"]] | None:
        """Of increments: how much larger the states are that enter the network."""
        channels, normalizer = _state_channels(schema), model.normalizer
        if self.predict == "state" or bool(normalizer.logarithmic.cpu()[channels].any()):
            return None
        return lambda: normalizer.input_moments.std[channels] / normalizer.output_moments.std

    def losses(
        self, model: NormalizedNetwork, schema: SampleSchema, loss: Loss, batch: Batch, at: TrainingStep
    ) -> Float[Tensor, " batch"]:
        """Over the times of a rollout from a random output time on."""
        states = _states(schema, batch)
        starts = torch.randint(
            states.shape[1] - self.rollout, (len(states), 1), device=states.device, generator=at.generator
        )
        rows = torch.arange(len(states), device=states.device)[:, None]
        places = starts + torch.arange(self.rollout + 1, device=states.device)
        window = states[rows, places]
        prediction = self._roll(model, schema, batch.inputs, window[:, 0], batch.parameters, self.rollout, at.generator)
        # The k-th state comes after k steps of equal length: `mismatch` sees to that.
        times = places[:, 1:].to(window.dtype) * schema.times[0]
        return loss(prediction, batch._replace(outputs=window[:, 1:], times=times))

    def forecast(
        self,
        model: NormalizedNetwork,
        schema: SampleSchema,
        inputs: Float[Tensor, "batch channels_in *grid"],
        parameters: Float[Tensor, "batch num_parameters"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch time channels_out *grid"]:
        """A rollout over all output times."""
        start = inputs[:, _state_channels(schema).to(inputs.device)]
        return self._roll(model, schema, inputs, start, parameters, len(schema.times), generator)

    def _roll(
        self,
        model: NormalizedNetwork,
        schema: SampleSchema,
        inputs: Float[Tensor, "batch channels_in *grid"],
        state: Float[Tensor, "batch channels_out *grid"],
        parameters: Float[Tensor, "batch num_parameters"],
        count: int,
        generator: torch.Generator | None,
    ) -> Float[Tensor, "batch time channels_out *grid"]:
        channels, found = _state_channels(schema).to(inputs.device), []
        for _ in range(count):
            said = model(inputs.index_copy(1, channels, state), parameters, generator=generator)[:, 0]
            state = state + said if self.predict == "increment" else said
            found.append(state)
        return torch.stack(found, dim=1)


def _states(schema: SampleSchema, batch: Batch) -> Float[Tensor, "batch states channels_out *grid"]:
    """The state at time 0 and at all output times."""
    first = batch.inputs[:, None, _state_channels(schema).to(batch.inputs.device)]
    return torch.cat([first, batch.outputs], dim=1)


def _state_channels(schema: SampleSchema) -> Int64[Tensor, " channels_out"]:
    """Which input channel each output channel is at time 0."""
    first: dict[str, int] = {}
    count = 0
    for spec in schema.inputs:
        first[spec.name] = count
        count += spec.components

    def of(spec: FieldSpec) -> range:
        return range(first[spec.name], first[spec.name] + spec.components)

    return torch.tensor([channel for spec in schema.outputs for channel in of(spec)], dtype=torch.int64)
