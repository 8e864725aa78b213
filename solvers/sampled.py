"""AbstractSampled, AbstractSource: what samples are made from, and which ones, whoever solves them."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from jaxtyping import Float, Int64
from pydantic import Field, ValidationError, model_validator

from headrace.platform.errors import InputError, nearest
from headrace.platform.fields import SampleSchema
from headrace.platform.frozen import Frozen, FrozenMap
from headrace.platform.sample import Failure, Request, Sample
from headrace.platform.samplers.fixed_mix import MIXED
from headrace.platform.samplers.mixture import Mixture
from headrace.platform.samplers.sampler import AbstractSampler, Axis, DerivedRequests, SamplerContext
from headrace.platform.source import SampleSource
from headrace.platform.spec import FieldError, Spec, kind_of
from headrace.solvers.label_error import NUM_PILOTS, LabelError, Refinable, measured

if TYPE_CHECKING:
    from headrace.solvers.evolution.accuracy import Choice

DEFAULT_LEVEL = "default"
"""The level that is the problem as it was configured."""

Weight = Annotated[float, Field(ge=0.0)]


class AbstractSampled(Spec):
    """What samples are made from: it says what they look like, and has difficulty levels.

    An equation that Headrace solves is an `AbstractProblem`, one that it follows in time an `AbstractEvolution`; a
    program that is run for every sample is an `External`. Each of these families says who makes its samples and what of
    a recipe it heeds, and nobody asks what class a problem is.

    Attributes:
        made_by: the name of the source that makes its samples (`AbstractSource.name`).
        heeds: the keys of a recipe that it heeds, of those that not all families do: `solver.method`, `solver.rtol`,
            `solver.order`, `data.accuracy`, `data.numerics`, `data.numerics.step`, `data.times_per_part`.
        solves_by_itself: why it heeds no others of `solver`, and where to say it instead; to tell a user.
        order_at_least: the order by which the errors of its samples fall on finer grids, also where data are rough.
        points_needed: for built-in levels whose labels are more than 2 % off on the grid by default, the points along
            an axis that are enough; a run solves them on as many, unless its recipe says otherwise.
    """

    made_by: ClassVar[str] = ""
    heeds: ClassVar[frozenset[str]] = frozenset()
    solves_by_itself: ClassVar[tuple[str, str]] = ("", "")
    order_at_least: ClassVar[float] = 1.0
    points_needed: ClassVar[Mapping[str, int]] = {}

    @abstractmethod
    def schema(self) -> SampleSchema:  # type: ignore[override]  # pydantic's own, deprecated, is not missed
        """The fields of a sample and the grid they live on."""

    @abstractmethod
    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """The built-in difficulty levels: name -> the fields of the spec that it changes."""

    @property
    def axes(self) -> tuple[str, ...]:
        """The fields of the spec that decide how hard a sample is, and what it costs: those that the levels change."""
        return tuple(dict.fromkeys(name for changes in self.levels().values() for name in changes))

    @property
    def choosable(self) -> Mapping[str, Axis]:
        """The numbers of a sample that may be chosen instead of drawn (see `Request`), by name; default: none."""
        return {}

    def unavailable(self) -> str | None:
        """Why this machine cannot make samples of it, and what to do; None when it can."""
        return None

    def unrefinable(self) -> str | None:
        """Why its samples cannot be had from a finer grid, by which their error is measured; None when they can."""
        return f"{kind_of(type(self))} does not say how it is solved on a finer grid"

    def refinement_needed(self, level: str) -> int:
        """How many times as many points along an axis a built-in level needs, see `points_needed`; else 1."""
        have = int(self.model_dump(include={"resolution"}).get("resolution", 0))
        return max(1, math.ceil(self.points_needed.get(level, 0) / have)) if have else 1

    @property
    def time_limit(self) -> tuple[str, float] | None:
        """The field by which a sample is given up after so many seconds, and its value; None where there is none."""
        return None

    def unrepeatable(self) -> FieldError | None:
        """The field by which the last bits of a sample depend on those beside it, and what it should be, if any."""
        return None

    def at_level(self, name: str) -> Self:
        """This problem at one of its difficulty levels; `default` is the problem as it stands.

        Raises:
            InputError: there is no such level.
        """
        if name == DEFAULT_LEVEL:
            return self
        levels = self.levels()
        if name not in levels:
            known = ", ".join([DEFAULT_LEVEL, *levels])
            raise InputError.single("level", f'"{name}"', f"one of {known}", nearest(name, [DEFAULT_LEVEL, *levels]))
        return self.overridden(levels[name])

    def overridden(self, values: Mapping[str, Any]) -> Self:
        """A copy with some fields changed, checked anew.

        A nested mapping changes the nested spec key by key, unless it names another `kind`: then it replaces it.

        Raises:
            pydantic.ValidationError: a value is not allowed.
        """
        return self.model_validate(_merged(self.model_dump(), values))


class AbstractSource(Spec):
    """Which samples there are: each depends on problem, levels, seed, split and its request, not on who solves it.

    Where nothing else decides (see `AbstractSampler`), the request of sample i depends on mix, seed, split and i.

    Attributes:
        name: by which problems name it (`AbstractSampled.made_by`).
        problem: what the samples are made from.
        seed: seed of the data set.
        split: which part of it.
        mix: weights of the difficulty levels, by name.
        levels: levels of the user's own, or others under built-in names: name -> the problem's fields that change.
    """

    name: ClassVar[str]

    problem: AbstractSampled
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    split: Literal["train", "validation", "test"] = "train"
    mix: Frozen[Mapping[str, Weight]] = FrozenMap({DEFAULT_LEVEL: 1.0})
    levels: Frozen[Mapping[str, Mapping[str, Any]]] = FrozenMap({})

    @model_validator(mode="after")
    def _levels_exist(self) -> Self:
        Mixture(self.mix)
        schema = self.problem.schema()
        for name in self.mix:
            try:
                problem = self.problem_at(name)
            except InputError as error:
                raise ValueError(str(error)) from error
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(["levels", name, *map(str, first["loc"])])
                raise ValueError(f"{where} is {first['input']!r}: {first['msg']}") from error
            if problem.schema() != schema:
                raise ValueError(
                    f"level {name} changes the shape of the samples; all levels share one grid and its fields"
                )
        return self

    def schema(self) -> SampleSchema:  # type: ignore[override]  # pydantic's own, deprecated, is not missed
        """What the samples look like; the same at all levels."""
        return self.problem.schema()

    def problem_at(self, level: str) -> AbstractSampled:
        """The problem at a level: one of `levels`, else a built-in one.

        Raises:
            InputError: there is no such level.
        """
        return at_level(self.problem, self.levels, level)

    def sampler_context(self, count: int | None = None) -> SamplerContext:
        """What may be chosen about the samples, of which so many are planned."""
        axes = {name: self.problem_at(name).choosable for name in self.mix}
        return SamplerContext(mix=self.mix, axes=axes, seed=self.seed, split=self.split, count=count)

    def requests(
        self, indices: Sequence[int], sampler: AbstractSampler = MIXED, count: int | None = None
    ) -> tuple[Request, ...]:
        """What samples are by their indices alone: those of the mix, or as a sampler says that does not decide late.

        Args:
            indices: of the samples.
            sampler: decides.
            count: how many samples there are, for one that must know.
        """
        parts = self.schema().parts
        context = self.sampler_context(None if count is None else count // parts)
        return DerivedRequests(sampler, context, parts)(indices)

    def planned_order(self, count: int, sampler: AbstractSampler = MIXED) -> Int64[np.ndarray, " samples"] | None:
        """The order in which to solve the samples 0 to count - 1.

        Args:
            count: how many there are.
            sampler: who decides what they are.

        Returns:
            All of them once; None, the default, for the order of their indices: one does not make the next cheaper.
        """
        return None

    @abstractmethod
    def build(self) -> SampleSource:
        """Make the source that solves.

        Raises:
            InputError: this machine or the method cannot.
        """

    def refinable(self, level: str) -> "Refinable | str":
        """A level's samples on finer grids, by which their error is measured; or why they cannot be had.

        Raises:
            InputError: there is no such level.
        """
        return self.problem_at(level).unrefinable() or f"the source {self.name} has no finer grids"

    def label_error(
        self,
        level: str,
        *,
        num_pilots: int = NUM_PILOTS,
        seconds: float | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> LabelError:
        """The discretisation error of a level's samples; see `measured`. Its pilots are none of the data set's.

        Raises:
            InputError: there is no such level, or this machine or the method cannot solve it.
        """
        of = self.refinable(level)
        if isinstance(of, str):
            return LabelError(level=level, reason=of)
        return measured(of, num_pilots=num_pilots, seconds=seconds, tell=tell)

    def choose_numerics(
        self, levels: Sequence[str], accuracy: float, tell: Callable[[str], None]
    ) -> "Sequence[Choice]":
        """The coarsest grid and step by which samples are accurate, for each level; none where nothing steps in time.

        Some pilot samples, apart from those of the data set, are solved here.

        Args:
            levels: their names.
            accuracy: the relative error that is allowed.
            tell: is told what is being tried.

        Raises:
            InputError: some level does not reach it.
        """
        return ()

    def certify(
        self,
        level: str,
        inputs: Float[np.ndarray, "channels_in *grid"],  # noqa: F821  (jaxtyping's shapes are no expressions)
        prediction: Float[np.ndarray, "time channels_out *grid"],  # noqa: F821
        parameters: Float[np.ndarray, " num_parameters"],
        rtol: float | None = None,
    ) -> dict[str, Float[np.ndarray, "..."]]:
        """What the equation says of a surrogate's prediction, and a solution that goes on from it.

        Args:
            level: whose problem it is a solution of.
            inputs: of the sample, in physical units.
            prediction: its outputs.
            parameters: of the sample.
            rtol: the relative residual to go on to; None to look at the prediction only.

        Returns:
            Arrays by name, of the same shapes for every sample.

        Raises:
            InputError: there is no equation to look at, or the arrays do not tell it.
            ValueError: the equation does not allow these inputs.
        """
        raise InputError.single(
            "problem",
            kind_of(type(self.problem)),
            "an equation that Headrace solves",
            "Another program makes these samples: there is no residual to compute here.",
        )

    def samples(self, indices: Sequence[int]) -> Iterator[Sample | Failure]:
        """Build the source and solve samples of the mix: one result for each index, in an order that suits it."""
        return self.build().solve(self.requests(indices))


def at_level[Sampled: AbstractSampled](problem: Sampled, levels: Mapping[str, Mapping[str, Any]], name: str) -> Sampled:
    """A problem at a level: one of a user's `levels`, else a built-in one.

    Raises:
        InputError: there is no such level.
        pydantic.ValidationError: the user's level sets a value that is not allowed.
    """
    return problem.overridden(levels[name]) if name in levels else problem.at_level(name)


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        current = merged.get(key)
        if (
            isinstance(value, Mapping)
            and isinstance(current, Mapping)
            and value.get("kind") in (None, current.get("kind"))
        ):
            merged[key] = _merged(current, value)
        else:
            merged[key] = value
    return merged
