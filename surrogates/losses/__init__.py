"""The losses that come with Headrace, one a file."""

from headrace.platform.spec import one_of
from headrace.surrogates.loss import AbstractLoss
from headrace.surrogates.losses.relative_h1 import RelativeH1
from headrace.surrogates.losses.relative_l2 import RelativeL2

LOSSES = (RelativeL2, RelativeH1)
AnyLoss = one_of("headrace.losses", LOSSES)

__all__ = ["LOSSES", "AbstractLoss", "AnyLoss", "RelativeH1", "RelativeL2"]
