"""The pressure of a staggered grid: exact, at the price of a few small products of matrices."""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from scipy.ndimage import label
from scipy.sparse import csr_array

from headrace.solvers.evolution import staggered_kernels as kernels
from headrace.solvers.evolution.enclosure import Lids, Sides

type Cells = Float64[np.ndarray, "nx ny"]
type Parts = Float64[np.ndarray, "parts nx modes"]


class BoxPoisson:
    """L φ = f on a box of nx by ny cells, L the five-point operator with spacing 1 that no-flow boundaries close.

    Along the second axis the eigenvectors of L are cosines, or waves where it is periodic (Lynch, Rice and Thomas 1964,
    Numerische Mathematik 6); along the first one a tridiagonal system is left for each. Cosines are even or odd about
    the middle, so that even and odd parts are transformed apart, at half the price. Up to some hundred cells a side a
    product with a dense matrix is no slower than a fast transform.

    Where the potential is known up to a constant only, the constant is arbitrary; then the sum of f has to be 0.

    Attributes:
        transform: the eigenvectors, "parts points modes".
        back: the same, transposed.
    """

    def __init__(self, nx: int, ny: int, sides: Sides, lids: Lids) -> None:
        self.shape = nx, ny
        basis, eigenvalues = _cosines(ny) if lids == "walls" else _waves(ny)
        if lids == "walls" and ny % 2 == 0:
            half = ny // 2
            transform = np.stack([basis[:half, 0::2], basis[:half, 1::2]])
            eigenvalues = np.stack([eigenvalues[0::2], eigenvalues[1::2]])
        else:
            transform, eigenvalues = basis[np.newaxis].copy(), eigenvalues[np.newaxis]
        self.transform = torch.from_numpy(transform)
        self.back = torch.from_numpy(np.ascontiguousarray(transform.swapaxes(1, 2)))
        self.is_folded = len(self.transform) == 2
        diagonal = np.broadcast_to(eigenvalues[:, np.newaxis] - 2.0, (len(eigenvalues), nx, eigenvalues.shape[1]))
        diagonal = diagonal.copy()
        if sides != "periodic":
            diagonal[:, 0] += 1.0
            # φ is 0 on the outflow, half a cell from the last centres.
            diagonal[:, -1] += -1.0 if sides == "through" else 1.0
        if sides != "through":
            # Of the constant mode only differences are known: this fixes its first value.
            diagonal[0, 0, 0] -= 1.0
        self.ring: Parts = np.empty((0, 0, 0))
        if sides == "periodic":
            # Sherman and Morrison (1950): the corners, and as much on the diagonal, are e eᵀ with e = (1, 0, …, 0, 1).
            diagonal[:, 0] -= 1.0
            diagonal[:, -1] -= 1.0
        self.ratio = np.empty_like(diagonal)
        before = np.zeros_like(diagonal[:, 0])
        for row in range(nx):
            before = 1.0 / (diagonal[:, row] - before)
            self.ratio[:, row] = before
        if sides == "periodic":
            ends = np.zeros_like(diagonal)
            ends[:, 0] = ends[:, -1] = 1.0
            ring = np.empty_like(ends)
            kernels.solve_rows(self.ratio, self.ring, ends, ring)
            self.ring = ring / (1.0 + ring[:, :1] + ring[:, -1:])

    def room(self, rows: int) -> "Room":
        """Uninitialised even and odd parts of so many rows, by point or by mode."""
        # PyTorch begins arrays at multiples of 64 bytes: with another start a product may end in other last bits.
        tensor = torch.empty((len(self.transform), rows, self.transform.shape[1]), dtype=torch.float64)
        return Room(tensor=tensor, array=tensor.numpy())


@dataclass(frozen=True)
class Room:
    """An array, as PyTorch and as NumPy see it."""

    tensor: torch.Tensor
    array: Parts


@functools.lru_cache(maxsize=16)
def box_poisson(nx: int, ny: int, sides: Sides, lids: Lids) -> BoxPoisson:
    """One that is made once: all samples of a problem share it."""
    return BoxPoisson(nx, ny, sides, lids)


@dataclass(frozen=True, kw_only=True)
class Rim:
    """The faces between fluid and obstacles.

    Attributes:
        before: the cell on the lower side of every face, counted through the rows.
        after: the cell on its upper side.
        sign: 1 where the obstacle is on the upper side, else -1.
        body: the number of the obstacle.
    """

    before: Int64[np.ndarray, " faces"]
    after: Int64[np.ndarray, " faces"]
    sign: Float64[np.ndarray, " faces"]
    body: Int64[np.ndarray, " faces"]


