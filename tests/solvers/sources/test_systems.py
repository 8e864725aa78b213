"""SolverSource: the same sample whoever solves it; failures with their reason."""

import dataclasses
import json
import pickle
import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
from pydantic import ValidationError

from headrace.platform.errors import InputError
from headrace.platform.sample import Failure, Request, Sample
from headrace.platform.spec import spec_hash
from headrace.solvers import (
    CG,
    GCRODR,
    AbstractSolver,
    Auto,
    Darcy,
    Direct,
    LinearSystem,
    Multigrid,
    Solution,
    SolverSource,
)
from headrace.solvers.methods.direct import RunningDirect
from headrace.solvers.sequences.sorting import path_length
from headrace.solvers.sources import bench
from headrace.solvers.sources.report import SourceReport
from headrace.solvers.systems.solver import RunningSolver

MIX = {"smooth": 1.0, "medium": 1.0, "rough": 2.0, "two_phase": 1.0}


def samples(spec: SolverSource, indices: range | list[int]) -> dict[int, Sample]:
    results = list(spec.samples(indices))
    assert all(isinstance(result, Sample) for result in results)
    return {result.provenance.index: result for result in results if isinstance(result, Sample)}


def test_sample_depends_on_its_index_alone() -> None:
    spec = SolverSource(problem=Darcy(resolution=24), mix=MIX, seed=5)
    reference = samples(spec, range(12))
    assert sorted(reference) == list(range(12))
    others = [
        samples(spec, [11, 3, 7]),
        samples(spec.model_copy(update={"method": GCRODR()}), range(12)),
        samples(spec.model_copy(update={"method": GCRODR(), "order": "none"}), range(11, -1, -1)),
        samples(spec.model_copy(update={"method": Direct()}), range(12)),
    ]
    for other in others:
        for index, sample in other.items():
            assert sample.provenance.level == reference[index].provenance.level
            assert np.array_equal(sample.inputs, reference[index].inputs)
            # Solutions agree to the tolerance of the solve.
            np.testing.assert_allclose(sample.outputs, reference[index].outputs, rtol=1e-5, atol=1e-7)


def test_splits_and_seeds_differ() -> None:
    spec = SolverSource(problem=Darcy(resolution=12))
    one = samples(spec, [0])[0].inputs
    assert not np.array_equal(one, samples(spec.model_copy(update={"split": "test"}), [0])[0].inputs)
    assert not np.array_equal(one, samples(spec.model_copy(update={"seed": 1}), [0])[0].inputs)


def test_provenance_tells_the_whole_story() -> None:
    spec = SolverSource(problem=Darcy(resolution=24), mix={"rough": 1})
    provenance = samples(spec, [4])[4].provenance
    assert (provenance.index, provenance.level, provenance.seed) == (4, "rough", 0)
    assert (provenance.solver, provenance.status) == ("multigrid", "converged")
    assert provenance.spec_hash == spec_hash(spec)
    assert 0 < provenance.relative_residual <= 1e-8 and provenance.num_iterations > 2
    assert provenance.wall_seconds > 0 and provenance.cpu_seconds > 0


def test_mixture_follows_its_weights() -> None:
    spec = SolverSource(problem=Darcy(resolution=5), mix=MIX)
    levels = [sample.provenance.level for sample in samples(spec, range(400)).values()]
    # Three standard deviations of a binomial share over 400 draws.
    for name, weight in MIX.items():
        assert levels.count(name) / 400 == pytest.approx(weight / 5, abs=0.075)


def test_a_failed_solve_is_tried_once_more_with_a_direct_method() -> None:
    spec = SolverSource(problem=Darcy(resolution=24), method=Multigrid(max_iterations=1))
    provenance = samples(spec, [0])[0].provenance
    assert (provenance.solver, provenance.status) == ("direct", "converged")


def test_what_fails_twice_is_a_failure_with_both_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_factors(*_: object) -> None:
        raise ArithmeticError("no factors today")

    monkeypatch.setattr(RunningDirect, "_factors", no_factors)
    spec = SolverSource(problem=Darcy(resolution=65), method=CG(max_iterations=3))
    (failure,) = spec.samples([8])
    assert isinstance(failure, Failure)
    assert failure.index == 8 and failure.level == "default" and failure.wall_seconds > 0
    assert failure.reason.startswith("cg: max_iterations after 3 iterations, relative residual ")
    assert "; direct: breakdown after 0 iterations, relative residual " in failure.reason
    assert "no factors today" in failure.reason


