"""Decisions: what samples of a split shall be, decided when they are leased, and never again."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Int64

from headrace.platform.ledger.ledger import Ledger
from headrace.platform.sample import Request
from headrace.platform.samplers.fixed_mix import MIXED
from headrace.platform.samplers.sampler import AbstractSampler, SamplerContext, requests_for, wholes


class Decisions:
    """Has a sampler that decides late decide on samples when they are first leased, and the ledger remember it.

    A sample that the ledger knows a decision on keeps it, whoever was to solve it and whatever died since. What the
    sampler has observed lives here alone, and is lost with the process.
    """

    def __init__(self, ledger: Ledger, sampler: AbstractSampler, context: SamplerContext, parts: int) -> None:
        """Take over a split.

        Args:
            ledger: remembers.
            sampler: decides.
            context: what it may choose from, and the split.
            parts: how many samples of the ledger a sample of the sampler comes in.
        """
        self._ledger, self._context, self._parts = ledger, context, parts
        self._sampler, self._mix = sampler.build(context), MIXED.build(context)

    def requests(self, indices: Sequence[int]) -> tuple[Request, ...]:
        """What samples shall be, those decided now included; that is in the ledger on return.

        Raises:
            InputError: the sampler decided on something that there is not; nothing is recorded.
        """
        wanted = wholes(indices, self._parts)
        decided = self._ledger.decided(self._context.split, wanted)
        if new := [index for index in wanted if index not in decided]:
            requests = self._sampler.decide(new)
            if [request.index for request in requests] != new:
                raise ValueError(f"{type(self._sampler).__name__} was asked for {new} and decided on {requests}")
            for request in requests:
                self._context.require(request)
            self._ledger.decide(self._context.split, requests)
            decided |= {request.index: request for request in requests}
        return requests_for(indices, self._parts, decided)

    def observe(self, indices: Int64[np.ndarray, " batch"], losses: Float32[np.ndarray, " batch"]) -> None:
        """Pass on the losses of samples; those taken over from a recording are what the mix makes of their indices."""
        numbers = indices.tolist()
        wanted = wholes(numbers, self._parts)
        decided = self._ledger.decided(self._context.split, wanted)
        missing = [index for index in wanted if index not in decided]
        decided |= {request.index: request for request in self._mix.decide(missing)}
        self._sampler.observe(requests_for(numbers, self._parts, decided), losses)

    def price(self, spent: Mapping[str, tuple[int, float]]) -> None:
        """Pass on how many samples of each level came to how many CPU seconds; parts count as what they are of one."""
        for level, (count, seconds) in spent.items():
            self._sampler.price(level, count, seconds * self._parts)
