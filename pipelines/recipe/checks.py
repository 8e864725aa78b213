"""Checks between the sections of a recipe. The names of a check's arguments say which sections it needs."""

from collections.abc import Callable, Iterable, Iterator

from pydantic import ValidationError

from headrace.pipelines.recipe.faults import faults_of, shown
from headrace.pipelines.recipe.sections import DataSpec, SolverSpec, StreamSpec
from headrace.platform.cluster.resources import ResourcesSpec
from headrace.platform.errors import Fault, nearest
from headrace.platform.fields import SampleSchema
from headrace.platform.spec import kind_of
from headrace.solvers.sampled import DEFAULT_LEVEL, at_level
from headrace.surrogates.models import AnySurrogate
from headrace.surrogates.training import TrainingSpec


def _check_mix(data: DataSpec) -> Iterator[Fault]:
    known = [DEFAULT_LEVEL, *data.problem.levels(), *data.levels]
    for level in data.mix:
        if level not in known:
            yield Fault(
                where=f"data.mix.{level}",
                value="not a level",
                expected=f"one of {', '.join(known)}",
                advice=nearest(level, known),
            )
    if not sum(data.mix.values()) > 0:
        yield Fault(where="data.mix", value=shown(dict(data.mix)), expected="at least one weight above 0")
    yield from _levels_not_mixed(data, "data.numerics", data.numerics)
    for level in data.levels:
        try:
            if at_level(data.problem, data.levels, level).schema() != data.problem.schema():
                yield Fault(
                    where=f"data.levels.{level}",
                    value=shown(dict(data.levels[level])),
                    expected="a level that keeps the grid and the fields: all samples of a data set share them",
                )
        except ValidationError as error:
            yield from faults_of(error, type(data.problem), f"data.levels.{level}")


def _levels_not_mixed(data: DataSpec, where: str, given: Iterable[str]) -> Iterator[Fault]:
    for level in given:
        if level not in data.mix:
            yield Fault(
                where=f"{where}.{level}",
                value="not a level of the data",
                expected=f"one of data.mix: {', '.join(data.mix)}",
                advice=nearest(level, data.mix),
            )


def _check_count(data: DataSpec) -> Iterator[Fault]:
    yield from _levels_not_mixed(data, "data.costs", data.costs)
    if data.costs and data.budget is None:
        yield Fault(where="data.costs", value=shown(dict(data.costs)), expected="nothing without data.budget")
    if data.samples is None and data.budget is None:
        yield Fault(where="data.samples", value="missing", expected="a number, or data.budget in solver seconds")
    if data.samples is not None and data.budget is not None:
        yield Fault(
            where="data.samples",
            value=str(data.samples),
            expected=f"nothing beside data.budget = {data.budget:g}",
            advice="The budget says how many there are.",
        )


def _check_sampler(data: DataSpec, solver: SolverSpec, stream: StreamSpec, deterministic: bool) -> Iterator[Fault]:
    """What is decided late cannot be known early."""
    kind = data.sampler.kind
    if not data.sampler.decides_late or stream.mode == "replay":
        return
    if solver.order not in ("auto", "none"):
        yield Fault(
            where="solver.order",
            value=solver.order,
            expected=f"auto or none: {kind} decides on samples when they are leased, too late to sort them",
        )
    if data.budget is not None:
        yield Fault(
            where="data.budget",
            value=f"{data.budget:g}",
            expected=f"data.samples instead: a budget buys by the mix, and {kind} decides otherwise",
        )
    if deterministic:
        yield Fault(
            where="data.sampler",
            value=kind,
            expected="fixed_mix: others go by what was observed in time, as deterministic forbids",
        )


def _check_method(data: DataSpec, solver: SolverSpec) -> Iterator[Fault]:
    if list(_check_mix(data)):
        return
    for level in data.mix:
        problem = at_level(data.problem, data.levels, level)
        if "solver.method" in problem.heeds and (reason := solver.method.mismatch(problem)):
            yield Fault(
                where="solver.method",
                value=solver.method.kind,
                expected=f"a method that fits {kind_of(type(problem))} at level {level}: {reason}",
                advice='"auto" chooses one that fits.',
            )
            return


