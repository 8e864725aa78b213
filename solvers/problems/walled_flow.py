"""AbstractWalledFlow: incompressible flow between walls that stand, which the Reynolds number describes."""

from collections.abc import Mapping
from typing import Self

from pydantic import model_validator

from headrace.platform.fields import FieldSpec
from headrace.solvers.evolution.incompressible import AbstractIncompressible
from headrace.solvers.random_inputs.parameters import Scalar, Uniform, require_between


class AbstractWalledFlow(AbstractIncompressible):
    """Incompressible flow whose inputs show its walls, and whose parameter is the Reynolds number.

    Attributes:
        reynolds: Reynolds number Re, a number, or drawn from a range; positive.
    """

    reynolds: Scalar = Uniform(low=100.0, high=1000.0, scale="log")

    @model_validator(mode="after")
    def _positive(self) -> Self:
        require_between(self.scalars, ["reynolds"], 0.0)
        return self

    @property
    def constants(self) -> tuple[FieldSpec, ...]:
        """`mask`, 1 in the fluid and 0 in obstacles, and `signed_distance` from the nearest wall or obstacle."""
        return (FieldSpec(name="mask"), FieldSpec(name="signed_distance"))

    @property
    def scalars(self) -> Mapping[str, Scalar]:
        """The Reynolds number."""
        return {"reynolds": self.reynolds}
