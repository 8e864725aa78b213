"""Losses: what training makes small. A loss is its spec, with a method."""

from abc import abstractmethod
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from headrace.platform.fields import Domain
from headrace.platform.spec import Spec, one_of
from headrace.surrogates.metrics import relative_h1, relative_l2


class AbstractLoss(Spec):
    """The spec of a loss.

    Fields come with every channel divided by its standard deviation, so that channels of different units weigh alike; a
    relative loss of a single channel is the same in physical units.
    """

    @abstractmethod
    def __call__(
        self,
        prediction: Float[Tensor, "batch time channels *grid"],
        truth: Float[Tensor, "batch time channels *grid"],
        grid: Domain,
    ) -> Float[Tensor, ""]:
        """The mean over the batch.

        Args:
            prediction: what the network says.
            truth: what the solver said.
            grid: the domain; the fields may be sampled on it at another resolution.
        """


class RelativeL2(AbstractLoss):
    """Mean of ||u - v||_2 / ||v||_2: every sample counts alike, whatever its size."""

    kind: Literal["relative_l2"] = "relative_l2"

    def __call__(
        self,
        prediction: Float[Tensor, "batch time channels *grid"],
        truth: Float[Tensor, "batch time channels *grid"],
        grid: Domain,
    ) -> Float[Tensor, ""]:
        """The mean over the batch."""
        return relative_l2(prediction, truth, grid).mean()


class RelativeH1(AbstractLoss):
    """Mean of ||u - v||_H1 / ||v||_H1: gradients count too, which sharpens fronts and fluxes."""

    kind: Literal["relative_h1"] = "relative_h1"

    def __call__(
        self,
        prediction: Float[Tensor, "batch time channels *grid"],
        truth: Float[Tensor, "batch time channels *grid"],
        grid: Domain,
    ) -> Float[Tensor, ""]:
        """The mean over the batch."""
        return relative_h1(prediction, truth, grid).mean()


LOSSES = (RelativeL2, RelativeH1)
AnyLoss = one_of("headrace.losses", LOSSES)
