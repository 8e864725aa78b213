"""Query: what a network is asked for, beside what it is given."""

from typing import NamedTuple

from jaxtyping import Float

from headrace.platform.lazy_torch import Tensor


class Query(NamedTuple):
    """When, where, and with which random numbers a network shall predict.

    Each is there when the network declares that it takes it (`Capabilities`), and None when it does not.

    Attributes:
        time: of the prediction, for each sample, as a share of the last output time.
        points: coordinates of the points to predict at, the same for all samples, as shares of the box around the
            domain; those of a grid in the order of its flattened fields.
        noise: standard normal numbers, for each sample; another draw gives another member of an ensemble.
    """

    time: Float[Tensor, " batch"] | None = None
    points: Float[Tensor, "points dim"] | None = None
    noise: Float[Tensor, "batch num_noise"] | None = None


NOTHING = Query()