def test_a_tolerance_below_what_double_precision_reaches_is_met_by_the_backward_error() -> None:
    spec = SolverSource(problem=Darcy(resolution=65), rtol=1e-14, method=CG(max_iterations=3))
    provenance = samples(spec, [8])[8].provenance
    assert (provenance.solver, provenance.status) == ("direct", "backward_stable")
    assert 1e-14 < provenance.relative_residual < 1e-12


def test_one_failure_does_not_stop_the_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Darcy.draw

    def broken(self: Darcy, seed: int | np.random.Generator) -> dict[str, np.ndarray]:
        fields = draw(self, seed)
        broken.calls += 1  # type: ignore[attr-defined]
        return {"permeability": -fields["permeability"]} if broken.calls == 2 else fields  # type: ignore[attr-defined]

    # The first draw is that of the warm-up, if this process has not had one yet.
    next(SolverSource(problem=Darcy(resolution=12)).samples([0]))
    broken.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(Darcy, "draw", broken)
    results = list(SolverSource(problem=Darcy(resolution=12)).samples([0, 1, 2]))
    assert [type(result) for result in results] == [Sample, Failure, Sample]
    failure = results[1]
    assert isinstance(failure, Failure)
    assert failure.reason.startswith("not discretised: permeability has the value -")


def test_state_lives_across_requests() -> None:
    spec = SolverSource(problem=Darcy(resolution=64), method=GCRODR(), order="none")
    source = spec.build()
    first, second = (next(iter(source.solve(spec.requests([0])))) for _ in range(2))
    assert isinstance(first, Sample) and isinstance(second, Sample)
    assert second.provenance.num_iterations < first.provenance.num_iterations


def test_the_planned_order_sorts_for_methods_that_recycle_and_is_quickly_drawn() -> None:
    spec = SolverSource(problem=Darcy(resolution=65), method=GCRODR(), mix={"smooth": 1, "two_phase": 1}, seed=3)
    order = spec.planned_order(40)
    assert order is not None and sorted(order) == list(range(40))
    fields = [sample.inputs for sample in samples(spec.model_copy(update={"method": Multigrid()}), range(40)).values()]
    fields = np.stack(fields).reshape(40, -1)
    # Measured 0.5: half of the way in the order of the indices leads from one level to the other.
    assert path_length(fields, order) < 0.7 * path_length(fields, range(40))
    assert spec.model_copy(update={"method": Auto()}).planned_order(40) is None
    assert spec.model_copy(update={"order": "none"}).planned_order(40) is None
    by_curve = spec.model_copy(update={"method": Auto(), "order": "hilbert"}).planned_order(40)
    assert by_curve is not None and sorted(by_curve) == list(range(40))


def test_a_problem_without_numbers_that_are_drawn_takes_no_parameters() -> None:
    source = SolverSource(problem=Darcy(resolution=12)).build()
    with pytest.raises(InputError, match="sample 3 of train: parameter a is 1; expected no parameters: this problem"):
        list(source.solve([Request(index=3, level="default", parameters={"a": 1.0})]))
    (sample,) = source.solve([Request(index=3, level="default", parameters={})])
    assert isinstance(sample, Sample)


def test_samples_are_solved_in_the_given_order() -> None:
    source = SolverSource(problem=Darcy(resolution=12), method=GCRODR(subspace=8, recycled=4))
    found = [result.provenance.index for result in source.samples([4, 0, 3]) if isinstance(result, Sample)]
    assert found == [4, 0, 3]


class Together(Direct):
    """Solves three systems at a time; those whose right-hand side is marked are not solved."""

    kind: Literal["together"] = "together"  # type: ignore[assignment]

    def build(self) -> "RunningTogether":  # type: ignore[override]
        return RunningTogether()

    def batch_size(self, target: object) -> int:
        return 3


class RunningTogether(RunningSolver):
    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._direct = Direct().build()

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        return self.solve_batch([system], rtol)[0]

    def solve_batch(self, systems: Sequence[LinearSystem], rtol: float) -> list[Solution]:
        self.sizes.append(len(systems))
        solutions = [dataclasses.replace(self._direct.solve(s, rtol), method="together") for s in systems]
        # The middle one of three claims what is not so.
        if len(systems) == 3:
            solutions[1] = dataclasses.replace(solutions[1], value=np.zeros_like(solutions[1].value))
        return solutions


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the method is not one of the union
def test_a_batch_is_solved_together_and_its_bad_one_falls_back_alone() -> None:
    spec = SolverSource.model_construct(
        problem=Darcy(resolution=12),
        method=Together(),
        rtol=1e-8,
        order="none",
        seed=0,
        split="train",
        mix={"default": 1.0},
        levels={},
    )
    source = spec.build()
    results = source.solve(spec.requests(range(7)))
    found = {r.provenance.index: r.provenance.solver for r in results if isinstance(r, Sample)}
    assert [found[index] for index in range(7)] == ["together", "direct", "together"] * 2 + ["together"]
    assert isinstance(source._running, RunningTogether) and source._running.sizes == [3, 3, 1]
    report = SourceReport.from_json(source.report())
    assert (report.samples, report.failed, report.rescued) == (7, 0, 2)
    assert report.methods["direct"]["samples"] == 2
    assert (report.rescues[0]["index"], report.rescues[0]["level"], report.rescues[0]["seed"]) == (1, "default", 0)
    assert str(report.rescues[0]["reason"]).startswith("together: residual_too_large after 0 iterations")


