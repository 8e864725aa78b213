"""Sorting: the exact walk, the curve, features of a stream; and sequences that come back in their own order."""

import itertools

import numpy as np
import pytest

from headrace.solvers import GCRODR, Darcy, Direct, LinearSystem, SolveStatus, solve_sequence
from headrace.solvers.sequences.sequence import order_of_systems
from headrace.solvers.sequences.sorting import (
    features_of,
    greedy_order,
    hilbert_index,
    hilbert_order,
    in_shuffled_runs,
    path_length,
    solving_order,
)


def by_brute_force(points: np.ndarray) -> list[int]:
    order = [0]
    while len(order) < len(points):
        left = [k for k in range(len(points)) if k not in order]
        order.append(min(left, key=lambda k: float(np.linalg.norm(points[k] - points[order[-1]]))))
    return order


@pytest.mark.parametrize(("num", "dimensions"), [(1, 3), (2, 1), (60, 2), (60, 17), (40, 200)])
def test_greedy_is_exact(num: int, dimensions: int) -> None:
    points = np.random.default_rng(num).standard_normal((num, dimensions))
    assert greedy_order(points).tolist() == by_brute_force(points)


def test_equal_points_are_taken_by_their_number() -> None:
    assert greedy_order(np.zeros((5, 3))).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("dimensions", "bits"), [(1, 3), (2, 4), (3, 3), (4, 2)])
def test_the_hilbert_curve_meets_every_cell_once_and_goes_to_neighbours(dimensions: int, bits: int) -> None:
    cells = np.array(list(itertools.product(range(1 << bits), repeat=dimensions)))
    along = hilbert_index(cells, bits)
    assert sorted(along) == list(range(len(cells)))
    assert np.all(np.abs(np.diff(cells[np.argsort(along)], axis=0)).sum(axis=1) == 1)


def test_the_curve_is_a_permutation_and_nearly_as_short_as_the_exact_walk() -> None:
    rng = np.random.default_rng(0)
    # A few leading directions, as smooth fields have.
    points = rng.standard_normal((1500, 24)) * np.arange(1.0, 25.0) ** -1.5
    order = hilbert_order(points, chunk=256)
    assert sorted(order) == list(range(1500))
    # Measured 1.06 times the exact walk, and 0.39 of the order as it comes.
    assert path_length(points, order) < 1.15 * path_length(points, greedy_order(points))
    assert path_length(points, order) < 0.5 * path_length(points, range(1500))


@pytest.mark.parametrize("shape", [(7,), (12, 9), (40, 33), (6, 5, 4)])
def test_features_keep_the_distances_of_thinned_fields(shape: tuple[int, ...]) -> None:
    fields = np.random.default_rng(1).standard_normal((3, *shape))
    features = features_of(iter(fields), 3)
    thinned = fields[(slice(None), *(slice(None, None, -(-n // 32) if len(shape) > 1 else 1) for n in shape))]
    for a, b in ((0, 1), (1, 2)):
        # The transform is orthonormal; features are in single precision.
        assert np.linalg.norm(features[a] - features[b]) == pytest.approx(
            np.linalg.norm(thinned[a] - thinned[b]), rel=1e-5
        )


def test_few_features_hold_what_is_smooth() -> None:
    x = np.linspace(0.0, 1.0, 64)
    smooth = np.cos(np.pi * np.add.outer(x, 2 * x))
    (feature,) = features_of([smooth], 1, most=64)
    # Half of the points a side are kept, so half of the norm; a wave that is not one of the cosines spreads a little.
    assert feature.size == 64
    assert np.linalg.norm(feature) == pytest.approx(np.linalg.norm(smooth) / 2, rel=0.02)


def test_a_stream_must_be_as_long_and_as_alike_as_said() -> None:
    with pytest.raises(ValueError, match="expected 3 fields, got 2"):
        solving_order([np.zeros((4, 4))] * 2, 3, "auto")
    with pytest.raises(ValueError, match="expected 1 fields, got 2"):
        solving_order([np.zeros((4, 4))] * 2, 1, "greedy")
    with pytest.raises(ValueError, match=r"field 1 has shape \(5, 4\), the first one has \(4, 4\)"):
        solving_order([np.zeros((4, 4)), np.zeros((5, 4))], 2, "hilbert")


def test_shuffled_runs_keep_neighbours_and_lose_nobody() -> None:
    order = np.random.default_rng(2).permutation(23)
    shuffled = in_shuffled_runs(order, 5, np.random.default_rng(3))
    assert sorted(shuffled) == list(range(23)) and shuffled.tolist() != order.tolist()
    runs = {tuple(order[start : start + 5]) for start in range(0, 20, 5)}
    assert {tuple(shuffled[start : start + 5]) for start in range(0, 20, 5)} == runs
    assert shuffled[20:].tolist() == order[20:].tolist()


def darcy(count: int, resolution: int = 14) -> list[LinearSystem]:
    problem = Darcy(resolution=resolution)
    return [problem.discretize(problem.draw(seed)) for seed in range(count)]


@pytest.mark.parametrize("order", ["auto", "greedy", "hilbert", "none"])
def test_solutions_come_in_the_order_of_the_systems(order: str) -> None:
    systems = darcy(6)
    solutions = solve_sequence(systems, method=GCRODR(subspace=12, recycled=4), order=order)  # type: ignore[arg-type]
    assert all(solution.status is SolveStatus.converged for solution in solutions)
    assert all(s.relative_residual(x.value) <= 1e-8 for s, x in zip(systems, solutions, strict=True))


def test_auto_sorts_for_methods_that_recycle_alone_and_asks_for_no_features() -> None:
    systems = darcy(5)
    assert list(order_of_systems(systems, Direct(), "auto")) == [0, 1, 2, 3, 4]
    assert sorted(order_of_systems(systems, Direct(), "greedy")) == [0, 1, 2, 3, 4]
    assert list(order_of_systems(systems, GCRODR(), "auto")) == list(order_of_systems(systems, GCRODR(), "greedy"))
    mixed = [*systems, *darcy(1, resolution=9)]
    assert list(order_of_systems(mixed, GCRODR(), "auto")) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match=r"6 of 6 systems have a feature, of the shapes \[\(9, 9\), \(14, 14\)\]"):
        order_of_systems(mixed, GCRODR(), "greedy")
    assert solve_sequence([], method=GCRODR()) == []
