"""Discretization: what all samples of a finite-element problem share, made once in a process."""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float64, Int64

from headrace.platform.errors import InputError
from headrace.platform.spec import kind_of
from headrace.solvers.finite_elements.dolfinx import (
    cell_corners,
    compiled,
    dolfinx_mesh,
    load_dolfinx,
    meshtags,
    tagged_facets,
)
from headrace.solvers.finite_elements.geometries import named_mesh
from headrace.solvers.finite_elements.location import Location
from headrace.solvers.finite_elements.named_mesh import NamedMesh
from headrace.solvers.finite_elements.regridding import regridding
from headrace.solvers.finite_elements.weak import BoundaryValue, Values, Weak
from headrace.solvers.systems.system import LinearSystem, asymmetry

if TYPE_CHECKING:
    import dolfinx
    from scipy.sparse import csr_array

    from headrace.solvers.finite_elements.problem import AbstractFiniteElementProblem


_BUILT: dict[tuple[type, str], "Discretization"] = {}
_MAX_BUILT = 8


@functools.lru_cache(maxsize=64)
def discretization(problem: "AbstractFiniteElementProblem") -> "Discretization":
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

    def __init__(self, problem: "AbstractFiniteElementProblem") -> None:
        load_dolfinx()
        import ufl
        from dolfinx import fem, la

        self._named: NamedMesh = named_mesh(problem.geometry)
        self._geometry = problem.geometry
        self._mesh = dolfinx_mesh(self._named)
        self.corners = cell_corners(self._mesh)
        facets, tags, self._tags = tagged_facets(self._mesh, self._named, self.corners)
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
            _ds=ufl.Measure("ds", domain=self._mesh, subdomain_data=meshtags(self._mesh, facets, tags)),
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
        self._bilinear, self._linear = compiled(bilinear), compiled(problem.linear(weak))
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

    def system(self, fields: Mapping[str, Values], problem: "AbstractFiniteElementProblem") -> LinearSystem:
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

    def from_points(self, values: Float64[np.ndarray, "points components"]) -> Float64[np.ndarray, " unknowns"]:
        """The unknowns of a function that is linear between its values at the points of the mesh."""
        return self._on_nodes(values, self.space, self.components).ravel()[self.free]

    def evaluation(self, grid_points: int) -> "csr_array":
        """From values at the nodes to values at the points of the grid inside the mesh."""
        if grid_points not in self._evaluations:
            self._evaluations[grid_points] = self.at(regridding(self._geometry, grid_points).location)
        return self._evaluations[grid_points]

    def at(self, location: Location) -> "csr_array":
        """From values at the nodes to values at points that were located in the mesh."""
        # DOLFINx has cells, and corners within a cell, in an order of its own.
        theirs = np.argsort(self._mesh.topology.original_cell_index)[location.cell]
        own, corners = self._named.mesh.cells[location.cell], self.corners[theirs]
        places = np.argmax(corners[:, :, None] == own[:, None, :], axis=2)
        weights = np.take_along_axis(location.weights, places, axis=1)
        return self.interpolation(theirs, weights)

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
