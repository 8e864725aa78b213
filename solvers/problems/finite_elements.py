"""The finite-element problem: a form in DOLFINx's language, and the random data that go into it."""

import functools
import importlib.util
import os
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64
from pydantic import BeforeValidator, Field, model_validator

from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.spec import kind_of
from headrace.solvers.meshes import AnyGeometry, Location, NamedMesh, Plate, locate_grid, named_mesh
from headrace.solvers.methods.factorizations import load_petsc
from headrace.solvers.problem import AbstractProblem, as_generator
from headrace.solvers.problems.arrays import representable
from headrace.solvers.problems.permeability import LogNormal, TwoPhase
from headrace.solvers.random_fields import Gaussian, matern_field_at
from headrace.solvers.system import LinearSystem, Structure, asymmetry

if TYPE_CHECKING:
    import dolfinx
    import ufl
    from scipy.sparse import csr_array

type Points = Float64[np.ndarray, "points 2"]
type OnPoints = Callable[[Points], Float[np.ndarray, "points ..."]]
"""A function of the plane: it takes points and returns a value, or a row of components, for each."""
type Values = Float64[np.ndarray, "..."] | OnPoints
type FieldValues = Mapping[str, Float[np.ndarray, "..."] | OnPoints]
type BoundaryValue = float | str | tuple[float | None, ...] | OnPoints
"""What is imposed on a boundary: a number, the name of an input, a number for each component (None leaves that one
free), or a function of the points."""

Names = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
]
"""Names of boundaries; a single one may stand without a list."""

# Systems are sorted by their coefficient, looked up at this many points a side of the bounding box.
_FEATURE_POINTS = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Weak:
    """What a form is written with.

    Attributes:
        u: the trial function.
        v: the test function.
        inputs: the inputs by name, as functions of the unknown's degree.
        parameters: the parameters by name, as constants: scalars, or vectors if they have components.
        x: the coordinates.
        normal: the outward unit normal of the boundary.
        dx: the measure of the inside.
    """

    u: "ufl.Argument"
    v: "ufl.Argument"
    inputs: Mapping[str, "dolfinx.fem.Function"]
    parameters: Mapping[str, "dolfinx.fem.Constant"]
    x: "ufl.SpatialCoordinate"
    normal: "ufl.FacetNormal"
    dx: "ufl.Measure"
    _ds: "ufl.Measure"
    _tags: Mapping[str, int]
    _where: str

    def ds(self, *names: str) -> "ufl.Measure":
        """The measure of some boundaries together.

        Raises:
            InputError: there is no such boundary.
        """
        for name in names:
            if name not in self._tags:
                raise InputError.single(
                    "boundary", f'"{name}"', f"one of {', '.join(self._tags)}, those of {self._where}"
                )
        return self._ds(tuple(self._tags[name] for name in names))

    def constant(self, *values: float) -> "dolfinx.fem.Constant":
        """A number, or a vector, that belongs to the spec: as a constant it does not enter the compiled code."""
        from dolfinx import fem

        return fem.Constant(self.u.ufl_function_space().mesh, values[0] if len(values) == 1 else np.array(values))


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
        output: `mesh` or `grid`.
        grid_points: points a side of the grid.
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
        if not _dolfinx_is_installed():
            return (
                "It needs DOLFINx, which is not installed. Linux x86-64: pip install dolfinx-solver-real; elsewhere: "
                "conda's fenics-dolfinx."
            )
        if _compiler() is None:
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

    def feature(self, seed: int | np.random.Generator) -> Float[np.ndarray, "..."] | None:
        """As its base, without assembling anything."""
        return self.feature_of(self.draw(seed))

    def feature_of(self, fields: FieldValues) -> Float[np.ndarray, "..."] | None:
        """The first input on a coarse grid; None when there is none, or a function in its place."""
        values = fields[self.inputs()[0].name] if self.inputs() else None
        if values is None or callable(values):
            return None
        return values.reshape(len(values), -1)[_feature_points(self.geometry), 0]

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
            regrid = _regridding(self.geometry, n)
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


