"""Complete: a file that holds samples with their schema, as Headrace wrote it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from headrace.platform.fields import SampleSchema
from headrace.platform.sample import SampleBatch


@dataclass(frozen=True, kw_only=True)
class Complete:
    """Samples that need no layout.

    Attributes:
        schema: of the samples.
        count: how many there are.
        read: all of them, a few at a time.
    """

    schema: SampleSchema
    count: int
    read: Callable[[], Iterator[SampleBatch]]
