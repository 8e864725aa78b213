"""Semilinear equations against exact solutions, an independent discretisation, and their own orders."""

import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
from jaxtyping import Float64
from scipy.integrate import solve_ivp

from headrace.platform.seeding import generator
from headrace.platform.spec import kinds
from headrace.solvers.evolution.evolution import Draw
from headrace.solvers.evolution.semilinear import AbstractSemilinear
from headrace.solvers.problems import (
    Advection,
    AllenCahn,
    Burgers,
    Diffusion,
    GrayScott,
    KortewegDeVries,
    KuramotoSivashinsky,
    NavierStokes,
    Wave,
)
from headrace.solvers.sources.all_sampled import SAMPLED

Array = Float64[np.ndarray, "..."]

SEMILINEAR = [one for one in kinds("headrace.problems", SAMPLED).values() if issubclass(one, AbstractSemilinear)]

# A short time in which every equation does something, on few points, from smooth data.
CASES: dict[type[AbstractSemilinear], AbstractSemilinear] = {
    Advection: Advection(resolution=32, horizon=0.3, snapshots=2),
    Diffusion: Diffusion(resolution=32, diffusivity=0.05, horizon=0.3, snapshots=2),
    Wave: Wave(resolution=32, horizon=0.3, snapshots=2),
    Burgers: Burgers(resolution=64, viscosity=0.05, horizon=0.2, snapshots=2),
    KortewegDeVries: KortewegDeVries(resolution=64, dispersion=0.05, horizon=0.05, snapshots=2),
    KuramotoSivashinsky: KuramotoSivashinsky(resolution=64, length=20.0, horizon=2.0, snapshots=2),
    AllenCahn: AllenCahn(resolution=64, interface=0.1, horizon=1.0, snapshots=2),
    GrayScott: GrayScott(
        resolution=96, dim=1, feed=0.3, kill=0.2, diffusivity_u=0.02, diffusivity_v=0.01, horizon=2.0, snapshots=2
    ),
    NavierStokes: NavierStokes(
        resolution=20, viscosity=0.05, drag=0.1, forcing=1.0, forcing_wave=2, horizon=0.5, snapshots=2
    ),
}
IN_SPACE = [one for one in CASES if 3 in get_args(one.model_fields["dim"].annotation)]


def case_of(kind: type[AbstractSemilinear]) -> AbstractSemilinear:
    """The case above, or ten steps of an equation that came later and is compared with nothing here."""
    if kind in CASES:
        return CASES[kind]
    problem = kind()
    return problem.overridden({"resolution": 32, "horizon": 10.0 * problem.default_step, "snapshots": 2})


def smooth(problem: AbstractSemilinear, seed: int = 0) -> Draw:
    """A draw whose fields hold three waves an axis, so that few points resolve what becomes of them."""
    rng = generator(seed, "smooth")
    draw = problem.draw(rng)
    fields = {}
    for name, field in draw.fields.items():
        x = np.meshgrid(*(2.0 * np.pi * np.arange(problem.resolution) / problem.resolution,) * problem.dim)
        parts = []
        for _ in range(len(field)):
            waves = rng.integers(-2, 3, size=(3, problem.dim)) + 0.0
            waves[:, 0] = [1.0, 2.0, 1.0]
            total = sum(
                rng.normal() * np.cos(sum(k * along for k, along in zip(wave, x, strict=True)) + rng.uniform(0.0, 6.3))
                for wave in waves
            )
            parts.append(0.3 * total)
        fields[name] = np.stack(parts) + (0.5 if isinstance(problem, GrayScott) else 0.0)
    return Draw(scalars=draw.scalars, fields=fields)


def followed(problem: AbstractSemilinear, draws: list[Draw], step: float) -> Array:
    """The states at the output times, "time batch components *grid"."""
    return np.stack([snapshot.state for snapshot in problem.follow(draws, step)])


def from_function(problem: AbstractSemilinear, **fields: Array) -> Draw:
    scalars = problem.draw(generator(0, "scalars")).scalars
    return Draw(scalars=scalars, fields={name: np.asarray(field) for name, field in fields.items()})


def relative(value: Array, truth: Array) -> float:
    return float(np.linalg.norm(value - truth) / np.linalg.norm(truth))


