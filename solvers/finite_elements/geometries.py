"""Geometries: from a description to a triangle mesh whose boundary has names."""

import functools
import hashlib
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from jaxtyping import Bool, Float64, Int64
from pydantic import Field, model_validator

from headrace.platform.errors import nearest
from headrace.platform.fields import Mesh
from headrace.platform.frozen import Frozen, FrozenMap
from headrace.platform.spec import Spec

Points = Float64[np.ndarray, "points 2"]
Coordinate = Annotated[float, Field(ge=-1e6, le=1e6)]

# A generated mesh has fewer points than this: more asks for a mesh generator of its own, and for hours of its user.
_MAX_POINTS = 200_000


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedMesh:
    """A mesh of triangles and the edges of its named boundaries.

    Attributes:
        mesh: points and triangles, counter-clockwise.
        boundaries: for each name its edges as pairs of points; every edge belongs to one triangle only.
    """

    mesh: Mesh
    boundaries: Mapping[str, Int64[np.ndarray, "edges 2"]]

    @functools.cached_property
    def quality(self) -> Float64[np.ndarray, " cells"]:
        """Twice the inscribed over the circumscribed radius of each triangle: 1 when equilateral, 0 when degenerate."""
        a, b, c = (_lengths(self.mesh.points[self.mesh.cells[:, [i, (i + 1) % 3]]]) for i in range(3))
        return (b + c - a) * (c + a - b) * (a + b - c) / (a * b * c)


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
        center: of the circle.
        radius: of the circle.
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
        holes: what is cut out.
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
        if _lengths(np.stack([starts, ends], axis=1)).min() <= 1e-9 * self._span():
            raise ValueError("two corners in a row are the same point")
        if _crosses_itself(starts, ends):
            raise ValueError("the polygon crosses itself; list its corners in order around it")
        for number, hole in enumerate(self.holes):
            room = -float(_polygon_distance(np.array([hole.center]), starts, ends)[0]) - hole.radius
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
        points, cells = _relaxed(boundary, self._distance, self.size)
        used = np.unique(cells)
        found = np.sort(_outer_edges(cells), axis=1)
        if len(used) != len(points) or not np.array_equal(_sorted_rows(found), _sorted_rows(np.sort(edges, axis=1))):
            raise ValueError(
                f"no mesh with edges of length {self.size:g} follows this outline; expected a smaller size"
            )
        return NamedMesh(
            mesh=Mesh(points=points, cells=cells),
            boundaries={name: edges[np.array(names) == name] for name in self.boundary_names()},
        )

    def _segments(self) -> tuple[Points, Points]:
        starts = np.array(self.corners)
        if _signed_area(starts) < 0.0:
            starts = starts[::-1]
        return starts, np.roll(starts, -1, axis=0)

    def _span(self) -> float:
        return float(np.ptp(np.array(self.corners), axis=0).max())

    def _area(self) -> float:
        return abs(_signed_area(np.array(self.corners))) - sum(math.pi * hole.radius**2 for hole in self.holes)

    def _distance(self, points: Points) -> Float64[np.ndarray, " points"]:
        """The signed distance from the boundary, negative inside."""
        distance = _polygon_distance(points, *self._segments())
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
            return {**values, "digest": _file_digest(Path(str(values["path"])))}
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
        digest = _file_digest(path)
        if digest != self.digest:
            raise ValueError(
                f"the mesh {path} has another content (SHA-256 {digest[:12]}...) than this problem was made with "
                f"({self.digest[:12]}...); restore the file, or leave digest out to take it as it is now"
            )
        return _read_mesh(path, self.boundaries)


AnyGeometry = Annotated[Plate | MeshFile, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, eq=False)
class Location:
    """Where points lie in a mesh.

    Attributes:
        inside: whether a point lies in some triangle.
        cell: of each point that does, its triangle.
        weights: the barycentric coordinates in that triangle: the weights of its corners.
    """

    inside: Bool[np.ndarray, " points"]
    cell: Int64[np.ndarray, " inside"]
    weights: Float64[np.ndarray, "inside 3"]


