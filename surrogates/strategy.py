"""AbstractStrategy: what a network learns of a trajectory, and how it then forecasts one."""

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor

from headrace.platform.fields import SampleSchema
from headrace.platform.spec import Spec
from headrace.surrogates.batch import Batch
from headrace.surrogates.losses import AbstractLoss
from headrace.surrogates.normalization import NormalizedNetwork, Scales


class AbstractStrategy(Spec):
    """The spec of a strategy: which network is built for a problem, what it is trained on, how it predicts all times.

    A new strategy is a subclass with `kind: Literal["its_name"] = "its_name"`, in a file of its own, named in the tuple
    `STRATEGIES` of `strategies/__init__.py` or in an entry point of the group `headrace.strategies`.
    """

    def mismatch(self, schema: SampleSchema) -> str | None:
        """Why a problem with this schema cannot be learned this way, or None when it can."""
        return None

    @abstractmethod
    def network_schema(self, schema: SampleSchema) -> SampleSchema:
        """What the network sees of a problem; `schema` must not mismatch."""

    @abstractmethod
    def scales(self, schema: SampleSchema, batch: Batch) -> Scales:
        """The fields that the normaliser learns its scales from: what enters the network, and what it has to say."""

    @abstractmethod
    def loss(
        self, model: NormalizedNetwork, schema: SampleSchema, loss: AbstractLoss, batch: Batch
    ) -> Float[Tensor, ""]:
        """The loss of a batch of samples."""

    @abstractmethod
    def forecast(
        self,
        model: NormalizedNetwork,
        schema: SampleSchema,
        inputs: Float[Tensor, "batch channels_in *grid"],
        parameters: Float[Tensor, "batch num_parameters"],
    ) -> Float[Tensor, "batch time channels_out *grid"]:
        """All output times from the inputs."""
