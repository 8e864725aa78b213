"""Solving a sequence of systems: the order, and what is carried from one to the next."""

from collections.abc import Sequence

from headrace.solvers.sequences.sorting import Order, solving_order
from headrace.solvers.solving import method_named
from headrace.solvers.systems.solver import AbstractSolver, Solution, require_match
from headrace.solvers.systems.system import System
from headrace.solvers.systems.verified import solve_verified


def solve_sequence(
    systems: Sequence[System],
    rtol: float = 1e-8,
    method: "str | AbstractSolver" = "auto",
    order: Order = "auto",
) -> list[Solution]:
    """Solve systems one after the other with what was learnt from those before.

    Args:
        systems: what to solve.
        rtol: the relative residual to reach.
        method: a kind with its defaults, or a spec.
        order: `greedy` and `hilbert` sort the systems by their features; `auto` does so if the method recycles;
            `none` takes them as they come. See `headrace.solvers.sequences.sorting`.

    Returns:
        The verified solutions in the order of `systems`, whatever the order they were solved in.

    Raises:
        InputError: there is no such method, or it cannot solve one of the systems.
        ValueError: `greedy` or `hilbert` is asked for, and the systems have no features, or of different shapes.
    """
    spec = method_named(method)
    for system in systems:
        require_match(spec, system)
    running = spec.build()
    solutions: dict[int, Solution] = {}
    for index in order_of_systems(systems, spec, order):
        solutions[index] = solve_verified(running, systems[index], rtol)
    return [solutions[index] for index in range(len(systems))]


def order_of_systems(systems: Sequence[System], spec: AbstractSolver, order: Order) -> Sequence[int]:
    """The order to solve in.

    Raises:
        ValueError: sorting was asked for by name, and the features do not allow it.
    """
    features = [system.feature for system in systems if system.feature is not None]
    alike = len(features) == len(systems) and len({feature.shape for feature in features}) <= 1
    if order == "none" or (order == "auto" and not (spec.recycles and alike)):
        return range(len(systems))
    if not alike:
        raise ValueError(
            f"{len(features)} of {len(systems)} systems have a feature, of the shapes "
            f"{sorted({feature.shape for feature in features})}; expected one of one shape for each to sort by. "
            f'Use order="none"'
        )
    return [int(index) for index in solving_order(features, len(features), order)]
