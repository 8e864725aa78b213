"""RunConfig: a recipe, read, completed and checked. The only place where the kinds of the rooms are joined."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, TypeAdapter, ValidationError

from headrace.pipelines.faults import faults_of, shown
from headrace.platform.errors import Fault, InputError, nearest
from headrace.platform.fields import SampleSchema
from headrace.platform.frozen import Frozen, FrozenMap
from headrace.platform.reservoir_spec import ReservoirSpec
from headrace.platform.resources import ResourcesSpec
from headrace.platform.spec import Spec, kind_of
from headrace.platform.stream_plan import ReplayOrder
from headrace.platform.tracking import TrackingSpec
from headrace.platform.tracking_address import without_password
from headrace.solvers.external import AnySampled, External, ExternalSource
from headrace.solvers.methods import AnyMethod, Auto
from headrace.solvers.problem import AbstractProblem
from headrace.solvers.sampled import DEFAULT_LEVEL, AbstractSampled, Weight
from headrace.solvers.sorting import Order
from headrace.solvers.source import SolverSource
from headrace.surrogates.models import AnySurrogate
from headrace.surrogates.training import TrainingSpec

Command = Literal["run", "generate", "train"]
Split = Literal["train", "validation", "test"]

NEEDED: dict[Command, tuple[str, ...]] = {
    "run": ("data", "surrogate", "training"),
    "generate": ("data",),
    "train": ("surrogate", "training"),
}
UNUSED: dict[Command, tuple[str, ...]] = {
    "run": (),
    "generate": ("surrogate", "training"),
    "train": ("data", "solver", "stream"),
}


class DataSpec(Spec):
    """Which samples there are: the problem, how its levels are mixed, how many of each split."""

    problem: AnySampled
    mix: Frozen[Mapping[str, Weight]] = Field(
        default_factory=lambda: FrozenMap({DEFAULT_LEVEL: 1.0}),
        description="Weight of each difficulty level; default: the problem as it is written.",
    )
    levels: Frozen[Mapping[str, Mapping[str, Any]]] = Field(
        default_factory=lambda: FrozenMap({}), description="Own levels: what each one changes of the problem."
    )
    samples: PositiveInt = Field(description="Training samples that are planned.")
    validation: PositiveInt = Field(default=64, description="Held-out samples for the curves.")
    test: PositiveInt = Field(default=128, description="Held-out samples for the final errors.")


class SolverSpec(Spec):
    """How the samples are solved."""

    method: AnyMethod = Field(default_factory=Auto)
    rtol: PositiveFloat = Field(default=1e-8, lt=1.0, description="Relative residual ||b - A x|| / ||b||.")
    order: Order = Field(
        default="auto", description="How the data set is sorted before it is leased; auto: if the method recycles."
    )
    sequence_length: PositiveInt = Field(default=32, description="Samples in a sequence, which one solver solves.")


class StreamSpec(Spec):
    """How samples get from the solvers to the trainer."""

    mode: Literal["online", "replay", "generate"] = Field(
        default="online",
        description="online: train while the solvers work; replay: train on the recording alone; generate: only solve.",
    )
    recording: str | None = Field(
        default=None,
        description="An earlier run: its samples are taken over, and online the solvers make what it lacks.",
    )
    replay_order: ReplayOrder = Field(
        default="recorded", description="The order in which the samples of the recording enter the reservoir."
    )
    reservoir: ReservoirSpec = Field(default_factory=ReservoirSpec)
    message_bytes: int = Field(
        default=8 * 1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="Size of a message at most [B]."
    )
    message_seconds: PositiveFloat = Field(
        default=2.0, description="A message with a sample of this age is sent, full or not [s]."
    )
    credits: PositiveInt = Field(default=4, description="Messages of a solver that may be unacknowledged.")
    lease_seconds: PositiveFloat = Field(
        default=3600.0, description="A solver that takes longer for one sample is taken to hang, and replaced [s]."
    )


class RunConfig(Spec):
    """Everything that a recipe may say."""

    name: str = Field(default="headrace", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    seed: int = Field(default=0, ge=0, lt=2**63)
    deterministic: bool = Field(
        default=False,
        description="The batches depend on the step alone, not on who was fast: stopped or not, the same weights.",
    )
    data: DataSpec | None = None
    solver: SolverSpec = Field(default_factory=SolverSpec)
    stream: StreamSpec = Field(default_factory=StreamSpec)
    surrogate: AnySurrogate | None = None
    training: TrainingSpec | None = None
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec)
    tracking: TrackingSpec = Field(default_factory=TrackingSpec)

    @property
    def solves(self) -> bool:
        """Whether solvers work in the run."""
        return self.stream.mode != "replay"

    @property
    def is_paced(self) -> bool:
        """Whether the reservoirs are filled in a fixed order and at a fixed pace."""
        return self.deterministic or not self.solves

    def source(self, split: Split) -> SolverSource | ExternalSource:
        """The source of a split's samples."""
        assert self.data is not None
        if isinstance(self.data.problem, External):
            return ExternalSource(
                problem=self.data.problem, seed=self.seed, split=split, mix=self.data.mix, levels=self.data.levels
            )
        return SolverSource(
            problem=self.data.problem,
            method=self.solver.method,
            rtol=self.solver.rtol,
            order=self.solver.order,
            seed=self.seed,
            split=split,
            mix=self.data.mix,
            levels=self.data.levels,
        )

    def planned(self) -> dict[Split, int]:
        """How many samples of each split are planned."""
        assert self.data is not None
        return {"train": self.data.samples, "validation": self.data.validation, "test": self.data.test}

    def to_yaml(self, *, with_password: bool = False) -> str:
        """The full recipe, every default written out; without the password that a tracking address may hold."""
        values = self.model_dump(mode="json")
        if self.tracking.uri is not None and not with_password:
            values["tracking"]["uri"] = without_password(self.tracking.uri)
        return yaml.safe_dump(values, sort_keys=False, width=120)