# Exact solutions.


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_advection_moves_a_field_as_it_is(dim: int) -> None:
    n = 16
    velocity = dict(zip(("velocity_x", "velocity_y", "velocity_z"), (0.5, -0.25, 1.0), strict=True))
    problem = Advection(resolution=n, dim=dim, horizon=1.0, snapshots=4, **velocity)
    x = np.meshgrid(*(np.arange(n) / n,) * dim, indexing="ij")

    def exact(time: float) -> Array:
        shifted = [along - c * time for along, c in zip(x, velocity.values(), strict=False)]
        return np.exp(np.sin(2.0 * np.pi * sum(shifted)))[np.newaxis]

    states = followed(problem, [from_function(problem, u=exact(0.0))], problem.default_step)
    for state, time in zip(states, problem.times, strict=True):
        np.testing.assert_allclose(state[0], exact(time), atol=2e-6)  # the waves that 16 points leave out


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_diffusion_and_waves_of_a_single_mode_are_exact(dim: int) -> None:
    n = 8
    x = np.meshgrid(*(np.arange(n) / n,) * dim, indexing="ij")
    mode = np.cos(2.0 * np.pi * sum(x))[np.newaxis]
    square = dim * (2.0 * np.pi) ** 2
    diffusion = Diffusion(resolution=n, dim=dim, diffusivity=0.25, horizon=0.1, snapshots=(0.03, 0.1))
    for state, time in zip(followed(diffusion, [from_function(diffusion, u=mode)], 1.0), (0.03, 0.1), strict=True):
        np.testing.assert_allclose(state[0], math.exp(-0.25 * square * time) * mode, atol=1e-13)
    wave = Wave(resolution=n, dim=dim, speed=0.5, horizon=3.0, snapshots=3)
    start = from_function(wave, u=mode + 2.0, u_t=np.zeros_like(mode))
    for state, time in zip(followed(wave, [start], 1.0), wave.times, strict=True):
        omega = 0.5 * math.sqrt(square)
        np.testing.assert_allclose(state[0, :1], math.cos(omega * time) * mode + 2.0, atol=1e-12)
        np.testing.assert_allclose(state[0, 1:], -omega * math.sin(omega * time) * mode, atol=1e-11)


def test_burgers_equation_has_the_solution_of_cole_and_hopf() -> None:
    nu, a = 0.0625, 0.9
    problem = Burgers(resolution=128, viscosity=nu, horizon=0.5, snapshots=5)
    x = np.arange(128) / 128 * 2.0 * np.pi

    def exact(time: float) -> Array:
        share = a * math.exp(-nu * (2.0 * np.pi) ** 2 * time)
        return (4.0 * np.pi * nu * share * np.sin(x) / (1.0 + share * np.cos(x)))[np.newaxis]

    states = followed(problem, [from_function(problem, velocity=exact(0.0))], 1e-3)
    for state, time in zip(states, problem.times, strict=True):
        np.testing.assert_allclose(state[0], exact(time), atol=1e-9)


def test_burgers_in_more_dimensions_holds_the_one_dimensional_solution() -> None:
    line = Burgers(resolution=16, viscosity=0.05, horizon=0.1, snapshots=1)
    x = np.arange(16) / 16
    u = 0.1 * np.sin(2.0 * np.pi * x) + 0.02
    (expected,) = followed(line, [from_function(line, velocity=u[np.newaxis])], 0.01)
    for dim in (2, 3):
        problem = line.overridden({"dim": dim})
        field = np.zeros((dim, *(16,) * dim))
        field[dim - 1] = u  # along the last axis
        (state,) = followed(problem, [from_function(problem, velocity=field)], 0.01)
        found = state[0, dim - 1].reshape(-1, 16)
        np.testing.assert_allclose(found, np.broadcast_to(expected[0, 0], found.shape), atol=1e-10)
        assert np.abs(state[0, : dim - 1]).max() < 1e-14


def test_a_soliton_keeps_its_shape() -> None:
    # Of u_t + 6 u u_x + δ² u_xxx = 0: u = (c / 2) sech²(√c (x - c t) / (2 δ)).
    speed, delta = 4.0, 0.0625
    problem = KortewegDeVries(resolution=256, length=2.0, dispersion=delta, horizon=0.5, snapshots=2)
    x = np.arange(256) / 128

    def exact(time: float) -> Array:
        away = (x - 0.5 - speed * time + 1.0) % 2.0 - 1.0
        return (0.5 * speed / np.cosh(0.5 * math.sqrt(speed) * away / delta) ** 2)[np.newaxis]

    states = followed(problem, [from_function(problem, u=exact(0.0))], 1e-4)
    for state, time in zip(states, problem.times, strict=True):
        assert relative(state[0], exact(time)) < 1e-6


