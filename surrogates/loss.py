"""AbstractLoss: what training makes small, built for a run."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float

from headrace.platform.fields import SampleSchema
from headrace.platform.lazy_torch import Tensor, torch
from headrace.platform.spec import Spec
from headrace.surrogates.batch import Batch


@runtime_checkable
class OutputScales(Protocol):
    """The scales that the normaliser has learned so far; they move until it freezes, so ask in every step."""

    def in_standard_deviations(
        self, outputs: Float[Tensor, "batch time channels_out *grid"]
    ) -> Float[Tensor, "batch time channels_out *grid"]:
        """Physical outputs with every channel divided by its standard deviation, not shifted."""
        ...


@runtime_checkable
class Residual(Protocol):
    """How far fields are from solving the problem's equation."""

    def __call__(self, outputs: Float[Tensor, "batch time channels_out *grid"], batch: Batch) -> Float[Tensor, "..."]:
        """The residual of physical outputs at every point, samples first, differentiable; 0 for a solution.

        Args:
            outputs: what the network says, at `batch.times` where these are given.
            batch: the samples, with the inputs and parameters that the equation has.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class LossContext:
    """What a loss knows of the run that it is built for.

    Attributes:
        schema: what the samples look like; of trajectories that come in parts, whole.
        device: where batches lie.
        scales: of the outputs.
        residual: the problem's, when it has one that tensors go through.
        deviations: the standard deviations of the output fields, in units of `scales`, learned so far; None where
            these are the fields' own, and so 1.
    """

    schema: SampleSchema
    device: torch.device
    scales: OutputScales
    residual: Residual | None = None
    deviations: Callable[[], Float[Tensor, " channels_out"]] | None = None

    def field_scale(self, like: Float[Tensor, "batch time channels_out *grid"]) -> Float[Tensor, " channels_out"]:
        """How large the output fields are over the data set, in units of `scales`: what denominators are guarded by."""
        return like.new_ones(like.shape[2]) if self.deviations is None else self.deviations().to(like.dtype)


@runtime_checkable
class Loss(Protocol):
    """A loss of a run."""

    def __call__(
        self, prediction: Float[Tensor, "batch time channels_out *grid"], batch: Batch
    ) -> Float[Tensor, " batch"]:
        """One value for each sample; the trainer weighs and averages them, over all ranks.

        Args:
            prediction: what the network says, in physical units.
            batch: the samples; `outputs` are those to compare with, which may be some of a sample's times only, and
                the fields may be sampled on the schema's domain at another resolution.
        """
        ...


class AbstractLoss(Spec):
    """The spec of a loss; `build` makes the loss of a run.

    A new loss is a subclass with `kind: Literal["its_name"] = "its_name"`, in a file of its own, named in the tuple
    `LOSSES` of `losses/__init__.py` or in an entry point of the group `headrace.losses`. What holds of it is declared,
    and tested.
    """

    vanishes_at_truth: ClassVar[bool] = True
    """Whether it is zero where the prediction is the sample's own output: not so of one that looks at the equation."""

    is_relative: ClassVar[bool] = False
    """Whether prediction and truth can be multiplied by the same number and it stays what it is."""

    def mismatch(self, schema: SampleSchema) -> str | None:
        """Why this loss cannot be taken of samples with this schema, or None when it can."""
        return None

    @abstractmethod
    def build(self, context: LossContext) -> Loss:
        """The loss of a run; called once on each rank, when the network is on its device."""
