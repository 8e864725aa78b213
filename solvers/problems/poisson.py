"""Poisson's equation: one matrix for all samples, random sources and boundary data."""

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from jaxtyping import Float, Float32, Float64
from pydantic import Field, model_validator

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.frozen import FrozenMap
from headrace.solvers.problem import AbstractProblem, as_generator
from headrace.solvers.random_inputs.random_fields import Gaussian, Points, matern_field_at
from headrace.solvers.systems.arrays import NO_PARAMETERS, checked, representable, require_names, with_boundary
from headrace.solvers.systems.operators import DiffusionOperator
from headrace.solvers.systems.system import LinearSystem, Structure

Boundary = Literal["dirichlet", "neumann", "periodic"]

_POINTS: dict[Boundary, Points] = {"dirichlet": "nodes", "neumann": "cells", "periodic": "periodic"}
# Fields in single precision are balanced to about the rounding of their values, 6e-8.
_UNBALANCED = 1e-5
_EDGES: tuple[tuple[int | slice, ...], ...] = ((0,), (-1,), (slice(None), 0), (slice(None), -1))


class Poisson(AbstractProblem):
    """Poisson's equation -Δu = f on the unit square, with one of three boundaries.

    * `dirichlet`: u = g. The grid has `resolution` nodes a side, the boundary included; the unknowns are the
      (resolution - 2)² interior ones. A sine transform (DST-I) diagonalises the matrix.
    * `neumann`: ∂u/∂n = g. The grid has `resolution` cells a side, all of them unknowns. g is given in the cells along
      the boundary, and both outer faces of a corner cell take its value. A cosine transform (DCT-II) diagonalises the
      matrix.
    * `periodic`: `resolution` points a side, all of them unknowns. The Fourier transform diagonalises the matrix.

    All are five-point schemes of second order. Without Dirichlet boundary there is a solution only if ∫f + ∮g = 0: the
    drawn source is shifted by a constant so that this holds, and u is the solution of mean 0.

    The stored inputs are the source f and, unless periodic, the field `boundary`, which is g along the boundary and 0
    inside; the output is the potential u. All is dimensionless.

    Good values: resolution 32 to 512; levels `smooth`, `medium`, `rough` shorten the correlation of the source (0.3,
    0.2, 0.1) and of the boundary data (0.6, 0.4, 0.2). With the default scales both contribute alike to u.

    Attributes:
        boundary: which condition holds on all of the boundary.
        resolution: nodes, cells or points of the grid along each axis, as the boundary wants.
        source: how the source f is drawn.
        boundary_data: how g is drawn: as the trace of a field on the square, so that it is continuous at the corners;
            not used where the boundary is periodic.

    Example:
        >>> problem = Poisson(boundary="neumann", resolution=64)
        >>> system = problem.discretize(problem.draw(0))
    """

    kind: Literal["poisson"] = "poisson"
    boundary: Boundary = "dirichlet"
    resolution: Annotated[int, Field(ge=5, le=8193)] = 65
    source: Gaussian = Gaussian(std=10.0)
    boundary_data: Gaussian = Gaussian(std=0.3, length_scale=0.4, smoothness=2.5)

    @model_validator(mode="after")
    def _has_data(self) -> Self:
        if self.source.std == 0.0 and (self.boundary == "periodic" or self.boundary_data.std == 0.0):
            raise ValueError(
                "the source has the standard deviation 0 and there are no boundary data: u = 0 in all samples; "
                "expected a positive std of source or boundary_data"
            )
        return self

    def schema(self) -> SampleSchema:  # type: ignore[override]  # as in AbstractProblem
        """Input channels `source` and, unless periodic, `boundary`; one output channel, `potential`."""
        periodic = self.boundary == "periodic"
        return SampleSchema(
            inputs=tuple(FieldSpec(name=name) for name in self._names),
            outputs=(FieldSpec(name="potential"),),
            domain=Grid(
                shape=(self.resolution,) * 2,
                extent=(1.0, 1.0),
                periodic=(periodic, periodic),
                location="cells" if self.boundary == "neumann" else "nodes",
            ),
        )

    @property
    def _names(self) -> tuple[str, ...]:
        return ("source",) if self.boundary == "periodic" else ("source", "boundary")

    @property
    def structure(self) -> Structure:
        """One symmetric positive definite matrix with constant coefficients; singular without Dirichlet boundary."""
        return Structure(
            symmetric=True,
            positive_definite=True,
            singular=self.boundary != "dirichlet",
            diffusion=2,
            constant_coefficients=True,
            repeats=True,
        )

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`smooth`, `medium` and `rough` data."""
        return {
            "smooth": {
                "source": {"length_scale": 0.3, "smoothness": 2.5},
                "boundary_data": {"length_scale": 0.6, "smoothness": 3.5},
            },
            "medium": {
                "source": {"length_scale": 0.2, "smoothness": 1.5},
                "boundary_data": {"length_scale": 0.4, "smoothness": 2.5},
            },
            "rough": {
                "source": {"length_scale": 0.1, "smoothness": 1.5},
                "boundary_data": {"length_scale": 0.2, "smoothness": 1.5},
            },
        }

    def draw(self, seed: int | np.random.Generator) -> dict[str, Float64[np.ndarray, "points points"]]:
        """Draw `source` and, unless periodic, `boundary` at the points of the grid."""
        rng, n = as_generator(seed), self.resolution
        source = self.source.draw(rng, n, points=_POINTS[self.boundary])
        if self.boundary == "periodic":
            return {"source": representable(source - source.mean())}
        boundary = representable(self.boundary_data.draw(rng, n, points=_POINTS[self.boundary]))
        boundary[1:-1, 1:-1] = 0.0
        if self.boundary == "neumann":
            source -= source.mean() + n * _flux(boundary).mean()
        return {"source": representable(source), "boundary": boundary}

    def draw_refined(
        self, seed: int | np.random.Generator, refinement: int, chosen: Mapping[str, float] = FrozenMap({})
    ) -> dict[str, Float64[np.ndarray, "points points"]]:
        """As `draw`; a flux is taken as far from the boundary as the centres of this grid's cells, not of the finer."""
        finer = self.refined(refinement)
        if refinement == 1 or self.boundary != "neumann":
            return finer.draw(seed)
        rng, n = as_generator(seed), finer.resolution
        source = self.source.draw(rng, n, points="cells")
        boundary = np.zeros((n, n))
        along, depth = (np.arange(n) + 0.5) / n, np.full(n, 0.5 / self.resolution)
        near, far = np.stack([depth, along], axis=1), np.stack([1.0 - depth, along], axis=1)
        points = np.concatenate([near, far, near[:, ::-1], far[:, ::-1]])
        data = self.boundary_data
        drawn = data.std * matern_field_at(rng, points, length_scale=data.length_scale, smoothness=data.smoothness)
        for edge, values in zip(_EDGES, drawn.reshape(4, n), strict=True):
            boundary[edge] = values
        boundary = representable(boundary)
        source -= source.mean() + n * _flux(boundary).mean()
        return {"source": representable(source), "boundary": boundary}

    def on_grid(self, values: Float32[np.ndarray, "..."], refinement: int) -> Float32[np.ndarray, "..."]:
        """As its base; the flux that is given along a boundary of cells is a mean along it."""
        means = super().on_grid(values, refinement)
        if self.boundary != "neumann" or refinement == 1 or len(values) != len(self._names):
            return means
        n, given = self.resolution, values[1].astype(np.float64)
        means[1] = 0.0
        for edge in _EDGES:
            means[1][edge] = given[edge].reshape(n, refinement).mean(axis=1)
        return means

    def discretize(self, fields: Mapping[str, Float[np.ndarray, "points points"]]) -> LinearSystem:
        """The five-point system of a source and boundary data.

        Args:
            fields: `source`, f at the points; unless periodic also `boundary`, of which only the values along the
                boundary count.

        Raises:
            ValueError: an array is missing, unknown, misshapen or not finite, or source and boundary flux do not
                balance where they must.
        """
        require_names(fields, self._names)
        n = self.resolution
        where = {
            "dirichlet": "nodes a side, boundary included",
            "neumann": "cells a side",
            "periodic": "points a side, the one that returns to the first left out",
        }[self.boundary]
        arrays = {name: checked(name, fields[name], (n, n), where) for name in self._names}
        operator = _operator(self.boundary, n)
        # Both sides are multiplied by h², the area of a cell: all conductances are 1.
        if self.boundary == "dirichlet":
            g = arrays["boundary"]
            rhs = (n - 1.0) ** -2 * arrays["source"][1:-1, 1:-1]
            rhs[0] += g[0, 1:-1]
            rhs[-1] += g[-1, 1:-1]
            rhs[:, 0] += g[1:-1, 0]
            rhs[:, -1] += g[1:-1, -1]
        else:
            rhs = float(n) ** -2 * arrays["source"]
            if self.boundary == "neumann":
                rhs += _flux(arrays["boundary"]) / n
            _balance(rhs, self.boundary)
        return LinearSystem.from_operator(operator, rhs.ravel(), constant_coefficients=True, repeats=True)

    def sample_arrays(
        self, fields: Mapping[str, Float[np.ndarray, "points points"]], solution: Float[np.ndarray, " unknowns"]
    ) -> tuple[
        Float32[np.ndarray, "channels points points"],
        Float32[np.ndarray, "1 1 points points"],
        Float32[np.ndarray, " 0"],
    ]:
        """Source, boundary data and potential, the latter with its given values on a Dirichlet boundary."""
        n = self.resolution
        inputs = np.stack([fields[name] for name in self._names], dtype=np.float32, casting="same_kind")
        if self.boundary != "dirichlet":
            return inputs, solution.astype(np.float32).reshape(1, 1, n, n), NO_PARAMETERS
        potential = with_boundary(solution, n)
        for edge in _EDGES:
            potential[0, 0][edge] = fields["boundary"][edge]
        return inputs, potential, NO_PARAMETERS


