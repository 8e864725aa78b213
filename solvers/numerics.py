"""Numerics: how finely an equation is solved for the points and times that are asked for."""

from typing import Annotated

from pydantic import Field, PositiveFloat

from headrace.platform.spec import Spec


class Numerics(Spec):
    """How finely an equation is solved for the points and times that are asked for.

    Attributes:
        refinement: the solver's points for each point of the output grid, along each axis; between nodes, intervals.
        step: largest time step, in the equation's unit of time; None for the equation's own on that grid, and for
            equations without time.
    """

    refinement: Annotated[int, Field(ge=1, le=64)] = 1
    step: PositiveFloat | None = None
