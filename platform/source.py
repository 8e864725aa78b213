"""SampleSource, SourceSpec: what the stream asks of whoever makes samples."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from headrace.platform.fields import SampleSchema
from headrace.platform.sample import Failure, Request, Sample
from headrace.platform.samplers.sampler import SamplerContext


class SampleSource(Protocol):
    """Turns requests into samples. A request comes to the same sample whoever solves it, in whatever order."""

    def solve(self, requests: Sequence[Request]) -> Iterator[Sample | Failure]:
        """Solve the samples of a leased sequence, best in the order given, one result for each request.

        Raises:
            InputError: there is no such level, or a parameter cannot be chosen as the request says.
        """
        ...

    def report(self) -> Mapping[str, object]:
        """What it has to tell about its work so far, as plain values; a later report replaces an earlier one."""
        ...


class SourceSpec(Protocol):
    """The picklable description of a source that travels to a worker and is built there."""

    def schema(self) -> SampleSchema:
        """What its samples look like."""
        ...

    def sampler_context(self, count: int | None = None) -> SamplerContext:
        """What may be chosen about its samples, of which so many are planned."""
        ...

    def build(self) -> SampleSource:
        """Make the source; heavy things (factors, recycled spaces) are born here."""
        ...
