"""certify: what a prediction is worth by the equation itself, and a solution that goes on from it."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from headrace.solvers.problem import AbstractProblem
from headrace.solvers.solving import method_named, solve
from headrace.solvers.systems.solver import AbstractSolver, Solution, SolveStatus
from headrace.solvers.systems.system import System


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A prediction that a classical method has gone on from, beside the same method by itself.

    Attributes:
        outputs: of the sample, as the schema lays them out; None if the method did not get there.
        solution: from the prediction.
        by_itself: of the same method with the start of its own.
    """

    outputs: Float32[np.ndarray, "1 channels_out *grid"] | None
    solution: Solution
    by_itself: Solution

    @property
    def iterations_saved(self) -> int:
        """Iterations that the prediction made superfluous; negative where it was a worse start than the method's."""
        return self.by_itself.num_iterations - self.solution.num_iterations

    @property
    def seconds_saved(self) -> float:
        """Wall time that it saved [s], the prediction's own not counted."""
        return self.by_itself.seconds - self.solution.seconds


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What the equation says of a prediction.

    Attributes:
        relative_residual: ||b - A x|| / ||b|| of the prediction itself (||F(x)|| / scale of a nonlinear equation). It
            is no error: it weighs what varies from point to point most. 1 is what x = 0 has.
        finished: the solution that starts from it, if one was asked for.
    """

    relative_residual: float
    finished: Finished | None = None


def certify(
    problem: AbstractProblem,
    inputs: Float[np.ndarray, "channels_in *grid"],  # noqa: F821  (jaxtyping's shapes are no expressions)
    prediction: Float[np.ndarray, "1 channels_out *grid"],  # noqa: F821
    parameters: Float[np.ndarray, " num_parameters"] | None = None,
    *,
    rtol: float | None = None,
    method: str | AbstractSolver = "auto",
) -> Certificate:
    """Put a prediction into its equation, and finish it with a classical method if a tolerance is given.

    Args:
        problem: the equation, at the level of the sample.
        inputs: of the sample, in physical units.
        prediction: the outputs of a surrogate.
        parameters: of the sample; default: none.
        rtol: the relative residual to reach; None to look at the prediction only.
        method: who finishes it, a kind or a spec.

    Raises:
        InputError: the inputs do not tell the equation (see `AbstractProblem.fields_of`), the prediction does not fit
            it, the method cannot solve it, or rtol is out of reach.
        ValueError: the equation does not allow these inputs.
    """
    fields = problem.fields_of(inputs, np.zeros(0) if parameters is None else parameters)
    system = problem.discretize(fields)
    start = problem.unknowns_of(prediction, system)
    residual = system.relative_residual(start)
    if rtol is None:
        return Certificate(relative_residual=residual)
    spec = method_named(method)
    by_itself = solve(_fresh(system), rtol, spec)
    solution = solve(_fresh(system), rtol, spec, initial=start)
    converged = solution.status is SolveStatus.converged
    outputs = problem.sample_arrays(fields, solution.value)[1] if converged else None
    return Certificate(
        relative_residual=residual, finished=Finished(outputs=outputs, solution=solution, by_itself=by_itself)
    )


def _fresh(system: System) -> System:
    """The system without what was made of it on the way: neither of two solves finds the other's matrix."""
    return dataclasses.replace(system)
