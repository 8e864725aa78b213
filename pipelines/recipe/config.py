"""RunConfig: a recipe, read, completed and checked. The only place where the kinds of the rooms are joined."""

import logging
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from headrace.pipelines.recipe.checks import CHECKS
from headrace.pipelines.recipe.faults import faults_of, shown
from headrace.pipelines.recipe.sections import DataSpec, SolverSpec, StreamSpec
from headrace.platform.cluster.resources import ResourcesSpec
from headrace.platform.errors import Fault, InputError, nearest
from headrace.platform.fields import SampleSchema
from headrace.platform.files import usable_path
from headrace.platform.samplers.sampler import AbstractSampler
from headrace.platform.samplers.stratified import STRATIFIED
from headrace.platform.spec import Spec, broken_plug_ins
from headrace.platform.tracking.address import without_password
from headrace.platform.tracking.tracker import TrackingSpec
from headrace.platform.yaml_text import MAX_CHARACTERS, read_yaml, too_long
from headrace.solvers.sampled import AbstractSource
from headrace.solvers.sources.source_of import source_of
from headrace.surrogates.models import AnySurrogate
from headrace.surrogates.training import TrainingSpec

log = logging.getLogger(__name__)

Command = Literal["run", "generate", "train"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

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


class RunConfig(Spec):
    """Everything that a recipe may say.

    Attributes:
        name: of the run: of its folder below `runs` and in MLflow.
        seed: from which all randomness comes: samples, weights, batches.
        deterministic: the batches depend on the step alone, not on who was fast: stopped or not, the same weights.
        data: which samples there are: the problem, how difficult, how many.
        solver: how the samples are solved.
        stream: how samples get from the solvers to the trainer.
        surrogate: the network that is trained: its kind and settings.
        training: how it is trained.
        resources: what each part may use of which machines.
        tracking: where MLflow keeps the run.
    """

    name: str = Field(default="headrace", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    seed: int = Field(default=0, ge=0, lt=2**63)
    deterministic: bool = False
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

    def source(self, split: Split) -> AbstractSource:
        """The source of a split's samples."""
        assert self.data is not None
        return source_of(
            self.data.problem,
            method=self.solver.method,
            rtol=self.solver.rtol,
            order=self.solver.order,
            numerics=self.data.numerics,
            # Held-out forecasts go from time 0 to the end.
            times_per_part=self.data.times_per_part if split == "train" else None,
            seed=self.seed,
            split=split,
            mix=self.data.training_mix if split == "train" and self.data.num_training else self.data.mix,
            levels=self.data.levels,
        )

    def sampler(self, split: Split) -> AbstractSampler:
        """Who decides what a split's samples shall be."""
        assert self.data is not None
        return self.data.sampler if split == "train" else STRATIFIED

    def planned(self) -> dict[Split, int]:
        """How many samples of each split are planned; each part of a trajectory is one.

        With a budget its costs must be known.
        """
        assert self.data is not None
        assert self.data.num_training is not None, "what a sample costs was not measured yet"
        train = self.data.num_training * self.source("train").schema().parts
        return {"train": train, "validation": self.data.validation, "test": self.data.test}

    @property
    def schema(self) -> SampleSchema:  # type: ignore[override]  # pydantic's own, deprecated, is not missed
        """What a sample looks like; one that comes in parts, when it is whole."""
        return self.source("test").schema()

    def asked(self, command: Command = "run") -> dict[str, Any]:
        """The recipe as plain values, every default written out; of a training on stored data what takes part in it."""
        left_out = UNUSED[command] if command == "train" else ()
        return {name: value for name, value in self.model_dump(mode="json").items() if name not in left_out}

    def to_yaml(self, command: Command = "run", *, with_password: bool = False) -> str:
        """The same as text; without the password that a tracking address may hold."""
        values = self.asked(command)
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
    expected = "a recipe's path, or the name of one that comes with Headrace"
    path = usable_path(Path(recipe), "RECIPE", expected)
    try:
        if path.is_file():
            if path.stat().st_size > 4 * MAX_CHARACTERS:  # UTF-8 has four bytes a letter at most
                raise too_long(recipe, path.stat().st_size)
            return path.read_text(encoding="utf-8")
        if recipe in recipe_names():
            return (resources.files("headrace.pipelines.recipes") / f"{recipe}.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError.single(recipe, "unreadable", "a YAML file in UTF-8", str(error)) from error
    hint = nearest(recipe, recipe_names()) or f"The recipes that come with Headrace: {', '.join(recipe_names())}."
    raise InputError.single(recipe, "not a file", expected, hint)


def parse(text: str, where: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The recipe's mapping, with `KEY=VALUE` overrides applied.

    Raises:
        InputError: it is not YAML, not a mapping, or an override cannot be applied.
    """
    raw = read_yaml(text, where)
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
                target[last] = read_yaml(value, key)
            except InputError:
                faults.append(Fault(where=key, value=shown(value), expected="a YAML value"))
    if faults:
        raise InputError(faults)
    return raw


def validate(raw: Mapping[str, Any], command: Command = "run") -> RunConfig:
    """Turn a mapping into a configuration that the command can carry out.

    Raises:
        InputError: with every fault that was found, those between sections included.
    """
    stream = raw.get("stream")
    if command == "run" and isinstance(stream, Mapping) and stream.get("mode") == "generate":
        command = "generate"  # a run that only solves needs no more than that
    faults: list[Fault] = []
    sections: dict[str, Any] = {}
    for name, field in RunConfig.model_fields.items():
        if name not in raw or (raw[name] is None and not field.is_required()):
            if name in NEEDED[command]:
                expected = f"a section {name}:, which {command} needs"
                advice = "A recipe without one trains on stored data: headrace train RECIPE --data DIR."
                advice = advice if trains_on_stored_data(raw) else ""
                faults.append(Fault(where=name, value="missing", expected=expected, advice=advice))
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
    for check in CHECKS:
        # A check that lacks a section which is itself wrong, or of no use here, has nothing to say.
        wanted = check.__annotations__.keys() - {"return"}
        if wanted <= sections.keys() - set(UNUSED[command]) and not any(sections[name] is None for name in wanted):
            faults.extend(check(**{name: sections[name] for name in wanted}))
    if faults:
        raise InputError(faults)
    return RunConfig.model_construct(**sections)


def load(recipe: str, overrides: Sequence[str] = (), command: Command = "run") -> RunConfig:
    """Read, complete and check a recipe; see `validate`. Warns of plug-ins that are broken and not in its way."""
    config = validate(parse(read_recipe(recipe), recipe, overrides), command)
    for plug_in in broken_plug_ins():
        log.warning("%s", plug_in)
    return config


def trains_on_stored_data(raw: Mapping[str, Any]) -> bool:
    """Whether a recipe names no data to make, and all else that a training needs."""
    return raw.get("data") is None and all(raw.get(name) is not None for name in NEEDED["train"])


def ignored_sections(raw: Mapping[str, Any], command: Command) -> list[str]:
    """Sections that the recipe has and the command does not use."""
    return [name for name in UNUSED[command] if raw.get(name) is not None]