def test_the_report_of_auto_says_who_won_and_what_it_cost() -> None:
    spec = SolverSource(problem=Darcy(resolution=24))
    source, other = spec.build(), spec.build()
    list(source.solve(spec.requests(range(20))))
    list(other.solve(spec.requests(range(20, 30))))
    report = SourceReport.merged([SourceReport.from_json(one.report()) for one in (source, other)])
    assert report.selection is not None and report.samples == report.selection.accepted == 30
    assert report.selection.winner == "multigrid"
    assert json.loads(json.dumps(report.to_json())) == report.to_json()


def test_warming_up_is_nobodys_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_warm", set())

    class Compiles(RunningSolver):
        compiled = False

        def solve(self, system: LinearSystem, rtol: float) -> Solution:
            if not Compiles.compiled:
                time.sleep(0.3)
                Compiles.compiled = True
            return Direct().build().solve(system, rtol)

    monkeypatch.setattr(Multigrid, "build", lambda self: Compiles())
    spec = SolverSource(problem=Darcy(resolution=12), method=Multigrid())
    source = spec.build()
    (sample,) = source.solve(spec.requests([0]))
    assert isinstance(sample, Sample) and sample.provenance.wall_seconds < 0.3
    assert SourceReport.from_json(source.report()).warm_up_seconds >= 0.3


def test_spec_travels_and_hashes() -> None:
    spec = SolverSource(
        problem=Darcy(resolution=33),
        mix={"hard": 1, "smooth": 2},
        levels={"hard": {"permeability": {"kind": "two_phase", "low": 1, "high": 100}}},
    )
    back = pickle.loads(pickle.dumps(spec))
    assert back == spec and hash(back) == hash(spec) and spec_hash(back) == spec_hash(spec)
    assert SolverSource.model_validate_json(spec.model_dump_json()) == spec
    assert spec.model_dump()["levels"] == {"hard": {"permeability": {"kind": "two_phase", "low": 1, "high": 100}}}
    values = {float(v) for s in samples(spec, range(8)).values() if s.provenance.level == "hard" for v in s.inputs.flat}
    assert values == {1.0, 100.0}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mix": {"smoth": 1}}, 'level is "smoth"; expected one of default, smooth, .* Did you mean "smooth"'),
        ({"mix": {"x": 1}, "levels": {"x": {"permeability": {"log_std": -1}}}},
         r"levels\.x\.permeability\.log_normal\.log_std is -1: Input should be greater than 0"),
        ({"mix": {"x": 1}, "levels": {"x": {"resolution": 64}}}, "level x changes the shape of the samples"),
        ({"mix": {"smooth": 0}}, "weights of a mixture must be non-negative and sum to more than 0"),
        ({"rtol": 0}, "greater than or equal to 0.00000000000001"),
    ],
)  # fmt: skip
def test_bad_configuration_is_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SolverSource.model_validate({"problem": {"kind": "darcy"}, **values})


class Fussy(AbstractSolver):
    """Fits nothing."""

    kind: str = "fussy"

    def build(self) -> RunningSolver:
        raise AssertionError("must not be built")

    def mismatch(self, target: object) -> str | None:
        return "Fussy fits nothing."


def test_a_method_that_does_not_fit_is_said_before_anything_is_solved() -> None:
    spec = SolverSource.model_construct(
        problem=Darcy(), method=Fussy(), rtol=1e-8, order="none", seed=0, split="train", mix={"default": 1.0}, levels={}
    )
    assert spec.mismatch() == "Fussy fits nothing."
    with pytest.raises(InputError, match="method is fussy; expected a method that can solve this. Fussy fits nothing."):
        spec.build()
    assert SolverSource(problem=Darcy(), method=Auto()).mismatch() is None