def test_a_uniform_phase_follows_its_own_equation() -> None:
    problem = AllenCahn(resolution=8, horizon=2.0, snapshots=2)
    start = 0.125
    (_, state) = followed(problem, [from_function(problem, u=np.full((1, 8), start))], 0.02)
    exact = start * math.exp(2.0) / math.sqrt(1.0 + start**2 * (math.exp(4.0) - 1.0))
    np.testing.assert_allclose(state[0], exact, rtol=1e-8)


def test_the_wall_between_two_phases_stands_still() -> None:
    epsilon = 0.03125
    problem = AllenCahn(resolution=128, interface=epsilon, horizon=2.0, snapshots=1)
    x = np.arange(128) / 128
    walls = np.tanh((x - 0.25) / (math.sqrt(2.0) * epsilon)) * np.tanh((0.75 - x) / (math.sqrt(2.0) * epsilon))
    (state,) = followed(problem, [from_function(problem, u=walls[np.newaxis])], 0.02)
    # Half the box away, a wall is still felt by 2 e^(-√2 / (4 ε)).
    np.testing.assert_allclose(state[0, 0], walls, atol=4.0 * math.exp(-math.sqrt(2.0) / (4.0 * epsilon)))


def test_a_taylor_green_vortex_decays() -> None:
    problem = NavierStokes(resolution=16, viscosity=0.125, horizon=1.0, snapshots=2)
    x, y = np.meshgrid(*(2.0 * np.pi * np.arange(16) / 16,) * 2, indexing="ij")
    vortices = 2.0 * np.cos(x) * np.cos(y)
    for state, time in zip(
        followed(problem, [from_function(problem, vorticity=vortices[np.newaxis])], 0.1), problem.times, strict=True
    ):
        np.testing.assert_allclose(state[0, 0], math.exp(-0.25 * time) * vortices, atol=1e-12)


def test_kolmogorov_flow_tends_to_its_laminar_solution() -> None:
    nu, alpha, force, m = 0.125, 0.5, 2.0, 3
    problem = NavierStokes(
        resolution=16, viscosity=nu, drag=alpha, forcing=force, forcing_wave=m, horizon=1.0, snapshots=1
    )
    y = np.broadcast_to(2.0 * np.pi * np.arange(16) / 16, (16, 16))
    rate = nu * m**2 + alpha
    laminar = -force * m / rate * np.cos(m * y)
    (state,) = followed(problem, [from_function(problem, vorticity=np.zeros((1, 16, 16)))], 0.05)
    np.testing.assert_allclose(state[0, 0], (1.0 - math.exp(-rate)) * laminar, atol=1e-11)


# An independent discretisation: dense differentiation matrices, and an adaptive Runge-Kutta method.


