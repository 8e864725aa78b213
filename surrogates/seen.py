"""What training saw: the smallest and largest value of every input channel and parameter, and what lies outside."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from headrace.platform.fields import Domain, FieldSpec, Mesh, SampleSchema
from headrace.surrogates import ranks

MARGIN = 0.05
"""How far beyond a range a value may lie before it is outside, as a share of the range's width: one more sample of the
same kind goes a little beyond those that were seen. What was only positive stays so."""


class Extremes:
    """The smallest and largest value of every channel over all that was seen; its tensors stay where batches are."""

    def __init__(self, num_channels: int) -> None:
        """Nothing was seen yet."""
        self.bounds = torch.tensor([[math.inf], [-math.inf]], dtype=torch.float64).expand(2, num_channels).clone()

    @torch.no_grad()
    def update(self, values: Float[Tensor, "rows channels *any"]) -> None:
        """Take in some rows; asks nothing of an accelerator that the host would wait for."""
        if not values.numel():
            return
        axes = [axis for axis in range(values.ndim) if axis != 1]
        self.bounds = self.bounds.to(values.device)
        low, high = values.amin(axes).to(self.bounds.dtype), values.amax(axes).to(self.bounds.dtype)
        self.bounds = torch.stack([torch.minimum(self.bounds[0], low), torch.maximum(self.bounds[1], high)])

    def of_all_ranks(self) -> Float[Tensor, "2 channels"]:
        """Those of all ranks together. Every rank must call it; it waits for the slowest."""
        each = torch.stack(ranks.gather(self.bounds.to(ranks.device())))
        return torch.stack([each[:, 0].amin(0), each[:, 1].amax(0)]).cpu()


class Seen:
    """What the samples of a training are like, on all ranks and over all restarts.

    Ranks keep their own; `share`, which all of them call before a checkpoint, joins them.
    """

    def __init__(self, schema: SampleSchema) -> None:
        """Nothing was seen yet."""
        self._extremes = {"inputs": Extremes(schema.num_input_channels), "parameters": Extremes(schema.num_parameters)}
        self._is_whole = True
        self._shared: dict[str, Tensor] | None = None

    def update(self, inputs: Tensor, parameters: Tensor) -> None:
        """Take in a batch."""
        self._extremes["inputs"].update(inputs)
        self._extremes["parameters"].update(parameters)

    def go_on_from(self, bounds: Mapping[str, Tensor] | None) -> None:
        """Take over what a checkpoint knows; when it knows nothing, nothing is ever known of this training."""
        if bounds is None:
            self._is_whole = False
            return
        for name, extremes in self._extremes.items():
            extremes.bounds = bounds[name].double().clone()

    def share(self) -> None:
        """Join what all ranks saw. Every rank must call it; it waits for the slowest."""
        self._shared = {name: extremes.of_all_ranks() for name, extremes in self._extremes.items()}

    @property
    def bounds(self) -> dict[str, Tensor] | None:
        """Lowest and highest of every channel, for a checkpoint; None when a part of the training is not known."""
        if not self._is_whole:
            return None
        if self._shared is not None:
            return self._shared
        return {name: extremes.bounds.cpu() for name, extremes in self._extremes.items()}


@dataclass(frozen=True, kw_only=True)
class Interval:
    """What training saw of a channel or parameter.

    Attributes:
        low: the smallest value.
        high: the largest one.
        unit: of both.
    """

    low: float
    high: float
    unit: str = "1"

    def bounds(self) -> tuple[float, float]:
        """What is still taken to be like it: `MARGIN` wider, and of the same sign where all values had one."""
        low, high = self.low, self.high
        margin = MARGIN * (high - low)
        # Rounding to single precision must not put a value outside.
        margin = max(margin, 1e-6 * max(abs(low), abs(high)))
        wider = low - margin, high + margin
        if low > 0:
            return max(wider[0], low * (low / high) ** MARGIN * (1 - 1e-6)), wider[1]
        if high < 0:
            return wider[0], min(wider[1], high * (high / low) ** MARGIN * (1 - 1e-6))
        return (0.0 if low == 0 else wider[0]), (0.0 if high == 0 else wider[1])

    def __str__(self) -> str:
        unit = "" if self.unit == "1" else f" {self.unit}"
        return f"{self.low:.4g} to {self.high:.4g}{unit}" if self.low != self.high else f"{self.low:.4g}{unit} only"


@dataclass(frozen=True, kw_only=True)
class Outside:
    """Which inputs are unlike those that training saw.

    Attributes:
        samples: whether each is.
        reasons: what is outside of which range, a sentence each; empty when nothing is.
        is_known: whether values could be compared at all; grid and times always can.
    """

    samples: Bool[np.ndarray, " batch"]
    reasons: tuple[str, ...]
    is_known: bool

    def __bool__(self) -> bool:
        return bool(self.reasons)


@dataclass(frozen=True, kw_only=True)
class ValidRange:
    """What training saw: beyond it a surrogate extrapolates.

    Attributes:
        inputs: by name of the input field; of fields with several components, `velocity[0]` and so on.
        parameters: by name, likewise.
        times: the first and the last output time.
        domain: the grid or mesh.
        version: of Headrace, that wrote the checkpoint.
        is_known: false for checkpoints that were written before ranges were kept: `inputs` and `parameters` are empty.
    """

    inputs: Mapping[str, Interval]
    parameters: Mapping[str, Interval]
    times: tuple[float, float]
    domain: Domain
    version: str
    is_known: bool

    @classmethod
    def of(cls, schema: SampleSchema, bounds: Mapping[str, Tensor] | None, version: str) -> "ValidRange":
        """That of a checkpoint; None where it has no bounds."""
        known = bounds is not None and all(bool(torch.isfinite(one).all()) for one in bounds.values())
        return cls(
            inputs=_intervals(schema.inputs, bounds["inputs"]) if bounds is not None and known else {},
            parameters=_intervals(schema.parameters, bounds["parameters"]) if bounds is not None and known else {},
            times=(min(schema.times), max(schema.times)),
            domain=schema.domain,
            version=version,
            is_known=known,
        )

    def outside(
        self,
        inputs: Shaped[np.ndarray, "batch channels_in *grid"],
        parameters: Shaped[np.ndarray, "batch num_parameters"],
        times: Sequence[float],
    ) -> Outside:
        """Compare inputs with what training saw."""
        flags = np.zeros(len(inputs), dtype=bool)
        reasons: list[str] = []
        if inputs.shape[2:] != self.domain.shape:
            reasons.append(f"the grid is {_by(inputs.shape[2:])}; training saw {_by(self.domain.shape)}")
            flags[:] = True
        first, last = self.times
        slack = 1e-6 * max(abs(first), abs(last))
        beyond = [time for time in times if not first - slack <= time <= last + slack]
        if beyond:
            reasons.append(f"time is {beyond[0]:g}; training saw {first:g} to {last:g}")
            flags[:] = True
        channels = inputs.reshape(*inputs.shape[:2], math.prod(inputs.shape[2:]))
        for values, known in ((channels, self.inputs), (parameters[..., None], self.parameters)):
            for channel, (name, interval) in enumerate(known.items()):
                reason, rows = _compare(name, interval, values[:, channel])
                flags |= rows
                reasons.extend([reason] if reason else [])
        return Outside(samples=flags, reasons=tuple(reasons), is_known=self.is_known)

    def __str__(self) -> str:
        where = f"on {self.domain!r}" if isinstance(self.domain, Mesh) else f"on {_by(self.domain.shape)} points"
        if not self.is_known:
            return f"not known: Headrace {self.version} wrote the checkpoint, which did not keep it; {where}"
        ranges = [f"{name} {interval}" for name, interval in (*self.inputs.items(), *self.parameters.items())]
        return "; ".join([*ranges, where])


def channel_names(fields: Sequence[FieldSpec]) -> list[str]:
    """A name for each component of each field."""
    return [
        field.name if field.components == 1 else f"{field.name}[{component}]"
        for field in fields
        for component in range(field.components)
    ]


def _intervals(fields: Sequence[FieldSpec], bounds: Tensor) -> dict[str, Interval]:
    units = [field.unit for field in fields for _ in range(field.components)]
    return {
        name: Interval(low=low, high=high, unit=unit)
        for name, unit, low, high in zip(channel_names(fields), units, *bounds.tolist(), strict=True)
    }


def _compare(
    name: str, interval: Interval, values: Shaped[np.ndarray, "batch points"]
) -> tuple[str, Bool[np.ndarray, " batch"]]:
    if not values.size:
        return "", np.zeros(len(values), dtype=bool)
    low, high = interval.bounds()
    smallest, largest = values.min(1), values.max(1)
    below, above = smallest < low, largest > high
    rows = below | above
    if not rows.any():
        return "", rows
    # The one that is further out, in words that name one value.
    down = (interval.low - float(smallest.min())) if below.any() else -math.inf
    up = (float(largest.max()) - interval.high) if above.any() else -math.inf
    sample = int(smallest.argmin()) if down >= up else int(largest.argmax())
    value = float(smallest.min()) if down >= up else float(largest.max())
    others = f", and {int(rows.sum()) - 1} more samples are outside" if rows.sum() > 1 else ""
    return f"{name} is {value:.6g} in sample {sample}{others}; training saw {interval}", rows


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