def locate_grid(mesh: Mesh, x: Float64[np.ndarray, " nx"], y: Float64[np.ndarray, " ny"]) -> Location:
    """Find the points of a grid in a triangle mesh; they are ordered with y fastest.

    Args:
        mesh: triangles.
        x: ascending.
        y: ascending.
    """
    triangles = mesh.points[mesh.cells]
    slack = 1e-9 * np.ptp(mesh.points, axis=0).max()
    low, high = triangles.min(axis=1) - slack, triangles.max(axis=1) + slack
    # All pairs of a triangle and a grid point in its bounding box, row by row.
    i0, i1 = np.searchsorted(x, low[:, 0]), np.searchsorted(x, high[:, 0], side="right")
    j0, j1 = np.searchsorted(y, low[:, 1]), np.searchsorted(y, high[:, 1], side="right")
    columns = j1 - j0
    counts = (i1 - i0) * columns
    cell = np.repeat(np.arange(len(triangles)), counts)
    offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    i, j = i0[cell] + offset // columns[cell], j0[cell] + offset % columns[cell]
    a, b, c = (triangles[cell, k] for k in range(3))
    p = np.stack([x[i], y[j]], axis=1)
    area = _cross(b - a, c - a)
    weights = np.stack([_cross(b - p, c - p), _cross(c - p, a - p), _cross(a - p, b - p)], axis=1) / area[:, None]
    within = weights.min(axis=1) >= -1e-9
    number = i[within] * len(y) + j[within]
    # A point on an edge lies in two triangles: the first is taken.
    points, first = np.unique(number, return_index=True)
    inside = np.zeros(len(x) * len(y), dtype=bool)
    inside[points] = True
    return Location(inside=inside, cell=cell[within][first], weights=weights[within][first])


# The mesh generator.

# The springs of Persson & Strang are longer than their bars by this, so that most of them push. They advise 1.2 where
# points may move along the boundary; ours may not, and the others would be squeezed against them.
_SPRING = 1.05
_STEP = 0.2
_MAX_ROUNDS = 80
# Points inside keep this distance from the boundary, in edges: a triangle on it is 0.87 high when equilateral.
_CLEARANCE = 0.6


def _relaxed(boundary: Points, distance: Any, size: float) -> tuple[Points, Int64[np.ndarray, "cells 3"]]:
    """Fill the inside of a boundary with points and triangles."""
    low, high = boundary.min(axis=0), boundary.max(axis=0)
    height = size * math.sqrt(3.0) / 2.0
    columns, rows = math.ceil((high[0] - low[0]) / size) + 1, math.ceil((high[1] - low[1]) / height) + 1
    y, x = np.meshgrid(np.arange(rows) * height, np.arange(columns) * size, indexing="ij")
    x[1::2] += size / 2.0
    inner = np.stack([low[0] + x.ravel(), low[1] + y.ravel()], axis=1)
    inner = inner[distance(inner) < -_CLEARANCE * size]
    fixed = len(boundary)
    points = np.concatenate([boundary, inner])
    placed = np.full_like(points, np.inf)
    cells = _triangles(points, distance, size)
    bars = _bars(cells)
    for _ in range(_MAX_ROUNDS if len(inner) else 0):
        if not _lengths(np.stack([points, placed], axis=1)).max() < 0.1 * size:
            placed = points.copy()
            cells = _triangles(points, distance, size)
            bars = _bars(cells)
        ends = points[bars[:, 0]] - points[bars[:, 1]]
        length = np.sqrt(ends[:, 0] ** 2 + ends[:, 1] ** 2)
        wanted = _SPRING * np.sqrt(np.mean(length**2))
        push = np.maximum(wanted - length, 0.0)[:, None] * ends / length[:, None]
        move = np.stack(
            [
                np.bincount(bars[:, 0], push[:, k], len(points)) - np.bincount(bars[:, 1], push[:, k], len(points))
                for k in range(2)
            ],
            axis=1,
        )
        move[:fixed] = 0.0
        points = points + _STEP * move
        _keep_away(points[fixed:], distance, _CLEARANCE * size)
        if _STEP * np.abs(move).max() < 2e-3 * size:
            break
    points[fixed:] = np.round(points[fixed:] / size, 9) * size
    return points, _triangles(points, distance, size)


def _keep_away(points: Points, distance: Any, clearance: float) -> None:
    """Move points that are too near to the boundary, or outside, back along the gradient of the distance."""
    d = distance(points)
    near = np.flatnonzero(d > -clearance)
    if not len(near):
        return
    p, h = points[near], 1e-6 * clearance
    gradient = np.stack(
        [(distance(p + np.array(step)) - distance(p - np.array(step))) / (2.0 * h) for step in ((h, 0.0), (0.0, h))],
        axis=1,
    )
    norm = np.maximum(np.sum(gradient**2, axis=1), 0.1)
    points[near] -= ((d[near] + clearance) / norm)[:, None] * gradient


