"""Convection and diffusion in a random flow: not symmetric."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Float32, Float64
from pydantic import Field

from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.solvers.problem import AbstractProblem, as_generator
from headrace.solvers.problems.darcy import Source
from headrace.solvers.random_inputs.random_fields import LengthScale, matern_field
from headrace.solvers.systems.arrays import NO_PARAMETERS, checked, representable, require_names, with_boundary
from headrace.solvers.systems.limited_convection import LimitedConvection
from headrace.solvers.systems.operators import stencil_csr
from headrace.solvers.systems.system import LinearSystem, Structure, System


class ConvectionDiffusion(AbstractProblem):
    """Heat in a stirred box, -ν Δu + v·∇u = f on the unit square, u = 0 on the boundary.

    The flow has no sources: v = (∂ψ/∂y, -∂ψ/∂x) with the stream function

        ψ = speed · ℓ √((s - 1) / s) · 16 x (1 - x) y (1 - y) · g,

    where g is a Gaussian field of unit variance, correlation length ℓ and smoothness s. ψ = 0 on the boundary, so that
    nothing flows through it; in the middle of the box the root mean square of each component of v is about `speed`.

    The grid has `resolution` points a side, the boundary included; the unknowns are the (resolution - 2)² interior
    points. Around each lies a cell, ψ at whose corners is the mean of the four points about it: the differences of ψ
    between the corners are the flow through the faces, and add up to 0 exactly. What a face carries is taken

    * as the mean of both sides where that is safe, limited elsewhere (`limited`): second order, and u has no over- or
      undershoot at any Péclet number; nonlinear where |v| h / ν > 2 (see `LimitedConvection`);
    * from upstream (`upwind`): first order, and an M-matrix: as monotone, and smeared; or
    * as the mean of both sides (`central`): second order, but u oscillates where |v| h / ν > 2.

    Errors at 65 points of levels `smooth`, `medium` and `rough`: up to 0.1 %, 0.7 % and 2 % limited; 2 %, 11 % and
    26 % upwind (ten draws). A limited sample of level `rough` takes some ten linear solves, where the others take one.

    The stored inputs are the two components of v at the points (second-order differences of ψ), the output is the
    temperature u; all is dimensionless.

    Good values: resolution 65 to 257; levels `smooth`, `medium`, `rough` set ν to 0.1, 0.01 and 0.002 (Péclet numbers
    speed / ν of 10, 100 and 500) and ℓ to 0.3, 0.2 and 0.15.

    Attributes:
        resolution: points of the grid along each axis, boundary included.
        diffusivity: ν, the same in all samples.
        speed: the scale of the velocity v.
        length_scale: ℓ, the correlation length of g, as a fraction of the side.
        smoothness: s, the Matérn ν of g; more than 1, or v would not exist.
        scheme: what a face between cells carries: the mean of both sides (`central`), what is upstream (`upwind`), or
            the one as far as the other is not needed (`limited`).
        source: the source f, the same everywhere.

    Example:
        >>> problem = ConvectionDiffusion(resolution=129, diffusivity=0.01)
        >>> system = problem.discretize(problem.draw(0))
    """

    sorted_by: ClassVar[str | None] = "stream_function"

    kind: Literal["convection_diffusion"] = "convection_diffusion"
    resolution: Annotated[int, Field(ge=5, le=8193)] = 65
    diffusivity: Annotated[float, Field(ge=1e-8, le=1e8)] = 0.01
    speed: Annotated[float, Field(ge=0.0, le=1e8)] = 1.0
    length_scale: LengthScale = 0.2
    smoothness: Annotated[float, Field(ge=1.5, le=10.0)] = 2.5
    scheme: Literal["limited", "upwind", "central"] = "limited"
    source: Source = 1.0

    def schema(self) -> SampleSchema:  # type: ignore[override]  # as in AbstractProblem
        """Input `velocity` of two components; one output channel, `temperature`."""
        return SampleSchema(
            inputs=(FieldSpec(name="velocity", components=2),),
            outputs=(FieldSpec(name="temperature"),),
            domain=Grid(shape=(self.resolution,) * 2, extent=(1.0, 1.0), periodic=(False, False)),
        )

    @property
    def structure(self) -> Structure:
        """Not symmetric."""
        return Structure()

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`smooth`, `medium` and `rough`: less and less diffusion, smaller and smaller eddies."""
        return {
            "smooth": {"diffusivity": 0.1, "length_scale": 0.3},
            "medium": {"diffusivity": 0.01, "length_scale": 0.2},
            "rough": {"diffusivity": 0.002, "length_scale": 0.15},
        }

    def draw(self, seed: int | np.random.Generator) -> dict[str, Float64[np.ndarray, "points points"]]:
        """Draw `stream_function` at the points of the grid."""
        n = self.resolution
        psi = matern_field(as_generator(seed), n, length_scale=self.length_scale, smoothness=self.smoothness)
        x = np.arange(n) / (n - 1.0)
        bump = 4.0 * x * (1.0 - x)
        # A derivative of g has the variance s / ((s - 1) ℓ²).
        psi *= self.speed * self.length_scale * np.sqrt((self.smoothness - 1.0) / self.smoothness)
        psi *= bump[:, None] * bump
        return {"stream_function": representable(psi)}

    def discretize(self, fields: Mapping[str, Float[np.ndarray, "points points"]]) -> System:
        """The system of a stream function: linear, of five points, unless a limited face makes it nonlinear.

        Args:
            fields: `stream_function`, ψ at the points; optionally `source`, f at the points, in place of the problem's
                own constant.

        Raises:
            ValueError: an array is missing, unknown, misshapen or not finite.
        """
        require_names(fields, ["stream_function"], ["source"])
        n = self.resolution
        psi = checked("stream_function", fields["stream_function"], (n, n))
        area = (n - 1.0) ** -2
        if "source" in fields:
            rhs = area * checked("source", fields["source"], (n, n))[1:-1, 1:-1].ravel()
        else:
            rhs = np.full((n - 2) ** 2, area * self.source)
        flow_x, flow_y = _flow(psi)
        # Both sides are multiplied by h², the area of a cell: a face has the conductance ν and carries a flow v h. Per
        # cell, an outflow times u here and an inflow times u there; half of each for the mean of both sides.
        nu = self.diffusivity
        if self.scheme == "limited" and max(np.abs(flow_x).max(), np.abs(flow_y).max()) > 2.0 * nu:
            source = rhs.reshape(n - 2, n - 2)
            return LimitedConvection(flow_x=flow_x, flow_y=flow_y, diffusivity=nu, source=source).system(psi)
        if self.scheme == "upwind":
            forward_x, backward_x = np.maximum(flow_x, 0.0), np.minimum(flow_x, 0.0)
            forward_y, backward_y = np.maximum(flow_y, 0.0), np.minimum(flow_y, 0.0)
        else:
            forward_x = backward_x = 0.5 * flow_x
            forward_y = backward_y = 0.5 * flow_y
        diagonal = 4.0 * nu + forward_x[1:] - backward_x[:-1]
        diagonal += forward_y[:, 1:]
        diagonal -= backward_y[:, :-1]
        matrix = stencil_csr(
            diagonal,
            (-nu - forward_x[:-1], -nu - forward_y[:, :-1]),
            (backward_x[1:] - nu, backward_y[:, 1:] - nu),
        )
        return LinearSystem.from_matrix(matrix, rhs, feature=psi)

    def fields_of(
        self, inputs: Float[np.ndarray, "2 points points"], parameters: Float[np.ndarray, " 0"]
    ) -> dict[str, Float[np.ndarray, "..."]]:
        """Not told by the inputs: they are the velocity, and the scheme conserves mass by the stream function."""
        raise InputError.single(
            "inputs",
            "the velocity at the points",
            "the stream function, which the equation is discretised with",
            "A data set does not hold it: solve from the drawn fields instead.",
        )

    def sample_arrays(
        self, fields: Mapping[str, Float[np.ndarray, "points points"]], solution: Float[np.ndarray, " unknowns"]
    ) -> tuple[
        Float32[np.ndarray, "2 points points"], Float32[np.ndarray, "1 1 points points"], Float32[np.ndarray, " 0"]
    ]:
        """Velocity and temperature, the latter with its zeros on the boundary."""
        h = 1.0 / (self.resolution - 1.0)
        along_x, along_y = np.gradient(fields["stream_function"], h, edge_order=2)
        velocity = np.stack([along_y, -along_x], dtype=np.float32, casting="same_kind")
        return velocity, with_boundary(solution, self.resolution), NO_PARAMETERS


def _flow(
    psi: Float64[np.ndarray, "points points"],
) -> tuple[Float64[np.ndarray, "faces_x interior"], Float64[np.ndarray, "interior faces_y"]]:
    """The flow v h through the faces of the interior cells, in the direction of growing coordinates."""
    corner = psi[:-1] + psi[1:]
    corner = 0.25 * (corner[:, :-1] + corner[:, 1:])
    return np.diff(corner, axis=1), -np.diff(corner, axis=0)
