"""Whole trajectories of a data set that holds them in parts."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.dataset.samples import Samples
from headrace.platform.errors import InputError
from headrace.platform.sample import Provenance, SampleBatch


class WholeTrajectories:
    """The trajectories of a data set that holds them in parts. Those that broke, and lack a part, are left out.

    The index of a trajectory is its number. Its provenance is that of its first part, with what all parts cost and the
    largest relative residual.

    Attributes:
        directory: of the data set.
        schema: of a whole trajectory.
        indices: the numbers of the trajectories, ascending.
    """

    def __init__(self, stored: StoredSamples) -> None:
        """Join what is stored.

        Raises:
            InputError: no trajectory is whole.
        """
        self.directory = stored.directory
        self._stored = stored
        self._parts = parts = stored.schema.parts
        times = stored.schema.times
        step = times[-1] / len(times)
        self.schema = dataclasses.replace(
            stored.schema, times=tuple(step * number for number in range(1, len(times) * parts + 1)), parts=1
        )
        # The parts of a trajectory stand side by side, in their order.
        self._positions = np.flatnonzero(stored.is_whole).reshape(-1, parts)
        self.indices = stored.indices[self._positions[:, 0]] // parts
        if not len(self):
            raise InputError.single(
                str(stored.directory), f"parts of {len(stored)} samples", "at least one whole trajectory"
            )

    def __len__(self) -> int:
        return len(self._positions)

    def batches(self, size: int) -> Iterator[SampleBatch]:
        """All trajectories in order of their number, `size` at a time; the last batch may be shorter."""
        for start in range(0, len(self), size):
            yield self._batch(slice(start, start + size))

    def read_all(self) -> SampleBatch:
        """All trajectories at once."""
        return self._batch(slice(None))

    def _batch(self, some: slice) -> SampleBatch:
        parts = self._stored.batch(self._positions[some].ravel())
        outputs = parts.outputs.reshape(-1, len(self.schema.times), *parts.outputs.shape[2:])
        rows = [parts.provenance[start : start + self._parts] for start in range(0, len(parts), self._parts)]
        return SampleBatch(
            indices=self.indices[some],
            inputs=parts.inputs[:: self._parts],
            outputs=outputs,
            parameters=parts.parameters[:: self._parts],
            provenance=tuple(_joined(row, self._parts) for row in rows),
        )


def whole(stored: StoredSamples) -> Samples:
    """A data set as it is, or its whole trajectories where it holds parts of them.

    Raises:
        InputError: no trajectory is whole.
    """
    return stored if stored.schema.parts == 1 else WholeTrajectories(stored)


def _joined(parts: tuple[Provenance, ...], count: int) -> Provenance:
    residuals = [one.relative_residual for one in parts if not math.isnan(one.relative_residual)]
    return dataclasses.replace(
        parts[0],
        index=parts[0].index // count,
        relative_residual=max(residuals, default=math.nan),
        num_iterations=sum(one.num_iterations for one in parts),
        wall_seconds=sum(one.wall_seconds for one in parts),
        cpu_seconds=sum(one.cpu_seconds for one in parts),
    )
