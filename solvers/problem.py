"""AbstractProblem: an equation that can be drawn at random and discretised."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Float32, Float64

from headrace.platform.fields import FieldSpec
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
    heeds: ClassVar[frozenset[str]] = frozenset({"solver.method", "solver.rtol", "solver.order"})

    sorted_by: ClassVar[str | None] = None

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
        resolution = min(int(self.model_dump(include={"resolution"})["resolution"]), _FEATURE_RESOLUTION)
        # Not checked anew: a coarse grid may be too coarse for the equation, and is good enough to draw on.
        return self.model_copy(update={"resolution": resolution}).draw(seed)[self.sorted_by]


def as_generator(seed: int | np.random.Generator) -> np.random.Generator:
    """The generator itself, or the one that draws the fields of an integer seed."""
    return seed if isinstance(seed, np.random.Generator) else generator(seed, "fields")
