"""Geometries: from a description to a triangle mesh whose boundary has names."""

import functools
import math
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import Field, model_validator

from headrace.platform.errors import nearest
from headrace.platform.fields import Mesh
from headrace.platform.frozen import Frozen, FrozenMap
from headrace.platform.spec import Spec
from headrace.solvers.finite_elements.mesh_file import file_digest, read_mesh
from headrace.solvers.finite_elements.named_mesh import NamedMesh
from headrace.solvers.finite_elements.planar import (
    Points,
    crosses_itself,
    lengths_of,
    outer_edges,
    polygon_distance,
    signed_area,
    sorted_rows,
)
from headrace.solvers.finite_elements.triangulation import relaxed

Coordinate = Annotated[float, Field(ge=-1e6, le=1e6)]

# A generated mesh has fewer points than this: more asks for a mesh generator of its own, and for hours of its user.
_MAX_POINTS = 200_000


class AbstractGeometry(Spec):
    """The spec of a geometry in the plane. The mesh is made where it is needed; only the spec travels."""

    @abstractmethod
    def boundary_names(self) -> tuple[str, ...]:
        """The names of its boundaries; cheap."""

    @abstractmethod
    def where(self) -> str:
        """What a person calls it in an error: a kind, or a file."""

    @abstractmethod
    def make(self) -> NamedMesh:
        """Make or load the mesh; call `named_mesh`, which remembers it.

        Raises:
            ValueError: there is no mesh for these values, or the file is not what it should be.
        """

    def missing_boundary(self, name: str) -> str | None:
        """What to say about a boundary that is not there; None when it is."""
        known = self.boundary_names()
        if name in known:
            return None
        hint = nearest(name, known)
        return f'{self.where()} has no boundary "{name}"; it has {", ".join(known) or "none"}. {hint}'.strip()


@functools.lru_cache(maxsize=16)
def named_mesh(geometry: AbstractGeometry) -> NamedMesh:
    """The mesh of a geometry, made once in a process."""
    return geometry.make()


class Hole(Spec):
    """A round hole.

    Attributes:
        center: of the circle, its two coordinates.
        radius: of the circle, in the unit of the coordinates.
        name: of its edge; several holes may share one.
    """

    center: tuple[Coordinate, Coordinate]
    radius: Annotated[float, Field(gt=0.0, le=1e6)]
    name: str = "hole"


