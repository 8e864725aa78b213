"""Whatever samples can be made from: an equation that Headrace solves or follows in time, or a program."""

from headrace.platform.spec import one_of
from headrace.solvers.external.spec import External
from headrace.solvers.problems import EVOLUTIONS, PROBLEMS
from headrace.solvers.sampled import AbstractSampled

SAMPLED: tuple[type[AbstractSampled], ...] = (*PROBLEMS, *EVOLUTIONS, External)
AnySampled = one_of("headrace.problems", SAMPLED)
