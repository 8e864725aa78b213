"""The learning-rate schedules that come with Headrace, one a file."""

from headrace.platform.spec import one_of
from headrace.surrogates.schedules.constant import Constant
from headrace.surrogates.schedules.cosine import Cosine
from headrace.surrogates.schedules.linear import Linear
from headrace.surrogates.schedules.one_cycle import OneCycle
from headrace.surrogates.schedules.staircase import Staircase

SCHEDULES = (OneCycle, Cosine, Linear, Constant, Staircase)
AnySchedule = one_of("headrace.schedules", SCHEDULES)

__all__ = ["SCHEDULES", "AnySchedule", "Constant", "Cosine", "Linear", "OneCycle", "Staircase"]