@dataclass(frozen=True, kw_only=True)
class Coupling:
    """Faces of a rim that are not closed: what flows through them is a sum over what flows through free faces.

    Attributes:
        faces: their numbers in the rim.
        before: the cell on the lower side of every free face that counts.
        after: the cell on its upper side.
        weights: "faces free_faces", and more rows that are not used here. The sums are evened out afterwards, so that
            nothing flows into an obstacle.
        body: the number of the obstacle, for every face.
        sign: 1 where the obstacle is on the upper side, else -1.
    """

    faces: Int64[np.ndarray, " faces"]
    before: Int64[np.ndarray, " free_faces"]
    after: Int64[np.ndarray, " free_faces"]
    weights: csr_array
    body: Int64[np.ndarray, " faces"]
    sign: Float64[np.ndarray, " faces"]

    def coupled(
        self, values: Float64[np.ndarray, " values"], sources: Int64[np.ndarray, " free_faces"], count: int
    ) -> Float64[np.ndarray, " count"]:
        """The first so many sums over free faces, whose values stand at `sources`."""
        out = np.empty(count)
        w = self.weights
        kernels.coupled_faces(values, sources, w.indptr, w.indices, w.data, self.body, self.sign, out)
        return out


class PressureSolver:
    """L φ = f where obstacles close some faces, by the capacitance-matrix method.

    With the closed faces r, L = L₀ - D_r G_r, so φ = L₀⁻¹ (f + D_r g) with the jumps g = G_r φ across them, and these
    are the solution of (I - G_r L₀⁻¹ D_r) g = G_r L₀⁻¹ f: Buzbee, Dorr, George and Golub (1971), SIAM J. Numer.
    Anal. 8, Sec. 3; the identity of Woodbury. The matrix is symmetric with eigenvalues from 0 to 1, and 0 belongs to
    jumps that are equal all around an obstacle, in which φ is known up to a constant only. Its inverse is made once, by
    as many solutions as there are faces. f has to be 0 inside of obstacles.

    With a coupling, the velocity less the gradient is to obey it too: through the rim flows W u before, and after that
    W (u - G φ). So L = L₀ - D_r (G_r - W G), and G_r - W G stands for G_r in all that was said, but for the symmetry
    and the bounds of the eigenvalues. f holds W u, and inside of obstacles anything that adds up to 0.
    """

    def __init__(self, box: BoxPoisson, rim: Rim, coupling: Coupling | None = None) -> None:
        self._box, self._rim, self._coupling = box, rim, coupling
        nx, ny = box.shape
        read = [rim.before, rim.after]
        if coupling is not None:
            read += [coupling.before, coupling.after]
            self._slopes = np.empty(len(coupling.before))
            self._all = np.arange(len(coupling.before))
        # Values at the rim need the rows alone that have some of it.
        self._rows = np.unique(np.concatenate(read) // ny)
        place = np.zeros(nx, dtype=np.int64)
        place[self._rows] = np.arange(len(self._rows))
        half = ny // 2 if box.is_folded else ny
        ends = []
        for cells in read:
            column = cells % ny
            is_first = column < half
            folded = np.where(is_first, column, ny - 1 - column)
            ends.append(np.stack([place[cells // ny], folded, np.where(is_first, 1, -1)]))
        self._before, self._after, *self._free = ends
        self.parts = box.room(nx)
        self._modes, self._found, self._values = box.room(nx), box.room(nx), box.room(nx)
        self._rim_modes, self._rim_values = box.room(len(self._rows)), box.room(len(self._rows))
        self._potential = np.empty(box.shape) if box.is_folded else self._values.array[0]
        self._jumps = np.empty(len(rim.before))
        self._inverse = self._inverted() if len(rim.before) else np.empty((0, 0))

    def solve(self) -> Cells:
        """The potential, in an array that the next solution overwrites, from the f in `parts`."""
        box = self._box
        torch.bmm(self.parts.tensor, box.transform, out=self._modes.tensor)
        kernels.solve_rows(box.ratio, box.ring, self._modes.array, self._found.array)
        if len(self._inverse):
            self._read_jumps()
            self._add_jumps(self._inverse @ self._jumps)
            kernels.solve_rows(box.ratio, box.ring, self._modes.array, self._found.array)
        torch.bmm(self._found.tensor, box.back, out=self._values.tensor)
        if box.is_folded:
            kernels.unfold(self._values.array, self._potential)
        return self._potential

    def _read_jumps(self) -> None:
        """G_r of what was found; less W G of it, where the rim is coupled."""
        np.take(self._found.array, self._rows, axis=1, out=self._rim_modes.array)
        torch.bmm(self._rim_modes.tensor, self._box.back, out=self._rim_values.tensor)
        kernels.jumps(self._rim_values.array, self._before, self._after, self._jumps)
        if self._coupling is not None:
            kernels.jumps(self._rim_values.array, *self._free, self._slopes)
            faces = self._coupling.faces
            self._jumps[faces] -= self._coupling.coupled(self._slopes, self._all, len(faces))

    def _add_jumps(self, jumps: Float64[np.ndarray, " faces"]) -> None:
        """D_r of them to the modes of f."""
        kernels.spread(jumps, self._before, self._after, self._rim_values.array)
        torch.bmm(self._rim_values.tensor, self._box.transform, out=self._rim_modes.tensor)
        kernels.add_rows(self._rim_modes.array, self._rows, self._modes.array)

    def _inverted(self) -> Float64[np.ndarray, "faces faces"]:
        rim, box = self._rim, self._box
        count = len(rim.before)
        matrix = np.eye(count)
        for face in range(count):
            unit = np.zeros(count)
            unit[face] = 1.0
            self._modes.array[:] = 0.0
            self._add_jumps(unit)
            kernels.solve_rows(box.ratio, box.ring, self._modes.array, self._found.array)
            self._read_jumps()
            matrix[:, face] -= self._jumps
        if self._coupling is None:
            matrix = 0.5 * (matrix + matrix.T)
        for body in range(rim.body.max() + 1):
            around = np.where(rim.body == body, rim.sign, 0.0)
            matrix += np.outer(around, around) / (around @ around)
        inverse = np.linalg.inv(matrix)
        if self._coupling is not None:
            return inverse
        return np.ascontiguousarray(0.5 * (inverse + inverse.T))


def _cosines(n: int) -> tuple[Float64[np.ndarray, "n n"], Float64[np.ndarray, " n"]]:
    """Eigenvectors and eigenvalues of the second difference with no flow through the ends; the constant first."""
    k, j = np.arange(n), np.arange(n)[:, np.newaxis]
    basis = np.cos(np.pi * k * (j + 0.5) / n) * np.sqrt(np.where(k == 0, 1.0, 2.0) / n)
    return basis, -((2.0 * np.sin(0.5 * np.pi * k / n)) ** 2)


def _waves(n: int) -> tuple[Float64[np.ndarray, "n n"], Float64[np.ndarray, " n"]]:
    """The same where the last point is beside the first: 1, cos, sin, cos, sin and so on."""
    k, j = (np.arange(n) + 1) // 2, np.arange(n)[:, np.newaxis]
    phase = 2.0 * np.pi * ((k * j) % n) / n
    is_cosine = (np.arange(n) % 2 == 1) | (k == 0)
    basis = np.where(is_cosine, np.cos(phase), np.sin(phase))
    basis /= np.sqrt((basis**2).sum(axis=0))
    return basis, -((2.0 * np.sin(np.pi * k / n)) ** 2)


def find_rim(is_fluid: Bool[np.ndarray, "nx ny"]) -> Rim:
    """The faces between cells of which one is fluid. Obstacles never lie across a periodic boundary."""
    bodies = label(~is_fluid)[0]
    cells = np.arange(is_fluid.size).reshape(is_fluid.shape)
    parts: list[tuple[np.ndarray, ...]] = []
    for axis in (0, 1):
        lower, upper = (
            tuple(np.s_[:-1] if number == axis else np.s_[:] for number in (0, 1)),
            tuple(np.s_[1:] if number == axis else np.s_[:] for number in (0, 1)),
        )
        is_rim = is_fluid[lower] != is_fluid[upper]
        sign = np.where(is_fluid[lower], 1.0, -1.0)[is_rim]
        body = (bodies[lower] + bodies[upper])[is_rim] - 1  # one of the two is 0
        parts.append((cells[lower][is_rim], cells[upper][is_rim], sign, body))
    before, after, sign, body = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Rim(before=before, after=after, sign=sign, body=body)
