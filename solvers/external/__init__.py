"""Solvers in any language: a program outside Headrace is run for every sample (see docs/external_solvers.md)."""

from headrace.solvers.external.source import ExternalSource
from headrace.solvers.external.spec import External

__all__ = ["External", "ExternalSource"]
