"""StaggeredFlow: one incompressible flow on its way through a box of square cells."""

import math

import numpy as np
from jaxtyping import Bool, Float64, Int64

from headrace.solvers.evolution import staggered_kernels as kernels
from headrace.solvers.evolution.enclosure import Coefficients, Enclosure
from headrace.solvers.evolution.fast_poisson import PressureSolver, box_poisson, find_rim
from headrace.solvers.evolution.round_walls import RoundWalls, follow_walls

# The classical Runge-Kutta method is stable in the triangle of -2.785 and ±2.828 i.
_REAL, _IMAGINARY = 2.785, 2.828
_SIDES = {"periodic": kernels.PERIODIC, "walls": kernels.WALLS, "through": kernels.THROUGH}


class StaggeredFlow:
    """One flow on its way.

    Attributes:
        has_heat: whether there is a temperature.
        num_steps: taken so far.
    """

    def __init__(
        self, box: Enclosure, coefficients: Coefficients, is_fluid: Bool[np.ndarray, "nx ny"] | None = None
    ) -> None:
        self._box, self._coefficients = box, coefficients
        nx, ny = box.shape
        self._sides, self._lids = _SIDES[box.sides], _SIDES[box.lids]
        self.has_heat = box.temperatures is not None
        self._walls = box.temperatures or (0.0, 0.0)
        self.is_fluid = np.ones(box.shape, dtype=bool) if is_fluid is None else is_fluid
        rim = find_rim(self.is_fluid)
        self._poisson = box_poisson(nx, ny, box.sides, box.lids)
        self._round: RoundWalls | None = None
        if box.surfaces:
            self._round = follow_walls(self.is_fluid, box.spacing, box.surfaces, rim)
        self._solver = PressureSolver(self._poisson, rim, None if self._round is None else self._round.coupling)
        self._blocked, self._dragged, self._drag, self._inside = _no_slip(self.is_fluid, self._round)
        self._state = np.zeros((3, nx + 3, ny + 3))
        self._previous = np.zeros_like(self._state)
        self._buffers = [np.zeros_like(self._state) for _ in range(4)]
        self.num_steps = 0

    # Ways in and out.

    def start(
        self, velocity: Float64[np.ndarray, "2 nx ny"], temperature: Float64[np.ndarray, "nx ny"] | None = None
    ) -> None:
        """Begin with velocities at the centres of the cells: means take them to the faces, the projection does more."""
        padded = np.pad(velocity, ((0, 0), (1, 1), (1, 1)), mode="edge")
        if self._box.sides == "periodic":
            padded[:, 0], padded[:, -1] = padded[:, -2], padded[:, 1]
        if self._box.lids == "periodic":
            padded[:, :, 0], padded[:, :, -1] = padded[:, :, -2], padded[:, :, 1]
        u = 0.5 * (padded[0, :-1, 1:-1] + padded[0, 1:, 1:-1])
        v = 0.5 * (padded[1, 1:-1, :-1] + padded[1, 1:-1, 1:])
        self.start_from_faces(u, v, temperature)

    def start_from_faces(
        self,
        u: Float64[np.ndarray, "nx_plus_1 ny"],
        v: Float64[np.ndarray, "nx ny_plus_1"],
        temperature: Float64[np.ndarray, "nx ny"] | None = None,
    ) -> None:
        """Begin with the velocities through the faces. What the boundary and the obstacles forbid is put right."""
        state = self._state
        state[:] = 0.0
        state[0, 1:-1, 1:-2], state[1, 1:-2, 1:-1] = u, v
        if temperature is not None:
            state[2, 1:-2, 1:-2] = temperature
        if self._box.inflow is not None:
            state[0, 1, 1:-2] = self._box.inflow
        state.reshape(-1)[self._blocked] = 0.0
        self._fill(state)
        self._project(state)
        for buffer in self._buffers:
            buffer[:] = state

    def faces(self) -> tuple[Float64[np.ndarray, "nx_plus_1 ny"], Float64[np.ndarray, "nx ny_plus_1"]]:
        """The velocities through the faces; 0 inside of obstacles."""
        state = self._state
        if self._round is not None:
            state = state.copy()
            state.reshape(-1)[self._round.ghosts] = 0.0
        return state[0, 1:-1, 1:-2].copy(), state[1, 1:-2, 1:-1].copy()

    def velocity(self) -> Float64[np.ndarray, "2 nx ny"]:
        """At the centres: means of two faces; 0 in obstacles."""
        u, v = self.faces()
        return np.where(self.is_fluid, 0.5 * np.stack([u[:-1] + u[1:], v[:, :-1] + v[:, 1:]]), 0.0)

    def temperature(self) -> Float64[np.ndarray, "nx ny"]:
        """At the centres."""
        return self._state[2, 1:-2, 1:-2].copy()

    def pressure(self) -> Float64[np.ndarray, "nx ny"]:
        """At the centres; 0 in obstacles, on the outflow, or else on the average."""
        rate = self._rate()
        self._copy_periodic(rate)
        pressure = self._potential(rate) * self._box.spacing
        if self._box.sides != "through":
            pressure -= pressure[self.is_fluid].mean()
        return np.where(self.is_fluid, pressure, 0.0)

    def divergence(self) -> float:
        """The largest ∇·u of a cell."""
        out = np.empty(self._box.shape)
        kernels.divergence(self._state, out)
        return float(np.abs(out[self.is_fluid]).max()) / self._box.spacing

    def largest_velocity(self) -> float:
        """The largest |u| + |v| of a cell."""
        return float(kernels.fastest(self._state))

    def energy(self) -> float:
        """½ ∫ |u|² as the scheme knows it: a face counts for half of the cells beside it."""
        u, v = self.faces()
        weight_u, weight_v = np.ones_like(u), np.ones_like(v)
        weight_u[[0, -1]] = weight_v[:, [0, -1]] = 0.5
        return 0.5 * self._box.spacing**2 * float((weight_u * u**2).sum() + (weight_v * v**2).sum())

    def force(self, within: Bool[np.ndarray, "nx ny"] | None = None) -> tuple[float, float]:
        """What the flow does to its obstacles, for a density of 1 and a unit of depth: drag and lift.

        It is the momentum that all faces in and around the obstacles would gain if they were free: the flow of momentum
        to them by convection, viscosity and pressure, to the last bit what the free faces lose.

        Args:
            within: the cells of the obstacles that are meant; default: all.
        """
        h, nu = self._box.spacing, self._coefficients.viscosity / self._box.spacing**2
        pressure = self.pressure()
        blocked, self._blocked = self._blocked, self._blocked[:0]
        gain = self._rate()
        self._blocked = blocked
        # A wall half a cell away takes twice what the difference to a face at rest says.
        slid = np.zeros_like(gain)
        slid.reshape(-1)[self._dragged] = nu * self._state.reshape(-1)[self._dragged]
        gain[0, :, 1:-1] += np.where(self._inside[0, :, 1:-1], slid[0, :, 2:] + slid[0, :, :-2], 0.0)
        gain[1, 1:-1] += np.where(self._inside[1, 1:-1], slid[1, 2:] + slid[1, :-2], 0.0)
        p = np.zeros(gain.shape[1:])
        p[1:-2, 1:-2] = pressure
        meant = ~self.is_fluid if within is None else within & ~self.is_fluid
        near = np.zeros(gain.shape[1:], dtype=bool)
        near[1:-2, 1:-2] = meant
        # Faces of the obstacle's own cells.
        of_u, of_v = near.copy(), near.copy()
        of_u[1:] |= near[:-1]
        of_v[:, 1:] |= near[:, :-1]
        gain[0, 1:] -= (p[1:] - p[:-1]) / h
        gain[1, :, 1:] -= (p[:, 1:] - p[:, :-1]) / h
        return float(gain[0, of_u].sum() * h**2), float(gain[1, of_v].sum() * h**2)

    # Steps.

    def longest_step(self) -> float:
        """The longest step that is stable, by the largest convective and viscous rates of the central differences."""
        fastest = float(kernels.fastest(self._state))
        if not math.isfinite(fastest):
            return math.nan
        h = self._box.spacing
        viscous = 8.0 * max(self._coefficients.viscosity, self._coefficients.diffusivity) / h**2
        rate = max(fastest, abs(self._box.lid_speed)) / h / _IMAGINARY + viscous / _REAL
        return 1.0 / rate if rate > 0.0 else math.inf

    def advance(self, size: float) -> None:
        """One step of the classical Runge-Kutta method.

        With the stages U₂ = u + ½ h f(u), U₃ = u + ½ h f(U₂), U₄ = u + h f(U₃), each projected, its sum is
        (U₂ - u + 2 U₃ + U₄) / 3 + h f(U₄) / 6: what is kept are the stages, and no sum runs along.
        """
        start, (first, second, third, end) = self._state, self._buffers
        self._stage(start, start, first, 0.5 * size)
        self._finish(first)
        self._stage(first, start, second, 0.5 * size)
        self._finish(second)
        self._stage(second, start, third, size)
        self._finish(third)
        end[:] = third
        kernels.sum_of_stages(start, first, second, end, self.has_heat)
        self._stage(third, end, end, size / 6.0)
        self._finish(end)
        # The state that was left is kept, for those who want to do the step again.
        self._state, self._previous, self._buffers = end, start, [first, second, third, start]
        self.num_steps += 1

    def defect(self, size: float) -> float:
        """By how much the last step, which had this size, differs from two half ones, relative to the state."""
        state, num_steps = self._state.copy(), self.num_steps
        self._state[:] = self._previous
        self.advance(0.5 * size)
        self.advance(0.5 * size)
        half = self._state.copy()
        self._state[:], self.num_steps = state, num_steps
        inner = np.s_[:, 1:-1, 1:-1]
        difference = np.linalg.norm((state - half)[inner])
        return float(difference / max(float(np.linalg.norm(half[inner])), np.finfo(np.float64).tiny))

    def _stage(self, state: np.ndarray, base: np.ndarray, out: np.ndarray, size: float) -> None:
        h, numbers = self._box.spacing, self._coefficients
        kernels.stage(
            state, base, out, size,
            1.0 / h, numbers.viscosity / h**2, numbers.diffusivity / h**2, numbers.buoyancy, self._sides, self._lids,
            self._blocked, self._dragged, self._drag, self.has_heat,
        )  # fmt: skip

    def _rate(self) -> Float64[np.ndarray, "fields rows columns"]:
        """The change of the state in a unit of time, but for the pressure."""
        rate = np.zeros_like(self._state)
        self._stage(self._state, rate, rate, 1.0)
        return rate

    def _finish(self, state: np.ndarray) -> None:
        self._copy_periodic(state)
        self._project(state)

    def _copy_periodic(self, state: np.ndarray) -> None:
        """The last faces are the first ones, where the box is periodic."""
        if self._box.sides == "periodic":
            state[0, -2] = state[0, 1]
        if self._box.lids == "periodic":
            state[1, :, -2] = state[1, :, 1]

    def _fill(self, state: np.ndarray) -> None:
        kernels.fill_ghosts(state, self._sides, self._lids, self._box.lid_speed, *self._walls)

    def _potential(self, state: np.ndarray) -> Float64[np.ndarray, "nx ny"]:
        """The potential whose gradient has the divergence of a state; of that, first what its round walls say."""
        if self._round is not None:
            self._round.impose(state)
        solver = self._solver
        if self._poisson.is_folded:
            kernels.divergence_folded(state, solver.parts.array)
        else:
            kernels.divergence(state, solver.parts.array[0])
        return solver.solve()

    def _project(self, state: np.ndarray) -> None:
        kernels.less_the_gradient(state, self._potential(state), self._sides, self._lids, self._blocked)
        self._fill(state)
        if self._round is not None:
            self._round.impose(state)


