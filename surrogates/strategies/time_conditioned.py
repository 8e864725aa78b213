"""TimeConditioned: the time goes in, the state at that time comes out."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

from jaxtyping import Float

from headrace.platform.fields import FieldSpec, SampleSchema
from headrace.platform.lazy_torch import Tensor, torch
from headrace.platform.spec import Count
from headrace.surrogates.batch import Batch
from headrace.surrogates.capabilities import Capabilities
from headrace.surrogates.loss import Loss
from headrace.surrogates.normalization import NormalizedNetwork, Scales
from headrace.surrogates.strategy import AbstractStrategy, TrainingStep


class TimeConditioned(AbstractStrategy):
    """The network goes from the inputs at time 0, the parameters and a time straight to the state at that time.

    A network that takes `query.time` is told it there; for any other the time is one more parameter, the last one, with
    a scale of its own. So every output time is one step away and
    errors do not add up, as in the experiments of Meyer et al. (ICML 2023) with fully connected networks; and unlike
    `direct` the network has one time to say and not all of them, however many there are. It suits what a few scalars
    describe, and trajectories that forget their start; a chaotic one is better followed from time to time.

    In every training step each sample counts with `num_times` of its output times, drawn at random, all different.
    Forecasts ask for all of them, one after the other. All networks that take parameters or a time can be
    trained so.

    Good values: num_times 1, and more where solving is dear and a step of training cheap: it costs as many samples.

    Attributes:
        num_times: output times of each sample in a training step.
    """

    kind: Literal["time_conditioned"] = "time_conditioned"
    num_times: Count = 1

    tells_time: ClassVar[bool] = True
    any_time: ClassVar[bool] = True

    def mismatch(self, schema: SampleSchema) -> str | None:
        """Why there is no time to choose, or None."""
        if schema.parts > 1:
            return f"a trajectory comes in {schema.parts} parts, and only the first one starts at time 0"
        count = len(schema.times)
        if count == 1:
            return "samples have one output time: there is none to choose. direct learns it"
        if self.num_times > count:
            return f"num_times of {self.num_times} is more than the {count} output times of a sample"
        return None

    def network_schema(self, schema: SampleSchema, capabilities: Capabilities) -> SampleSchema:
        """The problem with one output time, which is a parameter unless the network takes it as a query."""
        time = () if capabilities.time else (FieldSpec(name="time"),)
        return dataclasses.replace(schema, parameters=(*schema.parameters, *time), times=schema.times[:1])

    def scales(self, schema: SampleSchema, capabilities: Capabilities, batch: Batch) -> Scales:
        """Inputs and outputs as they are, and the parameters with every output time where that is one of them."""
        if capabilities.time:
            return Scales(batch.inputs, batch.outputs)
        parameters = _with_times(batch.parameters, _times(schema, batch.outputs).expand(len(batch.outputs), -1))
        return Scales(batch.inputs, batch.outputs, parameters)

    def losses(
        self, model: NormalizedNetwork, schema: SampleSchema, loss: Loss, batch: Batch, at: TrainingStep
    ) -> Float[Tensor, " batch"]:
        """Over some output times of each sample."""
        samples, count = batch.outputs.shape[:2]
        # The places of random numbers in their order: times that differ.
        places = torch.rand(samples, count, device=batch.outputs.device, generator=at.generator)
        chosen = places.argsort(dim=1)[:, : self.num_times]
        truth = batch.outputs[torch.arange(samples, device=chosen.device)[:, None], chosen]
        times = _times(schema, batch.outputs)[chosen]
        inputs = batch.inputs.repeat_interleave(self.num_times, dim=0)
        said = _ask(model, schema, inputs, batch.parameters, times, at.generator)
        return loss(said.reshape(truth.shape), batch._replace(outputs=truth, times=times))

    def forecast(
        self,
        model: NormalizedNetwork,
        schema: SampleSchema,
        inputs: Float[Tensor, "batch channels_in *grid"],
        parameters: Float[Tensor, "batch num_parameters"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch time channels_out *grid"]:
        """What the network says of every output time."""
        return self.forecast_at(model, schema, inputs, parameters, schema.times, generator)

    def forecast_at(
        self,
        model: NormalizedNetwork,
        schema: SampleSchema,
        inputs: Float[Tensor, "batch channels_in *grid"],
        parameters: Float[Tensor, "batch num_parameters"],
        times: Sequence[float],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch time channels_out *grid"]:
        """What the network says of these times; one at a time, since all of them may not fit into memory."""
        found = [
            _ask(model, schema, inputs, parameters, time.expand(parameters.shape[0], 1), generator)
            for time in torch.tensor(times, dtype=parameters.dtype, device=parameters.device)
        ]
        return torch.stack(found, dim=1)


def _ask(
    model: NormalizedNetwork,
    schema: SampleSchema,
    inputs: Float[Tensor, "rows channels_in *grid"],
    parameters: Float[Tensor, "batch num_parameters"],
    times: Float[Tensor, "batch chosen"],
    generator: torch.Generator | None,
) -> Float[Tensor, "rows channels_out *grid"]:
    """What a network says of each sample at each of its times, sample after sample."""
    if not model.capabilities.time:
        said = model(inputs, _with_times(parameters, times), generator=generator)
    else:
        parameters = parameters.repeat_interleave(times.shape[1], dim=0)
        said = model(inputs, parameters, time=times.reshape(-1) / schema.times[-1], generator=generator)
    first: Float[Tensor, "rows channels_out *grid"] = said[:, 0]
    return first


def _times(schema: SampleSchema, like: Tensor) -> Float[Tensor, " time"]:
    """The output times, in the precision of a field."""
    return torch.tensor(schema.times, dtype=like.dtype, device=like.device)


def _with_times(
    parameters: Float[Tensor, "batch num_parameters"], times: Float[Tensor, "batch chosen"]
) -> Float[Tensor, "rows num_parameters_and_time"]:
    """For each sample and each of its times a row of its parameters and the time, sample after sample."""
    repeated = parameters.repeat_interleave(times.shape[1], dim=0)
    return torch.cat([repeated, times.reshape(-1, 1)], dim=1)