def _triangles(points: Points, distance: Any, size: float) -> Int64[np.ndarray, "cells 3"]:
    """The Delaunay triangles inside, counter-clockwise and in an order of their own."""
    from scipy.spatial import Delaunay

    cells = Delaunay(points).simplices.astype(np.int64)
    corners = points[cells]
    area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    cells = np.where(area[:, None] < 0.0, cells[:, [0, 2, 1]], cells)
    # Between collinear points of a side Qhull leaves slivers, the centre of which lies on the boundary.
    kept = (distance(corners.mean(axis=1)) < -1e-6 * size) & (np.abs(area) > 1e-6 * size**2)
    # Each triangle starts at its lowest point, and they are sorted: Qhull's order is its own affair.
    cells = cells[kept]
    first = np.argmin(cells, axis=1)
    cells = np.take_along_axis(cells, (first[:, None] + np.arange(3)) % 3, axis=1)
    return _sorted_rows(cells)


def _bars(cells: Int64[np.ndarray, "cells 3"]) -> Int64[np.ndarray, "edges 2"]:
    return _edges(cells)[0]


def _outer_edges(cells: Int64[np.ndarray, "cells 3"]) -> Int64[np.ndarray, "edges 2"]:
    """The edges that belong to one triangle only."""
    edges, counts = _edges(cells)
    return edges[counts == 1]