def _check_unused_solver(data: DataSpec, solver: SolverSpec) -> Iterator[Fault]:
    """What makes its samples in its own way is not told how to solve."""
    default, (why, advice) = SolverSpec(), data.problem.solves_by_itself
    for name in ("method", "rtol", "order"):
        if f"solver.{name}" not in data.problem.heeds and getattr(solver, name) != getattr(default, name):
            yield Fault(
                where=f"solver.{name}",
                value=shown(getattr(getattr(solver, name), "kind", getattr(solver, name))),
                expected=f"nothing: {why}",
                advice=advice,
            )


def _check_numerics(data: DataSpec) -> Iterator[Fault]:
    for name, value in (("accuracy", data.accuracy), ("numerics", dict(data.numerics))):
        if value and f"data.{name}" not in data.problem.heeds:
            kind = kind_of(type(data.problem))
            yield Fault(where=f"data.{name}", value=shown(value), expected=f"nothing: {kind} has one grid, its own")
    for level, numerics in data.numerics.items():
        if numerics.step is not None and "data.numerics.step" not in data.problem.heeds:
            yield Fault(
                where=f"data.numerics.{level}.step",
                value=f"{numerics.step:g}",
                expected=f"nothing: {kind_of(type(data.problem))} does not step in time",
            )


def _check_parts(data: DataSpec) -> Iterator[Fault]:
    if data.times_per_part is None:
        return
    if "data.times_per_part" in data.problem.heeds:
        expected = data.problem.schema().indivisible(data.times_per_part)
    else:
        expected = f"{kind_of(type(data.problem))} does not step in time"
    if expected is not None:
        yield Fault(
            where="data.times_per_part",
            value=str(data.times_per_part),
            expected=f"nothing, or a part of the trajectory: {expected}",
            advice="Change it or data.problem.snapshots.",
        )


def _training_schema(data: DataSpec) -> SampleSchema:
    """What is trained on: samples, or parts of them."""
    whole = data.problem.schema()
    is_cut = data.times_per_part is not None and not list(_check_parts(data))
    return whole.in_parts(data.times_per_part) if is_cut and data.times_per_part else whole


def _check_time_limit(data: DataSpec, stream: StreamSpec) -> Iterator[Fault]:
    """What is given up after a while must not be taken to hang before."""
    if list(_check_mix(data)):
        return
    for level in data.mix:
        limit = at_level(data.problem, data.levels, level).time_limit
        where = "data.problem" if level == DEFAULT_LEVEL else f"data.levels.{level}"
        if limit is not None and limit[1] >= stream.lease_seconds:
            yield Fault(
                where=f"{where}.{limit[0]}",
                value=f"{limit[1]:g}",
                expected=f"less than stream.lease_seconds = {stream.lease_seconds:g}, when its solver is replaced",
            )


def _check_available(data: DataSpec, stream: StreamSpec) -> Iterator[Fault]:
    """What the samples are solved with must be there, at every level; a replay solves nothing."""
    if stream.mode == "replay":
        return
    expected = "one that this machine can solve"
    if reason := data.problem.unavailable():
        yield Fault(where="data.problem", value=kind_of(type(data.problem)), expected=expected, advice=reason)
    elif not list(_check_mix(data)):
        for level in data.mix:
            if reason := at_level(data.problem, data.levels, level).unavailable():
                yield Fault(where=f"data.levels.{level}", value="changed", expected=expected, advice=reason)


def _check_grid(data: DataSpec, surrogate: AnySurrogate, training: TrainingSpec) -> Iterator[Fault]:
    schema = data.problem.schema()
    if training.mismatch(schema) is None and (reason := training.network_mismatch(surrogate, schema)):
        yield Fault(where="surrogate", value=surrogate.kind, expected=f"a network that can take the grid: {reason}")


def _check_normalization(data: DataSpec, training: TrainingSpec) -> Iterator[Fault]:
    reason = training.mismatch(_training_schema(data))
    if reason:
        yield Fault(where="training", value="not for these fields", expected=f"a training that can take them: {reason}")


def _check_reservoir(stream: StreamSpec, training: TrainingSpec) -> Iterator[Fault]:
    if training.batch_size > stream.reservoir.capacity:
        yield Fault(
            where="training.batch_size",
            value=str(training.batch_size),
            expected=f"at most stream.reservoir.capacity = {stream.reservoir.capacity}",
            advice="Raise the capacity or lower the batch size.",
        )
    if stream.reservoir.min_simulations > training.batch_size:
        yield Fault(
            where="stream.reservoir.min_simulations",
            value=str(stream.reservoir.min_simulations),
            expected=f"at most training.batch_size = {training.batch_size}: a batch holds no more simulations",
            advice="Lower it or raise the batch size.",
        )


