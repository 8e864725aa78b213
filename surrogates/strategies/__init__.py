"""The training strategies that come with Headrace, one a file."""

from headrace.platform.spec import one_of
from headrace.surrogates.strategies.autoregressive import Autoregressive
from headrace.surrogates.strategies.direct import Direct

STRATEGIES = (Direct, Autoregressive)
AnyStrategy = one_of("headrace.strategies", STRATEGIES)

__all__ = ["STRATEGIES", "AnyStrategy", "Autoregressive", "Direct"]