def _flux(boundary: Float64[np.ndarray, "cells cells"]) -> Float64[np.ndarray, "cells cells"]:
    """What flows in through the outer faces of every cell, over the length of a face."""
    flux = np.zeros_like(boundary)
    for edge in _EDGES:
        flux[edge] += boundary[edge]
    return flux


def _balance(rhs: Float64[np.ndarray, "points points"], boundary: Boundary) -> None:
    """Remove what rounding leaves of the mean.

    Raises:
        ValueError: it is more than rounding.
    """
    mean, size = float(rhs.mean()), float(np.abs(rhs).mean())
    if abs(mean) > _UNBALANCED * size:
        flux = " and boundary flux do" if boundary == "neumann" else " does"
        raise ValueError(
            f"source{flux} not balance: their sum over all cells is {mean / size:.1e} of the sum of magnitudes, "
            f"expected 0, or there is no solution. Subtract the mean from the source"
        )
    rhs -= mean


@functools.lru_cache(maxsize=8)
def _operator(boundary: Boundary, n: int) -> DiffusionOperator:
    """The operator that all samples share."""
    periodic = boundary == "periodic"
    if boundary == "dirichlet":
        n -= 2
    faces_x, faces_y = np.ones((n + (not periodic), n)), np.ones((n, n + (not periodic)))
    if boundary == "neumann":
        faces_x[[0, -1]] = 0.0
        faces_y[:, [0, -1]] = 0.0
    for faces in (faces_x, faces_y):
        faces.setflags(write=False)
    return DiffusionOperator(conductances=(faces_x, faces_y), periodic=(periodic, periodic))
