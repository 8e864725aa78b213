"""AbstractProblem: an equation that can be drawn at random and discretised."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from types import EllipsisType
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Float, Float32, Float64

from headrace.platform.fields import FieldSpec, Grid
from headrace.platform.frozen import FrozenMap
from headrace.platform.seeding import generator
from headrace.solvers.sampled import AbstractSampled
from headrace.solvers.systems.start import as_unknowns
from headrace.solvers.systems.system import Structure, System

# Enough to tell neighbours apart (see `sorting`), and quickly drawn.
_FEATURE_RESOLUTION = 32


class AbstractProblem(AbstractSampled):
    """An equation on a grid or mesh: what its samples look like, how one is drawn, and which system it becomes.

    A concrete problem carries `kind: Literal["name"] = "name"`. It is its own description: two equal problems draw
    equal fields from equal generators, on every machine.

    Attributes:
        sorted_by: which drawn array A is made from, in a problem with a `resolution` whose coarser grids draw the same
            field from the same generator; None asks `discretize`. It makes sorting a data set cheap.
    """

    made_by: ClassVar[str] = "systems"
    heeds: ClassVar[frozenset[str]] = frozenset(
        {"solver.method", "solver.rtol", "solver.order", "data.accuracy", "data.numerics"}
    )

    sorted_by: ClassVar[str | None] = None

    def unrefinable(self) -> str | None:
        """Why it cannot be solved on a finer grid; None for what lives on a grid with as many points along each axis.

        Such a problem has a `resolution`; others override this, `refined` and `restricted`.
        """
        domain = self.schema().domain
        if "resolution" not in type(self).model_fields or not isinstance(domain, Grid):
            return super().unrefinable()
        even = len(set(domain.shape)) == 1 and len(set(domain.periodic)) == 1
        return None if even and domain.shape[0] == self._resolution else super().unrefinable()

    def refined(self, refinement: int) -> Self:
        """The same equation with so many times the points along each axis: between nodes, so many times the intervals.

        Raises:
            pydantic.ValidationError: the equation does not allow such a resolution.
        """
        if refinement == 1:
            return self
        domain = self._grid
        is_closed = domain.location == "nodes" and not any(domain.periodic)
        return self.overridden({"resolution": refinement * (self._resolution - is_closed) + is_closed})

    def draw_with(
        self, seed: int | np.random.Generator, chosen: Mapping[str, float]
    ) -> dict[str, Float[np.ndarray, "..."]]:
        """As `draw`, with numbers that are given instead of drawn, of those that are `choosable`; by default none are.

        What is chosen changes nothing else that is drawn.
        """
        assert not chosen, f"{type(self).__name__} lets nobody choose {', '.join(chosen)}"
        return self.draw(seed)

    def draw_refined(
        self, seed: int | np.random.Generator, refinement: int, chosen: Mapping[str, float] = FrozenMap({})
    ) -> dict[str, Float[np.ndarray, "..."]]:
        """The fields that `draw_with` draws, for `refined(refinement)`: the same functions at its points.

        By default those that it draws from an equal generator, as random fields are the same on all grids.
        """
        return self.refined(refinement).draw_with(seed, chosen)

    def restricted(
        self,
        fields: Mapping[str, Float[np.ndarray, "..."]],
        solution: Float[np.ndarray, " unknowns"],
        refinement: int,
    ) -> tuple[
        Float32[np.ndarray, "channels_in *grid"],  # noqa: F821  (as below)
        Float32[np.ndarray, "time channels_out *grid"],
        Float32[np.ndarray, " num_parameters"],
    ]:
        """The arrays of a sample, from fields and a solution of `refined(refinement)`.

        By default those that the finer grid has at the nodes of this one, and means over the finer cells of a cell.
        """
        inputs, outputs, parameters = self.refined(refinement).sample_arrays(fields, solution)
        return self.on_grid(inputs, refinement), self.on_grid(outputs, refinement), parameters

    def on_grid(self, values: Float32[np.ndarray, "..."], refinement: int) -> Float32[np.ndarray, "..."]:
        """What values on the grid of `refined(refinement)` are on this one's: at shared nodes, or the cells' means."""
        if refinement == 1:
            return values
        domain = self._grid
        num_axes = len(domain.shape)
        if domain.location == "nodes":
            shared: tuple[slice | EllipsisType, ...] = (..., *(slice(None, None, refinement),) * num_axes)
            return np.ascontiguousarray(values[shared])
        blocks = [part for n in domain.shape for part in (n, refinement)]
        within = tuple(range(-1, -2 * num_axes, -2))
        means = values.reshape(*values.shape[:-num_axes], *blocks).mean(axis=within, dtype=np.float64)
        return np.asarray(means, dtype=np.float32)

    @property
    def _grid(self) -> Grid:
        domain = self.schema().domain
        assert isinstance(domain, Grid), f"{type(self).__name__} says nothing of meshes: see `unrefinable`"
        return domain

    @property
    def _resolution(self) -> int:
        return int(self.model_dump(include={"resolution"})["resolution"])

    @property
    @abstractmethod
    def structure(self) -> Structure:
        """What is known about the matrix of every system that this problem becomes."""

    @abstractmethod
    def draw(self, seed: int | np.random.Generator) -> dict[str, Float[np.ndarray, "..."]]:
        """Draw the named coefficient fields of one sample, in double precision."""

    @abstractmethod
    def discretize(self, fields: Mapping[str, Float[np.ndarray, "..."]]) -> System:
        """The system of these fields, linear or not.

        Raises:
            ValueError: an array is missing, misshapen, or outside what the equation allows.
        """

    @abstractmethod
    def sample_arrays(
        self, fields: Mapping[str, Float[np.ndarray, "..."]], solution: Float[np.ndarray, " unknowns"]
    ) -> tuple[
        Float32[np.ndarray, "channels_in *grid"],  # noqa: F821  (jaxtyping's shapes are no expressions)
        Float32[np.ndarray, "time channels_out *grid"],
        Float32[np.ndarray, " num_parameters"],
    ]:
        """Inputs, outputs and parameters of a sample as the schema lays them out."""

    def fields_of(
        self,
        inputs: Float[np.ndarray, "channels_in *grid"],  # noqa: F821  (as above)
        parameters: Float[np.ndarray, " num_parameters"],
    ) -> dict[str, Float[np.ndarray, "..."]]:
        """The fields that a sample's inputs and parameters were made from, as `discretize` takes them.

        By default every input is the drawn field of its name.

        Raises:
            InputError: the inputs of this problem do not tell them.
        """
        return {spec.name: values for spec, values in self._named(inputs)}

    def unknowns_of(
        self,
        outputs: Float[np.ndarray, "time channels_out *grid"],  # noqa: F821  (as above)
        system: System,
    ) -> Float64[np.ndarray, " unknowns"]:
        """The unknowns of a system that a sample's outputs show: `sample_arrays` the other way round.

        By default the unknowns are the points of the grid, or those inside its boundary (see `as_unknowns`).

        Raises:
            InputError: the outputs do not have them.
        """
        return as_unknowns(outputs, system)

    def _named(
        self,
        inputs: Float[np.ndarray, "channels_in *grid"],  # noqa: F821  (as above)
    ) -> Iterator[tuple[FieldSpec, Float64[np.ndarray, "..."]]]:
        """Every input with its channels, in double precision; the axis of a single one is left out."""
        first = 0
        for spec in self.schema().inputs:
            channels = inputs[first : first + spec.components].astype(np.float64)
            yield spec, channels[0] if spec.components == 1 else channels
            first += spec.components

    def feature(self, seed: int | np.random.Generator) -> Float[np.ndarray, "..."] | None:
        """The field that a sample's place in a sorted data set depends on; None when the problem has none.

        Raises:
            ValueError: what was drawn cannot be discretised.
        """
        if self.sorted_by is None:
            return self.discretize(self.draw(seed)).feature
        resolution = min(self._resolution, _FEATURE_RESOLUTION)
        # Not checked anew: a coarse grid may be too coarse for the equation, and is good enough to draw on.
        return self.model_copy(update={"resolution": resolution}).draw(seed)[self.sorted_by]


def as_generator(seed: int | np.random.Generator) -> np.random.Generator:
    """The generator itself, or the one that draws the fields of an integer seed."""
    return seed if isinstance(seed, np.random.Generator) else generator(seed, "fields")
