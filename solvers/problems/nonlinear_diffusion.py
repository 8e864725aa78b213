"""Nonlinear diffusion, solved by Newton's method."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Float32, Float64
from pydantic import Field

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.solvers.problem import AbstractProblem, as_generator
from headrace.solvers.problems.conduction import Conduction, Interior
from headrace.solvers.problems.darcy import Source
from headrace.solvers.random_inputs.permeability import AnyPermeability, LogNormal
from headrace.solvers.systems.arrays import NO_PARAMETERS, checked, require_names, require_positive, with_boundary
from headrace.solvers.systems.system import LinearSystem, NonlinearSystem, Structure


class NonlinearDiffusion(AbstractProblem):
    """Diffusion that grows with the solution, -∇·((a(x) + β u²) ∇u) = f on the unit square, u = 0 on the boundary.

    Heat conduction, for example, in a porous solid: conduction a through the skeleton, which varies, and radiation
    through the pores, which grows with the temperature. The equation is elliptic for every u, because a > 0 and β ≥ 0;
    because a varies no substitution makes it linear.

    The grid has `resolution` points a side, the boundary included; the unknowns are the (resolution - 2)² interior
    points. `Conduction` says how they are coupled, and has the exact Jacobian.

    The stored input is the coefficient a, the output the temperature u; all is dimensionless.

    Good values: resolution 32 to 257. Source 10 and a = 1 make u about 0.7 at its maximum, where both terms are alike
    at β = 2. Levels `smooth`, `medium`, `rough` set β to 1, 10 and 100, and a to those of `Darcy`; Newton takes about
    5, 6 and 7 steps to 1e-8.

    Attributes:
        resolution: points of the grid along each axis, boundary included.
        coefficient: how the coefficient a is drawn.
        strength: β, by which the coefficient grows with the solution.
        source: the source f, the same everywhere.

    Example:
        >>> problem = NonlinearDiffusion(resolution=65, strength=20)
        >>> system = problem.discretize(problem.draw(0))
    """

    sorted_by: ClassVar[str | None] = "coefficient"

    kind: Literal["nonlinear_diffusion"] = "nonlinear_diffusion"
    resolution: Annotated[int, Field(ge=5, le=8193)] = 65
    coefficient: AnyPermeability = LogNormal()
    strength: Annotated[float, Field(ge=0.0, le=1e6)] = 10.0
    source: Source = 10.0

    def schema(self) -> SampleSchema:  # type: ignore[override]  # as in AbstractProblem
        """One input channel, `coefficient`; one output channel, `temperature`."""
        return SampleSchema(
            inputs=(FieldSpec(name="coefficient"),),
            outputs=(FieldSpec(name="temperature"),),
            domain=Grid(shape=(self.resolution,) * 2, extent=(1.0, 1.0), periodic=(False, False)),
        )

    @property
    def structure(self) -> Structure:
        """Not symmetric."""
        return Structure()

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`smooth`, `medium` and `rough`: stronger and stronger nonlinearity in rougher and rougher media."""
        log_normal = {"kind": "log_normal"}
        return {
            "smooth": {
                "strength": 1.0,
                "coefficient": {**log_normal, "length_scale": 0.3, "smoothness": 2.5, "log_std": 0.5},
            },
            "medium": {
                "strength": 10.0,
                "coefficient": {**log_normal, "length_scale": 0.2, "smoothness": 1.5, "log_std": 1.0},
            },
            "rough": {
                "strength": 100.0,
                "coefficient": {**log_normal, "length_scale": 0.1, "smoothness": 1.5, "log_std": 1.5},
            },
        }

    def draw(self, seed: int | np.random.Generator) -> dict[str, Float64[np.ndarray, "points points"]]:
        """Draw `coefficient` at the points of the grid."""
        return {"coefficient": self.coefficient.draw(as_generator(seed), self.resolution)}

    def discretize(self, fields: Mapping[str, Float[np.ndarray, "points points"]]) -> NonlinearSystem:
        """The finite-volume system of a coefficient; Newton starts at u = 0.

        Args:
            fields: `coefficient`, a at the points, positive; optionally `source`, f at the points, in place of the
                problem's own constant.

        Raises:
            ValueError: an array is missing, unknown, misshapen or not finite, the coefficient is not positive, or the
                source is 0 everywhere.
        """
        require_names(fields, ["coefficient"], ["source"])
        n = self.resolution
        a = checked("coefficient", fields["coefficient"], (n, n))
        require_positive("coefficient", a)
        # Both sides are multiplied by h², the area of a cell.
        area = (n - 1.0) ** -2
        if "source" in fields:
            rhs = area * checked("source", fields["source"], (n, n))[1:-1, 1:-1]
        else:
            rhs = np.full((n - 2, n - 2), area * self.source)
        scale = float(np.linalg.norm(rhs))
        if scale == 0.0:
            raise ValueError("source is 0 at all interior points, which makes u = 0; expected another source")
        scheme = _Scheme(Conduction(a, self.strength), rhs, a)
        return NonlinearSystem(
            guess=np.zeros(rhs.size),
            residual=scheme.residual,
            linearize=scheme.linearize,
            structure=self.structure,
            scale=scale,
            feature=a,
        )

    def sample_arrays(
        self, fields: Mapping[str, Float[np.ndarray, "points points"]], solution: Float[np.ndarray, " unknowns"]
    ) -> tuple[
        Float32[np.ndarray, "1 points points"], Float32[np.ndarray, "1 1 points points"], Float32[np.ndarray, " 0"]
    ]:
        """Coefficient and temperature, the latter with its zeros on the boundary."""
        inputs = fields["coefficient"].astype(np.float32)[np.newaxis]
        return inputs, with_boundary(solution, self.resolution), NO_PARAMETERS


class _Scheme:
    """F(u) = A u + β L u³ / 3 - h² f and its Jacobian."""

    def __init__(self, conduction: Conduction, rhs: Interior, feature: Float64[np.ndarray, "points points"]) -> None:
        self._conduction, self._rhs, self._feature = conduction, rhs, feature

    def residual(self, u: Float64[np.ndarray, " unknowns"]) -> Float64[np.ndarray, " unknowns"]:
        """F(u)."""
        return (self._conduction.outflow(u.reshape(self._rhs.shape)) - self._rhs).ravel()

    def linearize(self, u: Float64[np.ndarray, " unknowns"]) -> LinearSystem:
        """F'(u) d = -F(u)."""
        matrix = self._conduction.jacobian(u.reshape(self._rhs.shape))
        return LinearSystem.from_matrix(matrix, -self.residual(u), feature=self._feature)
