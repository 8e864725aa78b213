"""AbstractSampler, Sampler: who decides what each sample shall be, and from what."""

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
from jaxtyping import Float32

from headrace.platform.errors import InputError, nearest
from headrace.platform.sample import Request
from headrace.platform.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A parameter that may be chosen.

    Attributes:
        low: the least value.
        high: the largest one.
        scale: `linear` or `log`: how values spread evenly between the two.
    """

    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"


@dataclass(frozen=True, kw_only=True)
class SamplerContext:
    """What a sampler may choose from.

    Attributes:
        mix: weights of the difficulty levels, by name.
        axes: for each level of the mix, the parameters that may be chosen, by name.
        seed: seed of the data set.
        split: which part of it.
        count: how many samples are planned; None where that is not known: one that decides late is always told. Here
            and in what a sampler decides, a trajectory is one sample in how many parts it may come.
    """

    mix: Mapping[str, float]
    axes: Mapping[str, Mapping[str, Axis]]
    seed: int
    split: str
    count: int | None = None

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that may be chosen: those with a weight above 0, in the order of the mix."""
        return tuple(name for name, weight in self.mix.items() if weight > 0.0)

    def require(self, request: Request) -> None:
        """Make sure that a request asks for what there is.

        Raises:
            InputError: its level is not in the mix, or a parameter is unknown there or outside its bounds.
        """
        if request.level not in self.axes:
            raise InputError.single(
                f"sample {request.index} of {self.split}",
                f'level "{request.level}"',
                f"one of {', '.join(self.axes)}",
                nearest(request.level, self.axes),
            )
        require_choosable(request.parameters, self.axes[request.level], f"sample {request.index} of {self.split}")


def require_choosable(parameters: Mapping[str, float] | None, axes: Mapping[str, Axis], where: str) -> None:
    """Make sure that parameters may be chosen as they are.

    Args:
        parameters: the values by name; None and an empty mapping choose nothing.
        axes: what may be chosen.
        where: names the sample.

    Raises:
        InputError: there is no such parameter, or it is outside its bounds.
    """
    for name, value in (parameters or {}).items():
        place = f"{where}: parameter {name}"
        if not axes:
            raise InputError.single(
                place, f"{value:g}", "no parameters: this problem draws no numbers that could be chosen instead"
            )
        if name not in axes:
            raise InputError.single(place, "unknown", f"one of {', '.join(axes)}", nearest(name, axes))
        axis = axes[name]
        if not (math.isfinite(value) and axis.low <= value <= axis.high):
            raise InputError.single(place, f"{value:g}", f"a value from {axis.low:g} to {axis.high:g}")


class Sampler(Protocol):
    """A sampler at work, in the coordinator. It is called from one thread, and waits for nobody."""

    def decide(self, indices: Sequence[int]) -> Sequence[Request]:
        """What samples shall be that nobody has decided on yet: one request for each index, in this order."""
        ...

    def observe(self, requests: Sequence[Request], losses: Float32[np.ndarray, " batch"]) -> None:
        """Take note of training losses of samples that were decided; a sample may come many times, or never."""
        ...

    def price(self, level: str, count: int, cpu_seconds: float) -> None:
        """Take note of what samples of a level took to solve together, those that failed included [s]."""
        ...


class AbstractSampler(Spec):
    """Decides for each training sample its level and, if it likes, parameters of its equation.

    A concrete sampler carries `kind: Literal["name"] = "name"`. Held-out samples always have the levels in the numbers
    that the mix says (`Stratified`), so that errors of runs with different samplers can be compared.

    What a sampler decides is in the ledger before anyone solves it: it is asked once for each sample, whatever dies.
    What it has observed is not kept: after a restart of the coordinator, or `headrace resume`, it begins anew, and must
    decide on something sensible before it has observed anything.

    Attributes:
        decides_late: whether what it decides depends on more than seed, split and index. Then it is asked when a sample
            is leased and not before, the ledger keeps the answer, and samples cannot be sorted in advance. A sampler
            that does not decide late is asked anew wherever the answer is needed, and nothing is kept.
    """

    decides_late: ClassVar[bool] = True

    @abstractmethod
    def build(self, context: SamplerContext) -> Sampler:
        """Put it to work.

        Raises:
            InputError: it cannot choose from what there is.
        """


class DerivedRequests:
    """Requests for samples by index, as a sampler that does not decide late has them wherever it is asked."""

    def __init__(self, sampler: AbstractSampler, context: SamplerContext, parts: int) -> None:
        """Take a sampler.

        Args:
            sampler: decides.
            context: what it may choose from.
            parts: how many samples of the ledger a sample of the sampler comes in.
        """
        self._sampler, self._parts = sampler.build(context), parts

    def __call__(self, indices: Sequence[int]) -> tuple[Request, ...]:
        """A request for each index."""
        decided = self._sampler.decide(wholes(indices, self._parts))
        return requests_for(indices, self._parts, {request.index: request for request in decided})


def requests_for(indices: Sequence[int], parts: int, decided: Mapping[int, Request]) -> tuple[Request, ...]:
    """A request for each of the parts that are wanted, from those for the whole samples.

    Args:
        indices: of the parts; of samples that come whole, their own.
        parts: how many parts a sample comes in.
        decided: the requests for the whole samples, by their index.
    """
    if parts == 1:
        return tuple(decided[int(index)] for index in indices)
    return tuple(dataclasses.replace(decided[index // parts], index=index) for index in map(int, indices))


def wholes(indices: Sequence[int], parts: int) -> list[int]:
    """The whole samples that parts belong to, each once, in the order in which they come first."""
    return list(dict.fromkeys(int(index) // parts for index in indices))
