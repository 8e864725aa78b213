"""AbstractSurrogate: the description of a network that learns what a solver computes."""

from abc import abstractmethod

from headrace.platform.fields import SampleSchema
from headrace.platform.lazy_torch import nn
from headrace.platform.spec import Spec, kind_of
from headrace.surrogates.capabilities import Capabilities


class AbstractSurrogate(Spec):
    """The spec of a network; `build` makes the network for a problem's schema.

    The network is an `nn.Module` whose `forward(inputs, parameters, query)` takes `inputs` of shape
    "batch channels_in *grid", `parameters` of shape "batch num_parameters" (zero columns when the problem has none) and
    a `Query`, and returns "batch time channels_out *grid". It works in normalised units: normalisation lives outside
    (`normalization.py`).

    A new surrogate is a subclass with `kind: Literal["its_name"] = "its_name"`, in a file of its own, named in the
    tuple `SURROGATES` of `models/__init__.py` or in an entry point of the group `headrace.surrogates`. It declares its
    `capabilities`.
    """

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What it can do."""

    @abstractmethod
    def build(self, schema: SampleSchema) -> nn.Module:
        """The network for this schema; its initial weights come from torch's global generator."""

    def mismatch(self, schema: SampleSchema) -> str | None:
        """Why this surrogate cannot learn a problem with this schema, or None when it can.

        This base compares the schema with what is declared; a network with more to say asks it first.
        """
        return self.capabilities.mismatch(kind_of(type(self)), schema)

    def num_weights(self, schema: SampleSchema) -> int | None:
        """How many numbers training changes, known before anything is built; None, the default, where it is not."""
        return None