def _edges(cells: Int64[np.ndarray, "cells 3"]) -> tuple[Int64[np.ndarray, "edges 2"], Int64[np.ndarray, " edges"]]:
    """The edges, lower point first, and how many triangles each belongs to."""
    pairs = np.sort(np.concatenate([cells[:, [0, 1]], cells[:, [1, 2]], cells[:, [2, 0]]]), axis=1)
    # One number for a pair: sorting rows takes ten times as long.
    base = int(cells.max(initial=0)) + 1
    keys, counts = np.unique(pairs[:, 0] * base + pairs[:, 1], return_counts=True)
    return np.stack([keys // base, keys % base], axis=1), counts


def _sorted_rows(rows: Int64[np.ndarray, "rows columns"]) -> Int64[np.ndarray, "rows columns"]:
    return rows[np.lexsort(rows.T[::-1])]


def _lengths(edges: Float64[np.ndarray, "edges 2 2"]) -> Float64[np.ndarray, " edges"]:
    return np.sqrt(np.sum((edges[:, 1] - edges[:, 0]) ** 2, axis=1))


def _cross(a: Points, b: Points) -> Float64[np.ndarray, " points"]:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _signed_area(corners: Points) -> float:
    return 0.5 * float(np.sum(_cross(corners, np.roll(corners, -1, axis=0))))


def _crosses_itself(starts: Points, ends: Points) -> bool:
    """Whether two sides that are not neighbours meet."""
    count = len(starts)
    side = np.array([_cross(ends - starts, p - starts) for p in starts]).T  # of corner j as seen along side i
    scale = 1e-12 * np.ptp(starts, axis=0).max() ** 2
    side = np.where(np.abs(side) <= scale, 0.0, np.sign(side))
    apart = side * np.roll(side, -1, axis=1) <= 0.0  # the ends of side j are on both sides of line i
    for i in range(count):
        for j in range(i + 2, count):
            if (j + 1) % count != i and apart[i, j] and apart[j, i]:
                # Two sides on one line meet only if they overlap.
                boxes = np.array([[starts[k], ends[k]] for k in (i, j)])
                if (boxes.min(axis=1).max(axis=0) <= boxes.max(axis=1).min(axis=0)).all():
                    return True
    return False


def _polygon_distance(points: Points, starts: Points, ends: Points) -> Float64[np.ndarray, " points"]:
    """The signed distance from a polygon, negative inside; side by side, so that memory stays that of the points."""
    nearest_squared = np.full(len(points), np.inf)
    inside = np.zeros(len(points), dtype=bool)
    for start, end in zip(starts, ends, strict=True):
        along = end - start
        x, y = points[:, 0] - start[0], points[:, 1] - start[1]
        t = np.clip((x * along[0] + y * along[1]) / (along[0] ** 2 + along[1] ** 2), 0.0, 1.0)
        nearest_squared = np.minimum(nearest_squared, (x - t * along[0]) ** 2 + (y - t * along[1]) ** 2)
        # A ray to the right crosses an odd number of sides if and only if it starts inside.
        straddles = (start[1] > points[:, 1]) != (end[1] > points[:, 1])
        if start[1] != end[1]:
            inside ^= straddles & (x < along[0] * y / along[1])
    return np.where(inside, -1.0, 1.0) * np.sqrt(nearest_squared)


# Files.


def _file_digest(path: Path) -> str:
    try:
        content = path.read_bytes()
        if path.suffix == ".xdmf" and path.with_suffix(".h5").is_file():
            content += path.with_suffix(".h5").read_bytes()
    except OSError as error:
        raise ValueError(f"the mesh {path} cannot be read: {error.strerror or error}") from error
    return hashlib.sha256(content).hexdigest()


def _read_mesh(path: Path, named: Mapping[str, int]) -> NamedMesh:
    import meshio

    try:
        found = meshio.read(path)
    # Each of meshio's readers has its own ways to fail on a broken file; some even end the process.
    except (Exception, SystemExit) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the mesh {path} cannot be read by meshio: {reason}") from error
    blocks = [block.data for block in found.cells if block.type == "triangle"]
    if not blocks:
        kinds = ", ".join(sorted({block.type for block in found.cells})) or "nothing"
        raise ValueError(f"the mesh {path} has {kinds}, expected triangles (of three points) in the plane")
    points = np.asarray(found.points, dtype=np.float64)
    if points.shape[1] == 3:
        if np.ptp(points[:, 2]) > 1e-9 * np.ptp(points[:, :2]):
            raise ValueError(f"the mesh {path} does not lie in a plane z = const, expected a mesh of a plane region")
        points = points[:, :2]
    cells = np.concatenate(blocks).astype(np.int64)
    # Gmsh writes the construction points of a geometry too.
    used, cells = np.unique(cells, return_inverse=True)
    cells = cells.reshape(-1, 3)
    number = np.full(len(points), -1)
    number[used] = np.arange(len(used))
    points = points[used]
    corners = points[cells]
    area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    if np.abs(area).min() <= 1e-14 * np.ptp(points, axis=0).max() ** 2:
        raise ValueError(f"the mesh {path} has {np.count_nonzero(np.abs(area) <= 0)} or more triangles without area")
    cells = np.where(area[:, None] < 0.0, cells[:, [0, 2, 1]], cells)
    return NamedMesh(
        mesh=Mesh(points=points, cells=cells), boundaries=_named_edges(found, number, _outer_edges(cells), named)
    )


def _named_edges(
    found: Any, number: Int64[np.ndarray, " points"], outer: Int64[np.ndarray, "edges 2"], named: Mapping[str, int]
) -> dict[str, Int64[np.ndarray, "edges 2"]]:
    """The edges of the groups that a file has, those on the boundary only."""
    names = {int(tag): name for name, (tag, dim) in ((n, v) for n, v in found.field_data.items()) if int(dim) == 1}
    names |= {tag: name for name, tag in named.items()}
    groups: dict[str, list[np.ndarray]] = {}
    # Gmsh's physical groups where there are some; otherwise the first integers that the cells carry.
    keys = sorted(found.cell_data, key=lambda key: (key != "gmsh:physical", key == "gmsh:geometrical"))
    for key in keys[:1]:
        for block, tags in zip(found.cells, found.cell_data[key], strict=True):
            tags = np.asarray(tags)
            if block.type != "line" or tags.ndim != 1 or not np.array_equal(tags, np.round(tags)):
                continue
            for tag in np.unique(tags).astype(int).tolist():
                groups.setdefault(names.get(tag, str(tag)), []).append(block.data[tags == tag])
    for name, sets in found.cell_sets.items():
        if name.startswith("gmsh:"):
            continue
        for block, members in zip(found.cells, sets, strict=True):
            if block.type == "line" and members is not None and len(members):
                groups.setdefault(name, []).append(block.data[members])
    size = len(number) + 1
    keys_of_outer = outer[:, 0] * size + outer[:, 1]
    edges = {}
    for name, parts in groups.items():
        lines = np.unique(np.sort(number[np.concatenate(parts)], axis=1), axis=0)
        kept = lines[np.isin(lines[:, 0] * size + lines[:, 1], keys_of_outer)]
        if len(kept):
            edges[name] = kept
    return edges
