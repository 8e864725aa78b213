"""Solvers in any language: a program outside Headrace is run for every sample (see docs/external_solvers.md)."""

from headrace.platform.spec import one_of
from headrace.solvers.external.source import ExternalSource
from headrace.solvers.external.spec import External
from headrace.solvers.problems import PROBLEMS

AnySampled = one_of("headrace.problems", (*PROBLEMS, External))
"""Whatever samples can be made from: an equation that Headrace solves, or a program."""

__all__ = ["AnySampled", "External", "ExternalSource"]