def recipe_names() -> list[str]:
    """The recipes that come with Headrace."""
    folder = resources.files("headrace.pipelines.recipes")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_recipe(recipe: str) -> str:
    """The text of a recipe: a file, or one that comes with Headrace by its name.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    path = Path(recipe)
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8")
        if recipe in recipe_names():
            return (resources.files("headrace.pipelines.recipes") / f"{recipe}.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError.single(recipe, "unreadable", "a YAML file in UTF-8", str(error)) from error
    hint = nearest(recipe, recipe_names()) or f"The recipes that come with Headrace: {', '.join(recipe_names())}."
    raise InputError.single(recipe, "not a file", "a recipe's path, or the name of one that comes with Headrace", hint)


class _StrictLoader(yaml.SafeLoader):
    """YAML whose mappings may not name a key twice: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping after looking for keys that stand twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    "while reading a mapping", node.start_mark, f'the key "{key}" stands twice', key_node.start_mark
                )
            seen.add(key) if isinstance(key, str) else None
        return super().construct_mapping(node, deep=deep)


def parse(text: str, where: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The recipe's mapping, with `KEY=VALUE` overrides applied.

    Raises:
        InputError: it is not YAML, not a mapping, or an override cannot be applied.
    """
    try:
        raw = yaml.load(text, Loader=_StrictLoader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise InputError.single(place, getattr(error, "problem", None) or "broken", "valid YAML") from error
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise InputError.single(where, f"a {type(raw).__name__}", "a mapping with sections such as data: and training:")
    faults = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            faults.append(Fault(where=override, value="an argument", expected="KEY=VALUE, as in training.steps=200"))
            continue
        target = raw
        *parents, last = key.split(".")
        for depth, parent in enumerate(parents):
            below = target.setdefault(parent, {})
            if not isinstance(below, dict):
                path = ".".join(parents[: depth + 1])
                faults.append(Fault(where=path, value=shown(below), expected=f"a section, to set {key} in"))
                break
            target = below
        else:
            try:
                target[last] = yaml.load(value, Loader=_StrictLoader)  # noqa: S506  (a SafeLoader)
            except yaml.YAMLError:
                faults.append(Fault(where=key, value=shown(value), expected="a YAML value"))
    if faults:
        raise InputError(faults)
    return raw


def validate(raw: Mapping[str, Any], command: Command = "run") -> RunConfig:
    """Turn a mapping into a configuration that the command can carry out.

    Raises:
        InputError: with every fault that was found, those between sections included.
    """
    faults: list[Fault] = []
    sections: dict[str, Any] = {}
    for name, field in RunConfig.model_fields.items():
        if name not in raw or (raw[name] is None and not field.is_required()):
            if name in NEEDED[command]:
                faults.append(Fault(where=name, value="missing", expected=f"a section {name}:, which {command} needs"))
            sections[name] = field.get_default(call_default_factory=True)
            continue
        try:
            sections[name] = TypeAdapter(field.rebuild_annotation()).validate_python(raw[name])
        except ValidationError as error:
            faults.extend(faults_of(error, field.annotation, name))
    for name in raw:
        if name not in RunConfig.model_fields:
            known = ", ".join(RunConfig.model_fields)
            hint = nearest(str(name), RunConfig.model_fields)
            faults.append(Fault(where=str(name), value="unknown", expected=f"one of {known}", advice=hint))
    # Training on stored data needs no solver.
    data = sections.get("data")
    if command != "train" and isinstance(data, DataSpec) and (reason := data.problem.unavailable()):
        kind = kind_of(type(data.problem))
        faults.append(
            Fault(where="data.problem", value=kind, expected="one that this machine can solve", advice=reason)
        )
    for check in CHECKS:
        # A check that lacks a section which is itself wrong, or of no use here, has nothing to say.
        wanted = check.__annotations__.keys() - {"return"}
        if wanted <= sections.keys() - set(UNUSED[command]) and not any(sections[name] is None for name in wanted):
            faults.extend(check(**{name: sections[name] for name in wanted}))
    if faults:
        raise InputError(faults)
    return RunConfig.model_construct(**sections)


def load(recipe: str, overrides: Sequence[str] = (), command: Command = "run") -> RunConfig:
    """Read, complete and check a recipe; see `validate`. A run that only generates needs what `generate` does."""
    raw = parse(read_recipe(recipe), recipe, overrides)
    stream = raw.get("stream")
    if command == "run" and isinstance(stream, dict) and stream.get("mode") == "generate":
        command = "generate"
    return validate(raw, command)


def ignored_sections(raw: Mapping[str, Any], command: Command) -> list[str]:
    """Sections that the recipe has and the command does not use."""
    return [name for name in UNUSED[command] if raw.get(name) is not None]


# Checks between sections. The names of a check's arguments say which sections it needs.


def _at_level(data: DataSpec, level: str) -> AbstractSampled:
    found: AbstractSampled = (
        data.problem.overridden(data.levels[level]) if level in data.levels else data.problem.at_level(level)
    )
    return found


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
    for level in data.levels:
        try:
            if _at_level(data, level).schema() != data.problem.schema():
                yield Fault(
                    where=f"data.levels.{level}",
                    value=shown(dict(data.levels[level])),
                    expected="a level that keeps the grid and the fields: all samples of a data set share them",
                )
        except ValidationError as error:
            yield from faults_of(error, type(data.problem), f"data.levels.{level}")


def _check_method(data: DataSpec, solver: SolverSpec) -> Iterator[Fault]:
    if list(_check_mix(data)):
        return
    for level in data.mix:
        problem = _at_level(data, level)
        if isinstance(problem, AbstractProblem) and (reason := solver.method.mismatch(problem)):
            yield Fault(
                where="solver.method",
                value=solver.method.kind,
                expected=f"a method that fits {kind_of(type(problem))} at level {level}: {reason}",
                advice='"auto" chooses one that fits.',
            )
            return


def _check_external(data: DataSpec, solver: SolverSpec, stream: StreamSpec) -> Iterator[Fault]:
    """A program is not told how to solve, must be there at every level, and must not be taken to hang."""
    if not isinstance(data.problem, External) or list(_check_mix(data)):
        return
    default = SolverSpec()
    for name in ("method", "rtol", "order"):
        if getattr(solver, name) != getattr(default, name):
            yield Fault(
                where=f"solver.{name}",
                value=shown(getattr(getattr(solver, name), "kind", getattr(solver, name))),
                expected="nothing: an external program solves in its own way, and nobody checks its residual",
                advice="Say it in data.problem.command.",
            )
    for level in data.mix:
        problem = _at_level(data, level)
        assert isinstance(problem, External)
        where = "data.problem" if level == DEFAULT_LEVEL else f"data.levels.{level}"
        if problem.timeout_seconds >= stream.lease_seconds:
            yield Fault(
                where=f"{where}.timeout_seconds",
                value=f"{problem.timeout_seconds:g}",
                expected=f"less than stream.lease_seconds = {stream.lease_seconds:g}, when its solver is replaced",
            )
        # What is wrong with the problem as it stands is said already.
        if not data.problem.unavailable() and (reason := problem.unavailable()):
            yield Fault(where=where, value="changed", expected="a program that can be run here", advice=reason)


def _check_grid(data: DataSpec, surrogate: AnySurrogate) -> Iterator[Fault]:
    reason = surrogate.mismatch(data.problem.schema())
    if reason:
        yield Fault(where="surrogate", value=surrogate.kind, expected=f"a network that can take the grid: {reason}")


def _check_normalization(data: DataSpec, training: TrainingSpec) -> Iterator[Fault]:
    reason = training.mismatch(data.problem.schema())
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
    for level in stream.reservoir.level_weights:
        if level not in data.mix:
            yield Fault(
                where=f"stream.reservoir.level_weights.{level}",
                value="not a level of the data",
                expected=f"one of data.mix: {', '.join(data.mix)}",
                advice=nearest(level, data.mix),
            )


def _check_supply(
    data: DataSpec, stream: StreamSpec, training: TrainingSpec, resources: ResourcesSpec
) -> Iterator[Fault]:
    if stream.mode == "online":
        yield from supply_faults(data.samples, stream, training, resources)


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


def _check_deterministic(
    data: DataSpec, solver: SolverSpec, stream: StreamSpec, deterministic: bool
) -> Iterator[Fault]:
    if not deterministic or stream.mode == "replay" or list(_check_mix(data)):
        return
    problems = [_at_level(data, level) for level in data.mix]
    # Of an external program its author knows.
    if any(isinstance(problem, AbstractProblem) and solver.method.learns(problem) for problem in problems):
        yield Fault(
            where="solver.method",
            value=solver.method.kind,
            expected="a method whose solutions do not depend on what it solved before, as deterministic needs",
            advice="Such are multigrid, direct and the Krylov methods without stale factors, where they fit.",
        )


CHECKS: tuple[Callable[..., Iterator[Fault]], ...] = (
    _check_mix,
    _check_method,
    _check_external,
    _check_grid,
    _check_normalization,
    _check_reservoir,
    _check_level_weights,
    _check_supply,
    _check_mode,
    _check_deterministic,
)


def schema_of(config: RunConfig) -> SampleSchema:
    """The schema of the samples that the configuration generates."""
    return config.source("train").schema()
