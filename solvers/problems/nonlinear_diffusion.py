"""Nonlinear diffusion, solved by Newton's method."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Float32, Float64
from pydantic import Field

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.solvers.operators import DiffusionOperator, stencil_csr
from headrace.solvers.problem import AbstractProblem, as_generator
from headrace.solvers.problems.arrays import NO_PARAMETERS, checked, require_names, require_positive, with_boundary
from headrace.solvers.problems.darcy import Source
from headrace.solvers.problems.permeability import AnyPermeability, LogNormal
from headrace.solvers.system import LinearSystem, NonlinearSystem, Structure


class NonlinearDiffusion(AbstractProblem):
    """Diffusion that grows with the solution, -∇·((a(x) + β u²) ∇u) = f on the unit square, u = 0 on the boundary.

    Heat conduction, for example, in a porous solid: conduction a through the skeleton, which varies, and radiation
    through the pores, which grows with the temperature. The equation is elliptic for every u, because a > 0 and β ≥ 0;
    because a varies no substitution makes it linear.

    The grid has `resolution` points a side, the boundary included; the unknowns are the (resolution - 2)² interior
    points. Through the face between points p and q flows c (u_p - u_q) + β (u_p³ - u_q³) / 3, with the harmonic mean c
    of a: the mean of β u² over the values in between is exact. The scheme conserves to rounding and is of second order
    where a is smooth.

    The Jacobian, J = A + β L diag(u²), with A the operator of a and L that of 1, is exact. It is not symmetric, but an
    M-matrix at every u: its columns sum to 0 or more, and off the diagonal it is negative.

    The stored input is the coefficient a, the output the temperature u; all is dimensionless.

    Good values: resolution 32 to 257. Source 10 and a = 1 make u about 0.7 at its maximum, where both terms are alike
    at β = 2. Levels `smooth`, `medium`, `rough` set β to 1, 10 and 100, and a to those of `Darcy`; Newton takes about
    5, 6 and 7 steps to 1e-8.

    Attributes:
        resolution: points a side, boundary included.
        coefficient: how a is drawn.
        strength: β.
        source: f, the same everywhere.

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
        # Numba takes seconds to import: those who discretise nothing do not wait for it.
        from headrace.solvers.problems.kernels import harmonic_2d

        conductances = np.empty((n - 1, n - 2)), np.empty((n - 2, n - 1))
        harmonic_2d(a, *conductances)
        # Both sides are multiplied by h², the area of a cell.
        area = (n - 1.0) ** -2
        if "source" in fields:
            rhs = area * checked("source", fields["source"], (n, n))[1:-1, 1:-1]
        else:
            rhs = np.full((n - 2, n - 2), area * self.source)
        scale = float(np.linalg.norm(rhs))
        if scale == 0.0:
            raise ValueError("source is 0 at all interior points, which makes u = 0; expected another source")
        scheme = _Scheme(DiffusionOperator(conductances=conductances), self.strength, rhs, a)
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

    def __init__(
        self,
        conduction: DiffusionOperator,
        strength: float,
        rhs: Float64[np.ndarray, "interior interior"],
        feature: Float64[np.ndarray, "points points"],
    ) -> None:
        self._conduction, self._strength, self._rhs, self._feature = conduction, strength, rhs, feature
        self._laplacian = DiffusionOperator(conductances=tuple(np.ones_like(c) for c in conduction.conductances))

    def residual(self, u: Float64[np.ndarray, " unknowns"]) -> Float64[np.ndarray, " unknowns"]:
        """F(u)."""
        u = u.reshape(self._rhs.shape)
        out = self._conduction.apply(u)
        out += self._laplacian.apply((self._strength / 3.0) * u**3)
        out -= self._rhs
        return out.ravel()

    def linearize(self, u: Float64[np.ndarray, " unknowns"]) -> LinearSystem:
        """F'(u) d = -F(u)."""
        # A column of the diffusion of radiation is multiplied by β u² at its own point.
        radiation = np.zeros((self._rhs.shape[0] + 2, self._rhs.shape[1] + 2))
        radiation[1:-1, 1:-1] = self._strength * u.reshape(self._rhs.shape) ** 2
        cx, cy = self._conduction.conductances
        matrix = stencil_csr(
            self._conduction.diagonal() + 4.0 * radiation[1:-1, 1:-1],
            (-cx[:-1] - radiation[:-2, 1:-1], -cy[:, :-1] - radiation[1:-1, :-2]),
            (-cx[1:] - radiation[2:, 1:-1], -cy[:, 1:] - radiation[1:-1, 2:]),
        )
        return LinearSystem.from_matrix(matrix, -self.residual(u), feature=self._feature)
