"""The optimisers that come with Headrace, one a file."""

from headrace.platform.spec import one_of
from headrace.surrogates.optimizers.adamw import AdamW
from headrace.surrogates.optimizers.muon import Muon

OPTIMIZERS = (AdamW, Muon)
AnyOptimizer = one_of("headrace.optimizers", OPTIMIZERS)

__all__ = ["OPTIMIZERS", "AdamW", "AnyOptimizer", "Muon"]