def _no_slip(
    is_fluid: Bool[np.ndarray, "nx ny"], round_walls: RoundWalls | None
) -> tuple[
    Int64[np.ndarray, " blocked"],
    Int64[np.ndarray, " dragged"],
    Float64[np.ndarray, " dragged"],
    Bool[np.ndarray, "2 rows columns"],
]:
    """Where u and v are 0 because of obstacles; where they slide along one, half a cell away; and along how many walls.

    A face inside of an obstacle, solid on both sides, stands for a wall half a cell before it. These come last. Where
    walls are round there is none: what such faces hold there says where the wall is.
    """
    nx, ny = is_fluid.shape
    solid = np.zeros((nx + 3, ny + 3), dtype=bool)
    solid[1:-2, 1:-2] = ~is_fluid
    before_u, before_v = np.zeros_like(solid), np.zeros_like(solid)
    before_u[1:], before_v[:, 1:] = solid[:-1], solid[:, :-1]
    blocked = np.stack([solid | before_u, solid | before_v])
    inside = np.stack([solid & before_u, solid & before_v])
    if round_walls is not None:
        inside.reshape(-1)[round_walls.ghosts] = False
    walls = np.zeros(blocked.shape)
    walls[0, :, 1:] += inside[0, :, :-1]
    walls[0, :, :-1] += inside[0, :, 1:]
    walls[1, 1:] += inside[1, :-1]
    walls[1, :-1] += inside[1, 1:]
    walls[blocked] = 0.0
    dragged = np.flatnonzero(walls)
    return np.flatnonzero(blocked), dragged, walls.reshape(-1)[dragged], inside
