"""Solving a sequence of systems: the order, and what is carried from one to the next."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int64

from headrace.solvers.solver import AbstractSolver, Solution, method_named, require_match, solve_verified
from headrace.solvers.system import System

Order = Literal["greedy", "none"]

# Distances are compared, not reported: 32 points a side tell neighbours apart, and sorting stays cheap on fine grids.
_FEATURE_POINTS = 32


def solve_sequence(
    systems: Sequence[System],
    rtol: float = 1e-8,
    method: "str | AbstractSolver" = "auto",
    order: Order = "greedy",
) -> list[Solution]:
    """Solve systems one after the other with what was learnt from those before.

    Args:
        systems: what to solve.
        rtol: the relative residual to reach.
        method: a kind with its defaults, or a spec.
        order: `greedy` solves nearest neighbours in turn if the method recycles; `none` as they come.

    Returns:
        The verified solutions in the order of `systems`, whatever the order they were solved in.

    Raises:
        InputError: there is no such method, or it cannot solve one of the systems.
    """
    spec = method_named(method)
    for system in systems:
        require_match(spec, system)
    running = spec.build()
    solutions: dict[int, Solution] = {}
    for index in solving_order(systems, spec, order):
        solutions[index] = solve_verified(running, systems[index], rtol)
    return [solutions[index] for index in range(len(systems))]


def solving_order(systems: Sequence[System], spec: AbstractSolver, order: Order) -> Sequence[int]:
    """The order to solve in: as given, unless the method gains from another and all systems have alike features."""
    features = [_thinned(system.feature) for system in systems if system.feature is not None]
    alike = len(features) == len(systems) and len({feature.shape for feature in features}) == 1
    if order == "none" or not spec.recycles or not alike:
        return range(len(systems))
    return [int(index) for index in greedy_order(np.stack(features))]


def greedy_order(features: Float[np.ndarray, "systems ..."]) -> Int64[np.ndarray, " systems"]:
    """Start at the first system and always go on to the nearest that is left, by the Frobenius distance of features.

    Algorithm 2 of Wang et al., "Accelerating data generation for neural operators via Krylov subspace recycling",
    ICLR 2024.
    """
    flat = features.reshape(len(features), -1)
    squares = np.einsum("ij,ij->i", flat, flat)
    distances = squares[:, None] + squares[None, :] - 2.0 * flat @ flat.T
    order = np.zeros(len(flat), dtype=np.int64)
    for position in range(1, len(flat)):
        distances[:, order[position - 1]] = np.inf
        order[position] = np.argmin(distances[order[position - 1]])
    return order


def _thinned(feature: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return feature[tuple(slice(None, None, -(-n // _FEATURE_POINTS)) for n in feature.shape)]