def in_unit_square(points: Points) -> Points:
    """Shift and scale points so that the longer side of their bounding box is that of the unit square."""
    # Axis by axis: NumPy's reductions along the short axis of a table are ten times as slow.
    low = np.array([points[:, 0].min(), points[:, 1].min()])
    longest = max(points[:, 0].max() - low[0], points[:, 1].max() - low[1])
    return (points - low) / longest


@dataclass(frozen=True, kw_only=True, eq=False)
class _Regridding:
    """From the points of a mesh to those of a grid that lie inside it."""

    location: Location
    from_points: "csr_array"


@functools.lru_cache(maxsize=8)
def _regridding(geometry: AnyGeometry, grid_points: int) -> _Regridding:
    from scipy.sparse import csr_array

    mesh = named_mesh(geometry).mesh
    low, high = mesh.points.min(axis=0), mesh.points.max(axis=0)
    x, y = (np.linspace(low[k], high[k], grid_points) for k in range(2))
    location = locate_grid(mesh, x, y)
    corners = mesh.cells[location.cell]
    indptr = np.arange(0, 3 * len(corners) + 1, 3)
    shape = (len(corners), len(mesh.points))
    return _Regridding(
        location=location, from_points=csr_array((location.weights.ravel(), corners.ravel(), indptr), shape=shape)
    )


@functools.lru_cache(maxsize=64)
def discretization(problem: AbstractFiniteElementProblem) -> "Discretization":
    """What all samples of a problem share, made once in a process.

    Raises:
        InputError: DOLFINx or a compiler is missing, or the forms are wrong.
    """
    reason = problem.unavailable()
    if reason is not None:
        raise InputError.single("problem", kind_of(type(problem)), "a problem that this machine can discretise", reason)
    drawn = {*problem.only_drawn, "output", "grid_points"}
    key = (type(problem), problem.model_dump_json(exclude=drawn))
    if key not in _BUILT:
        _BUILT[key] = Discretization(problem)
        while len(_BUILT) > _MAX_BUILT:
            del _BUILT[next(iter(_BUILT))]
    return _BUILT[key]


_BUILT: dict[tuple[type, str], "Discretization"] = {}
_MAX_BUILT = 8


