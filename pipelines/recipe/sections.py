"""The sections of a recipe that belong to no one room: what is solved, how, and how samples are streamed."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat

from headrace.platform.frozen import Frozen, FrozenMap
from headrace.platform.reservoir.spec import ReservoirSpec
from headrace.platform.samplers import AnySampler
from headrace.platform.samplers.fixed_mix import FixedMix
from headrace.platform.spec import Count, Spec
from headrace.platform.stream.plan import ReplayOrder
from headrace.solvers.numerics import Numerics
from headrace.solvers.sampled import DEFAULT_LEVEL, Weight
from headrace.solvers.selection import AnyMethod, Auto
from headrace.solvers.sequences.sorting import Order
from headrace.solvers.sources.all_sampled import AnySampled


class DataSpec(Spec):
    """Which samples there are: the problem, how its levels are mixed, how many of each split."""

    problem: AnySampled = Field(description="What is solved: a kind of equation and its settings.")
    mix: Frozen[Mapping[str, Weight]] = Field(
        default_factory=lambda: FrozenMap({DEFAULT_LEVEL: 1.0}),
        description="Weight of each difficulty level; default: the problem as it is written.",
    )
    levels: Frozen[Mapping[str, Mapping[str, Any]]] = Field(
        default_factory=lambda: FrozenMap({}), description="Own levels: what each one changes of the problem."
    )
    sampler: AnySampler = Field(
        default_factory=FixedMix,
        description="Who decides on level and parameters of each training sample; held-out ones are always mixed.",
    )
    accuracy: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        default=None,
        description="The relative error of labels that decides on the grid, and in time on the step, of each level.",
    )
    numerics: Frozen[Mapping[str, Numerics]] = Field(
        default_factory=lambda: FrozenMap({}),
        description="By level: the solver's points for each of the output grid (refinement), and of an equation in "
        "time its step; default: by the accuracy, or the equation's own.",
    )
    label_error: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        default=0.02,
        description="Relative error of labels, against finer grids, above which a run says so and what to do; it is "
        "measured on a few pilots of each level before the start. null measures nothing.",
    )
    times_per_part: Count | None = Field(
        default=None,
        description="Of an equation in time: trajectories are trained on in parts of so many output times, which come "
        "as they are solved; default: whole.",
    )
    samples: Count | None = Field(
        default=None,
        description="Training samples that are planned; of trajectories in parts, whole ones. Left out with a budget.",
    )
    budget: PositiveFloat | None = Field(
        default=None,
        description="In place of samples: CPU seconds that solvers may take for them. The mix then says how the "
        "seconds of training samples are shared; held-out samples are mixed by number as ever [s].",
    )
    costs: Frozen[Mapping[str, PositiveFloat]] = Field(
        default_factory=lambda: FrozenMap({}),
        description="With a budget: what a sample of each level costs; default: measured on pilot samples [s].",
    )
    validation: Count = Field(default=64, description="Held-out samples for the curves.")
    test: Count = Field(default=128, description="Held-out samples for the final errors.")

    @property
    def training_mix(self) -> Mapping[str, float]:
        """Weight of each level among the training samples; with a budget its costs must be known."""
        if self.budget is None:
            return self.mix
        return FrozenMap({level: weight / self.costs[level] for level, weight in self.mix.items()})

    @property
    def num_training(self) -> int | None:
        """Training samples that are planned; None for a budget whose costs are not known yet."""
        if self.budget is None:
            return self.samples
        if not set(self.mix) <= set(self.costs):
            return None
        return max(1, round(self.budget * sum(self.training_mix.values()) / sum(self.mix.values())))


class SolverSpec(Spec):
    """How the samples are solved."""

    method: AnyMethod = Field(default_factory=Auto, description="Who solves the systems: its kind and settings.")
    rtol: PositiveFloat = Field(default=1e-8, lt=1.0, description="Relative residual ||b - A x|| / ||b||.")
    order: Order = Field(
        default="auto", description="How the data set is sorted before it is leased; auto: if the method recycles."
    )
    sequence_length: Count = Field(default=32, description="Samples in a sequence, which one solver solves.")


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
    reservoir: ReservoirSpec = Field(
        default_factory=ReservoirSpec, description="The buffer of each training rank, from which batches are drawn."
    )
    message_bytes: int = Field(
        default=8 * 1024 * 1024, ge=1024, le=64 * 1024 * 1024, description="Size of a message at most [B]."
    )
    message_seconds: PositiveFloat = Field(
        default=2.0, description="A message with a sample of this age is sent, full or not [s]."
    )
    credits: Count = Field(default=4, description="Messages of a solver that may be unacknowledged.")
    lease_seconds: PositiveFloat = Field(
        default=3600.0, description="A solver that takes longer for one sample is taken to hang, and replaced [s]."
    )
