"""Reading meshes that others made."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from headrace.platform.fields import Mesh
from headrace.solvers.finite_elements.named_mesh import NamedMesh
from headrace.solvers.finite_elements.planar import cross, outer_edges


def file_digest(path: Path) -> str:
    """The SHA-256 of a mesh file, and of the file that holds its arrays.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".xdmf" and path.with_suffix(".h5").is_file():
            content += path.with_suffix(".h5").read_bytes()
    except OSError as error:
        raise ValueError(f"the mesh {path} cannot be read: {error.strerror or error}") from error
    return hashlib.sha256(content).hexdigest()


def read_mesh(path: Path, named: Mapping[str, int]) -> NamedMesh:
    """The triangles of a file, with boundaries named by the tags of its edges.

    Raises:
        ValueError: it cannot be read, or is no plane mesh of triangles.
    """
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
    area = cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    if np.abs(area).min() <= 1e-14 * np.ptp(points, axis=0).max() ** 2:
        raise ValueError(f"the mesh {path} has {np.count_nonzero(np.abs(area) <= 0)} or more triangles without area")
    cells = np.where(area[:, None] < 0.0, cells[:, [0, 2, 1]], cells)
    return NamedMesh(
        mesh=Mesh(points=points, cells=cells), boundaries=_named_edges(found, number, outer_edges(cells), named)
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
