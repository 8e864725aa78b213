"""Finite elements: meshes and boundaries, orders of convergence, an assembly by hand, samples, a user's form."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import meshio
import numpy as np
import pytest
import scipy.sparse
from pydantic import ValidationError

from headrace.pipelines.recipe.config import validate
from headrace.platform import spec as spec_module
from headrace.platform.dataset.manifest import read_manifest
from headrace.platform.dataset.writer import SampleStore, StoredSamples, write_manifest
from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, Grid, Mesh
from headrace.platform.sample import Sample, SampleBatch
from headrace.platform.spec import Spec, kinds, spec_hash
from headrace.solvers import PROBLEMS, Direct, SolverSource, SolveStatus, solve
from headrace.solvers.finite_elements import problem as finite_elements
from headrace.solvers.finite_elements.discretization import discretization
from headrace.solvers.finite_elements.geometries import Hole, MeshFile, Plate, named_mesh
from headrace.solvers.finite_elements.location import locate_grid
from headrace.solvers.finite_elements.problem import AbstractFiniteElementProblem, BoundaryValue, positive_field_at
from headrace.solvers.finite_elements.weak import Weak
from headrace.solvers.problems.elasticity import Elasticity
from headrace.solvers.problems.heat import HeatConduction
from headrace.solvers.random_inputs.permeability import LogNormal, TwoPhase
from headrace.solvers.random_inputs.random_fields import matern_field, matern_field_at
from headrace.solvers.systems.system import Structure

needs_dolfinx = pytest.mark.skipif(
    HeatConduction().unavailable() is not None, reason="DOLFINx or a C compiler is missing"
)

COARSE = Plate(size=0.1)
EVERYWHERE = COARSE.boundary_names()
L_SHAPE = Plate(corners=((0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)), size=0.25)


# Meshes.


def area(mesh: Mesh) -> float:
    a, b, c = (mesh.points[mesh.cells[:, k]] for k in range(3))
    cross = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert cross.min() > 0.0  # counter-clockwise
    return 0.5 * float(cross.sum())


@pytest.mark.parametrize(
    "geometry", [COARSE, Plate(size=0.05), L_SHAPE, Plate(corners=((0, 0), (0, 3), (4, 0)), size=0.5)]
)
def test_generated_meshes_fill_their_outline_with_good_triangles(geometry: Plate) -> None:
    named = named_mesh(geometry)
    outline = np.array(geometry.corners)
    x, y = outline.T
    expected = abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2
    for hole in geometry.holes:
        # The mesh has a regular polygon in place of the circle.
        count = max(8, round(2 * np.pi * hole.radius / geometry.size))
        expected -= 0.5 * count * hole.radius**2 * np.sin(2 * np.pi / count)
    assert area(named.mesh) == pytest.approx(expected, rel=1e-9)
    assert named.quality.min() > 0.45 and named.quality.mean() > 0.9
    assert np.array_equal(np.unique(named.mesh.cells), np.arange(len(named.mesh.points)))


def test_boundaries_are_named_and_complete() -> None:
    named = named_mesh(COARSE)
    assert tuple(named.boundaries) == ("bottom", "right", "bevel", "top", "left", "hole")
    points = named.mesh.points
    lengths = {
        name: float(np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1).sum())
        for name, edges in named.boundaries.items()
    }
    assert lengths["left"] == pytest.approx(1.0) and lengths["bevel"] == pytest.approx(np.hypot(0.35, 0.45))
    assert (points[named.boundaries["left"], 0] == 0.0).all()
    # Two circles of radius 0.15 and 0.1, as polygons.
    assert lengths["hole"] == pytest.approx(2 * np.pi * 0.25, rel=0.05)
    edges = np.sort(np.concatenate([named.mesh.cells[:, [i, (i + 1) % 3]] for i in range(3)]), axis=1)
    unique, counts = np.unique(edges, axis=0, return_counts=True)
    named_edges = np.unique(np.sort(np.concatenate(list(named.boundaries.values())), axis=1), axis=0)
    assert np.array_equal(unique[counts == 1], named_edges)


def test_meshes_are_deterministic_and_shared() -> None:
    assert COARSE.make().mesh == named_mesh(Plate(size=0.1)).mesh
    assert named_mesh(Plate(size=0.1)) is named_mesh(COARSE)
    clockwise = Plate(corners=L_SHAPE.corners[::-1], size=0.25)
    assert area(named_mesh(clockwise).mesh) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sides": ("a", "b")}, "a polygon of 5 corners has as many sides, got 2 names"),
        ({"corners": ((0, 0), (1, 1), (1, 0), (0, 1))}, "the polygon crosses itself"),
        ({"corners": ((0, 0), (0, 0), (1, 0), (0, 1))}, "two corners in a row are the same point"),
        ({"holes": [{"center": (0.1, 0.5), "radius": 0.1}]}, r"the hole at \(0.1, 0.5\) is .* from the outline"),
        ({"holes": [{"center": (0.4, 0.4), "radius": 0.1}, {"center": (0.5, 0.4), "radius": 0.1}]}, "another hole"),
        ({"size": 1e-4}, "asks for .* points, expected at most 200000"),
        ({"corners": 3}, "Input should be a valid tuple"),
    ],
)  # fmt: skip
def test_impossible_plates_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Plate.model_validate(values)


def test_grid_points_are_found_in_their_triangles() -> None:
    mesh = named_mesh(COARSE).mesh
    x = np.linspace(0.0, 1.0, 40)
    location = locate_grid(mesh, x, x)
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)
    found = np.einsum("pk,pkd->pd", location.weights, mesh.points[mesh.cells[location.cell]])
    np.testing.assert_allclose(found, grid[location.inside], atol=1e-12)
    assert location.inside[0] and not location.inside[-1]  # the lower left corner, and the one that is cut off
    assert np.mean(location.inside) == pytest.approx(area(mesh), abs=0.02)
    centre = np.hypot(grid[:, 0] - 0.3, grid[:, 1] - 0.65)
    assert not location.inside[centre < 0.9 * 0.15].any()


# Mesh files.


def write_square(path: Path, *, names: bool) -> Path:
    """Two triangles, a point that belongs to nothing, and two groups of boundary lines."""
    points = np.array([[9.0, 9, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    cells = [("line", np.array([[1, 2], [4, 1]])), ("triangle", np.array([[1, 2, 3], [1, 4, 3]]))]
    tags = [np.array([7, 8]), np.array([1, 1])]
    data = {"gmsh:physical": tags, "gmsh:geometrical": tags} if names else {"group": tags}
    field_data = {"ground": np.array([7, 1]), "wall": np.array([8, 1]), "plate": np.array([1, 2])} if names else {}
    mesh = meshio.Mesh(points, cells, cell_data=data, field_data=field_data)
    meshio.write(path, mesh, **({"file_format": "gmsh22", "binary": False} if names else {}))
    return path


def test_gmsh_files_bring_their_names(tmp_path: Path) -> None:
    geometry = MeshFile(path=str(write_square(tmp_path / "square.msh", names=True)))
    named = named_mesh(geometry)
    assert geometry.boundary_names() == ("ground", "wall")
    assert named.mesh.shape == (4,) and area(named.mesh) == pytest.approx(1.0)
    assert named.mesh.points[named.boundaries["ground"]].tolist() == [[[0, 0], [1, 0]]]


def test_xdmf_files_have_numbers_that_can_be_named(tmp_path: Path) -> None:
    path = str(write_square(tmp_path / "square.xdmf", names=False))
    assert MeshFile(path=path).boundary_names() == ("7", "8")
    assert MeshFile.model_validate({"path": path, "boundaries": {"ground": 7}}).boundary_names() == ("8", "ground")


def test_a_missing_boundary_is_named_with_those_that_exist_and_the_file(tmp_path: Path) -> None:
    path = write_square(tmp_path / "square.msh", names=True)
    recipe = {"kind": "heat_conduction", "geometry": {"kind": "file", "path": str(path)}, "fixed": "grund"}
    words = rf'the mesh {path} has no boundary "grund"; it has ground, wall. Did you mean "ground"\?'
    with pytest.raises(ValidationError, match=words):
        HeatConduction.model_validate(recipe)
    # The same words reach whoever runs a recipe, before anything starts.
    with pytest.raises(InputError, match=words):
        validate({"data": {"problem": recipe, "samples": 4}}, "generate")
    with pytest.raises(ValidationError, match='the plate has no boundary "inlet"; it has bottom, right, bevel'):
        HeatConduction(heated=("inlet",))


def test_a_mesh_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = write_square(tmp_path / "square.msh", names=True)
    before = HeatConduction(geometry=MeshFile(path=str(path)), fixed=("ground",))
    back = pickle.loads(pickle.dumps(before))
    assert back == before and HeatConduction.model_validate_json(before.model_dump_json()) == before
    path.write_text(path.read_text() + "\n")
    after = HeatConduction(geometry=MeshFile(path=str(path)), fixed=("ground",))
    assert spec_hash(after) != spec_hash(before)
    with pytest.raises(ValidationError, match="has another content .* than this problem was made with"):
        MeshFile.model_validate({**before.geometry.model_dump(), "boundaries": {"other": 9}})
    path.unlink()
    # Whoever only reads old samples does not need it.
    assert HeatConduction.model_validate_json(after.model_dump_json()) == after
    with pytest.raises(ValidationError, match="cannot be read: No such file"):
        MeshFile(path=str(path))


def test_files_without_a_plane_mesh_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.msh").write_text("not a mesh")
    with pytest.raises(ValidationError, match="text.msh cannot be read by meshio"):
        MeshFile(path=str(tmp_path / "text.msh"))
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    meshio.write(tmp_path / "solid.vtu", meshio.Mesh(points, [("tetra", np.array([[0, 1, 2, 3]]))]))
    with pytest.raises(ValidationError, match="has tetra, expected triangles"):
        MeshFile(path=str(tmp_path / "solid.vtu"))
    meshio.write(tmp_path / "shell.vtu", meshio.Mesh(points, [("triangle", np.array([[0, 1, 2], [0, 1, 3]]))]))
    with pytest.raises(ValidationError, match="does not lie in a plane"):
        MeshFile(path=str(tmp_path / "shell.vtu"))


# Random fields.


def test_scattered_points_see_the_field_of_the_grid() -> None:
    x = np.linspace(0.0, 1.0, 15)
    points = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)
    on_grid = matern_field(np.random.default_rng(1), 15, length_scale=0.2, smoothness=1.5)
    scattered = matern_field_at(np.random.default_rng(1), points, length_scale=0.2, smoothness=1.5)
    # Both are rounded to 2^-20.
    np.testing.assert_allclose(scattered.reshape(15, 15), on_grid, atol=2.0**-19)


def test_draws_are_reproducible_and_held_by_single_precision() -> None:
    problem = HeatConduction(geometry=COARSE, heated=("hole",))
    for level in ("default", "smooth", "medium", "rough"):
        fields, again = problem.at_level(level).draw(5), problem.at_level(level).draw(5)
        assert sorted(fields) == ["boundary_flux", "boundary_temperature", "conductivity"]
        for name, values in fields.items():
            assert np.array_equal(values, again[name]) and np.array_equal(values, values.astype(np.float32))
        assert fields["conductivity"].min() > 0.0
    points = named_mesh(COARSE).mesh.points
    two_phase = positive_field_at(TwoPhase(low=2.0, high=5.0), np.random.default_rng(0), points)
    assert set(two_phase.tolist()) == {2.0, 5.0}


# Discretisations.


def element_matrices(
    mesh: Mesh, coefficient: np.ndarray, components: int, stress: np.ndarray
) -> scipy.sparse.csr_array:
    """Linear triangles by hand: area · mean coefficient · Bᵀ C B, with B the gradients (or strains) of the corners.

    A product of linear functions with constant gradients is integrated exactly by the mean of the coefficient.
    """
    size = components * len(mesh.points)
    rows, columns, values = [], [], []
    for cell in mesh.cells:
        corners = mesh.points[cell]
        gradients = np.linalg.inv(np.column_stack([np.ones(3), corners]))[1:]  # 2 x 3
        if components == 1:
            b = gradients
        else:
            b = np.zeros((3, 6))
            b[0, 0::2], b[1, 1::2] = gradients
            b[2, 0::2], b[2, 1::2] = gradients[1], gradients[0]
        edges = corners[1:] - corners[0]
        weight = 0.5 * abs(np.linalg.det(edges)) * coefficient[cell].mean()
        dofs = (components * cell[:, None] + np.arange(components)).ravel()
        rows.append(np.repeat(dofs, len(dofs)))
        columns.append(np.tile(dofs, len(dofs)))
        values.append((weight * b.T @ stress @ b).ravel())
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return scipy.sparse.csr_array(scipy.sparse.coo_array(entries, shape=(size, size)))


def own_order(problem: AbstractFiniteElementProblem) -> np.ndarray:
    """The unknowns as degrees of freedom counted by the points of the mesh."""
    built = discretization(problem)
    point = np.empty(len(built.vertex_nodes), dtype=int)
    point[built.vertex_nodes] = np.arange(len(point))
    node, component = np.divmod(built.free, built.components)
    return point[node] * built.components + component


HOOKE = {  # of unit stiffness and ν = 0.3, textbook form
    "stress": np.array([[1, 0.3, 0], [0.3, 1, 0], [0, 0, 0.35]]) / (1 - 0.3**2),
    "strain": np.array([[0.7, 0.3, 0], [0.3, 0.7, 0], [0, 0, 0.2]]) / (1.3 * 0.4),
}


@needs_dolfinx
@pytest.mark.parametrize("case", ["heat", "stress", "strain"])
def test_matrix_is_that_of_an_assembly_by_hand(case: Literal["heat", "stress", "strain"]) -> None:
    problem: AbstractFiniteElementProblem
    if case == "heat":
        problem = HeatConduction(geometry=COARSE, fixed=("left", "hole"))
        components, stress, name = 1, np.eye(2), "conductivity"
    else:
        problem = Elasticity(geometry=COARSE, plane=case)
        components, stress, name = 2, HOOKE[case], "stiffness"
    for seed in range(2):
        fields = problem.draw(seed)
        system = problem.discretize(fields)
        by_hand = element_matrices(named_mesh(COARSE).mesh, fields[name], components, stress)
        order = own_order(problem)
        expected = by_hand[order][:, order]
        scale = abs(expected).max()
        assert abs(system.matrix - expected).max() < 1e-13 * scale
        assert abs(system.matrix - system.matrix.T).max() < 1e-13 * scale
        # Positive definite: the factorisation by NumPy would fail otherwise.
        np.linalg.cholesky(system.matrix.toarray())
    assert system.structure.positive_definite and not system.structure.repeats


# Gauss points and weights of a triangle, exact to degree 4 (Strang & Fix 1973).
_A, _B = 0.445948490915965, 0.091576213509771
GAUSS = [(w, p) for a, w in ((_A, 0.223381589678011), (_B, 0.109951743655322)) for p in
         ((a, a, 1 - 2 * a), (a, 1 - 2 * a, a), (1 - 2 * a, a, a))]  # fmt: skip


def l2_error(problem: AbstractFiniteElementProblem, nodes: np.ndarray, exact: Callable[..., Any]) -> float:
    built = discretization(problem)
    corners = named_mesh(problem.geometry).mesh.points[built.corners]
    edges = corners[:, 1:] - corners[:, :1]
    areas = 0.5 * np.abs(np.linalg.det(edges))
    total = 0.0
    for weight, barycentric in GAUSS:
        weights = np.tile(np.array(barycentric), (len(corners), 1))
        values = built.interpolation(np.arange(len(corners)), weights) @ nodes
        truth = np.reshape(exact(np.einsum("k,ckd->cd", barycentric, corners)), values.shape)
        total += weight * float(areas @ np.sum((values - truth) ** 2, axis=1))
    return total**0.5


def orders(
    problems: list[AbstractFiniteElementProblem], fields: Callable[..., Any], exact: Callable[..., Any]
) -> float:
    """The slope of the error over the mean length of the edges, from the coarsest to the finest mesh."""
    errors, lengths = [], []
    for problem in problems:
        data = fields(problem)
        solution = solve(problem.discretize(data), rtol=1e-10, method="direct")
        assert solution.status is SolveStatus.converged
        built = discretization(problem)
        errors.append(l2_error(problem, built.at_nodes(data, solution.value), exact))
        lengths.append(len(named_mesh(problem.geometry).mesh.cells) ** -0.5)
    return float(np.log(errors[0] / errors[-1]) / np.log(lengths[0] / lengths[-1]))


def temperature(p: np.ndarray) -> np.ndarray:
    """-∇·((1 + x) ∇u) = 1, worked out by hand."""
    x, y = p.T
    return y**2 - 2 * x - x**2 / 2 + 3 * np.log(1 + x)


SIZES = (0.12, 0.03)


@needs_dolfinx
@pytest.mark.parametrize(("degree", "expected"), [(1, 2.0), (2, 3.0)])
def test_heat_converges_to_a_manufactured_solution(degree: Literal[1, 2], expected: float) -> None:
    def fields(problem: AbstractFiniteElementProblem) -> dict[str, Any]:
        return {"conductivity": lambda p: 1 + p[:, 0], "boundary_temperature": temperature}

    geometries = [Plate(size=size, holes=(Hole(center=(0.4, 0.5), radius=0.2),)) for size in SIZES]
    problems: list[AbstractFiniteElementProblem] = [
        HeatConduction(geometry=geometry, degree=degree, fixed=EVERYWHERE) for geometry in geometries
    ]
    # The meshes are not nested: the order between two of them scatters by about 0.1.
    assert orders(problems, fields, temperature) > expected - 0.2


@needs_dolfinx
def test_fluxes_and_cooling_enter_with_their_sign_and_size() -> None:
    """A strip from x = 0 to 1, insulated above and below: u'' = 0 with -u'(0) = q and -u'(1) = h (u(1) - a)."""
    strip = Plate(corners=((0, 0), (1, 0), (1, 0.3), (0, 0.3)), sides=("below", "right", "above", "left"), size=0.1)
    problem = HeatConduction(
        geometry=strip, fixed=(), heated="left", cooled="right", transfer_coefficient=4.0, ambient=0.5, source=0.0
    )
    num_points = len(named_mesh(strip).mesh.points)
    fields = {"conductivity": np.ones(num_points), "boundary_flux": np.full(num_points, 2.0)}
    value = solve(problem.discretize(fields), method="direct").value
    _, outputs, _ = problem.sample_arrays(fields, value)
    x = named_mesh(strip).mesh.points[:, 0]
    # Linear triangles represent it exactly.
    np.testing.assert_allclose(outputs[0, 0], 0.5 + 2 / 4 + 2 * (1 - x), rtol=1e-5)


def harmonic(p: np.ndarray) -> np.ndarray:
    """The gradient of eˣ cos y: free of divergence and harmonic, so in equilibrium in a uniform material."""
    x, y = p.T
    return np.column_stack([np.exp(x) * np.cos(y), -np.exp(x) * np.sin(y)])


def sheared(p: np.ndarray) -> np.ndarray:
    """With E = 1 + x and ν = 0: σ₁₁ = E u₁' = 1 and σ₁₂ = E u₂' / 2 = 1 are constant, so in equilibrium."""
    return np.log(1 + p[:, :1]) * np.array([1.0, 2.0])


def linear(p: np.ndarray) -> np.ndarray:
    return p @ np.array([[0.3, -0.2], [0.5, 0.1]]) + np.array([0.1, 0.2])


class Harmonic(Elasticity):
    def dirichlet(self) -> Mapping[str, BoundaryValue]:
        return dict.fromkeys(EVERYWHERE, harmonic)


class Sheared(Elasticity):
    def dirichlet(self) -> Mapping[str, BoundaryValue]:
        return dict.fromkeys(EVERYWHERE, sheared)


class Patch(Elasticity):
    def dirichlet(self) -> Mapping[str, BoundaryValue]:
        return dict.fromkeys(EVERYWHERE, linear)


@needs_dolfinx
@pytest.mark.parametrize(("degree", "expected"), [(1, 2.0), (2, 3.0)])
@pytest.mark.parametrize("case", ["harmonic", "sheared"])
def test_elasticity_converges_to_manufactured_solutions(degree: Literal[1, 2], expected: float, case: str) -> None:
    kind, exact, ratio = (Harmonic, harmonic, 0.3) if case == "harmonic" else (Sheared, sheared, 0.0)

    def fields(problem: AbstractFiniteElementProblem) -> dict[str, Any]:
        points = named_mesh(problem.geometry).mesh.points
        stiffness = np.ones(len(points)) if case == "harmonic" else 1 + points[:, 0]
        return {"stiffness": stiffness, "traction": np.zeros(2)}

    geometries = [Plate(size=size, holes=(Hole(center=(0.4, 0.5), radius=0.2),)) for size in SIZES]
    problems: list[AbstractFiniteElementProblem] = [
        kind(geometry=geometry, degree=degree, poisson_ratio=ratio) for geometry in geometries
    ]
    assert orders(problems, fields, exact) > expected - 0.2


@needs_dolfinx
@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("plane", ["stress", "strain"])
def test_patch_of_a_uniform_material_deforms_uniformly(
    degree: Literal[1, 2], plane: Literal["stress", "strain"]
) -> None:
    problem = Patch(geometry=COARSE, degree=degree, plane=plane)
    points = named_mesh(COARSE).mesh.points
    fields = {"stiffness": np.full(len(points), 7.0), "traction": np.zeros(2)}
    value = solve(problem.discretize(fields), rtol=1e-12, method="direct").value
    np.testing.assert_allclose(discretization(problem).at_nodes(fields, value)[discretization(problem).vertex_nodes],
                               linear(points), atol=1e-12)  # fmt: skip


@needs_dolfinx
def test_a_pulled_bar_stretches_by_hookes_law() -> None:
    """Traction t on the end of a bar with ν = 0: u = (t x / E, 0), and twice the load gives twice the displacement."""
    bar = Plate(corners=((0, 0), (2, 0), (2, 0.5), (0, 0.5)), sides=("below", "right", "above", "left"), size=0.2)
    problem = Elasticity(geometry=bar, poisson_ratio=0.0)
    points = named_mesh(bar).mesh.points
    for load in (1.5, 3.0):
        fields = {"stiffness": np.full(len(points), 4.0), "traction": np.array([load, 0.0])}
        value = solve(problem.discretize(fields), rtol=1e-12, method="direct").value
        _, outputs, parameters = problem.sample_arrays(fields, value)
        np.testing.assert_allclose(outputs[0, 0], load / 4.0 * points[:, 0], atol=1e-6)
        np.testing.assert_allclose(outputs[0, 1], 0.0, atol=1e-6)
        assert parameters.tolist() == [load, 0.0]


# Samples.


def sample_of(problem: AbstractFiniteElementProblem, **options: Any) -> Sample:
    (sample,) = SolverSource(problem=problem, **options).samples([3])
    assert isinstance(sample, Sample)
    return sample


@needs_dolfinx
@pytest.mark.parametrize("output", ["mesh", "grid"])
@pytest.mark.parametrize("kind", [HeatConduction, Elasticity])
def test_samples_have_the_layout_of_the_schema(
    kind: type[AbstractFiniteElementProblem], output: Literal["mesh", "grid"]
) -> None:
    problem = kind(geometry=COARSE, output=output, grid_points=20)
    schema = problem.schema()
    assert isinstance(schema.domain, Mesh if output == "mesh" else Grid)
    sample = sample_of(problem)
    assert sample.inputs.shape == (schema.num_input_channels, *schema.domain.shape)
    assert sample.outputs.shape == (1, schema.num_output_channels, *schema.domain.shape)
    assert sample.parameters.shape == (schema.num_parameters,)
    assert sample.inputs.dtype == sample.outputs.dtype == sample.parameters.dtype == np.float32
    assert sample.provenance.relative_residual <= 1e-8
    direct = sample_of(problem, method=Direct(package="scipy"))
    assert np.array_equal(direct.inputs, sample.inputs)
    # Both solve to 1e-8 of the right-hand side, with a condition number of about 1e4.
    np.testing.assert_allclose(direct.outputs, sample.outputs, atol=1e-4 * np.abs(sample.outputs).max())


@needs_dolfinx
def test_boundary_values_stand_in_the_sample() -> None:
    problem = HeatConduction(geometry=COARSE, degree=2)
    sample = sample_of(problem)
    left = np.unique(named_mesh(COARSE).boundaries["left"])
    assert np.array_equal(sample.outputs[0, 0, left], sample.inputs[1, left])
    assert np.array_equal(sample.inputs[0], problem.draw(spec_generator()).pop("conductivity").astype(np.float32))


def spec_generator() -> np.random.Generator:
    from headrace.platform.seeding import generator

    return generator(0, "train", "fields", 3)


@needs_dolfinx
@pytest.mark.parametrize("degree", [1, 2])
def test_grid_samples_are_masked_and_interpolate_the_elements(degree: Literal[1, 2]) -> None:
    geometry = Plate(corners=((2, 1), (4, 1), (4, 2), (2, 2)), holes=(Hole(center=(3, 1.5), radius=0.3),), size=0.1)
    problem = HeatConduction(
        geometry=geometry, degree=degree, fixed=geometry.boundary_names(), output="grid", grid_points=33
    )
    fields: dict[str, Any] = {"conductivity": lambda p: 1 + p[:, 0], "boundary_temperature": temperature}
    value = solve(problem.discretize(fields), method="direct").value
    inputs, outputs, _ = problem.sample_arrays(fields, value)
    schema = problem.schema()
    assert [spec.name for spec in schema.inputs] == ["conductivity", "boundary_temperature", "mask"]
    assert isinstance(schema.domain, Grid) and schema.domain.extent == pytest.approx((2.0, 1.0))
    x, y = schema.domain.coordinates()
    points = np.stack(np.meshgrid(x + 2.0, y + 1.0, indexing="ij"), axis=-1).reshape(-1, 2)
    inside = inputs[2].ravel() == 1.0
    assert set(np.unique(inputs[2])) == {0.0, 1.0}
    distance = np.hypot(points[:, 0] - 3, points[:, 1] - 1.5)
    assert inside[distance > 0.31].all() and not inside[distance < 0.29].any()
    assert (inputs[:, ~inside.reshape(33, 33)] == 0).all() and (outputs[0, 0].ravel()[~inside] == 0).all()
    np.testing.assert_allclose(inputs[0].ravel()[inside], 1 + points[inside, 0], rtol=1e-6)
    error = np.abs(outputs[0, 0].ravel()[inside] - temperature(points[inside])).max()
    assert error < (5e-3 if degree == 1 else 5e-5)


@needs_dolfinx
def test_samples_on_a_mesh_survive_the_store(tmp_path: Path) -> None:
    source = SolverSource(problem=Elasticity(geometry=COARSE), mix={"smooth": 1, "rough": 1})
    solved = [sample for sample in source.samples(range(5)) if isinstance(sample, Sample)]
    batch = SampleBatch.stack(solved)
    for shard, rows in enumerate([[0, 1, 2], [3, 4]]):
        with SampleStore.create(tmp_path / f"shard-{shard}.zarr", source.schema(), {}) as store:
            store.append(batch.take(rows))
    manifest = write_manifest(tmp_path)
    assert read_manifest(tmp_path) == manifest
    stored = StoredSamples.open(tmp_path)
    assert stored.schema == source.schema() and hash(stored.schema) == hash(source.schema())
    assert np.array_equal(stored.read_all().outputs, batch.outputs)
    other = SolverSource(problem=Elasticity(geometry=Plate(size=0.09))).schema()
    SampleStore.create(tmp_path / "shard-2.zarr", other, {}).close()
    with pytest.raises(
        InputError, match=r"shard-2.zarr: domain is Mesh\(.* points and .* cells in 2-D, .*Keep them apart"
    ):
        StoredSamples.open(tmp_path)


@needs_dolfinx
def test_levels_share_what_was_built_and_specs_travel() -> None:
    problem = HeatConduction(geometry=COARSE)
    rough = problem.at_level("rough").overridden({"output": "grid"})
    assert isinstance(rough, HeatConduction) and isinstance(rough.conductivity, LogNormal)
    assert rough.conductivity.length_scale == 0.1
    assert discretization(rough) is discretization(problem)
    other = problem.overridden({"source": 2.0})
    assert discretization(other) is not discretization(problem)
    back = pickle.loads(pickle.dumps(problem))
    assert back == problem and hash(back) == hash(problem) and spec_hash(back) == spec_hash(problem)
    first, second = problem.discretize(problem.draw(0)), rough.discretize(rough.draw(1))
    # Methods that reuse an ordering compare patterns: these are one and the same.
    assert np.shares_memory(first.matrix.indices, second.matrix.indices)
    assert first.feature is not None and first.feature.shape == (32, 32)
    assert np.array_equal(first.feature, problem.feature(0))


def test_a_spectral_network_on_a_mesh_is_refused_before_anything_starts() -> None:
    raw: dict[str, Any] = {
        "data": {"problem": {"kind": "heat_conduction", "geometry": {"kind": "plate", "size": 0.1}}, "samples": 512},
        "surrogate": {"kind": "fno"},
        "training": {"steps": 8, "batch_size": 8},
    }
    with pytest.raises(InputError, match="fno needs a grid, the samples live on a mesh.* set output: grid"):
        validate(raw)
    raw["data"]["problem"]["output"] = "grid"
    if HeatConduction().unavailable() is None:
        assert validate(raw).data is not None


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (
            HeatConduction,
            {"fixed": ()},
            "no boundary is fixed or cooled: the temperature is known only up to a constant",
        ),
        (HeatConduction, {"fixed": ("left",), "heated": ("left",)}, "left: named twice"),
        (Elasticity, {"clamped": ()}, "no boundary is clamped: the plate can move as a whole"),
        (Elasticity, {"clamped": ("left",), "loaded": ("left",)}, "left: clamped and loaded"),
        (Elasticity, {"loaded": ()}, "nothing is loaded and there is no body force"),
        (Elasticity, {"poisson_ratio": 0.5}, "less than or equal to 0.49"),
        (HeatConduction, {"degree": 3}, "1 or 2"),
    ],
)
def test_ill_posed_problems_are_refused(kind: type[Spec], values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        kind.model_validate(values)


@needs_dolfinx
def test_bad_arrays_are_refused_with_what_was_expected() -> None:
    problem = HeatConduction(geometry=COARSE)
    fields = problem.draw(0)
    n = len(named_mesh(COARSE).mesh.points)
    for name, values, words in [
        ("conductivity", np.ones(3), rf"conductivity has shape \(3,\), expected \({n}, 1\): a value for each point"),
        ("conductivity", np.zeros(n), "conductivity has the value 0, expected positive values everywhere"),
        ("boundary_temperature", np.full(n, np.nan), f"boundary_temperature has {n} values that are not finite"),
        ("colour", np.ones(n), "expected the arrays boundary_temperature, conductivity; got"),
    ]:
        with pytest.raises(ValueError, match=words):
            problem.discretize({**fields, name: values})


def test_what_is_missing_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    source = SolverSource(problem=HeatConduction(geometry=COARSE, source=1.25))
    with monkeypatch.context() as patch:
        patch.setattr(finite_elements, "dolfinx_is_installed", lambda: False)
        assert "pip install dolfinx-solver-real" in (source.mismatch() or "")
        with pytest.raises(InputError, match="problem is heat_conduction; .* DOLFINx, which is not installed"):
            source.build()
        with pytest.raises(InputError, match="pip install dolfinx-solver-real"):
            source.problem.discretize({})
        recipe = {"data": {"problem": {"kind": "heat_conduction"}, "samples": 4}}
        with pytest.raises(InputError, match="data.problem is heat_conduction; .* pip install dolfinx-solver-real"):
            validate(recipe, "generate")
        # Looking at samples, and training on them, needs no DOLFINx.
        assert source.problem.schema().num_input_channels == 2
    monkeypatch.setattr(finite_elements, "dolfinx_is_installed", lambda: True)
    monkeypatch.setattr(finite_elements, "compiler", lambda: None)
    assert "there is no C compiler" in (source.problem.unavailable() or "")


# A user's own form: the example of docs/finite-elements.md.


class Reaction(AbstractFiniteElementProblem):
    """Diffusion with a random reaction, -Δu + r u = 1, u = 0 on the outline and free on the holes."""

    kind: Literal["my_reaction"] = "my_reaction"
    rate: LogNormal = LogNormal(log_std=0.5, median=10.0)
    only_drawn = frozenset({"rate"})

    def inputs(self) -> tuple[FieldSpec, ...]:
        return (FieldSpec(name="rate"),)

    def unknown(self) -> FieldSpec:
        return FieldSpec(name="concentration")

    def draw_at(self, rng: np.random.Generator, points: np.ndarray) -> dict[str, np.ndarray]:
        return {"rate": positive_field_at(self.rate, rng, points)}

    def dirichlet(self) -> Mapping[str, BoundaryValue]:
        return {"left": 0.0, "right": 0.0}

    def bilinear(self, weak: Weak) -> Any:
        import ufl

        return (ufl.inner(ufl.grad(weak.u), ufl.grad(weak.v)) + weak.inputs["rate"] * weak.u * weak.v) * weak.dx

    def linear(self, weak: Weak) -> Any:
        return weak.constant(1.0) * weak.v * weak.dx


class Wind(Reaction):
    """With a wind: not symmetric."""

    kind: Literal["my_wind"] = "my_wind"  # type: ignore[assignment]

    def bilinear(self, weak: Weak) -> Any:
        import ufl

        return super().bilinear(weak) + ufl.dot(weak.constant(5.0, 1.0), ufl.grad(weak.u)) * weak.v * weak.dx


class HonestWind(Wind):
    kind: Literal["my_honest_wind"] = "my_honest_wind"  # type: ignore[assignment]

    @property
    def structure(self) -> Structure:
        return Structure()


class Source(Reaction):
    """Only the source varies: all samples have one matrix."""

    kind: Literal["my_source"] = "my_source"  # type: ignore[assignment]

    @property
    def structure(self) -> Structure:
        return Structure(symmetric=True, positive_definite=True, repeats=True)

    def bilinear(self, weak: Weak) -> Any:
        import ufl

        return ufl.inner(ufl.grad(weak.u), ufl.grad(weak.v)) * weak.dx

    def linear(self, weak: Weak) -> Any:
        return weak.inputs["rate"] * weak.v * weak.dx


class WrongBoundary(Reaction):
    kind: Literal["my_wrong_boundary"] = "my_wrong_boundary"  # type: ignore[assignment]

    def linear(self, weak: Weak) -> Any:
        return weak.constant(1.0) * weak.v * weak.ds("lid")


@needs_dolfinx
def test_a_form_of_ones_own_is_a_problem_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value, dist = "my_reaction", "tests:Reaction", None

        def load(self) -> type[Spec]:
            return Reaction

    monkeypatch.setattr(spec_module, "entry_points", lambda group: [Point()] if group == "headrace.problems" else [])
    assert kinds.__wrapped__("headrace.problems", PROBLEMS)["my_reaction"] is Reaction
    problem = Reaction(geometry=COARSE)
    fields = problem.draw(0)
    solution = solve(problem.discretize(fields), method="auto")
    assert solution.status is SolveStatus.converged
    inputs, outputs, _ = problem.sample_arrays(fields, solution.value)
    assert np.array_equal(inputs[0], fields["rate"].astype(np.float32))
    # By the maximum principle.
    assert outputs.min() == 0.0 and outputs.max() < 1 / fields["rate"].min()


@needs_dolfinx
def test_wrong_forms_are_told() -> None:
    wind = Wind(geometry=COARSE)
    with pytest.raises(InputError, match=r"Wind.bilinear is not symmetric .* Override structure: return Structure\(\)"):
        wind.discretize(wind.draw(0))
    honest = HonestWind(geometry=COARSE)
    assert solve(honest.discretize(honest.draw(0))).status is SolveStatus.converged
    lid = WrongBoundary(geometry=COARSE)
    with pytest.raises(InputError, match='boundary is "lid"; expected one of bottom, right, bevel, top, left, hole'):
        lid.discretize(lid.draw(0))


@needs_dolfinx
def test_a_matrix_that_repeats_is_assembled_once_and_said_to() -> None:
    problem = Source(geometry=COARSE)
    one, two = (problem.discretize(problem.draw(seed)) for seed in range(2))
    assert one.structure.repeats and np.array_equal(one.matrix.data, two.matrix.data)
    assert not np.array_equal(one.rhs, two.rhs)
