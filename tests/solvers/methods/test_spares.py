"""A single solve takes the workspace that another one left, and nothing of what was in it."""

import threading

import numpy as np
import pytest

from headrace.solvers import Darcy, SolveStatus, solve
from headrace.solvers.methods import multigrid
from headrace.solvers.methods.spares import Spares


def test_single_solves_share_a_workspace_and_no_bit_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    original = multigrid._Workspace

    class Counted(original):  # type: ignore[misc, valid-type]
        def __init__(self, operator: object) -> None:
            made.append(operator)
            super().__init__(operator)

    monkeypatch.setattr(multigrid, "_Workspace", Counted)
    monkeypatch.setattr(multigrid, "_spares", Spares(4, 1 << 25))
    problem = Darcy(resolution=33)
    systems = [problem.discretize(problem.draw(seed)) for seed in range(3)]
    first = [solve(system, 1e-8, "multigrid").value for system in systems]
    assert len(made) == 1
    for order in ((2, 0, 1), (1, 2, 0)):
        for seed in order:
            np.testing.assert_array_equal(solve(systems[seed], 1e-8, "multigrid").value, first[seed])
            np.testing.assert_array_equal(solve(systems[seed]).value, first[seed])
    assert len(made) == 1
    # Each held solver has one of its own.
    running = [multigrid.Multigrid().build() for _ in range(2)]
    for one in running:
        np.testing.assert_array_equal(one.solve(systems[0], 1e-8).value, first[0])
    assert len(made) == 2


def test_what_was_spoilt_is_not_left_to_others() -> None:
    problem = Darcy(resolution=33)
    good, bad = (problem.discretize(problem.draw(seed)) for seed in range(2))
    expected = solve(good, 1e-8, "multigrid").value
    bad.rhs[5] = np.nan
    assert solve(bad, 1e-8, "multigrid").status is not SolveStatus.converged
    np.testing.assert_array_equal(solve(good, 1e-8, "multigrid").value, expected)


def test_threads_solve_side_by_side() -> None:
    problem = Darcy(resolution=33)
    systems = [problem.discretize(problem.draw(seed)) for seed in range(4)]
    expected = [solve(system, 1e-8, "multigrid").value for system in systems]
    wrong: list[int] = []

    def work(seed: int) -> None:
        for _ in range(50):
            if not np.array_equal(solve(systems[seed], 1e-8, "multigrid").value, expected[seed]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_few_are_held_and_none_that_are_large() -> None:
    spares: Spares[str] = Spares(2, 100)
    for key, name, size in ((1, "a", 10), (2, "b", 10), (1, "large", 101), (1, "c", 10)):
        spares.leave(key, name, size)
    assert [spares.take(1), spares.take(1), spares.take(2), spares.take(2)] == ["c", None, "b", None]