def _check_level_weights(data: DataSpec, stream: StreamSpec) -> Iterator[Fault]:
    yield from _levels_not_mixed(data, "stream.reservoir.level_weights", stream.reservoir.level_weights)


def _check_supply(
    data: DataSpec, stream: StreamSpec, training: TrainingSpec, resources: ResourcesSpec
) -> Iterator[Fault]:
    # What a budget buys is not known before its pilots are solved.
    if stream.mode == "online" and data.num_training is not None:
        yield from supply_faults(data.num_training * _training_schema(data).parts, stream, training, resources)


def supply_faults(
    samples: int, stream: StreamSpec, training: TrainingSpec, resources: ResourcesSpec
) -> Iterator[Fault]:
    """Why so many training samples do not feed a training."""
    ranks = resources.trainers.ranks
    each = samples // ranks
    if each < training.batch_size:
        yield Fault(
            where="data.samples",
            value=str(samples),
            expected=f"at least {training.batch_size * ranks}: one batch of {training.batch_size} for {ranks} rank(s)",
        )
    elif each < stream.reservoir.watermark:
        yield Fault(
            where="stream.reservoir.watermark",
            value=str(stream.reservoir.watermark),
            expected=f"at most {each}, the training samples that each of {ranks} rank(s) gets",
            advice="Lower the watermark or raise data.samples.",
        )
    wanted = training.steps * training.batch_size * ranks
    uses = stream.reservoir.max_uses if stream.reservoir.kind == "reservoir" else 1
    if uses is not None and stream.reservoir.when_used_up == "wait" and wanted > uses * samples:
        yield Fault(
            where="training.steps",
            value=str(training.steps),
            expected=f"at most {uses * samples // (training.batch_size * ranks)}: {samples} samples "
            f"of at most {uses} use(s) each feed no more steps of {training.batch_size * ranks}",
            advice="Raise data.samples or stream.reservoir.max_uses, lower the steps, or set "
            "stream.reservoir.when_used_up=go_on.",
        )


def _check_mode(stream: StreamSpec) -> Iterator[Fault]:
    if stream.mode == "replay" and stream.recording is None:
        yield Fault(where="stream.recording", value="missing", expected="an earlier run, for stream.mode = replay")
    if stream.mode == "generate" and stream.recording is not None:
        yield Fault(
            where="stream.recording",
            value=stream.recording,
            expected="nothing with stream.mode = generate",
            advice="An unfinished data set is gone on with by: headrace resume RUN",
        )


def _check_replayed_budget(data: DataSpec, stream: StreamSpec) -> Iterator[Fault]:
    if stream.mode == "replay" and data.budget is not None and data.num_training is None:
        yield Fault(
            where="data.costs",
            value=shown(dict(data.costs)),
            expected="what a sample of each level costs: a replay solves nothing, and measures nothing",
            advice="The recipe.yaml of the recorded run has them.",
        )


def _check_deterministic(
    data: DataSpec, solver: SolverSpec, stream: StreamSpec, deterministic: bool
) -> Iterator[Fault]:
    if not deterministic or stream.mode == "replay" or list(_check_mix(data)):
        return
    problems = [at_level(data.problem, data.levels, level) for level in data.mix]
    # Of an external program its author knows.
    if any("solver.method" in problem.heeds and solver.method.learns(problem) for problem in problems):
        yield Fault(
            where="solver.method",
            value=solver.method.kind,
            expected="a method whose solutions do not depend on what it solved before, as deterministic needs",
            advice="Such are multigrid, direct and the Krylov methods without stale factors, where they fit.",
        )
    for problem in problems:
        if (fault := problem.unrepeatable()) is not None:
            yield Fault(
                where=f"data.problem.{fault.name}",
                value=fault.value,
                expected=f"{fault.condition}, as deterministic forbids",
            )
            return


CHECKS: tuple[Callable[..., Iterator[Fault]], ...] = (
    _check_count,
    _check_mix,
    _check_sampler,
    _check_method,
    _check_unused_solver,
    _check_numerics,
    _check_parts,
    _check_time_limit,
    _check_available,
    _check_grid,
    _check_normalization,
    _check_reservoir,
    _check_level_weights,
    _check_supply,
    _check_mode,
    _check_replayed_budget,
    _check_deterministic,
)
