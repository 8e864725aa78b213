"""Implicit steps: SDIRK3, heat in media, and who solves their stages."""

from typing import Literal

import numpy as np
import pytest
from jaxtyping import Float64
from scipy.integrate import solve_ivp

from headrace.platform.errors import InputError
from headrace.platform.sample import Sample
from headrace.platform.seeding import generator
from headrace.platform.spec import kinds
from headrace.solvers import (
    ALL_METHODS,
    AbstractSolver,
    Auto,
    Direct,
    HeatInMedia,
    LinearSystem,
    NonlinearDiffusion,
    RunningSolver,
    Solution,
    SolveStatus,
    solve,
)
from headrace.solvers.evolution import sdirk
from headrace.solvers.evolution.accuracy import choose_numerics
from headrace.solvers.evolution.evolution import Draw
from headrace.solvers.evolution.implicit import AbstractImplicit, StageSolver
from headrace.solvers.methods import DCDM, Multigrid, Transform
from headrace.solvers.numerics import Numerics
from headrace.solvers.sampled import DEFAULT_LEVEL
from headrace.solvers.sources.all_sampled import SAMPLED
from headrace.solvers.sources.trajectories import EvolutionSource

IMPLICIT = [one for one in kinds("headrace.problems", SAMPLED).values() if issubclass(one, AbstractImplicit)]
# Far below the errors in time and space that are looked at.
EXACT = 1e-12


def end(problem: HeatInMedia, draw: Draw, step: float, rtol: float = EXACT) -> Float64[np.ndarray, "points points"]:
    """The temperature at the horizon."""
    *_, last = problem.follow([draw], step, StageSolver(Direct(), rtol))
    assert not last.reasons
    return last.state[0, 0]


def mode(points: int, conductivity: float = 1.0) -> Draw:
    """The slowest mode of the square."""
    sine = np.sin(np.pi * np.linspace(0.0, 1.0, points))
    sine[-1] = 0.0
    return Draw(
        scalars={"strength": 0.0, "source": 0.0},
        fields={
            "temperature": np.outer(sine, sine)[np.newaxis],
            "conductivity": np.full((1, points, points), conductivity),
        },
    )


def test_the_method_meets_the_conditions_of_third_order_and_damps_what_is_stiff() -> None:
    a = np.zeros((3, 3))
    for row, weights in enumerate(sdirk.WEIGHTS):
        a[row, :row], a[row, row] = weights, sdirk.DIAGONAL
    b, c = a[-1], np.array(sdirk.TIMES)
    np.testing.assert_allclose(a.sum(axis=1), c, rtol=1e-14)
    # Σ b = 1, Σ b c = 1/2, Σ b c² = 1/3, Σ b A c = 1/6: Hairer, Nørsett and Wanner (1993), Table II.2.1.
    np.testing.assert_allclose([b.sum(), b @ c, b @ c**2, b @ a @ c], [1.0, 1 / 2, 1 / 3, 1 / 6], rtol=1e-13)

    def growth(z: complex) -> float:
        return abs(1.0 + z * b @ np.linalg.solve(np.eye(3) - z * a, np.ones(3)))

    assert growth(-1e9) < 1e-8
    assert max(growth(1j * y) for y in np.logspace(-3, 6, 200)) <= 1.0 + 1e-12


def test_a_mode_decays_in_second_order_in_space() -> None:
    errors = []
    for points in (17, 33, 65):
        problem = HeatInMedia(resolution=points, horizon=0.05, snapshots=1)
        draw = mode(points)
        exact = np.exp(-2.0 * np.pi**2 * 0.05) * draw.fields["temperature"][0]
        errors.append(np.abs(end(problem, draw, 0.05 / 80) - exact).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 2.0) < 0.05), (errors, orders)


