"""The defect of a forecast: what the solver makes of each of its states, against the next one."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from headrace.platform.errors import InputError
from headrace.solvers.evolution.evolution import AbstractEvolution, Draw
from headrace.solvers.evolution.implicit import StageSolver
from headrace.solvers.evolution.stepper import HALVINGS, Stepper
from headrace.solvers.numerics import Numerics

# Intervals of one length differ by rounding.
_SAME_INTERVAL = 1e-9
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, kw_only=True)
class Defect:
    """By how much a forecast misses its equation.

    Attributes:
        times: the output times that were looked at.
        relative: for each, ||u(t) - S u(t')|| / ||S u(t')||, with the forecast u, the output time t' before t (or
            0) and the solver's flow S from t' to t; NaN where the solver could not follow the forecast's state.
        num_steps: time steps that the solver took, all intervals together.
    """

    times: tuple[float, ...]
    relative: Float64[np.ndarray, " times"]
    num_steps: int


def forecast_defect(
    problem: AbstractEvolution,
    inputs: Float[np.ndarray, "channels_in *grid"],  # noqa: F821  (jaxtyping's shapes are no expressions)
    outputs: Float[np.ndarray, "time components *grid"],  # noqa: F821
    parameters: Float[np.ndarray, " num_parameters"],
    *,
    numerics: Numerics | None = None,
    stages: StageSolver | None = None,
    most: int | None = None,
) -> Defect:
    """Follow the equation from each state of a forecast to the next output time, and compare.

    Every interval is a problem of its own: they are solved as one batch, and a few of them tell about the whole at a
    part of its price. The defect is the error that one interval adds, not what has accumulated; where it is as large
    as the state, nothing is left of the equation. The solver works on the output grid, whose own discretisation error
    the defect contains; a forecast without any error would have a defect of about `problem.restarts_within`.

    Args:
        problem: the equation at the level of the sample.
        inputs: of the sample, the state at time 0 first.
        outputs: the forecast at the problem's output times.
        parameters: of the sample, in the order of `problem.scalars`.
        numerics: the largest time step; its refinement must be 1. Default: the equation's own step.
        stages: who solves the systems of an implicit equation; default: `auto`.
        most: how many intervals to look at, evenly spread with the last among them; default: all.

    Raises:
        InputError: the forecast has other times or fields than the problem.
    """
    _require_fit(problem, inputs, outputs, parameters)
    scalars = dict(zip(problem.scalars, parameters.astype(np.float64).tolist(), strict=True))
    components = sum(spec.components for spec in problem.state)
    first, constants = inputs[:components], inputs[components:]
    if not len(inputs):  # the parameters say all there is to know
        given = problem.initial(np.random.default_rng(0), scalars)
        first = np.concatenate([given[spec.name] for spec in problem.state])
        constants = np.concatenate(
            [np.zeros((0, *problem.grid.shape)), *(given[one.name] for one in problem.constants)]
        )
    states = np.concatenate([first[None], outputs]).astype(np.float64)
    fields = [_fields(problem, state, constants.astype(np.float64)) for state in states]
    starts = (0.0, *problem.times[:-1])
    chosen = _spread(len(problem.times), most)
    relative, num_steps = np.full(len(problem.times), np.nan), 0
    for length, members in _by_length({k: problem.times[k] - starts[k] for k in chosen}).items():
        short = problem.model_copy(update={"horizon": length, "snapshots": 1})
        for start in range(0, len(members), short.batch_size):
            batch = members[start : start + short.batch_size]
            stepper = Stepper(short, numerics, stages)
            for _ in range(1 + HALVINGS):
                followed = stepper.follow([Draw(scalars=scalars, fields=fields[k]) for k in batch])
                num_steps += int(followed.num_steps.sum())
                failed = []
                for row, k in enumerate(batch):
                    if followed.failure(row) is not None:
                        failed.append(k)
                        continue
                    right = followed.outputs[row, 0].astype(np.float64)
                    difference = float(np.linalg.norm(states[k + 1] - right))
                    # A state of 0 everywhere is missed by all or nothing.
                    relative[k] = difference and difference / max(float(np.linalg.norm(right)), _TINY)
                if not failed:
                    break
                batch, stepper = failed, stepper.halved()
    return Defect(times=tuple(problem.times[k] for k in chosen), relative=relative[list(chosen)], num_steps=num_steps)


def _require_fit(problem: AbstractEvolution, inputs: np.ndarray, outputs: np.ndarray, parameters: np.ndarray) -> None:
    schema = problem.schema()
    expected = {
        "inputs": (inputs.shape, (schema.num_input_channels, *schema.domain.shape)),
        "outputs": (outputs.shape, (len(schema.times), schema.num_output_channels, *schema.domain.shape)),
        "parameters": (parameters.shape, (schema.num_parameters,)),
    }
    for name, (found, right) in expected.items():
        if found != right:
            raise InputError.single(name, f"of shape {found}", f"the problem's shape {right}")


def _spread(count: int, most: int | None) -> tuple[int, ...]:
    """So many of `count` places, evenly spread, the last one among them."""
    if most is None or most >= count:
        return tuple(range(count))
    return tuple(sorted({round((number + 1) * count / most) - 1 for number in range(most)}))


def _by_length(lengths: Mapping[int, float]) -> dict[float, list[int]]:
    """The intervals by their length: those of one length are solved together."""
    found: dict[float, list[int]] = {}
    for number, length in lengths.items():
        same = next((known for known in found if abs(known - length) <= _SAME_INTERVAL * known), length)
        found.setdefault(same, []).append(number)
    return found


def _fields(
    problem: AbstractEvolution, state: Float64[np.ndarray, "..."], constants: Float64[np.ndarray, "..."]
) -> dict[str, Float64[np.ndarray, "components *grid"]]:
    """State and constants as a draw's fields."""
    fields, first, channels = {}, 0, np.concatenate([state, constants])
    for spec in (*problem.state, *problem.constants):
        fields[spec.name] = channels[first : first + spec.components]
        first += spec.components
    return fields