def differentiation(n: int, length: float) -> Array:
    k = 2j * np.pi / length * np.fft.fftfreq(n, 1.0 / n)
    k[n // 2] = 0.0
    return np.fft.ifft(k[:, None] * np.fft.fft(np.eye(n), axis=0), axis=0).real


def right_hand_side(problem: AbstractSemilinear, draw: Draw) -> Callable[[Array], Array]:
    """u_t at the points, "components *grid", written down once more."""
    n, p = problem.resolution, draw.scalars
    d = differentiation(n, problem.length)
    dd = d @ d
    if isinstance(problem, NavierStokes):
        # The Poisson equation as one dense system; its mean is free.
        laplace = np.kron(dd, np.eye(n)) + np.kron(np.eye(n), dd)
        inverse = np.linalg.pinv(laplace)
        y = np.arange(n) * problem.length / n
        m = 2.0 * np.pi * problem.forcing_wave / problem.length

        def flow(w: Array) -> Array:
            w = w[0]
            psi = (-inverse @ w.ravel()).reshape(n, n)
            u, v = psi @ d.T, -d @ psi
            diffusion = dd @ w + w @ dd.T
            force = -p["forcing"] * m * np.cos(m * y)[None, :]
            return (-u * (d @ w) - v * (w @ d.T) + p["viscosity"] * diffusion - p["drag"] * w + force)[None]

        return flow
    rules: dict[type[AbstractSemilinear], Callable[[Array], Array]] = {
        Advection: lambda u: -p["velocity_x"] * (u @ d.T),
        Diffusion: lambda u: p["diffusivity"] * (u @ dd.T),
        Wave: lambda u: np.stack([u[1], p["speed"] ** 2 * (dd @ u[0])]),
        Burgers: lambda u: -u * (u @ d.T) + p["viscosity"] * (u @ dd.T),
        KortewegDeVries: lambda u: -6.0 * u * (u @ d.T) - p["dispersion"] ** 2 * (u @ (dd @ d).T),
        KuramotoSivashinsky: lambda u: -(u @ dd.T) - p["viscosity"] * (u @ (dd @ dd).T) - u * (u @ d.T),
        AllenCahn: lambda u: p["interface"] ** 2 * (u @ dd.T) + u - u**3,
        GrayScott: lambda w: np.stack(
            [
                0.02 * (dd @ w[0]) - w[0] * w[1] ** 2 + p["feed"] * (1.0 - w[0]),
                0.01 * (dd @ w[1]) + w[0] * w[1] ** 2 - (p["feed"] + p["kill"]) * w[1],
            ]
        ),
    }
    return rules[type(problem)]


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
def test_every_equation_agrees_with_an_independent_discretisation(kind: type[AbstractSemilinear]) -> None:
    problem = CASES[kind]
    draw = smooth(problem)
    start = np.concatenate([draw.fields[spec.name] for spec in problem.state])
    if isinstance(problem, NavierStokes | Wave):
        start[-1] -= start[-1].mean()
        fields = {spec.name: row[None] for spec, row in zip(problem.state, start, strict=True)}
        draw = Draw(scalars=draw.scalars, fields=fields)
    rate = right_hand_side(problem, draw)
    found = solve_ivp(
        lambda _, u: rate(u.reshape(start.shape)).ravel(),
        (0.0, problem.times[-1]),
        start.ravel(),
        method="BDF" if kind is KuramotoSivashinsky else "RK45",
        t_eval=problem.times,
        rtol=1e-9,
        atol=1e-10,
    )
    states = followed(problem, [draw], min(problem.default_step / 8.0, problem.horizon / 64.0))
    for number in range(len(problem.times)):
        assert relative(states[number, 0].ravel(), found.y[:, number]) < 3e-6


def in_space(kind: type[AbstractSemilinear], n: int) -> AbstractSemilinear:
    """A case in three dimensions, of the same waves."""
    return CASES[kind].overridden({"dim": 3, "resolution": n})


def space_right_hand_side(problem: AbstractSemilinear, draw: Draw) -> Callable[[Array], Array]:
    """The same in three dimensions: differences along each axis are products with one dense matrix."""
    p, d = draw.scalars, differentiation(problem.resolution, problem.length)

    def along(u: Array, axis: int, matrix: Array = d) -> Array:
        return np.moveaxis(np.moveaxis(u, axis - 3, -1) @ matrix.T, -1, axis - 3)

    def laplace(u: Array) -> Array:
        return sum((along(u, axis, d @ d) for axis in range(3)), start=np.zeros_like(u))

    def convection(u: Array) -> Array:
        return sum((u[axis] * along(u, axis) for axis in range(3)), start=np.zeros_like(u))

    rules: dict[type[AbstractSemilinear], Callable[[Array], Array]] = {
        Advection: lambda u: -sum(p[f"velocity_{axis}"] * along(u, i) for i, axis in enumerate("xyz")),
        Diffusion: lambda u: p["diffusivity"] * laplace(u),
        Wave: lambda u: np.stack([u[1], p["speed"] ** 2 * laplace(u[0])]),
        Burgers: lambda u: -convection(u) + p["viscosity"] * laplace(u),
        AllenCahn: lambda u: p["interface"] ** 2 * laplace(u) + u - u**3,
        GrayScott: lambda w: np.stack(
            [
                0.02 * laplace(w[0]) - w[0] * w[1] ** 2 + p["feed"] * (1.0 - w[0]),
                0.01 * laplace(w[1]) + w[0] * w[1] ** 2 - (p["feed"] + p["kill"]) * w[1],
            ]
        ),
    }
    return rules[type(problem)]


@pytest.mark.parametrize("kind", IN_SPACE, ids=lambda kind: kind.__name__)
def test_in_space_every_equation_agrees_with_an_independent_discretisation(kind: type[AbstractSemilinear]) -> None:
    problem = in_space(kind, 28)
    draw = smooth(problem)
    start = np.concatenate([draw.fields[spec.name] for spec in problem.state])
    rate = space_right_hand_side(problem, draw)
    found = solve_ivp(
        lambda _, u: rate(u.reshape(start.shape)).ravel(),
        (0.0, problem.times[-1]),
        start.ravel(),
        t_eval=problem.times,
        rtol=1e-8,
        atol=1e-9,
    )
    states = followed(problem, [draw], min(problem.default_step / 8.0, problem.horizon / 64.0))
    for number in range(len(problem.times)):
        # As in one dimension, on fewer points: Burgers' fronts would need more than 28 for as little.
        assert relative(states[number, 0].ravel(), found.y[:, number]) < (3e-5 if kind is Burgers else 3e-6)


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (1, 2), (2, 0)], ids=str)
@pytest.mark.parametrize("kind", IN_SPACE, ids=lambda kind: kind.__name__)
def test_in_space_a_line_and_a_plane_are_what_they_are_alone(
    kind: type[AbstractSemilinear], axes: tuple[int, ...]
) -> None:
    space, n = in_space(kind, 14), 14
    problem = space.overridden({"dim": len(axes)})
    draw = smooth(problem)
    scalars = dict(draw.scalars)
    if isinstance(problem, Advection):
        speeds = list(draw.scalars.values())
        scalars = {f"velocity_{axis}": 0.75 for axis in "xyz"}  # along the others nothing changes
        scalars |= {f"velocity_{'xyz'[axis]}": speed for axis, speed in zip(axes, speeds, strict=True)}

    def placed(field: Array) -> Array:
        """A field of the line or plane as one in space, the same along the other axes."""
        order = np.argsort(axes)
        turned = np.transpose(field, (0, *(1 + order)))
        every = tuple(slice(None) if axis in axes else None for axis in range(3))
        found = np.broadcast_to(turned[(slice(None), *every)], (len(field), n, n, n))
        if kind is not Burgers:
            return found
        vector = np.zeros((3, n, n, n))
        vector[list(axes)] = found
        return vector

    fields = {spec.name: placed(draw.fields[spec.name]) for spec in problem.state}
    step = min(problem.default_step, problem.horizon / 8.0)
    for low, high in zip(
        followed(problem, [draw], step), followed(space, [Draw(scalars=scalars, fields=fields)], step), strict=True
    ):
        # Sixteen steps of rounding errors.
        np.testing.assert_allclose(high[0], placed(low[0]), atol=1e-13 * max(1.0, np.abs(low).max()))


