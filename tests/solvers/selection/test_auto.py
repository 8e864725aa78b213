"""`auto`: the first choice by structure, candidates, fallbacks, and a sequence that goes to the faster method."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import pytest
import scipy.sparse
from pydantic import ValidationError

from headrace.platform.spec import kind_of
from headrace.solvers import (
    AbstractSolver,
    Auto,
    Darcy,
    DiffusionOperator,
    Direct,
    LinearSystem,
    NonlinearSystem,
    RunningSolver,
    Solution,
    SolveStatus,
    Structure,
    solve,
    solve_sequence,
)
from headrace.solvers.selection import auto as auto_module
from headrace.solvers.selection.candidates import candidates, candidates_of, capped, miniature
from headrace.solvers.systems.family import Family, family_of
from headrace.solvers.systems.verified import solve_verified


def laplacian(n: int, shift: float = 0.0, skew: float = 0.0) -> scipy.sparse.csr_array:
    return scipy.sparse.diags_array([-1.0 - skew, 2.0 + shift, -1.0 + skew], offsets=[-1, 0, 1], shape=(n, n)).tocsr()


def system(n: int = 40, **known: bool) -> LinearSystem:
    return LinearSystem.from_matrix(laplacian(n), np.ones(n), **known)


class Fake(AbstractSolver):
    """Solves by a factorisation, after a while, or in one of several ways not at all."""

    kind: Literal["fake"] = "fake"
    name: str = "fake"
    seconds: float = 0.0
    behaves: Literal["well", "admits", "lies"] = "well"
    log: ClassVar[list[str]] = []
    now: ClassVar[float] = 0.0

    def build(self) -> RunningSolver:
        return RunningFake(self)

    def mismatch(self, target: object) -> str | None:
        return None


class RunningFake(RunningSolver):
    def __init__(self, spec: Fake) -> None:
        self._spec, self._direct = spec, Direct(package="scipy").build()

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        Fake.log.append(self._spec.name)
        Fake.now += self._spec.seconds
        found = self._direct.solve(system, rtol)
        good = self._spec.behaves == "well"
        return Solution(
            value=found.value if good else np.zeros_like(found.value),
            status=SolveStatus.max_iterations if self._spec.behaves == "admits" else SolveStatus.converged,
            relative_residual=float("nan"),
            num_iterations=1,
            seconds=0.0,
            method=self._spec.name,
        )


class Clock:
    """Time passes in `Fake` alone."""

    @staticmethod
    def perf_counter() -> float:
        Fake.now += 1e-6
        return Fake.now

    process_time = perf_counter


@pytest.fixture(autouse=True)
def empty_log_and_own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    Fake.log.clear()
    monkeypatch.setattr(auto_module, "time", Clock)


@pytest.mark.parametrize(
    ("structure", "family"),
    [
        (Structure(symmetric=True, positive_definite=True, diffusion=2), Family.structured),
        (Structure(symmetric=True, positive_definite=True, diffusion=2, repeats=True), Family.repeating),
        (Structure(symmetric=True, positive_definite=True), Family.positive_definite),
        (Structure(symmetric=True, diffusion=2), Family.indefinite),
        (Structure(), Family.nonsymmetric),
        (Structure(positive_definite=True, diffusion=2, drifts=True), Family.drifting),
        (Structure(drifts=True), Family.drifting_nonsymmetric),
    ],
)
def test_families(structure: Structure, family: Family) -> None:
    assert family_of(structure) is family


@pytest.mark.parametrize("family", Family)
def test_every_line_of_the_table_is_a_method_with_its_settings(family: Family) -> None:
    found = candidates_of(family)
    assert all(one.prior > 0 and one.set_up >= 0 for one in found)
    assert [one.prior for one in found] == sorted(one.prior for one in found)
    assert any(kind_of(type(one.method)) == "direct" for one in found), "something must solve what nothing else does"


def test_the_first_guess_for_each_family() -> None:
    first = {family.value: candidates_of(family)[0].label for family in Family}
    assert first == {
        "repeating": "transform",
        "structured": "transform",
        "positive_definite": "direct",
        "drifting": "multigrid",
        "drifting_nonsymmetric": "bicgstab(levels=2)",
        "indefinite": "transform",
        "nonsymmetric": "direct(package=petsc)",
    }


def test_candidates_fit_and_have_labels() -> None:
    found = candidates(system())
    assert all(one.method.mismatch(system()) is None for one in found)
    assert found[0].label.startswith("direct")
    assert len({one.label for one in found}) == len(found)


def test_a_single_system_is_solved_by_the_first_choice_and_nothing_is_tried() -> None:
    auto = Auto(candidates=[Fake(name="first", seconds=0.02), Fake(name="second")])
    assert solve(system(), method=auto).method == "first"
    assert Fake.log == ["first"]


def test_a_sequence_goes_to_the_faster_method() -> None:
    auto = Auto(candidates=[Fake(name="slow", seconds=0.02), Fake(name="fast", seconds=0.001)])
    solutions = solve_sequence([system()] * 20, method=auto)
    assert [solution.method for solution in solutions[-10:]] == ["fast"] * 10
    assert all(solution.status is SolveStatus.converged for solution in solutions)


@pytest.mark.parametrize("strategy", ["tsallis_inf", "cheb_cb"])
def test_a_bandit_goes_on_where_the_race_ends(strategy: Literal["tsallis_inf", "cheb_cb"]) -> None:
    # Within a factor of 3, so that both stay in the game.
    auto = Auto(strategy=strategy, candidates=[Fake(name="slow", seconds=0.006), Fake(name="fast", seconds=0.003)])
    running = auto.build()
    for _ in range(200):
        assert solve_verified(running, system(), 1e-8).status is SolveStatus.converged
    report = running.report()
    assert report is not None and report.strategy == strategy and report.accepted == 200
    assert {arm.label: arm.accepted for arm in report.arms if arm.solves}.keys() == {
        "fake(name=slow, seconds=0.006)",
        "fake(name=fast, seconds=0.003)",
    }
    assert report.winner == "fake(name=fast, seconds=0.003)"


@pytest.mark.parametrize("behaves", ["admits", "lies"])
def test_what_a_method_does_not_solve_goes_to_the_next_and_at_last_to_direct(
    behaves: Literal["admits", "lies"],
) -> None:
    auto = Auto(candidates=[Fake(name="a", behaves=behaves), Fake(name="b")])
    solution = solve(system(), method=auto)
    assert (solution.method, solution.status) == ("b", SolveStatus.converged)
    assert "after a: " in solution.detail and solution.num_tries == 2
    auto = Auto(candidates=[Fake(name=name, behaves=behaves) for name in "abc"])
    solution = solve(system(), method=auto)
    assert (solution.method, solution.status, solution.num_tries) == ("direct", SolveStatus.converged, 3)
    assert Fake.log == ["a", "b", "a", "b"], "the first choice, the next; then no more of the candidates"


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_matrix_that_needs_pivots_gets_them(symmetric: bool) -> None:
    # A saddle point with nothing on its diagonal: whatever PETSc's own factors make of it is not accepted.
    corner = laplacian(20)
    matrix = scipy.sparse.block_array([[None, corner], [corner, None]]).tocsr()
    system = LinearSystem.from_matrix(matrix, np.ones(40), symmetric=symmetric)
    for solution in solve_sequence([system] * 3, method="auto"):
        assert solution.status is SolveStatus.converged and solution.relative_residual < 1e-8


def test_when_nothing_works_the_last_word_is_directs() -> None:
    singular = LinearSystem.from_matrix(scipy.sparse.csr_array(np.ones((3, 3))), np.array([1.0, 2.0, 3.0]))
    solution = solve(singular, method=Auto(candidates=[Fake(behaves="admits")]))
    assert solution.method == "direct" and solution.status is not SolveStatus.converged


def test_one_bad_system_of_a_batch_falls_back_alone() -> None:
    class Spoils(RunningFake):
        def solve_batch(self, systems: Sequence[LinearSystem], rtol: float) -> list[Solution]:
            found = [self.solve(system, rtol) for system in systems]
            bad = RunningFake(Fake(name="batch", behaves="admits")).solve(systems[1], rtol)
            return [found[0], bad, *found[2:]]

    auto = Auto(candidates=[Fake(name="batch"), Fake(name="other")])
    running = auto.build()
    choice = running._choice(system())
    choice._running[0] = (Spoils(Fake(name="batch")), choice._arms[0].method)
    assert [solution.method for solution in running.solve_batch([system()] * 3, 1e-8)] == ["batch", "other", "batch"]


def test_a_nonlinear_system_falls_back_as_a_whole() -> None:
    matrix, ones = laplacian(20), np.ones(20)
    nonlinear = NonlinearSystem(
        guess=np.zeros(20),
        residual=lambda x: matrix @ x + x**3 - ones,
        linearize=lambda x: LinearSystem.from_matrix(
            matrix + scipy.sparse.diags_array(3.0 * x**2), ones - x**3 - matrix @ x
        ),
        structure=Structure(),
        scale=float(np.sqrt(20.0)),
    )
    solution = solve(nonlinear, method=Auto(candidates=[Fake(name="a", behaves="lies"), Fake(name="b")]))
    assert solution.status is SolveStatus.converged and solution.relative_residual <= 1e-8
    assert solution.method in ("b", "direct")


def test_false_claims_are_counted_as_failures() -> None:
    running = Auto(candidates=[Fake(name="a", behaves="lies"), Fake(name="b")]).build()
    for _ in range(5):
        assert solve_verified(running, system(), 1e-8).status is SolveStatus.converged
    report = running.report()
    assert report is not None
    a, b = report.arms[:2]
    assert a.accepted == 0 and a.solves >= 1
    assert b.accepted == 5


def test_a_grid_of_one_knob_becomes_candidates() -> None:
    auto = Auto.model_validate(
        {"candidates": [{"kind": "gcrodr", "recycled": [5, 20], "subspace": 30}, "multigrid", {"kind": "direct"}]}
    )
    assert [method.model_dump(exclude_defaults=True) for method in auto.candidates[:2]] == [
        {"subspace": 30, "recycled": 5},
        {"subspace": 30, "recycled": 20},
    ]
    assert len(auto.candidates) == 4
    assert Auto.model_validate_json(auto.model_dump_json()) == auto and hash(auto) == hash(auto.model_copy())
    problem = Darcy(resolution=20)
    systems = [problem.discretize(problem.draw(seed)) for seed in range(8)]
    assert all(solution.status is SolveStatus.converged for solution in solve_sequence(systems, method=auto))


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        ({"kind": "multigird"}, r"a candidate of the kind 'multigird'; expected one of .*Did you mean \"multigrid\"\?"),
        ({"kind": "auto"}, "a candidate of the kind 'auto'; expected one of"),
        (Auto(), "auto is a candidate of auto; expected other methods"),
        ({"kind": "gcrodr", "recycled": [50]}, "recycled is 50; expected less than subspace, which is 40"),
    ],
)
def test_bad_candidates_are_refused(candidate: object, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Auto.model_validate({"candidates": [candidate]})


def test_candidates_of_which_none_fits_are_a_mismatch() -> None:
    assert "Multigrid needs" in (Auto.model_validate({"candidates": ["multigrid"]}).mismatch(system()) or "")


def test_a_try_of_an_iterative_method_is_limited() -> None:
    long = system(200_000)
    method = capped(Auto.model_validate({"candidates": [{"kind": "gcrodr"}]}).candidates[0], long, 0.36)
    # 600 000 entries at 6 ns.
    assert method.model_dump()["max_iterations"] == pytest.approx(100, abs=1)
    assert capped(Direct(), long, 0.01) == Direct()


@pytest.mark.parametrize(
    "operator",
    [
        DiffusionOperator(conductances=(np.ones((21, 15)), np.ones((20, 16)))),
        DiffusionOperator(conductances=(np.ones((20, 15)), np.ones((20, 16))), periodic=(True, False)),
        DiffusionOperator(conductances=(np.ones((6, 5)), np.ones((5, 6))), reaction=np.full((5, 5), -2.7)),
        DiffusionOperator(conductances=(np.ones((20, 20)), np.ones((20, 20))), periodic=(True, True)),
    ],
)
def test_a_miniature_has_the_structure_of_its_system(operator: DiffusionOperator) -> None:
    small = miniature(LinearSystem.from_operator(operator, np.zeros(operator.num_unknowns)))
    assert small.num_unknowns <= 64
    assert small.structure.diffusion == 2 and small.structure.positive_definite == (operator.reaction is None)
    assert solve(small, method="direct").status is SolveStatus.converged


def test_a_miniature_of_a_matrix_is_its_corner() -> None:
    small = miniature(system(100, positive_definite=True))
    assert small.num_unknowns == 64 and small.structure.positive_definite
    assert (small.matrix != laplacian(64)).nnz == 0
