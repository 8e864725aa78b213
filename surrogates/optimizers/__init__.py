"""The optimisers that come with Headrace, one a file."""

from headrace.platform.spec import one_of
from headrace.surrogates.optimizers.adamw import AdamW

OPTIMIZERS = (AdamW,)
AnyOptimizer = one_of("headrace.optimizers", OPTIMIZERS)

__all__ = ["OPTIMIZERS", "AdamW", "AnyOptimizer"]