# Orders.


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (Burgers, 0.02),
        (KortewegDeVries, 0.0025),
        (KuramotoSivashinsky, 0.0625),
        (AllenCahn, 0.25),
        (GrayScott, 0.5),
        (NavierStokes, 0.125),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_integrator_is_of_fourth_order(kind: type[AbstractSemilinear], step: float) -> None:
    is_fourth_order(CASES[kind], step)


@pytest.mark.parametrize(
    ("kind", "step"), [(Burgers, 0.02), (AllenCahn, 0.25), (GrayScott, 0.5)], ids=lambda v: getattr(v, "__name__", None)
)
def test_the_integrator_is_of_fourth_order_in_space(kind: type[AbstractSemilinear], step: float) -> None:
    is_fourth_order(in_space(kind, 16), step)


def is_fourth_order(problem: AbstractSemilinear, step: float) -> None:
    problem = problem.overridden({"snapshots": 1})
    draw = smooth(problem)
    truth = followed(problem, [draw], step / 32.0)
    errors = [relative(followed(problem, [draw], size), truth) for size in (step / 2.0, step / 4.0)]
    assert errors[1] > 1e-12, "the step is so small that only rounding is left"
    assert 3.6 < math.log2(errors[0] / errors[1]) < 4.6


@pytest.mark.parametrize(
    "kind", [Burgers, KortewegDeVries, AllenCahn, GrayScott, NavierStokes], ids=lambda kind: kind.__name__
)
def test_space_is_resolved_faster_than_any_order(kind: type[AbstractSemilinear]) -> None:
    fine = CASES[kind].overridden({"resolution": 96, "snapshots": 1})
    draw = smooth(fine)
    step = fine.default_step
    (truth,) = followed(fine, [draw], step)
    errors = []
    for n in (12, 24, 48):
        every = 96 // n
        problem = fine.overridden({"resolution": n})
        fields = {name: fine.restrict(field, every) for name, field in draw.fields.items()}
        (state,) = followed(problem, [Draw(scalars=draw.scalars, fields=fields)], step)
        errors.append(relative(state, fine.restrict(truth, every)))
    # From 24 points on, twice the points gain more than a method of sixth order would.
    assert errors[2] < errors[1] / 64.0 or errors[2] < 1e-9
    assert errors[1] < errors[0]


# What every equation promises.


