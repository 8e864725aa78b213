"""Walls that cut through the cells: what the faces beside them take from those in the fluid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.sparse import csr_array

from headrace.solvers.evolution.enclosure import Surface
from headrace.solvers.evolution.fast_poisson import Coupling, Rim

# Free faces up to so many cells away have a say. The second face away from a wall has to be among them: it is about a
# cell off, where the first may be on it and know no slope.
_REACH = 2.3


@dataclass(frozen=True, kw_only=True)
class RoundWalls:
    """Faces whose velocity follows from that of free ones, so that it is 0 on the walls.

    Near a wall a velocity is its distance times a slope, u = s a + O(h²), on both sides. The slope is that of the free
    faces around of the same component, by least squares: a = Σ ω s u / Σ ω s², with ω the inverse fourth power of how
    far they are. Those that lie close to the wall say little, so no weight grows however the wall cuts the cells, and
    the step that is stable in the fluid stays so. Fadlun, Verzicco, Orlandi and Mohd-Yusof (2000), J. Comput. Phys.
    161, interpolate along one line of the grid instead; Tseng and Ferziger (2003), J. Comput. Phys. 192, extrapolate to
    ghosts by polynomials. Fits of second degree were tried here: their weights have no such bound, a flow became
    unstable, and most forces that were published came no closer.

    Two kinds of faces follow. Through those of the rim, between fluid and obstacle and so at most half a cell from the
    wall, something flows. Around an obstacle that has to add up to nothing, or there would be no pressure: what is left
    of it, of the order of h², is taken off all its faces alike. Ghosts lie inside, beside free faces that see the wall
    through them, and let nothing through.

    That the rim follows holds before and after a projection, since the pressure is solved for with it (see
    `PressureSolver`). Setting the rim before and leaving it alone would be simpler, but then it would lack a step's
    pressure gradient, and be wrong by the size of the step.

    Attributes:
        faces: their places in a state, counted through u and v as one; those of the rim first.
        sources: those of the free faces.
        coupling: the weights "faces sources", and what else the pressure needs to know of the rim.
    """

    faces: Int64[np.ndarray, " faces"]
    sources: Int64[np.ndarray, " sources"]
    coupling: Coupling

    @property
    def ghosts(self) -> Int64[np.ndarray, " ghosts"]:
        """The places of the faces inside."""
        return self.faces[len(self.coupling.faces) :]

    def impose(self, state: Float64[np.ndarray, "fields rows columns"]) -> None:
        """Set the faces that follow from those that are free."""
        flat = state.reshape(-1)
        flat[self.faces] = self.coupling.coupled(flat, self.sources, len(self.faces))


def follow_walls(
    is_fluid: Bool[np.ndarray, "nx ny"], spacing: float, surfaces: Sequence[Surface], rim: Rim
) -> RoundWalls:
    """Find the faces that follow.

    Args:
        is_fluid: 0 in the cells whose centre is in an obstacle.
        spacing: of the cells.
        surfaces: the round walls.
        rim: of all obstacles, those included that fit the cells.

    Raises:
        ValueError: there is fluid inside of a surface.
    """
    nx, ny = is_fluid.shape
    # As in a state, cell (i, j) and the faces on its lower sides stand at [i + 1, j + 1].
    x, y = np.meshgrid((np.arange(nx + 3) - 0.5) * spacing, (np.arange(ny + 3) - 0.5) * spacing, indexing="ij")
    fluid = np.zeros(x.shape, dtype=bool)
    fluid[1:-2, 1:-2] = is_fluid
    box = np.zeros_like(fluid)
    box[1:-2, 1:-2] = True
    places, on_rim, sources, weights = [], [], [], []
    for number, surface in enumerate(surfaces):
        solid = box & (surface.distance(x, y) < 0.0)
        if (fluid & solid).any():
            raise ValueError(
                f"a mask that is 0 in the obstacles of the box, got fluid inside of surfaces.{number}; does the draw "
                f"belong to this problem?"
            )
        for axis in (0, 1):
            before, was_fluid = np.roll(solid, 1, axis), np.roll(fluid, 1, axis)
            free = fluid & was_fluid
            is_rim = (solid & was_fluid) | (before & fluid)
            beside = np.roll(free, 1, 1 - axis) | np.roll(free, -1, 1 - axis)
            is_ghost = solid & before & beside
            half = 0.5 * spacing
            away = surface.distance(x - half, y) if axis == 0 else surface.distance(x, y - half)
            rows, columns = np.nonzero(is_rim | is_ghost)
            at, say = _slopes(np.where(free & (away > 0.0), away, 0.0), rows, columns)
            places.append(axis * x.size + rows * x.shape[1] + columns)
            on_rim.append(is_rim[rows, columns])
            sources.append(axis * x.size + at)
            weights.append(away[rows, columns, np.newaxis] * say)
    order = np.argsort(~np.concatenate(on_rim), kind="stable")
    at, entries = np.concatenate(sources)[order], np.concatenate(weights)[order]
    return _assembled(np.concatenate(places)[order], at, entries, rim, (nx, ny))


def _slopes(
    away: Float64[np.ndarray, "rows columns"], rows: Int64[np.ndarray, " faces"], columns: Int64[np.ndarray, " faces"]
) -> tuple[Int64[np.ndarray, "faces around"], Float64[np.ndarray, "faces around"]]:
    """Places around every face, and by how much their velocities count for the slope there.

    Args:
        away: how far free faces are from the wall; 0 for others.
        rows: of the faces that follow.
        columns: of the same.
    """
    reach = math.floor(_REACH)
    i, j = (part.ravel() for part in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    squares = i**2 + j**2
    kept = (squares > 0) & (squares <= _REACH**2)
    i, j, squares = i[kept], j[kept], squares[kept]
    at_row, at_column = rows[:, np.newaxis] + i, columns[:, np.newaxis] + j
    s = away[at_row, at_column]
    weighted = s / squares**2
    return at_row * away.shape[1] + at_column, weighted / (weighted * s).sum(axis=1, keepdims=True)


def _assembled(
    places: Int64[np.ndarray, " faces"],
    at: Int64[np.ndarray, "faces around"],
    say: Float64[np.ndarray, "faces around"],
    rim: Rim,
    shape: tuple[int, int],
) -> RoundWalls:
    """The weights as a sparse matrix, and what the rim's faces are to the pressure. They come first."""
    ny, size = shape[1], (shape[0] + 3) * (shape[1] + 3)
    kept = say != 0.0
    sources, column = np.unique(at[kept], return_inverse=True)
    weights = csr_array((say[kept], (np.nonzero(kept)[0], column)), shape=(len(places), len(sources)))
    # A face stands where the cell after it does.
    axis = np.where(rim.after - rim.before == ny, 0, 1)
    of_rim = axis * size + (rim.after // ny + 1) * (ny + 3) + rim.after % ny + 1
    number = {place: face for face, place in enumerate(of_rim.tolist())}
    faces = np.array([number[place] for place in places.tolist() if place in number])
    axis, place = np.divmod(sources, size)
    after = (place // (ny + 3) - 1) * ny + place % (ny + 3) - 1
    coupling = Coupling(
        faces=faces,
        before=after - np.where(axis == 0, ny, 1),
        after=after,
        weights=weights,
        body=rim.body[faces],
        sign=rim.sign[faces],
    )
    return RoundWalls(faces=places, sources=sources, coupling=coupling)
