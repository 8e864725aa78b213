"""follow: one trajectory of an equation in time, from fields of one's own."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from headrace.platform.errors import InputError, nearest
from headrace.platform.fields import FieldSpec
from headrace.solvers.evolution.evolution import AbstractEvolution, Draw, Numerics
from headrace.solvers.evolution.implicit import AbstractImplicit, StageSolver
from headrace.solvers.evolution.stepper import HALVINGS, Followed, Stepper
from headrace.solvers.random_inputs.parameters import Uniform
from headrace.solvers.solving import method_named
from headrace.solvers.systems.solver import AbstractSolver, require_match, require_tolerance


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """What became of some fields.

    Attributes:
        times: the output times, as the problem has them.
        fields: the state at each of them by name, "time components *grid"; not finite after a failure.
        parameters: the numbers of the equation, by name.
        num_steps: time steps that were taken.
        defect: by how much a step changes when it is done again as two half steps, relative to the state, at most; NaN
            where that is not looked at.
        step: the largest time step that was allowed.
        failure: why this is no solution; None when it is one.
    """

    times: tuple[float, ...]
    fields: Mapping[str, Float32[np.ndarray, "time components *grid"]]
    parameters: Mapping[str, float]
    num_steps: int
    defect: float
    step: float
    failure: str | None


def follow(
    problem: AbstractEvolution,
    initial: Mapping[str, Float[np.ndarray, "..."]],
    parameters: Mapping[str, float] | None = None,
    *,
    step: float | None = None,
    method: str | AbstractSolver = "auto",
    rtol: float = 1e-8,
) -> Trajectory:
    """Follow an equation from fields of one's own, as the samples of a data set are followed from drawn ones.

    A step that differs too much from two half steps, or that ends in numbers that are not finite, is halved up to six
    times.

    Args:
        problem: the equation, with its grid and output times.
        initial: the fields at time 0 on the problem's grid, by the names of `problem.schema().inputs`: those of the
            state and those that do not change. A field of one component may come without that axis.
        parameters: the numbers of the equation, by the names of `problem.scalars`; those that the problem draws have to
            be given, others may be. They need not lie between the bounds that the problem draws from.
        step: the largest time step; default: the equation's own.
        method: for an implicit equation: who solves the systems of its steps.
        rtol: for an implicit equation: the relative residual that each of these must reach.

    Returns:
        The trajectory; look at `failure` before you use it.

    Raises:
        InputError: a field or a number is missing, unknown, misshapen or not finite.

    Example:
        >>> problem = Burgers(resolution=256, horizon=0.5)
        >>> x = np.arange(256) / 256
        >>> found = follow(problem, {"velocity": np.sin(2 * np.pi * x)}, {"viscosity": 0.01})
        >>> found.fields["velocity"].shape
        (10, 1, 256)
    """
    scalars = _scalars(problem, parameters or {})
    fields = {spec.name: _field(problem, spec, initial) for spec in (*problem.state, *problem.constants)}
    if unknown := [name for name in initial if name not in fields]:
        raise InputError.single(
            "initial", f'"{unknown[0]}"', f"fields {', '.join(fields)}", nearest(unknown[0], fields)
        )
    if step is not None and not 0.0 < step < math.inf:
        raise InputError.single("step", f"{step:g}", "a positive time step")
    stages = None
    if isinstance(problem, AbstractImplicit):
        require_tolerance(rtol)
        solver = method_named(method)
        require_match(solver, problem)
        stages = StageSolver(solver, rtol)
    stepper = Stepper(problem, None if step is None else Numerics(step=step), stages)
    draw, failure, first = Draw(scalars=scalars, fields=fields), None, None
    for halvings in range(1 + HALVINGS):
        followed = stepper.follow([draw])
        failure = followed.failure(0)
        if failure is None:
            return _told(problem, followed, scalars, stepper.numerics.step, None)
        first = first or failure
        if halvings < HALVINGS:
            stepper = stepper.halved()
    said = failure if failure == first else f"{first}; with step {stepper.numerics.step:.3g} {failure}"
    return _told(problem, followed, scalars, stepper.numerics.step, said)


def _told(
    problem: AbstractEvolution, followed: Followed, scalars: Mapping[str, float], step: float, failure: str | None
) -> Trajectory:
    fields, first = {}, 0
    for spec in problem.state:
        fields[spec.name] = followed.outputs[0, :, first : first + spec.components]
        first += spec.components
    return Trajectory(
        times=problem.times,
        fields=fields,
        parameters=scalars,
        num_steps=int(followed.num_steps[0]),
        defect=float(followed.defect[0]),
        step=step,
        failure=failure,
    )


def _scalars(problem: AbstractEvolution, given: Mapping[str, float]) -> dict[str, float]:
    known = problem.scalars
    for name, value in given.items():
        if name not in known:
            expected = f"numbers {', '.join(known)}" if known else "none: this equation has no numbers"
            raise InputError.single("parameters", f'"{name}"', expected, nearest(name, known))
        if not math.isfinite(value):
            raise InputError.single(f"parameters.{name}", f"{value}", "a finite number")
    found = {}
    for name, scalar in known.items():
        if name in given:
            found[name] = float(given[name])
        elif isinstance(scalar, Uniform) and scalar.low < scalar.high:
            raise InputError.single(
                f"parameters.{name}",
                "not given",
                f"a number, such as {scalar.low:g} to {scalar.high:g}",
                "It is drawn.",
            )
        else:
            found[name] = scalar.low if isinstance(scalar, Uniform) else float(scalar)
    return found


def _field(
    problem: AbstractEvolution, spec: FieldSpec, initial: Mapping[str, Float[np.ndarray, "..."]]
) -> Float[np.ndarray, "components *grid"]:
    where, shape = f"initial.{spec.name}", (spec.components, *problem.grid.shape)
    if spec.name not in initial:
        raise InputError.single(where, "not given", f"an array of shape {shape}", nearest(spec.name, initial))
    array = np.asarray(initial[spec.name])
    if isinstance(initial[spec.name], np.ma.MaskedArray) or array.dtype.kind not in "biuf":
        raise InputError.single(where, f"of type {array.dtype}", "an array of real numbers, none masked")
    if spec.components == 1 and array.shape == shape[1:]:
        array = array[np.newaxis]
    if array.shape != shape:
        raise InputError.single(where, f"of shape {array.shape}", f"the problem's shape {shape}: component, then grid")
    array = np.array(array, dtype=np.float64, order="C")
    if not np.isfinite(array).all():
        raise InputError.single(where, f"{np.count_nonzero(~np.isfinite(array))} values not finite", "finite numbers")
    return array