def test_a_mode_decays_in_third_order_in_time() -> None:
    points, horizon = 17, 0.1
    problem, draw = HeatInMedia(resolution=points, horizon=horizon, snapshots=1), mode(points)
    # The sine is an eigenvector of the five-point Laplacian, whose eigenvalue is known.
    rate = 8.0 * (points - 1) ** 2 * np.sin(0.5 * np.pi / (points - 1)) ** 2
    exact = np.exp(-rate * horizon) * draw.fields["temperature"][0]
    errors = [np.abs(end(problem, draw, horizon / count) - exact).max() for count in (4, 8, 16, 32)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert abs(orders[-1] - 3.0) < 0.1, (errors, orders)


@pytest.mark.parametrize("level", ["linear", "medium", "rough"])
def test_it_agrees_with_another_integrator_of_a_scheme_that_is_written_out(level: str) -> None:
    points, horizon = 13, 0.002
    problem = HeatInMedia(resolution=points, horizon=horizon, snapshots=1, source=3.0).at_level(level)
    draw = problem.draw(generator(0, "implicit", level))
    a, start = draw.fields["conductivity"][0], draw.fields["temperature"][0]
    strength, h = draw.scalars["strength"], 1.0 / (points - 1)

    def rate(_: float, inside: np.ndarray) -> np.ndarray:
        u = np.zeros((points, points))
        u[1:-1, 1:-1] = inside.reshape(points - 2, points - 2)
        flux_x = -2.0 * a[1:] * a[:-1] / (a[1:] + a[:-1]) * np.diff(u, axis=0) - strength / 3.0 * np.diff(u**3, axis=0)
        flux_y = -2.0 * a[:, 1:] * a[:, :-1] / (a[:, 1:] + a[:, :-1]) * np.diff(u) - strength / 3.0 * np.diff(u**3)
        out = np.diff(flux_x, axis=0)[:, 1:-1] + np.diff(flux_y, axis=1)[1:-1]
        return (3.0 - out / h**2).ravel()

    found = solve_ivp(rate, (0.0, horizon), start[1:-1, 1:-1].ravel(), method="Radau", rtol=1e-10, atol=1e-12)
    exact = np.pad(found.y[:, -1].reshape(points - 2, points - 2), 1)
    errors = [np.abs(end(problem, draw, horizon / count, 1e-13) - exact).max() for count in (128, 256, 512)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    # So few steps only, and so short a time: with longer ones it is nearer to 2, as of every method of stage order 1.
    assert errors[-1] < 1e-6 * np.abs(exact).max() and abs(orders[-1] - 3.0) < 0.3, (errors, orders)


def test_in_the_long_run_it_is_the_steady_problem() -> None:
    points, strength = 33, 5.0
    problem = HeatInMedia(resolution=points, horizon=10.0, snapshots=4, strength=strength, source=10.0)
    draw = problem.draw(generator(0, "steady"))
    steady = NonlinearDiffusion(resolution=points, strength=strength, source=10.0)
    solution = solve(steady.discretize({"coefficient": draw.fields["conductivity"][0]}), rtol=1e-11)
    assert solution.status is SolveStatus.converged
    expected = solution.value.reshape(points - 2, points - 2)
    np.testing.assert_allclose(end(problem, draw, 0.5, 1e-11)[1:-1, 1:-1], expected, atol=1e-7 * expected.max())


@pytest.mark.parametrize("level", ["linear", "rough"])
def test_whatever_method_solves_the_stages_the_trajectory_is_the_same(level: str) -> None:
    problem = HeatInMedia(resolution=17, snapshots=4).at_level(level)
    draw = problem.draw(generator(0, "methods"))
    expected = end(problem, draw, problem.default_step)
    # The deep conjugate direction method would train a network first, for minutes.
    methods = [
        kind()
        for kind in kinds("headrace.methods", ALL_METHODS).values()
        if kind is not DCDM and kind().mismatch(problem) is None
    ]
    assert {"multigrid", "direct", "gcrodr", "recycled_cg"} < {method.model_dump()["kind"] for method in methods}
    for method in methods:
        *_, last = problem.follow([draw], problem.default_step, StageSolver(method, 1e-9))
        assert not last.reasons, last.reasons
        # The tolerance of the residual, in a matrix whose smallest eigenvalue is 1 beside a scale that holds A u.
        np.testing.assert_allclose(last.state[0, 0], expected, atol=1e-6 * expected.max(), err_msg=str(method))


@pytest.mark.parametrize("method", [Auto(), Multigrid()])
def test_long_steps_of_hot_samples_are_solved(method: AbstractSolver) -> None:
    # With the medium frozen alone two of these stagnate in their first step.
    problem = HeatInMedia(resolution=33, snapshots=10).at_level("rough").overridden({"horizon": 0.005, "snapshots": 1})
    stages = StageSolver(method)
    for number in range(20):
        (last,) = problem.follow([problem.draw(generator(0, "f", number))], 0.005, stages)
        assert not last.reasons, (number, last.reasons)


class Idle(AbstractSolver):
    """Solves nothing."""

    kind: Literal["idle"] = "idle"

    def build(self) -> RunningSolver:
        class Running(RunningSolver):
            def solve(self, system: LinearSystem, rtol: float) -> Solution:
                return Solution(
                    value=np.zeros(system.num_unknowns),
                    status=SolveStatus.max_iterations,
                    relative_residual=float("nan"),
                    num_iterations=0,
                    seconds=0.0,
                    method="idle",
                )

        return Running()

    def mismatch(self, target: object) -> str | None:
        return None


@pytest.mark.parametrize("level", ["linear", "medium"])
def test_what_a_method_does_not_solve_the_direct_one_does(level: str) -> None:
    problem = HeatInMedia(resolution=17, snapshots=2).at_level(level)
    draw = problem.draw(generator(0, "rescue"))
    *_, last = problem.follow([draw], problem.default_step, StageSolver(Idle()))
    assert not last.reasons
    expected = end(problem, draw, problem.default_step)
    np.testing.assert_allclose(last.state[0, 0], expected, atol=1e-6 * expected.max())


@pytest.mark.parametrize("level", ["linear", "medium"])
def test_a_stage_that_nobody_solves_ends_its_trajectory_alone(level: str) -> None:
    problem = HeatInMedia(resolution=17, snapshots=4).at_level(level)
    good, bad = (problem.draw(generator(number, "alone")) for number in range(2))
    bad.fields["conductivity"][:] = np.nan
    snapshots = list(problem.follow([good, bad], problem.default_step))
    assert len(snapshots) == 4
    for snapshot in snapshots:
        assert np.isfinite(snapshot.state[0]).all() and np.isnan(snapshot.state[1, 0, 1:-1, 1:-1]).all()
        assert list(snapshot.reasons) == [1]
    assert "a stage of the step from t = 0 was not solved: " in snapshots[-1].reasons[1]


def test_looks_at_half_steps_measure_the_step_and_leave_no_trace() -> None:
    problem = HeatInMedia(resolution=17, snapshots=4, strength=2.0)
    draw = problem.draw(generator(0, "looks"))
    defects, ends = [], []
    for step in (problem.default_step, 0.5 * problem.default_step):
        snapshots = list(problem.follow([draw], step, StageSolver(Direct(), 1e-11)))
        defects.append(max(float(snapshot.defect[0]) for snapshot in snapshots))
        ends.append(snapshots[-1].state)
        assert snapshots[-1].num_steps[0] == round(problem.horizon / step)
    assert 0.0 < defects[1] < 0.3 * defects[0] < 0.01
    twice = problem.overridden({"snapshots": 8})
    *_, last = twice.follow([draw], 0.5 * problem.default_step, StageSolver(Direct(), 1e-11))
    np.testing.assert_allclose(last.state, ends[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", IMPLICIT, ids=lambda kind: kind.__name__)
def test_a_source_tells_who_solved_its_stages(kind: type[AbstractImplicit]) -> None:
    problem = kind(snapshots=4).overridden({"resolution": 17})
    source = EvolutionSource.model_validate(
        {"problem": problem.model_dump(), "mix": dict.fromkeys([DEFAULT_LEVEL, *problem.levels()], 1.0)}
    )
    built = source.build()
    assert all(isinstance(result, Sample) for result in built.solve(source.requests(range(8))))
    selection = built.report()["selection"]
    assert isinstance(selection, dict) and selection["strategy"] == "race" and selection["accepted"] > 100
    direct = EvolutionSource(problem=problem, method=Direct())
    alone = direct.build()
    assert all(isinstance(result, Sample) for result in alone.solve(direct.requests(range(2))))
    assert alone.report()["selection"] is None


def test_a_trajectory_does_not_depend_on_others_under_a_method_that_learns_nothing() -> None:
    source = EvolutionSource(problem=HeatInMedia(resolution=17, snapshots=4), method=Direct(), seed=2)
    together = {s.provenance.index: s for s in source.samples(range(4)) if isinstance(s, Sample)}
    (alone,) = source.samples([3])
    assert isinstance(alone, Sample)
    np.testing.assert_array_equal(alone.outputs, together[3].outputs)


def test_a_method_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="Transforms need"):
        EvolutionSource(problem=HeatInMedia(resolution=17), method=Transform()).build()


def test_a_step_that_is_too_long_is_halved_until_it_is_resolved() -> None:
    problem = HeatInMedia(resolution=17, snapshots=1, horizon=1.0, strength=50.0, start={"std": 1.0})
    source = EvolutionSource(problem=problem, numerics={DEFAULT_LEVEL: Numerics(step=1.0)})
    built = source.build()
    results = list(built.solve(source.requests(range(3))))
    assert all(isinstance(result, Sample) for result in results)
    assert "a step differs from two half steps" in str(built.report()["rescues"])


def test_pilots_are_solved_as_the_samples_will_be() -> None:
    problem, stages = HeatInMedia(resolution=17, snapshots=2).at_level("linear"), StageSolver()
    choose_numerics(problem, 0.1, level="linear", seed=0, num_pilots=1, stages=stages)
    report = stages.running.report()
    assert report is not None and report.accepted > 0


@pytest.mark.parametrize("strength", [-1.0, {"low": -0.5, "high": 1.0}])
def test_a_negative_conductivity_is_refused(strength: float | dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"strength 0 or more, so that .* stays positive, got -(1|0\.5)"):
        HeatInMedia.model_validate({"strength": strength})