class Plate(AbstractGeometry):
    """A plate: a polygon with round holes, meshed by triangles of about one size.

    The mesh generator is that of Persson & Strang, "A simple mesh generator in MATLAB", SIAM Review 46 (2004): points
    repel each other along the edges of their Delaunay triangulation until they are in equilibrium (Sec. 2), and a
    signed distance keeps them inside. Where we differ: the points of the boundary are laid out first and stay, so that
    every edge of a side is known and named; the others keep a distance from them. It is deterministic: equal specs give
    equal meshes.

    Good values: size a fifth of the smallest feature (radius, distance of a hole from its neighbour) or less; the mesh
    has about 1.15 · area / size² points.

    Attributes:
        corners: of the polygon, in order, either way around.
        sides: a name for each side; side i goes from corner i to the next. Several may share one. By default `side_1`,
            `side_2`, ...
        holes: circles that are cut out.
        size: the length of an edge of the mesh.
    """

    kind: Literal["plate"] = "plate"
    corners: Annotated[tuple[tuple[Coordinate, Coordinate], ...], Field(min_length=3, max_length=1000)] = (
        (0.0, 0.0),
        (1.0, 0.0),
        (1.0, 0.55),
        (0.65, 1.0),
        (0.0, 1.0),
    )
    sides: tuple[str, ...] = ("bottom", "right", "bevel", "top", "left")
    holes: tuple[Hole, ...] = (Hole(center=(0.3, 0.65), radius=0.15), Hole(center=(0.68, 0.3), radius=0.1))
    size: Annotated[float, Field(gt=0.0, le=1e6)] = 0.04

    @model_validator(mode="before")
    @classmethod
    def _own_corners_own_sides(cls, values: Any) -> Any:
        # The default names and holes belong to the default polygon.
        if isinstance(values, Mapping) and isinstance(values.get("corners"), list | tuple):
            named = {"sides": tuple(f"side_{i + 1}" for i in range(len(values["corners"]))), "holes": ()}
            return {**named, **values}
        return values

    @model_validator(mode="after")
    def _can_be_meshed(self) -> Self:
        if len(self.sides) != len(self.corners):
            raise ValueError(f"a polygon of {len(self.corners)} corners has as many sides, got {len(self.sides)} names")
        if any(not name for name in self.boundary_names()):
            raise ValueError("the name of a boundary is empty")
        starts, ends = self._segments()
        if lengths_of(np.stack([starts, ends], axis=1)).min() <= 1e-9 * self._span():
            raise ValueError("two corners in a row are the same point")
        if crosses_itself(starts, ends):
            raise ValueError("the polygon crosses itself; list its corners in order around it")
        for number, hole in enumerate(self.holes):
            room = -float(polygon_distance(np.array([hole.center]), starts, ends)[0]) - hole.radius
            others = [
                math.dist(hole.center, other.center) - hole.radius - other.radius for other in self.holes[:number]
            ]
            if min([room, *others]) < self.size:
                raise ValueError(
                    f"the hole at {hole.center} is {min([room, *others]):.3g} from the outline or from another hole, "
                    f"expected at least the size of an edge, {self.size:g}"
                )
        expected = 1.2 * self._area() / self.size**2
        if expected > _MAX_POINTS:
            raise ValueError(f"size {self.size:g} asks for {expected:.2g} points, expected at most {_MAX_POINTS}")
        return self

    def boundary_names(self) -> tuple[str, ...]:
        """The sides, then the holes, each name once."""
        return tuple(dict.fromkeys([*self.sides, *(hole.name for hole in self.holes)]))

    def where(self) -> str:
        """The plate."""
        return "the plate"

    def make(self) -> NamedMesh:
        """Generate the mesh.

        Raises:
            ValueError: an edge of the boundary is none of the mesh: the size is too large for the geometry.
        """
        boundary, edges, names = self._boundary()
        points, cells = relaxed(boundary, self._distance, self.size)
        used = np.unique(cells)
        found = np.sort(outer_edges(cells), axis=1)
        if len(used) != len(points) or not np.array_equal(sorted_rows(found), sorted_rows(np.sort(edges, axis=1))):
            raise ValueError(
                f"no mesh with edges of length {self.size:g} follows this outline; expected a smaller size"
            )
        return NamedMesh(
            mesh=Mesh(points=points, cells=cells),
            boundaries={name: edges[np.array(names) == name] for name in self.boundary_names()},
        )

    def _segments(self) -> tuple[Points, Points]:
        starts = np.array(self.corners)
        if signed_area(starts) < 0.0:
            starts = starts[::-1]
        return starts, np.roll(starts, -1, axis=0)

    def _span(self) -> float:
        return float(np.ptp(np.array(self.corners), axis=0).max())

    def _area(self) -> float:
        return abs(signed_area(np.array(self.corners))) - sum(math.pi * hole.radius**2 for hole in self.holes)

    def _distance(self, points: Points) -> Float64[np.ndarray, " points"]:
        """The signed distance from the boundary, negative inside."""
        distance = polygon_distance(points, *self._segments())
        for hole in self.holes:
            x, y = points[:, 0] - hole.center[0], points[:, 1] - hole.center[1]
            distance = np.maximum(distance, hole.radius - np.sqrt(x * x + y * y))
        return distance

    def _boundary(self) -> tuple[Points, Int64[np.ndarray, "edges 2"], list[str]]:
        """The points of the boundary, its edges, and the name of each edge."""
        loops: list[tuple[list[np.ndarray], list[str]]] = []
        starts, ends = np.array(self.corners), np.roll(np.array(self.corners), -1, axis=0)
        outline, names = [], []
        for start, end, name in zip(starts, ends, self.sides, strict=True):
            count = max(1, round(math.dist(start, end) / self.size))
            outline.append(start + np.arange(count)[:, None] / count * (end - start))
            names += [name] * count
        loops.append((outline, names))
        for hole in self.holes:
            count = max(8, round(2.0 * math.pi * hole.radius / self.size))
            angle = 2.0 * math.pi / count * np.arange(count)
            # Cosines differ in the last bit between machines; the mesh must not.
            circle = np.round(np.stack([np.cos(angle), np.sin(angle)], axis=1), 12)
            loops.append(([np.array(hole.center) + hole.radius * circle], [hole.name] * count))
        points, edges, all_names, first = [], [], [], 0
        for pieces, loop_names in loops:
            points += pieces
            number = first + np.arange(len(loop_names))
            edges.append(np.stack([number, np.roll(number, -1)], axis=1))
            all_names += loop_names
            first += len(loop_names)
        return np.concatenate(points), np.concatenate(edges), all_names


class MeshFile(AbstractGeometry):
    """A mesh from a file that meshio reads: Gmsh's .msh, XDMF, VTU, Abaqus and others.

    It has triangles in the plane (z = 0), and lines on its boundary that belong to groups. In Gmsh's files the groups
    are the physical curves, which have names. XDMF keeps only the numbers of the groups: give them names here, or call
    them by their number ("1", "2").

    The content of the file belongs to the spec, by its hash: a data set says which mesh it was made on, and a worker
    that has another file under this path says so.

    Attributes:
        path: the file; every worker must find it there.
        boundaries: names for the numbers of the groups, for files without names.
        digest: SHA-256 of the content; filled in when left out.
    """

    kind: Literal["file"] = "file"
    path: Annotated[str, Field(min_length=1)]
    boundaries: Frozen[Mapping[str, int]] = Field(default_factory=lambda: FrozenMap({}))
    digest: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""

    @model_validator(mode="before")
    @classmethod
    def _know_the_content(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("path") and not values.get("digest"):
            return {**values, "digest": file_digest(Path(str(values["path"])))}
        return values

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        # Whoever only looks at an old data set need not have its mesh file; `make` asks for it.
        if Path(self.path).is_file():
            named_mesh(self)
        return self

    def boundary_names(self) -> tuple[str, ...]:
        """The groups of boundary lines in the file, sorted; none when the file is not here."""
        return tuple(sorted(named_mesh(self).boundaries)) if Path(self.path).is_file() else ()

    def missing_boundary(self, name: str) -> str | None:
        """As for every geometry, once the file is here."""
        return super().missing_boundary(name) if Path(self.path).is_file() else None

    def where(self) -> str:
        """The file's path."""
        return f"the mesh {self.path}"

    def make(self) -> NamedMesh:
        """Read the file.

        Raises:
            ValueError: it is not there, has changed, cannot be read, or has no triangles in the plane.
        """
        path = Path(self.path)
        digest = file_digest(path)
        if digest != self.digest:
            raise ValueError(
                f"the mesh {path} has another content (SHA-256 {digest[:12]}...) than this problem was made with "
                f"({self.digest[:12]}...); restore the file, or leave digest out to take it as it is now"
            )
        return read_mesh(path, self.boundaries)


AnyGeometry = Annotated[Plate | MeshFile, Field(discriminator="kind")]
