"""The surrogates that come with Headrace, one network a file."""

from headrace.platform.spec import one_of
from headrace.surrogates.models.fno import FNO
from headrace.surrogates.models.mlp import MLP

SURROGATES = (FNO, MLP)
AnySurrogate = one_of("headrace.surrogates", SURROGATES)

__all__ = ["FNO", "MLP", "SURROGATES", "AnySurrogate"]
