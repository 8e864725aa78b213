"""AbstractStrategy: what a network learns of a trajectory, and how it then forecasts one."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float

from headrace.platform.fields import SampleSchema
from headrace.platform.lazy_torch import Tensor, torch
from headrace.platform.spec import Spec
from headrace.surrogates.batch import Batch
from headrace.surrogates.capabilities import Capabilities
from headrace.surrogates.loss import Loss
from headrace.surrogates.normalization import NormalizedNetwork, Scales


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """Where training stands, and what is drawn from.

    Attributes:
        step: finished optimiser steps, those before a resume included.
        steps: planned ones.
        generator: of the device, seeded for this step and rank: with it a step draws the same after a resume. None is
            torch's own.
    """

    step: int
    steps: int
    generator: torch.Generator | None = None

    @property
    def progress(self) -> float:
        """The share of the planned steps that is done, from 0 to 1."""
        return min(self.step / self.steps, 1.0)


class AbstractStrategy(Spec):
    """The spec of a strategy: which network is built for a problem, what it is trained on, how it predicts all times.

    A new strategy is a subclass with `kind: Literal["its_name"] = "its_name"`, in a file of its own, named in the tuple
    `STRATEGIES` of `strategies/__init__.py` or in an entry point of the group `headrace.strategies`.
    """

    tells_time: ClassVar[bool] = False
    """Whether it tells a network the time of the prediction."""

    any_time: ClassVar[bool] = False
    """Whether `forecast_at` takes any times, and not those of the schema alone."""

    history: ClassVar[int] = 1
    """States of the past that it gives a network."""

    def mismatch(self, schema: SampleSchema) -> str | None:
        """Why a problem with this schema cannot be learned this way, or None when it can."""
        return None

    def network_mismatch(self, capabilities: Capabilities) -> str | None:
        """Why a network that declares this cannot be trained this way, or None when it can."""
        if capabilities.time and not self.tells_time:
            return f"it wants to be told the time of the prediction, which strategy {self._kind} does not do"
        if capabilities.history > self.history:
            return (
                f"it wants to see {capabilities.history} states of the past, strategy {self._kind} gives {self.history}"
            )
        return None

    @abstractmethod
    def network_schema(self, schema: SampleSchema, capabilities: Capabilities) -> SampleSchema:
        """What a network that declares this sees of a problem; `schema` must not mismatch."""

    @abstractmethod
    def scales(self, schema: SampleSchema, capabilities: Capabilities, batch: Batch) -> Scales:
        """The fields that the normaliser learns its scales from: what enters the network, and what it has to say."""

    def deviations(
        self, model: NormalizedNetwork, schema: SampleSchema
    ) -> Callable[[], Float[Tensor, " channels_out"]] | None:
        """What says how much the output fields vary over the data set, in units of what the network has to say.

        None, the default, where it says the fields themselves.
        """
        return None

    @abstractmethod
    def losses(
        self, model: NormalizedNetwork, schema: SampleSchema, loss: Loss, batch: Batch, at: TrainingStep
    ) -> Float[Tensor, " batch"]:
        """The loss of each sample of a batch; they are averaged elsewhere.

        Args:
            model: the network in physical units.
            schema: the problem's.
            loss: to be handed a prediction and a batch with the outputs to compare it with.
            batch: the samples.
            at: where training stands, and what to draw from.
        """

    @abstractmethod
    def forecast(
        self,
        model: NormalizedNetwork,
        schema: SampleSchema,
        inputs: Float[Tensor, "batch channels_in *grid"],
        parameters: Float[Tensor, "batch num_parameters"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch time channels_out *grid"]:
        """All output times from the inputs.

        Args:
            model: the network in physical units.
            schema: the problem's.
            inputs: the fields at the start.
            parameters: the scalars.
            generator: what a network that takes noise draws it from; None is torch's own.
        """

    def forecast_at(
        self,
        model: NormalizedNetwork,
        schema: SampleSchema,
        inputs: Float[Tensor, "batch channels_in *grid"],
        parameters: Float[Tensor, "batch num_parameters"],
        times: Sequence[float],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch time channels_out *grid"]:
        """Some output times from the inputs; see `forecast`.

        Args:
            model: the network in physical units.
            schema: the problem's.
            inputs: the fields at the start.
            parameters: the scalars.
            times: which ones; each is in the schema unless `any_time`. This base picks them from a whole forecast.
            generator: what a network that takes noise draws it from; None is torch's own.
        """
        whole = self.forecast(model, schema, inputs, parameters, generator)
        picked: Float[Tensor, "batch time channels_out *grid"] = whole[:, [schema.times.index(time) for time in times]]
        return picked

    @property
    def _kind(self) -> str:
        return str(type(self).model_fields["kind"].default)
