"""The discretisation error of labels: estimated on pilots, against exact solutions and much finer grids."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pytest
from jaxtyping import Float

from headrace.platform.fields import Grid
from headrace.platform.sample import Failure, Sample
from headrace.platform.seeding import generator
from headrace.platform.spec import spec_hash
from headrace.solvers import (
    AbstractFiniteElementProblem,
    AbstractProblem,
    Burgers,
    ConvectionDiffusion,
    Darcy,
    Darcy3D,
    Elasticity,
    External,
    HeatConduction,
    Helmholtz,
    NonlinearDiffusion,
    Numerics,
    Poisson,
    Scattering,
    SolverSource,
)
from headrace.solvers.finite_elements.geometries import MeshFile, Plate
from headrace.solvers.label_error import LabelError, Refinable, measured, relative_distances
from headrace.solvers.problem import as_generator
from headrace.solvers.sampled import DEFAULT_LEVEL, AbstractSource
from headrace.solvers.sources.programs import ExternalSource
from headrace.solvers.sources.trajectories import EvolutionSource

needs_dolfinx = pytest.mark.skipif(
    HeatConduction().unavailable() is not None, reason="DOLFINx or a C compiler is missing"
)


class Known(Poisson):
    """-Δu = f on the unit square with u = a sin(k π x) sin(π y), k from 1 to 3."""

    kind: Literal["poisson"] = "poisson"

    def draw(self, seed: int | np.random.Generator) -> dict[str, Any]:
        """Draw a and k; f = (k² + 1) π² u."""
        n = self.resolution
        source = (self.wave(seed)[1] ** 2 + 1.0) * np.pi**2 * self.solution(seed)
        return {"source": source.astype(np.float32).astype(np.float64), "boundary": np.zeros((n, n))}

    def solution(self, seed: int | np.random.Generator) -> Float[np.ndarray, "points points"]:
        """U at the points of the grid."""
        a, k = self.wave(seed)
        x = np.linspace(0.0, 1.0, self.resolution)
        return a * np.outer(np.sin(k * np.pi * x), np.sin(np.pi * x))

    @staticmethod
    def wave(seed: int | np.random.Generator) -> tuple[float, int]:
        """The amplitude a and the wave number k."""
        # A generator is asked twice in a draw: a copy of it begins where it stands.
        state = copy.deepcopy(as_generator(seed))
        return float(state.uniform(0.5, 2.0)), int(state.integers(1, 4))


def pilots(source: AbstractSource, level: str, fineness: int, count: int) -> Float[np.ndarray, "..."]:
    """Outputs of the pilots that an error is measured on."""
    of = source.refinable(level)
    assert isinstance(of, Refinable)
    return np.stack([one.outputs for one in of.solve(fineness, range(count)) if isinstance(one, Sample)])


def source_of_own(problem: Known) -> SolverSource:
    """The source of a problem that is no plug-in."""
    return SolverSource.model_construct(**dict(SolverSource(problem=Poisson())) | {"problem": problem})


def test_the_error_of_a_known_solution_is_told_within_a_few_per_cent() -> None:
    problem = Known(resolution=17)
    source = source_of_own(problem)
    found = source.label_error(DEFAULT_LEVEL, num_pilots=3)
    of = source.refinable(DEFAULT_LEVEL)
    assert isinstance(of, Refinable)
    errors = []
    for sample in of.solve(1, range(3)):
        assert isinstance(sample, Sample)
        rng = generator(sample.provenance.seed, "test", "fields", sample.provenance.index)
        truth = problem.solution(rng)[None, None]
        errors.append(relative_distances(sample.outputs[None], truth[None])[0])
    assert found.worst == pytest.approx(max(errors), rel=0.05) and found.median == pytest.approx(
        np.median(errors), rel=0.05
    )
    assert found.order == pytest.approx(2.0, abs=0.1) and found.finest == 4 and found.num_pilots == 3


CASES: tuple[tuple[AbstractProblem | Burgers, str, float], ...] = (
    # Problem, level, and how many times too large the estimate may be: with two grids it is a bound.
    (Darcy(resolution=17), "smooth", 1.3),
    (Darcy(resolution=17), "rough", 1.5),
    (Darcy(resolution=17), "two_phase", 2.0),
    (Poisson(resolution=17), "rough", 1.3),
    (Poisson(resolution=16, boundary="neumann"), "medium", 1.3),
    (Poisson(resolution=16, boundary="periodic"), "medium", 1.3),
    (NonlinearDiffusion(resolution=9), "medium", 1.5),
    (Burgers(resolution=48, horizon=0.3, snapshots=2), "shock", 2.0),
)


@pytest.mark.parametrize(("problem", "level", "most"), CASES, ids=lambda one: getattr(one, "kind", None))
def test_the_error_that_is_told_is_that_from_a_much_finer_grid(problem: Any, level: str, most: float) -> None:
    kind = EvolutionSource if isinstance(problem, Burgers) else SolverSource
    source = kind.model_validate({"problem": problem.model_dump(), "mix": {level: 1.0}})
    found = source.label_error(level, num_pilots=3)
    truth = relative_distances(pilots(source, level, 1, 3), pilots(source, level, 12, 3))
    assert found.worst is not None and found.median is not None
    assert 0.7 * truth.max() <= found.worst <= most * truth.max()
    assert 0.7 * np.median(truth) <= found.median <= most * np.median(truth)


STEADY: tuple[AbstractProblem, ...] = (
    Darcy(resolution=17),
    Darcy3D(resolution=9),
    Poisson(resolution=17),
    Poisson(resolution=16, boundary="neumann"),
    Poisson(resolution=16, boundary="periodic"),
    Helmholtz(resolution=49),
    Helmholtz(resolution=48, boundary="neumann"),
    NonlinearDiffusion(resolution=17),
    ConvectionDiffusion(resolution=33),
    Scattering(resolution=33),
    pytest.param(HeatConduction(geometry=Plate(size=0.1)), marks=needs_dolfinx),  # type: ignore[arg-type]
    pytest.param(HeatConduction(geometry=Plate(size=0.1), output="grid", grid_points=16), marks=needs_dolfinx),  # type: ignore[arg-type]
    pytest.param(Elasticity(geometry=Plate(size=0.1), degree=2), marks=needs_dolfinx),  # type: ignore[arg-type]
)


@pytest.mark.parametrize("problem", STEADY, ids=lambda one: one.kind)
def test_a_finer_grid_shows_the_same_draw_and_nearly_the_same_solution(problem: AbstractProblem) -> None:
    fine_elements = isinstance(problem, AbstractFiniteElementProblem)
    for level in (DEFAULT_LEVEL, *problem.levels()):
        of = {"problem": problem.model_dump(), "mix": {level: 1.0}, "seed": 3}
        (own,) = SolverSource.model_validate(of).samples([1])
        (fine,) = SolverSource.model_validate(of | {"numerics": {level: {"refinement": 2}}}).samples([1])
        assert isinstance(own, Sample) and isinstance(fine, Sample)
        assert own.inputs.shape == fine.inputs.shape and own.outputs.shape == fine.outputs.shape
        np.testing.assert_array_equal(own.parameters, fine.parameters)
        domain = problem.schema().domain
        differences = problem.kind == "convection_diffusion"  # its velocity is made of those of the stream function
        on_nodes = isinstance(domain, Grid) and domain.location == "nodes" and not domain.periodic[0]
        if on_nodes and not fine_elements and not differences:
            # At points that both share; quanta of 2^-20 may round the other way.
            np.testing.assert_allclose(own.inputs, fine.inputs, rtol=1e-4, atol=1e-4 * np.abs(own.inputs).max())
        else:  # means, of cells or the one that is taken away; functions that are linear between points
            assert np.linalg.norm(own.inputs - fine.inputs) < 0.35 * np.linalg.norm(own.inputs)
        if problem.kind != "helmholtz":  # a wave that is barely resolved has another phase
            assert np.linalg.norm(own.outputs - fine.outputs) < 0.6 * np.linalg.norm(fine.outputs)


def test_samples_of_the_output_grid_are_what_they_were_and_so_is_their_hash() -> None:
    plain = SolverSource(problem=Darcy(resolution=9), seed=2)
    assert "numerics" not in plain.model_dump() and spec_hash(plain) == spec_hash(
        plain.model_copy(update={"numerics": {}})
    )
    explicit = SolverSource(problem=Darcy(resolution=9), seed=2, numerics={DEFAULT_LEVEL: Numerics(refinement=1)})  # type: ignore[arg-type]
    finer = SolverSource(problem=Darcy(resolution=9), seed=2, numerics={DEFAULT_LEVEL: Numerics(refinement=2)})  # type: ignore[arg-type]
    assert spec_hash(finer) != spec_hash(plain) and SolverSource.model_validate_json(finer.model_dump_json()) == finer
    (one,), (same,), (other,) = (source.samples([4]) for source in (plain, explicit, finer))
    assert isinstance(one, Sample) and isinstance(same, Sample) and isinstance(other, Sample)
    np.testing.assert_array_equal(one.outputs, same.outputs)
    np.testing.assert_array_equal(one.inputs, other.inputs)
    assert not np.array_equal(one.outputs, other.outputs)


class TestNotMeasured:
    def test_a_program(self) -> None:
        problem = External(
            command=("true",), outputs={"u": {}}, parameters={"a": {"low": 0, "high": 1}}, grid={"shape": [4]}
        )  # type: ignore[arg-type]
        found = ExternalSource(problem=problem).label_error(DEFAULT_LEVEL)
        assert found.worst is None and "has one grid, its own" in found.reason

    def test_a_mesh_from_a_file(self) -> None:
        problem = HeatConduction.model_construct(geometry=MeshFile.model_construct(path="plate.msh"))
        assert problem.unrefinable() == "its mesh comes from a file, and nobody here can make a finer one"

    def test_a_problem_that_draws_otherwise_on_every_grid(self) -> None:
        class Noise(Known):
            """White noise: other values on a finer grid."""

            def draw(self, seed: int | np.random.Generator) -> dict[str, Any]:
                """Draw f."""
                drawn = super().draw(seed)
                noise = as_generator(seed).standard_normal(drawn["source"].shape)
                return {**drawn, "source": noise.astype(np.float32).astype(np.float64)}

        source = SolverSource.model_construct(
            **dict(SolverSource(problem=Poisson())) | {"problem": Noise(resolution=9)}
        )
        found = source.label_error(DEFAULT_LEVEL, num_pilots=2)
        assert found.worst is None and "draws other fields on a finer grid" in found.reason

    def test_what_would_take_too_long(self) -> None:
        found = SolverSource(problem=Darcy(resolution=9)).label_error(DEFAULT_LEVEL, seconds=1e-9)
        assert found.worst is None and found.reason.startswith("a pilot would take about")

    def test_fewer_pilots_where_they_are_dear(self) -> None:
        calls: list[tuple[int, list[int]]] = []
        whole = SolverSource(problem=Darcy(resolution=9)).refinable(DEFAULT_LEVEL)
        assert isinstance(whole, Refinable)

        def solve(fineness: int, numbers: Any) -> list[Sample | Failure]:
            calls.append((fineness, list(numbers)))
            results = whole.solve(fineness, numbers)
            return [_costing(one, 1.0) for one in results]

        of = Refinable(level="x", refinement=1, dimensions=2, order=1.0, has_third=False, solve=solve)
        assert measured(of, seconds=11.0).num_pilots == 2
        assert calls == [(1, [0]), (1, [1]), (2, [0, 1])]


def _costing(result: Sample | Failure, seconds: float) -> Sample | Failure:
    assert isinstance(result, Sample)
    return dataclasses.replace(result, provenance=dataclasses.replace(result.provenance, cpu_seconds=seconds))


def test_distances_are_of_the_worst_time_and_not_of_what_has_died_away() -> None:
    truth = np.ones((2, 3, 1, 4))
    truth[1, 2] = 1e-12
    other = truth.copy()
    other[0, 1] += 0.1
    other[1, 2] *= 2.0
    np.testing.assert_allclose(relative_distances(other, truth), [0.1, 1e-6], rtol=1e-6)
    other[1] = np.nan
    assert relative_distances(other, truth)[1] == np.inf


def test_an_error_comes_back_from_plain_values() -> None:
    one = LabelError(level="rough", worst=0.1, median=0.05, num_pilots=4, refinement=2, finest=4, order=2.0)
    values: Mapping[str, object] = one.to_json()
    assert LabelError.from_json({**values, "of_a_later_version": 1}) == one
