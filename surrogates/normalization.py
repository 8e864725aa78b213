"""NormalizationSpec: how fields are scaled for the network. What carries it out is in `normalizer.py`."""

from typing import TYPE_CHECKING, Annotated, NamedTuple

from jaxtyping import Float
from pydantic import Field

from headrace.platform.fields import SampleSchema
from headrace.platform.lazy_torch import Tensor, stand_in
from headrace.platform.spec import Spec

if TYPE_CHECKING:
    from headrace.surrogates.normalizer import NormalizedNetwork as NormalizedNetwork
else:
    # For the annotations of strategies, which are specs.
    NormalizedNetwork = stand_in("headrace.surrogates.normalizer", "NormalizedNetwork")


class NormalizationSpec(Spec):
    """How inputs, parameters and outputs are scaled for the network.

    Attributes:
        samples: how many samples, over all ranks, the statistics are learned from; one that is used again does not
            count again. They then freeze, because a scale that moves under a trained network's feet undoes its
            training; while they are learned the learning rate of most schedules is still low. In a stream that is
            sorted so many samples from all over it come first, so that the scales hold of the rest. 0 means that they
            never freeze.
        log: names of positive input fields that the network sees as logarithms. It pays where a field spans decades,
            like a log-normal permeability.
    """

    samples: Annotated[int, Field(ge=0, le=10**12)] = 512
    log: tuple[str, ...] = ()

    def mismatch(self, schema: SampleSchema) -> str | None:
        """Why this does not fit the schema, or None."""
        names = [field.name for field in schema.inputs]
        unknown = [name for name in self.log if name not in names]
        return f"log names {', '.join(unknown)}, the inputs are {', '.join(names)}" if unknown else None


class Scales(NamedTuple):
    """What scales are learned from: the fields and scalars that enter the network, and what it has to say.

    Attributes:
        inputs: fields.
        outputs: what it has to say.
        parameters: scalars; None for those of the samples.
    """

    inputs: Float[Tensor, "rows channels_in *grid"]
    outputs: Float[Tensor, "rows time channels_out *grid"]
    parameters: Float[Tensor, "rows num_parameters"] | None = None
