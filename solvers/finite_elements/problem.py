"""The finite-element problem: a form in DOLFINx's language, and the random data that go into it."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from jaxtyping import Float, Float32, Float64
from pydantic import BeforeValidator, Field, model_validator

from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.solvers.finite_elements.discretization import discretization
from headrace.solvers.finite_elements.dolfinx import compiler, dolfinx_is_installed
from headrace.solvers.finite_elements.geometries import AnyGeometry, Plate, named_mesh
from headrace.solvers.finite_elements.planar import Points
from headrace.solvers.finite_elements.regridding import feature_points, in_unit_square, meeting, regridding
from headrace.solvers.finite_elements.weak import BoundaryValue, FieldValues, Values, Weak
from headrace.solvers.problem import AbstractProblem, as_generator
from headrace.solvers.random_inputs.permeability import LogNormal, TwoPhase
from headrace.solvers.random_inputs.random_fields import Gaussian, matern_field_at
from headrace.solvers.systems.arrays import representable
from headrace.solvers.systems.system import LinearSystem, Structure, System

if TYPE_CHECKING:
    import ufl

Names = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
]
"""Names of boundaries; a single one may stand without a list."""


class AbstractFiniteElementProblem(AbstractProblem):
    """A linear equation a(u, v) = l(v) on a mesh of triangles, in Lagrange elements.

    A problem of your own is a subclass with a `kind` and six short methods: `inputs`, `unknown`, `draw_at`,
    `dirichlet`, `bilinear`, `linear` (docs/finite-elements.md shows one). The random data are drawn with NumPy at the
    points of the mesh and enter the forms as functions that are linear in between, so that what is stored is what was
    solved.

    Mesh, spaces, patterns and compiled forms are made once in a process, for all problems that differ only in the
    fields named in `only_drawn`; a sample fills in coefficients and assembles. Values on Dirichlet boundaries are
    eliminated: the unknowns are the other degrees of freedom, and a symmetric form gives a symmetric matrix.

    Samples live at the points of the mesh (`output: mesh`), or on a grid over the bounding box (`output: grid`): there
    an input `mask` is 1 inside the mesh and 0 outside, where all other fields are 0 too. The grid's coordinates start
    at the lower left corner of the bounding box. Values are interpolated with the elements' own functions.

    Needs DOLFINx and a C compiler to discretise, not to look at samples.

    Attributes:
        geometry: where the equation lives.
        degree: of the elements: 1, linear, errors of u fall with h²; 2, quadratic, with h³ where the data are smooth.
        output: whether samples are values at the nodes of the `mesh`, or on a regular `grid`.
        grid_points: points of the regular grid along each axis; only with `output: grid`.
    """

    geometry: AnyGeometry = Plate()
    degree: Literal[1, 2] = 1
    output: Literal["mesh", "grid"] = "mesh"
    grid_points: Annotated[int, Field(ge=8, le=2048)] = 64

    only_drawn: ClassVar[frozenset[str]] = frozenset()
    """Names of the spec's fields that `draw_at` alone looks at: problems that differ in them share everything else."""

    @abstractmethod
    def inputs(self) -> tuple[FieldSpec, ...]:
        """The random fields that the forms or the boundary values take; the first is what systems are sorted by."""

    @abstractmethod
    def unknown(self) -> FieldSpec:
        """The unknown: its name, components and unit."""

    def parameters(self) -> tuple[FieldSpec, ...]:
        """The random numbers that the forms take."""
        return ()

    @abstractmethod
    def draw_at(self, rng: np.random.Generator, points: Points) -> dict[str, Float[np.ndarray, "..."]]:
        """Draw every input at the points, (points,) or (points, components), and every parameter, (components,)."""

    @abstractmethod
    def dirichlet(self) -> Mapping[str, BoundaryValue]:
        """What is imposed on which boundary; where two meet, the later one holds."""

    @abstractmethod
    def bilinear(self, weak: Weak) -> "ufl.Form":
        """The form a(u, v)."""

    @abstractmethod
    def linear(self, weak: Weak) -> "ufl.Form":
        """The form l(v)."""

    def natural_boundaries(self) -> tuple[str, ...]:
        """Boundaries that the forms integrate over; named here, they are checked before anything starts."""
        return ()

    def require_valid(self, fields: Mapping[str, Float64[np.ndarray, "..."]]) -> None:  # noqa: B027  (may stay empty)
        """Refuse values that the equation does not allow; shapes and finiteness are checked already.

        Raises:
            ValueError: as every `discretize` does.
        """

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """None built in."""
        return {}

    @property
    def structure(self) -> Structure:
        """Symmetric positive definite; override it for other forms. The first matrix is checked for symmetry."""
        return Structure(symmetric=True, positive_definite=True)

    @model_validator(mode="after")
    def _boundaries_exist(self) -> Self:
        for name in (*self.dirichlet(), *self.natural_boundaries()):
            reason = self.geometry.missing_boundary(name)
            if reason is not None:
                raise ValueError(reason)
        return self

    def unavailable(self) -> str | None:
        """What of DOLFINx is missing here; None when it can discretise."""
        if not dolfinx_is_installed():
            return (
                "It needs DOLFINx, which is not installed. Linux x86-64: pip install dolfinx-solver-real; elsewhere: "
                "conda's fenics-dolfinx."
            )
        if compiler() is None:
            return (
                "DOLFINx compiles its forms, and there is no C compiler. Install one (Debian, Ubuntu: apt install gcc)."
            )
        return None

    def schema(self) -> SampleSchema:  # type: ignore[override]  # as in AbstractProblem
        """The inputs, on a grid the mask, and the unknown."""
        mesh = named_mesh(self.geometry).mesh
        inputs = self.inputs()
        if self.output == "mesh":
            return SampleSchema(inputs=inputs, outputs=(self.unknown(),), parameters=self.parameters(), domain=mesh)
        width, height = np.ptp(mesh.points, axis=0).tolist()
        grid = Grid(shape=(self.grid_points,) * 2, extent=(width, height), periodic=(False, False))
        inputs = (*inputs, FieldSpec(name="mask"))
        return SampleSchema(inputs=inputs, outputs=(self.unknown(),), parameters=self.parameters(), domain=grid)

    def draw(self, seed: int | np.random.Generator) -> dict[str, Float64[np.ndarray, "..."]]:
        """Draw inputs at the points of the mesh, and parameters, in values that single precision holds."""
        drawn = self.draw_at(as_generator(seed), named_mesh(self.geometry).mesh.points)
        return {name: representable(np.asarray(values, dtype=np.float64)) for name, values in drawn.items()}

    def refinement_needed(self, level: str) -> int:
        """By the edges that `points_needed` of them along a side of the unit square have."""
        if level not in self.points_needed or not isinstance(self.geometry, Plate):
            return 1
        return max(1, math.ceil(self.points_needed[level] * self.geometry.size - 1e-9))

    def unrefinable(self) -> str | None:
        """A mesh that is generated can be generated finer; one from a file is what it is."""
        if isinstance(self.geometry, Plate):
            return None
        return "its mesh comes from a file, and nobody here can make a finer one"

    def refined(self, refinement: int) -> Self:
        """The same equation on a mesh whose edges are so many times as short."""
        if refinement == 1:
            return self
        assert isinstance(self.geometry, Plate)
        return self.overridden({"geometry": {"size": self.geometry.size / refinement}})

    def restricted(
        self, fields: FieldValues, solution: Float[np.ndarray, " unknowns"], refinement: int
    ) -> tuple[
        Float32[np.ndarray, "channels_in *grid"],
        Float32[np.ndarray, "1 channels_out *grid"],
        Float32[np.ndarray, " num_parameters"],
    ]:
        """The functions of a finer mesh at the points of this one; on a grid, as that has them at the same points."""
        finer = self.refined(refinement)
        if refinement == 1 or self.output == "grid":
            return finer.sample_arrays(fields, solution)
        checked = finer._checked(fields)
        inputs, _, parameters = finer.sample_arrays(checked, solution)
        built = discretization(finer)
        between = meeting(finer.geometry, self.geometry)
        outputs = built.at(between.location) @ built.at_nodes(checked, solution)
        return (
            np.ascontiguousarray((between.from_points @ inputs.T).T, dtype=np.float32),
            np.ascontiguousarray(outputs.T[np.newaxis], dtype=np.float32),
            parameters,
        )

    def feature(self, seed: int | np.random.Generator) -> Float[np.ndarray, "..."] | None:
        """As its base, without assembling anything."""
        return self.feature_of(self.draw(seed))

    def feature_of(self, fields: FieldValues) -> Float[np.ndarray, "..."] | None:
        """The first input on a coarse grid; None when there is none, or a function in its place."""
        values = fields[self.inputs()[0].name] if self.inputs() else None
        if values is None or callable(values):
            return None
        return values.reshape(len(values), -1)[feature_points(self.geometry), 0]

    def discretize(self, fields: FieldValues) -> LinearSystem:
        """Assemble the system of these fields; the unknowns are the degrees of freedom that nothing is imposed on.

        Args:
            fields: every input at the points of the mesh, or as a function of points, which is then taken at the nodes
                of the elements; and every parameter.

        Raises:
            ValueError: an array is missing, unknown, misshapen, not finite, or outside what the equation allows.
            InputError: DOLFINx or a compiler is missing, or the forms are wrong.
        """
        return discretization(self).system(self._checked(fields), self)

    def sample_arrays(
        self, fields: FieldValues, solution: Float[np.ndarray, " unknowns"]
    ) -> tuple[
        Float32[np.ndarray, "channels_in *grid"],
        Float32[np.ndarray, "1 channels_out *grid"],
        Float32[np.ndarray, " num_parameters"],
    ]:
        """Inputs and the solution with its boundary values, at the points of the mesh or on the grid."""
        checked = self._checked(fields)
        points = named_mesh(self.geometry).mesh.points
        rows = [
            (values(points) if callable(values) else values).reshape(len(points), -1).T
            for values in (checked[spec.name] for spec in self.inputs())
        ]
        inputs = np.concatenate(rows) if rows else np.zeros((0, len(points)))
        built = discretization(self)
        nodes = built.at_nodes(checked, solution)
        if self.output == "mesh":
            outputs = nodes[built.vertex_nodes].T
        else:
            n = self.grid_points
            regrid = regridding(self.geometry, n)
            inside = regrid.location.inside
            on_grid = np.zeros((len(inputs) + 1, n * n))
            on_grid[:-1, inside] = (regrid.from_points @ inputs.T).T
            on_grid[-1] = inside
            outputs = np.zeros((nodes.shape[1], n * n))
            outputs[:, inside] = (built.evaluation(n) @ nodes).T
            inputs, outputs = on_grid.reshape(-1, n, n), outputs.reshape(-1, n, n)
        parameters = [np.ravel(np.asarray(checked[spec.name])) for spec in self.parameters()]
        return (
            inputs.astype(np.float32),
            outputs[np.newaxis].astype(np.float32),
            np.concatenate(parameters or [np.zeros(0)]).astype(np.float32),
        )

    def fields_of(
        self, inputs: Float[np.ndarray, "channels_in points"], parameters: Float[np.ndarray, " num_parameters"]
    ) -> dict[str, Float[np.ndarray, "..."]]:
        """Inputs at the points of the mesh, and parameters.

        Raises:
            InputError: samples live on a grid, which does not tell the values at the points of the mesh.
        """
        self._require_mesh()
        fields = {spec.name: values.T if spec.components > 1 else values for spec, values in self._named(inputs)}
        first = 0
        for spec in self.parameters():
            fields[spec.name] = parameters[first : first + spec.components].astype(np.float64)
            first += spec.components
        return fields

    def unknowns_of(
        self, outputs: Float[np.ndarray, "1 channels_out points"], system: System
    ) -> Float64[np.ndarray, " unknowns"]:
        """The values at the free degrees of freedom; between the points of the mesh linear.

        Raises:
            InputError: samples live on a grid.
        """
        self._require_mesh()
        return discretization(self).from_points(outputs[0].T.astype(np.float64))

    def _require_mesh(self) -> None:
        if self.output == "grid":
            raise InputError.single(
                "output", "grid", "mesh", "Values on a grid do not tell those at the points of the mesh."
            )

    def _checked(self, fields: FieldValues) -> dict[str, Values]:
        num_points = named_mesh(self.geometry).mesh.shape[0]
        shapes: dict[str, tuple[int, ...]] = {spec.name: (num_points, spec.components) for spec in self.inputs()}
        shapes |= {spec.name: (spec.components,) for spec in self.parameters()}
        if set(fields) != set(shapes):
            raise ValueError(
                f"expected the arrays {', '.join(sorted(shapes))}; got {', '.join(sorted(fields)) or 'none'}"
            )
        checked: dict[str, Values] = {}
        for name, shape in shapes.items():
            values = fields[name]
            if callable(values):
                checked[name] = values
                continue
            array = np.asarray(values, dtype=np.float64)
            if array.shape not in (shape, shape[:-1] if shape[-1] == 1 else shape):
                what = "a value for each point of the mesh" if len(shape) == 2 else "a value for each component"
                raise ValueError(f"{name} has shape {array.shape}, expected {shape}: {what}")
            if not np.isfinite(array).all():
                bad = np.count_nonzero(~np.isfinite(array))
                raise ValueError(f"{name} has {bad} values that are not finite numbers")
            checked[name] = array
        self.require_valid({name: values for name, values in checked.items() if not callable(values)})
        return checked


def positive_field_at(
    field: LogNormal | TwoPhase, rng: np.random.Generator, points: Points
) -> Float64[np.ndarray, " points"]:
    """Draw a random field of positive values at points of a geometry; lengths are fractions of its longer side."""
    gaussian = matern_field_at(
        rng, in_unit_square(points), length_scale=field.length_scale, smoothness=field.smoothness
    )
    if isinstance(field, LogNormal):
        return field.median * np.exp(field.log_std * gaussian)
    return np.where(gaussian > NormalDist().inv_cdf(1.0 - field.fraction), field.high, field.low)


def gaussian_field_at(field: Gaussian, rng: np.random.Generator, points: Points) -> Float64[np.ndarray, " points"]:
    """Draw a Gaussian random field at points of a geometry; lengths are fractions of its longer side."""
    unit = in_unit_square(points)
    return field.std * matern_field_at(rng, unit, length_scale=field.length_scale, smoothness=field.smoothness)
