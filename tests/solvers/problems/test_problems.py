"""What every problem promises, whichever it is."""

import pickle

import numpy as np
import pytest
from pydantic import ValidationError

from headrace.platform.sample import Sample
from headrace.platform.spec import kinds
from headrace.solvers import (
    AbstractProblem,
    Helmholtz,
    LinearSystem,
    Poisson,
    SolverSource,
    SolveStatus,
    solve,
)
from headrace.solvers.sampled import DEFAULT_LEVEL
from headrace.solvers.sources.all_sampled import SAMPLED

EVERY = [one for one in kinds("headrace.problems", SAMPLED).values() if issubclass(one, AbstractProblem)]
VARIANTS: tuple[AbstractProblem, ...] = (
    *(problem() for problem in EVERY),
    Poisson(boundary="neumann"),
    Poisson(boundary="periodic"),
    Helmholtz(boundary="neumann"),
)


def small(problem: AbstractProblem) -> AbstractProblem:
    """On a small grid, where it has one: the coarsest of a few that all levels are allowed on."""
    if "resolution" not in type(problem).model_fields:
        return problem
    for points in (9,) if len(problem.schema().domain.shape) == 3 else (20, 47):
        try:
            found = problem.overridden({"resolution": points})
            for level in found.levels():
                found.at_level(level)
        except ValidationError:
            continue
        return found
    return problem


def name_of(problem: AbstractProblem) -> str:
    changed = problem.model_dump(exclude_defaults=True)
    return "-".join([type(problem).__name__, *map(str, changed.values())])


@pytest.fixture(params=VARIANTS, ids=name_of)
def problem(request: pytest.FixtureRequest) -> AbstractProblem:
    return small(request.param)


def test_a_sample_of_every_level_is_solved_and_verified(problem: AbstractProblem) -> None:
    levels = [DEFAULT_LEVEL, *problem.levels()]
    source = SolverSource.model_validate(
        {"problem": problem.model_dump(), "mix": dict.fromkeys(levels, 1.0), "rtol": 1e-8, "method": {"kind": "auto"}}
    )
    schema = source.schema()
    (sample,) = source.samples([3])
    assert isinstance(sample, Sample), sample
    assert sample.provenance.status == "converged" and sample.provenance.relative_residual <= 1e-8
    assert sample.inputs.shape == (schema.num_input_channels, *schema.domain.shape)
    assert sample.outputs.shape == (len(schema.times), schema.num_output_channels, *schema.domain.shape)
    assert sample.parameters.shape == (schema.num_parameters,)
    for array in (sample.inputs, sample.outputs, sample.parameters):
        assert array.dtype == np.float32 and np.isfinite(array).all()
    assert np.ptp(sample.inputs) > 0.0 and np.ptp(sample.outputs) > 0.0


def test_every_level_draws_a_system_of_the_promised_structure(problem: AbstractProblem) -> None:
    for level in (DEFAULT_LEVEL, *problem.levels()):
        at = problem.at_level(level)
        assert at.schema() == problem.schema()
        system = at.discretize(at.draw(1))
        assert system.structure == at.structure
        if isinstance(system, LinearSystem):
            assert system.matrix.has_sorted_indices
            if at.structure.symmetric:
                # Finite elements add up the two halves in different orders.
                matrix = system.matrix
                assert abs(matrix - matrix.T).max() <= 1e-14 * abs(matrix).max()


def test_the_direct_method_solves_it(problem: AbstractProblem) -> None:
    system = problem.discretize(problem.draw(5))
    solution = solve(system, rtol=1e-9, method="direct")
    assert solution.status is SolveStatus.converged, solution


def test_draws_follow_the_seed_alone(problem: AbstractProblem) -> None:
    one, again, other = problem.draw(2), problem.draw(2), problem.draw(3)
    assert set(one) == set(other)
    for name, field in one.items():
        assert field.dtype == np.float64 and np.array_equal(field, again[name])
    assert any(not np.array_equal(field, other[name]) for name, field in one.items())


def test_stored_inputs_give_the_same_system(problem: AbstractProblem) -> None:
    """Fields are drawn in values that single precision holds: what is stored is what was solved."""
    for level in (DEFAULT_LEVEL, *problem.levels()):
        fields = problem.at_level(level).draw(4)
        assert all(np.array_equal(field, field.astype(np.float32)) for field in fields.values())


def test_discretising_leaves_the_fields_alone(problem: AbstractProblem) -> None:
    fields = problem.draw(6)
    copies = {name: field.copy() for name, field in fields.items()}
    system = problem.discretize(fields)
    problem.sample_arrays(fields, np.zeros(system.num_unknowns))
    assert all(np.array_equal(fields[name], copies[name]) for name in copies)


def test_specs_travel(problem: AbstractProblem) -> None:
    assert pickle.loads(pickle.dumps(problem)) == problem
    assert type(problem).model_validate_json(problem.model_dump_json()) == problem
    assert hash(problem) == hash(problem.model_copy())
