"""Heat conduction in a plate: steady diffusion on an irregular geometry."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from jaxtyping import Float, Float64
from pydantic import Field, model_validator

from headrace.platform.fields import FieldSpec
from headrace.solvers.finite_elements.planar import Points
from headrace.solvers.finite_elements.problem import (
    AbstractFiniteElementProblem,
    Names,
    gaussian_field_at,
    positive_field_at,
)
from headrace.solvers.finite_elements.weak import BoundaryValue, Weak
from headrace.solvers.random_inputs.permeability import AnyPermeability, LogNormal
from headrace.solvers.random_inputs.random_fields import Gaussian
from headrace.solvers.systems.arrays import require_positive

if TYPE_CHECKING:
    import ufl

_LEVELS: dict[str, dict[str, dict[str, Any]]] = {
    "log_normal": {
        "smooth": {"conductivity": {"length_scale": 0.3, "smoothness": 2.5, "log_std": 0.5}},
        "medium": {"conductivity": {"length_scale": 0.2, "smoothness": 1.5, "log_std": 1.0}},
        "rough": {"conductivity": {"length_scale": 0.1, "smoothness": 1.5, "log_std": 1.5}},
    },
    "two_phase": {
        "smooth": {"conductivity": {"length_scale": 0.3, "smoothness": 2.5, "low": 3.0, "high": 12.0}},
        "medium": {"conductivity": {"length_scale": 0.2, "smoothness": 1.5, "low": 3.0, "high": 12.0}},
        "rough": {"conductivity": {"length_scale": 0.1, "smoothness": 1.5, "low": 1.0, "high": 100.0}},
    },
}


class HeatConduction(AbstractFiniteElementProblem):
    """Heat conduction -∇·(κ ∇u) = f in a plate, by finite elements.

        u = g             on the `fixed` boundaries, g random
        κ ∂u/∂n = q       on the `heated` ones, q random
        κ ∂u/∂n = h (a - u)   on the `cooled` ones
        κ ∂u/∂n = 0       on all others

    Conductivity κ, boundary temperature g and heat flux q are drawn at the points of the mesh and are linear between
    them. g and q are fields on the whole plate of which only the values on their boundaries matter: so they look alike
    on every mesh and grid. All is dimensionless.

    The stored inputs are `conductivity`, `boundary_temperature` (if something is fixed) and `boundary_flux` (if
    something is heated); the output is `temperature`.

    Good values: the default plate with size 0.05 to 0.01 (400 to 10 000 points), levels `smooth`, `medium`, `rough`,
    which raise the contrast of κ and shorten its correlation, as those of `Darcy`.

    Attributes:
        conductivity: how κ is drawn; lengths are fractions of the longer side of the bounding box.
        source: the source f, the same everywhere.
        fixed: names of the boundaries of given temperature.
        temperature: how the given temperature g varies around its mean.
        mean_temperature: the mean of the given temperature g.
        heated: names of the boundaries of given flux.
        flux: how the given flux q varies around its mean.
        mean_flux: the mean of the given flux q, positive into the plate.
        cooled: names of the boundaries that exchange heat with their surroundings.
        transfer_coefficient: h, by which the flux through cooled boundaries follows the temperature.
        ambient: the temperature a of the surroundings.
    """

    points_needed: ClassVar[Mapping[str, int]] = {"rough": 100}

    kind: Literal["heat_conduction"] = "heat_conduction"
    conductivity: AnyPermeability = LogNormal()
    source: Annotated[float, Field(ge=-1e20, le=1e20)] = 1.0
    fixed: Names = ("left", "right")
    temperature: Gaussian = Gaussian(std=0.5, length_scale=0.4, smoothness=2.5)
    mean_temperature: Annotated[float, Field(ge=-1e20, le=1e20)] = 0.0
    heated: Names = ()
    flux: Gaussian = Gaussian(std=0.5, length_scale=0.4, smoothness=2.5)
    mean_flux: Annotated[float, Field(ge=-1e20, le=1e20)] = 1.0
    cooled: Names = ()
    transfer_coefficient: Annotated[float, Field(gt=0.0, le=1e20)] = 1.0
    ambient: Annotated[float, Field(ge=-1e20, le=1e20)] = 0.0

    only_drawn: ClassVar[frozenset[str]] = frozenset(
        {"conductivity", "temperature", "mean_temperature", "flux", "mean_flux"}
    )

    @model_validator(mode="after")
    def _well_posed(self) -> Self:
        if not self.fixed and not self.cooled:
            raise ValueError(
                "no boundary is fixed or cooled: the temperature is known only up to a constant, and the heat has "
                "nowhere to go; expected at least one"
            )
        names = [*self.fixed, *self.heated, *self.cooled]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)}: named twice; a boundary is fixed, heated, cooled or insulated")
        return self

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`smooth`, `medium` and `rough` of the configured kind of conductivity."""
        return _LEVELS[self.conductivity.kind]

    def inputs(self) -> tuple[FieldSpec, ...]:
        """Conductivity, and the boundary data that there are."""
        boundary = [(self.fixed, "boundary_temperature"), (self.heated, "boundary_flux")]
        return (FieldSpec(name="conductivity"), *(FieldSpec(name=name) for where, name in boundary if where))

    def unknown(self) -> FieldSpec:
        """The temperature."""
        return FieldSpec(name="temperature")

    def draw_at(self, rng: np.random.Generator, points: Points) -> dict[str, Float[np.ndarray, "..."]]:
        """Draw the inputs."""
        drawn = {"conductivity": positive_field_at(self.conductivity, rng, points)}
        if self.fixed:
            drawn["boundary_temperature"] = self.mean_temperature + gaussian_field_at(self.temperature, rng, points)
        if self.heated:
            drawn["boundary_flux"] = self.mean_flux + gaussian_field_at(self.flux, rng, points)
        return drawn

    def require_valid(self, fields: Mapping[str, Float64[np.ndarray, "..."]]) -> None:
        """Refuse a conductivity that is not positive everywhere."""
        if "conductivity" in fields:
            require_positive("conductivity", fields["conductivity"])

    def dirichlet(self) -> Mapping[str, BoundaryValue]:
        """The boundary temperature."""
        return dict.fromkeys(self.fixed, "boundary_temperature")

    def natural_boundaries(self) -> tuple[str, ...]:
        """Those that are heated or cooled."""
        return (*self.heated, *self.cooled)

    def bilinear(self, weak: Weak) -> "ufl.Form":
        """∫ κ ∇u·∇v + ∫ over the cooled boundaries of h u v."""
        import ufl

        form = weak.inputs["conductivity"] * ufl.inner(ufl.grad(weak.u), ufl.grad(weak.v)) * weak.dx
        if self.cooled:
            form += weak.constant(self.transfer_coefficient) * weak.u * weak.v * weak.ds(*self.cooled)
        return form

    def linear(self, weak: Weak) -> "ufl.Form":
        """∫ f v + ∫ over the heated boundaries of q v + ∫ over the cooled ones of h a v."""
        form = weak.constant(self.source) * weak.v * weak.dx
        if self.heated:
            form += weak.inputs["boundary_flux"] * weak.v * weak.ds(*self.heated)
        if self.cooled:
            form += weak.constant(self.transfer_coefficient * self.ambient) * weak.v * weak.ds(*self.cooled)
        return form
