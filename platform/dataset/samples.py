"""Samples: what of a data set those need who write it elsewhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from headrace.platform.fields import SampleSchema
from headrace.platform.sample import SampleBatch


@runtime_checkable
class Samples(Protocol):
    """A data set that can be read from its first sample to its last."""

    @property
    def directory(self) -> Path:
        """Where it lies."""
        ...

    @property
    def schema(self) -> SampleSchema:
        """What the samples look like."""
        ...

    @property
    def indices(self) -> Int64[np.ndarray, " samples"]:
        """Their indices, ascending."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...

    def batches(self, size: int) -> Iterator[SampleBatch]:
        """All samples in order of their index, `size` at a time; the last batch may be shorter."""
        ...

    def read_all(self) -> SampleBatch:
        """All samples at once."""
        ...