class Discretization:
    """Mesh, spaces, compiled forms and patterns of one problem in DOLFINx.

    Degrees of freedom are counted as DOLFINx does: component k of node i is i · components + k. The points of the mesh
    keep the order of `NamedMesh`.

    Attributes:
        space: of the unknown.
        components: of the unknown.
        corners: of DOLFINx's cells, as points of the mesh.
        vertex_nodes: the node at each point of the mesh.
        free: the unknowns among the degrees of freedom.
        imposed: the other degrees of freedom.
    """

    def __init__(self, problem: AbstractFiniteElementProblem) -> None:
        load_dolfinx()
        import ufl
        from dolfinx import fem, la

        self._named: NamedMesh = named_mesh(problem.geometry)
        self._geometry = problem.geometry
        self._mesh = _dolfinx_mesh(self._named)
        self.corners = _corners(self._mesh)
        facets, tags, self._tags = _tagged_facets(self._mesh, self._named, self.corners)
        unknown = problem.unknown()
        self.components = unknown.components
        self._degree = problem.degree
        self.space = self._space(self.components)
        self._lifts: dict[int, csr_array] = {}
        self._inputs = {spec.name: fem.Function(self._space(spec.components)) for spec in problem.inputs()}
        self._sizes = {spec.name: spec.components for spec in problem.inputs()}
        self._parameters = {
            spec.name: fem.Constant(self._mesh, np.zeros(spec.components) if spec.components > 1 else 0.0)
            for spec in problem.parameters()
        }
        weak = Weak(
            u=ufl.TrialFunction(self.space),
            v=ufl.TestFunction(self.space),
            inputs=self._inputs,
            parameters=self._parameters,
            x=ufl.SpatialCoordinate(self._mesh),
            normal=ufl.FacetNormal(self._mesh),
            dx=ufl.dx(self._mesh),
            _ds=ufl.Measure("ds", domain=self._mesh, subdomain_data=_meshtags(self._mesh, facets, tags)),
            _tags=self._tags,
            _where=problem.geometry.where(),
        )
        bilinear = problem.bilinear(weak)
        varying = {*self._inputs.values(), *self._parameters.values()}
        self._repeats = not varying & {*bilinear.coefficients(), *bilinear.constants()}
        if problem.structure.repeats and not self._repeats:
            raise InputError.single(
                f"{type(problem).__name__}.structure",
                "repeats",
                "a bilinear form without inputs and parameters",
                "Leave repeats out: the matrix changes from sample to sample.",
            )
        self._bilinear, self._linear = _compiled(bilinear), _compiled(problem.linear(weak))
        self._matrix = fem.create_matrix(self._bilinear, la.BlockMode.expanded)
        self.vertex_nodes = self._nodes_of_points()
        self._find_boundary(problem.dirichlet(), facets, tags)
        self._split_pattern()
        self._evaluations: dict[int, csr_array] = {}
        self._is_checked = False

    @property
    def num_unknowns(self) -> int:
        """Degrees of freedom that nothing is imposed on."""
        return len(self.free)

    def system(self, fields: Mapping[str, Values], problem: AbstractFiniteElementProblem) -> LinearSystem:
        """Fill in the coefficients, assemble, and eliminate what is imposed: A_ff x = b_f - A_fd g."""
        from dolfinx import fem
        from scipy.sparse import csr_array

        self._fill_in(fields)
        if not (self._repeats and self._is_checked):
            self._matrix.set_value(0.0)
            fem.assemble_matrix(self._matrix, self._bilinear)
        data = self._matrix.data
        size = self.num_unknowns
        # The index arrays are those of every other sample: whoever compares patterns compares them with themselves.
        matrix = csr_array((data[self._free_entries], self._indices, self._indptr), shape=(size, size), copy=False)
        load = np.zeros(self._num_dofs)
        fem.assemble_vector(load, self._linear)
        rhs = load[self.free]
        if len(self.imposed):
            shape = (size, len(self.imposed))
            coupling = csr_array((data[self._coupling_entries], *self._coupling), shape=shape, copy=False)
            rhs -= coupling @ self._imposed_values(fields)
        known = problem.structure
        if not self._is_checked:
            # Sums over the elements of a node are taken in another order on either side of the diagonal.
            if known.symmetric and (off := asymmetry(matrix)) > 1e-10:
                raise InputError.single(
                    f"{type(problem).__name__}.bilinear",
                    f"not symmetric (entries differ by {off:.1g} of the largest)",
                    "a symmetric form, as structure says",
                    "Override structure: return Structure().",
                )
            self._is_checked = True
        # Not by `from_matrix`, which would look for symmetry in every sample.
        return LinearSystem(rhs=rhs, structure=known, assembled=matrix, feature=problem.feature_of(fields))

    def at_nodes(
        self, fields: Mapping[str, Values], solution: Float[np.ndarray, " unknowns"]
    ) -> Float64[np.ndarray, "nodes components"]:
        """The solution at all nodes, with the values that are imposed."""
        values = np.empty(self._num_dofs)
        values[self.free] = solution
        values[self.imposed] = self._imposed_values(fields)
        return values.reshape(-1, self.components)

    def evaluation(self, grid_points: int) -> "csr_array":
        """From values at the nodes to values at the points of the grid inside the mesh."""
        if grid_points not in self._evaluations:
            location = _regridding(self._geometry, grid_points).location
            # DOLFINx has cells, and corners within a cell, in an order of its own.
            theirs = np.argsort(self._mesh.topology.original_cell_index)[location.cell]
            own, corners = self._named.mesh.cells[location.cell], self.corners[theirs]
            places = np.argmax(corners[:, :, None] == own[:, None, :], axis=2)
            weights = np.take_along_axis(location.weights, places, axis=1)
            self._evaluations[grid_points] = self.interpolation(theirs, weights)
        return self._evaluations[grid_points]

    def function(self, nodes: Float64[np.ndarray, "nodes components"]) -> "dolfinx.fem.Function":
        """Values at the nodes as a function of DOLFINx, to integrate or to plot."""
        from dolfinx import fem

        function = fem.Function(self.space)
        function.x.array[:] = nodes.ravel()
        return function

    def _space(self, components: int) -> "dolfinx.fem.FunctionSpace":
        from dolfinx import fem

        shape = ((components,),) if components > 1 else ()
        return fem.functionspace(self._mesh, ("Lagrange", self._degree, *shape))

    def interpolation(self, cells: Int64[np.ndarray, " rows"], weights: Float64[np.ndarray, "rows 3"]) -> "csr_array":
        """From values at the nodes to values at points given by DOLFINx's cell and the weights of its `corners`."""
        from scipy.sparse import csr_array

        element = self.space.element.basix_element
        # The corners of the reference triangle are (0, 0), (1, 0), (0, 1).
        shapes = element.tabulate(0, np.ascontiguousarray(weights[:, 1:]))[0, :, :, 0]
        nodes = self.space.dofmap.list[cells]
        indptr = np.arange(0, nodes.size + 1, nodes.shape[1])
        num_nodes = self.space.dofmap.index_map.size_local
        return csr_array((shapes.ravel(), nodes.ravel(), indptr), shape=(len(cells), num_nodes))

    def _nodes_of_points(self) -> Int64[np.ndarray, " points"]:
        """The node at each point of the mesh."""
        layout = self.space.dofmap.dof_layout
        local = [layout.entity_dofs(0, corner)[0] for corner in range(3)]
        nodes = np.empty(len(self._named.mesh.points), dtype=np.int64)
        nodes[self.corners] = self.space.dofmap.list[:, local]
        return nodes

    def _lift(self, space: "dolfinx.fem.FunctionSpace", components: int) -> "csr_array":
        """From values at the points of the mesh to values at the nodes of a space: linear in between."""
        from scipy.sparse import csr_array

        if components not in self._lifts:
            reference = space.element.interpolation_points
            reference = reference() if callable(reference) else reference
            weights = np.column_stack([1.0 - reference.sum(axis=1), reference])
            nodes, first = np.unique(space.dofmap.list, return_index=True)
            cell, place = np.divmod(first, space.dofmap.list.shape[1])
            rows = np.repeat(nodes, 3)
            columns = self.corners[cell].ravel()
            shape = (len(nodes), len(self._named.mesh.points))
            lift = csr_array((weights[place].ravel(), (rows, columns)), shape=shape)
            lift.eliminate_zeros()
            self._lifts[components] = lift
        return self._lifts[components]

    def _fill_in(self, fields: Mapping[str, Values]) -> None:
        for name, function in self._inputs.items():
            function.x.array[:] = self._on_nodes(fields[name], function.function_space, self._sizes[name]).ravel()
        for name, constant in self._parameters.items():
            constant.value = np.asarray(fields[name]).reshape(constant.value.shape)

    def _on_nodes(
        self,
        values: Values,
        space: "dolfinx.fem.FunctionSpace",
        components: int,
    ) -> Float64[np.ndarray, "nodes components"]:
        if callable(values):
            found = values(space.tabulate_dof_coordinates()[:, :2])
            return np.asarray(found, dtype=np.float64).reshape(-1, components)
        return self._lift(space, components) @ values.reshape(-1, components)

    def _find_boundary(self, conditions: Mapping[str, BoundaryValue], facets: np.ndarray, tags: np.ndarray) -> None:
        """Which degrees of freedom are imposed, and by what."""
        from dolfinx import fem

        self._num_dofs = self.space.dofmap.index_map.size_local * self.components
        self._conditions: list[tuple[np.ndarray, BoundaryValue, csr_array | None]] = []
        imposed = np.zeros(self._num_dofs, dtype=bool)
        for name, value in conditions.items():
            if name not in self._tags:
                raise InputError.single("boundary", f'"{name}"', f"one of {', '.join(self._tags)}")
            if isinstance(value, str) and self._sizes.get(value) != self.components:
                raise InputError.single(
                    f"the value on the boundary {name}", f'"{value}"', f"an input with {self.components} component(s)"
                )
            if isinstance(value, tuple) and len(value) != self.components:
                raise InputError.single(
                    f"the value on the boundary {name}", str(value), f"a number or None for each of {self.components}"
                )
            nodes = fem.locate_dofs_topological(self.space, 1, np.sort(facets[tags == self._tags[name]]))
            # An input's values at the points of the mesh to its values at these nodes.
            lift = None
            if isinstance(value, str):
                lift = self._lift(self._inputs[value].function_space, self.components)[nodes]
            self._conditions.append((nodes, value, lift))
            kept = [k for k in range(self.components) if not (isinstance(value, tuple) and value[k] is None)]
            for component in kept:
                imposed[nodes * self.components + component] = True
        self.free, self.imposed = np.flatnonzero(~imposed), np.flatnonzero(imposed)
        if not len(self.free):
            raise InputError.single("the mesh", "imposed everywhere", "at least one node that is free", "Refine it.")
        self._node_coordinates = self.space.tabulate_dof_coordinates()[:, :2]

    def _imposed_values(self, fields: Mapping[str, Values]) -> Float64[np.ndarray, " imposed"]:
        values = np.zeros((self._num_dofs // self.components, self.components))
        for nodes, condition, lift in self._conditions:
            if isinstance(condition, str):
                given = fields[condition]
                if callable(given):
                    values[nodes] = np.reshape(given(self._node_coordinates[nodes]), (len(nodes), -1))
                else:
                    values[nodes] = lift @ given.reshape(len(given), -1)
            elif isinstance(condition, tuple):
                for component, number in enumerate(condition):
                    if number is not None:
                        values[nodes, component] = number
            elif callable(condition):
                values[nodes] = np.reshape(condition(self._node_coordinates[nodes]), (len(nodes), -1))
            else:
                values[nodes] = condition
        return values.ravel()[self.imposed]

    def _split_pattern(self) -> None:
        """Where in the assembled matrix the entries of A_ff and A_fd are, and the patterns of both."""
        indptr, indices = np.asarray(self._matrix.indptr), np.asarray(self._matrix.indices)
        rows = np.repeat(np.arange(self._num_dofs), np.diff(indptr))
        number = np.full(self._num_dofs, -1)
        number[self.free] = np.arange(len(self.free))
        of_imposed = np.full(self._num_dofs, -1)
        of_imposed[self.imposed] = np.arange(len(self.imposed))
        own_row = number[rows] >= 0
        self._free_entries = np.flatnonzero(own_row & (number[indices] >= 0))
        self._indptr, self._indices = _pattern(rows, indices, self._free_entries, number, number, len(self.free))
        self._coupling_entries = np.flatnonzero(own_row & (of_imposed[indices] >= 0))
        indptr, columns = _pattern(rows, indices, self._coupling_entries, number, of_imposed, len(self.free))
        self._coupling = (columns, indptr)


@functools.lru_cache(maxsize=8)
def _feature_points(geometry: AnyGeometry) -> Int64[np.ndarray, "x y"]:
    """The points of the mesh that are nearest to those of a coarse grid over the bounding box."""
    from scipy.spatial import cKDTree

    unit = in_unit_square(named_mesh(geometry).mesh.points)
    along = [(np.arange(_FEATURE_POINTS) + 0.5) / _FEATURE_POINTS * length for length in unit.max(axis=0)]
    x, y = np.meshgrid(*along, indexing="ij")
    _, nearest = cKDTree(unit).query(np.stack([x.ravel(), y.ravel()], axis=1))
    return nearest.reshape(x.shape).astype(np.int64)


def _pattern(
    rows: np.ndarray, indices: np.ndarray, entries: np.ndarray, number: np.ndarray, columns: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Row pointers and columns of some entries of a matrix, renumbered; read-only, since all samples share them."""
    counts = np.bincount(number[rows[entries]], minlength=size)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    found = columns[indices[entries]].astype(np.int32)
    for array in (indptr, found):
        array.setflags(write=False)
    return indptr, found


@functools.cache
def _dolfinx_is_installed() -> bool:
    # The wheel makes `dolfinx` importable only once `dolfinx_solver` was imported.
    return any(importlib.util.find_spec(name) is not None for name in ("dolfinx_solver", "dolfinx"))


def load_dolfinx() -> None:
    """Import DOLFINx in the order that its wheel needs."""
    load_petsc()
    import dolfinx  # noqa: F401


def _compiler() -> str | None:
    return os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


@functools.cache
def _form_cache() -> tempfile.TemporaryDirectory[str] | Path:
    """The user's cache of compiled forms, or where that cannot be written, a folder that goes with the process."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace" / "forms"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # As root, os.access says yes to a file system that is mounted read-only.
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return _private_cache()


@functools.cache
def _private_cache() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="headrace-forms-")


def _compiled(form: "ufl.Form") -> "dolfinx.fem.Form":
    """Compile a form, or take it from the cache.

    Raises:
        InputError: the compiler failed.
    """
    from dolfinx import fem

    for cache in (_form_cache(), _private_cache()):
        folder = cache if isinstance(cache, Path) else Path(cache.name)
        try:
            # Another process may be at the same form: it is waited for, up to this long [s].
            return fem.form(form, jit_options={"cache_dir": str(folder), "timeout": 60})
        except TimeoutError:
            # A process that was killed while it compiled left its mark in the cache.
            continue
        except Exception as error:
            if type(error).__name__ not in ("CompileError", "VerificationError", "ExecError", "LinkError"):
                raise
            raise InputError.single(
                "the C compiler", _compiler() or "missing", "one that compiles DOLFINx's forms", str(error)
            ) from error
    raise InputError.single("the cache of compiled forms", str(_form_cache()), "one that can be used", "Remove it.")


def _dolfinx_mesh(named: NamedMesh) -> "dolfinx.mesh.Mesh":
    import basix.ufl
    import ufl
    from dolfinx import mesh
    from mpi4py import MPI

    domain = ufl.Mesh(basix.ufl.element("Lagrange", "triangle", 1, shape=(2,)))
    return mesh.create_mesh(MPI.COMM_SELF, named.mesh.cells.astype(np.int64), domain, np.array(named.mesh.points))


def _corners(mesh: "dolfinx.mesh.Mesh") -> Int64[np.ndarray, "cells 3"]:
    """The corners of DOLFINx's cells as points of our mesh."""
    dofmap = mesh.geometry.dofmaps[0] if hasattr(mesh.geometry, "dofmaps") else mesh.geometry.dofmap
    return np.asarray(mesh.geometry.input_global_indices, dtype=np.int64)[np.asarray(dofmap)]


def _tagged_facets(
    mesh: "dolfinx.mesh.Mesh", named: NamedMesh, corners: Int64[np.ndarray, "cells 3"]
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """DOLFINx's numbers of the named edges, the tag of each, and the tag of each name."""
    topology = mesh.topology
    topology.create_entities(1)
    topology.create_connectivity(1, 0)
    topology.create_connectivity(2, 1)
    topology.create_connectivity(1, 2)
    vertices = topology.connectivity(2, 0).array.reshape(-1, 3)
    point_of = np.empty(topology.index_map(0).size_local, dtype=np.int64)
    point_of[vertices] = corners
    base = len(named.mesh.points)
    ends = np.sort(point_of[topology.connectivity(1, 0).array.reshape(-1, 2)], axis=1)
    keys = ends[:, 0] * base + ends[:, 1]
    order = np.argsort(keys)
    facets, tags, names = [], [], {}
    for tag, (name, edges) in enumerate(named.boundaries.items(), start=1):
        wanted = np.sort(edges, axis=1)
        places = np.searchsorted(keys[order], wanted[:, 0] * base + wanted[:, 1])
        facets.append(order[places])
        tags.append(np.full(len(edges), tag))
        names[name] = tag
    if not facets:
        return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32), names
    return np.concatenate(facets).astype(np.int32), np.concatenate(tags).astype(np.int32), names


def _meshtags(mesh: "dolfinx.mesh.Mesh", facets: np.ndarray, tags: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Pairs of facet and side for each tag, as `ds` takes them; unlike mesh tags, groups may overlap."""
    from dolfinx import fem

    return [
        (
            int(tag),
            fem.compute_integration_domains(
                fem.IntegralType.exterior_facet, mesh.topology, np.sort(facets[tags == tag])
            ),
        )
        for tag in np.unique(tags)
    ]
