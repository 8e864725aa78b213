"""Linear elasticity of a plate with random stiffness, under a random load."""

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
    positive_field_at,
)
from headrace.solvers.finite_elements.weak import BoundaryValue, Weak
from headrace.solvers.random_inputs.permeability import AnyPermeability, LogNormal
from headrace.solvers.systems.arrays import require_positive

if TYPE_CHECKING:
    import ufl

_LEVELS: dict[str, dict[str, dict[str, Any]]] = {
    "log_normal": {
        "smooth": {"stiffness": {"length_scale": 0.3, "smoothness": 2.5, "log_std": 0.3}},
        "medium": {"stiffness": {"length_scale": 0.2, "smoothness": 1.5, "log_std": 0.6}},
        "rough": {"stiffness": {"length_scale": 0.1, "smoothness": 1.5, "log_std": 1.0}},
    },
    "two_phase": {
        "smooth": {"stiffness": {"length_scale": 0.3, "smoothness": 2.5, "low": 1.0, "high": 3.0}},
        "medium": {"stiffness": {"length_scale": 0.2, "smoothness": 1.5, "low": 1.0, "high": 10.0}},
        "rough": {"stiffness": {"length_scale": 0.1, "smoothness": 1.5, "low": 1.0, "high": 100.0}},
    },
}

Force = Annotated[float, Field(ge=-1e20, le=1e20)]


class Elasticity(AbstractFiniteElementProblem):
    """Linear elasticity -∇·σ(u) = b in a plate, by finite elements.

        σ = 2 μ ε + λ tr(ε) I,    ε = (∇u + ∇uᵀ) / 2,    μ = E / (2 (1 + ν))
        λ = E ν / (1 - ν²) in plane stress (a thin plate), E ν / ((1 + ν) (1 - 2ν)) in plane strain (a long bar)

        u = 0      on the `clamped` boundaries
        σ n = t    on the `loaded` ones, t random, the same at all points
        σ n = 0    on all others

    Young's modulus E is drawn at the points of the mesh and is linear in between. All is dimensionless; displacements
    are those of the linear theory, in proportion to the load.

    The stored input is `stiffness`, E; the parameters are the two components of `traction`; the output is
    `displacement` with two components.

    Good values: the default plate with size 0.05 to 0.015, levels `smooth`, `medium`, `rough`, which raise the contrast
    of E and shorten its correlation. In plane strain take ν up to 0.4 with degree 1, more with degree 2: linear
    triangles lock as the material becomes incompressible (Babuška & Suri 1992).

    Attributes:
        stiffness: how E is drawn; lengths are fractions of the longer side of the bounding box.
        poisson_ratio: Poisson's ratio ν, the same everywhere.
        plane: whether it is the `stress` or the `strain` across the plate that vanishes.
        clamped: names of the boundaries that do not move.
        loaded: names of the boundaries that are pulled.
        traction: the mean of the traction t, both components.
        traction_std: standard deviation of each component of t.
        body_force: the body force b, the same everywhere.
    """

    points_needed: ClassVar[Mapping[str, int]] = {"smooth": 50, "medium": 50, "rough": 100}

    kind: Literal["elasticity"] = "elasticity"
    stiffness: AnyPermeability = LogNormal(log_std=0.6)
    poisson_ratio: Annotated[float, Field(ge=0.0, le=0.49)] = 0.3
    plane: Literal["stress", "strain"] = "stress"
    clamped: Names = ("left",)
    loaded: Names = ("right",)
    traction: tuple[Force, Force] = (0.0, -1.0)
    traction_std: Annotated[float, Field(ge=0.0, le=1e20)] = 0.5
    body_force: tuple[Force, Force] = (0.0, 0.0)

    only_drawn: ClassVar[frozenset[str]] = frozenset({"stiffness", "traction", "traction_std"})

    @model_validator(mode="after")
    def _well_posed(self) -> Self:
        if not self.clamped:
            raise ValueError("no boundary is clamped: the plate can move as a whole; expected at least one")
        both = sorted(set(self.clamped) & set(self.loaded))
        if both:
            raise ValueError(f"{', '.join(both)}: clamped and loaded; a boundary that does not move takes any load")
        if not self.loaded and not any(self.body_force):
            raise ValueError("nothing is loaded and there is no body force: the displacement is 0 everywhere")
        return self

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`smooth`, `medium` and `rough` of the configured kind of stiffness."""
        return _LEVELS[self.stiffness.kind]

    def inputs(self) -> tuple[FieldSpec, ...]:
        """Young's modulus."""
        return (FieldSpec(name="stiffness"),)

    def parameters(self) -> tuple[FieldSpec, ...]:
        """The traction, if something is loaded."""
        return (FieldSpec(name="traction", components=2),) if self.loaded else ()

    def unknown(self) -> FieldSpec:
        """The displacement."""
        return FieldSpec(name="displacement", components=2)

    def draw_at(self, rng: np.random.Generator, points: Points) -> dict[str, Float[np.ndarray, "..."]]:
        """Draw stiffness and traction."""
        drawn = {"stiffness": positive_field_at(self.stiffness, rng, points)}
        if self.loaded:
            drawn["traction"] = np.array(self.traction) + self.traction_std * rng.standard_normal(2)
        return drawn

    def require_valid(self, fields: Mapping[str, Float64[np.ndarray, "..."]]) -> None:
        """Refuse a stiffness that is not positive everywhere."""
        if "stiffness" in fields:
            require_positive("stiffness", fields["stiffness"])

    def dirichlet(self) -> Mapping[str, BoundaryValue]:
        """What is clamped does not move."""
        return dict.fromkeys(self.clamped, 0.0)

    def natural_boundaries(self) -> tuple[str, ...]:
        """Those that are loaded."""
        return self.loaded

    def bilinear(self, weak: Weak) -> "ufl.Form":
        """∫ σ(u) : ε(v)."""
        import ufl

        nu = self.poisson_ratio
        shear = weak.constant(1.0 / (1.0 + nu))
        bulk = weak.constant(nu / (1.0 - nu**2) if self.plane == "stress" else nu / ((1.0 + nu) * (1.0 - 2.0 * nu)))
        strain, test_strain = ufl.sym(ufl.grad(weak.u)), ufl.sym(ufl.grad(weak.v))
        work = shear * ufl.inner(strain, test_strain) + bulk * ufl.tr(strain) * ufl.tr(test_strain)
        return weak.inputs["stiffness"] * work * weak.dx

    def linear(self, weak: Weak) -> "ufl.Form":
        """∫ b·v + ∫ over the loaded boundaries of t·v."""
        import ufl

        form = ufl.inner(weak.constant(*self.body_force), weak.v) * weak.dx
        if self.loaded:
            form += ufl.inner(weak.parameters["traction"], weak.v) * weak.ds(*self.loaded)
        return form