@pytest.mark.parametrize("kind", SEMILINEAR, ids=lambda kind: kind.__name__)
def test_a_sample_does_not_depend_on_its_batch(kind: type[AbstractSemilinear]) -> None:
    # A single transform of 16 x 16 is not computed as several are, one of 20 x 20 is.
    for resolution in (case_of(kind).resolution, 16):
        problem = case_of(kind).overridden({"resolution": resolution})
        draws = [problem.draw(generator(seed, "draw")) for seed in range(5)]
        together = followed(problem, draws, problem.default_step)
        for row in (3, 4):  # the last one ends where the arrays do
            alone = followed(problem, draws[row : row + 1], problem.default_step)
            np.testing.assert_array_equal(together[:, row : row + 1], alone)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("kind", IN_SPACE, ids=lambda kind: kind.__name__)
def test_a_sample_does_not_depend_on_its_batch_on_odd_grids(kind: type[AbstractSemilinear], dim: int) -> None:
    # Numbers of points, and of waves, that vector units do not divide.
    for resolution in (9, 11, 12, 13) if dim == 3 else (9, 11, 12, 13, 17, 18, 20, 21, 25):
        problem = CASES[kind].overridden({"resolution": resolution, "dim": dim, "snapshots": 1})
        draws = [problem.draw(generator(seed, "draw")) for seed in range(4)]
        step = problem.horizon / 3.0
        together = followed(problem, draws, step)
        for row in range(4):
            np.testing.assert_array_equal(together[:, row], followed(problem, draws[row : row + 1], step)[:, 0])


@pytest.mark.parametrize("level", ["default", *GrayScott().levels()])
def test_reacting_patches_live_on(level: str) -> None:
    problem = GrayScott(resolution=64, length=0.64, horizon=1000.0, snapshots=1).at_level(level)
    draws = [problem.draw(generator(seed, "draw")) for seed in range(3)]
    (states,) = followed(problem, draws, problem.default_step)
    # Neither gone nor everywhere alike.
    assert (states[:, 1].std(axis=(1, 2)) > 0.02).all() and (states[:, 1].max(axis=(1, 2)) > 0.2).all()


def test_what_no_force_acts_on_is_conserved() -> None:
    burgers, kdv = CASES[Burgers], CASES[KortewegDeVries].overridden({"snapshots": 4})
    for problem in (burgers, kdv):
        draw = smooth(problem)
        (name,) = draw.fields
        mean = draw.fields[name].mean()
        np.testing.assert_allclose(
            followed(problem, [draw], problem.default_step).mean(axis=(1, 2, 3)), mean, atol=1e-14
        )
    energy = (smooth(kdv).fields["u"] ** 2).mean()
    later = (followed(kdv, [smooth(kdv)], kdv.default_step) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(later, energy, rtol=1e-8)


def test_a_flow_without_viscosity_keeps_energy_and_enstrophy() -> None:
    problem = NavierStokes(resolution=32, viscosity=1e-12, horizon=0.5, snapshots=1)
    draw = smooth(problem)
    start = draw.fields["vorticity"] - draw.fields["vorticity"].mean()
    (state,) = followed(problem, [Draw(scalars=draw.scalars, fields={"vorticity": start})], 0.01)
    k = np.fft.fftfreq(32, 1.0 / 32)
    square = k[:, None] ** 2 + k[None, :] ** 2
    square[0, 0] = np.inf

    def energy(w: Array) -> float:
        return float((np.abs(np.fft.fft2(w)) ** 2 / square).sum())

    assert energy(state[0, 0]) == pytest.approx(energy(start[0]), rel=1e-8)
    assert (state**2).mean() == pytest.approx((start**2).mean(), rel=1e-8)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"snapshots": (0.5, 0.25)}, "output times that increase in snapshots, got 0.25 after 0.5"),
        ({"snapshots": (0.5, 2.0)}, "output times up to the horizon, 1, in snapshots, got 2"),
        ({"snapshots": ()}, "at least one output time"),
        ({"viscosity": 0.0}, "viscosity above 0, got 0"),
        ({"viscosity": {"low": -1.0, "high": 1.0, "scale": "linear"}}, "viscosity above 0, got -1 to 1"),
        ({"resolution": 4}, "greater than or equal to 8"),
    ],
)
def test_what_an_equation_cannot_take_is_said(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Burgers().overridden(values)


def test_a_force_that_the_grid_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="a forcing_wave below a third of the resolution 8, got 4"):
        NavierStokes(resolution=8)
