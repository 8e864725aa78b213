"""The training strategies that come with Headrace, one a file."""

from headrace.platform.spec import one_of
from headrace.surrogates.strategies.all_at_once import AllAtOnce
from headrace.surrogates.strategies.autoregressive import Autoregressive
from headrace.surrogates.strategies.time_conditioned import TimeConditioned

STRATEGIES = (AllAtOnce, Autoregressive, TimeConditioned)
AnyStrategy = one_of("headrace.strategies", STRATEGIES)

__all__ = ["STRATEGIES", "AnyStrategy", "Autoregressive", "AllAtOnce", "TimeConditioned"]
