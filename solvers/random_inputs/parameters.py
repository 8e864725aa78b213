"""Scalars of an equation: fixed, or drawn for each sample between two bounds."""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from headrace.platform.fields import FieldSpec
from headrace.platform.samplers.sampler import Axis
from headrace.platform.spec import FieldError, Spec

Bound = Annotated[float, Field(ge=-1e30, le=1e30)]


class Uniform(Spec):
    """A parameter that is drawn uniformly between two bounds, or so that its logarithm is uniform.

    Attributes:
        low: the least value that may be drawn.
        high: the largest one; equal to `low` for a constant.
        scale: whether values are drawn evenly on a `linear` or a `log` scale.
        unit: of the parameter; "1" when dimensionless.
    """

    low: Bound
    high: Bound
    scale: Literal["linear", "log"] = "linear"
    unit: str = "1"

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} not above high {self.high:g}")
        if self.scale == "log" and self.low <= 0.0:
            raise ValueError(f"a positive low for scale log, got {self.low:g}")
        return self

    def draw(self, rng: np.random.Generator) -> float:
        """A value that single precision holds, as samples are stored in it."""
        if self.scale == "log":
            drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            drawn = rng.uniform(self.low, self.high)
        return self.rounded(drawn)

    def rounded(self, exact: float) -> float:
        """What single precision makes of a value between the bounds; it does not leave them."""
        value = np.float32(exact)
        # As far as there is a single precision number between the bounds.
        if value > self.high:
            value = np.nextafter(value, np.float32(-np.inf))
        elif value < self.low:
            value = np.nextafter(value, np.float32(np.inf))
        return float(value)

    @property
    def axis(self) -> Axis:
        """What a sampler may choose from."""
        return Axis(low=self.low, high=self.high, scale=self.scale)


def _form(value: object) -> str:
    return "bounds" if isinstance(value, Mapping | Uniform) else "number"


Scalar = Annotated[Annotated[Bound, Tag("number")] | Annotated[Uniform, Tag("bounds")], Discriminator(_form)]
"""A number, the same for all samples, or the bounds that it is drawn between."""


def bounds(scalar: Scalar) -> tuple[float, float]:
    """The least and the largest value that it takes."""
    return (scalar.low, scalar.high) if isinstance(scalar, Uniform) else (scalar, scalar)


def drawn(
    scalars: Mapping[str, Scalar], rng: np.random.Generator, chosen: Mapping[str, float] | None = None
) -> dict[str, float]:
    """A value of each, as single precision holds it.

    What is `chosen` is drawn all the same, and not used: it changes nothing else that the generator draws.
    """
    values = {
        name: scalar.draw(rng) if isinstance(scalar, Uniform) else float(np.float32(scalar))
        for name, scalar in scalars.items()
    }
    for name, value in (chosen or {}).items():
        scalar = scalars[name]
        assert isinstance(scalar, Uniform), name
        values[name] = scalar.rounded(value)
    return values


def axes(scalars: Mapping[str, Scalar]) -> dict[str, Axis]:
    """Those that may be chosen: what is drawn between two bounds."""
    return {name: scalar.axis for name, scalar in scalars.items() if isinstance(scalar, Uniform)}


def as_fields(scalars: Mapping[str, Scalar]) -> tuple[FieldSpec, ...]:
    """How a schema lists them; fixed ones too, so that all levels of a problem share them."""
    return tuple(
        FieldSpec(name=name, unit=scalar.unit if isinstance(scalar, Uniform) else "1")
        for name, scalar in scalars.items()
    )


def require_between(scalars: Mapping[str, Scalar], names: Iterable[str], low: float, high: float = math.inf) -> None:
    """Raise `FieldError` unless the named ones, fields of a spec, stay above `low` and up to `high`."""
    for name in names:
        least, largest = bounds(scalars[name])
        if not low < least or not largest <= high:
            text = f"above {low:g}" + ("" if math.isinf(high) else f" and at most {high:g}")
            raise FieldError(name, f"{least:g}" + (f" to {largest:g}" if largest != least else ""), text)
