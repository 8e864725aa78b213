"""Normalizer: normalisation learned from the stream; mean and standard deviation of every channel, then frozen."""

import dataclasses
import functools

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor, nn

from headrace.platform.errors import InputError
from headrace.platform.fields import Domain, Mesh, SampleSchema
from headrace.surrogates.capabilities import Capabilities
from headrace.surrogates.normalization import NormalizationSpec
from headrace.surrogates.query import NOTHING, Query
from headrace.surrogates.ranks import device, gather, rank


class RunningMoments(nn.Module):
    """Mean and variance of every channel over all that was seen: Welford's recurrence for whole batches.

    Two sets of (count, mean, M2 = sum of squared deviations) merge by Eq. 2.1 of Chan, Golub and LeVeque (1983),
    without the cancellation of E[x²] - E[x]². The buffers are plain float64 tensors.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(num_channels, dtype=torch.float64))
        self.register_buffer("m2", torch.zeros(num_channels, dtype=torch.float64))
        self._std: Tensor | None = None
        self.register_load_state_dict_post_hook(self._forget)

    @torch.no_grad()
    def update(self, values: Float[Tensor, "rows channels"]) -> None:
        """Take in some rows; with several ranks, the rows of all of them, so that all ranks agree to the bit."""
        self._std = None
        rows = values.to(self.mean.dtype)
        # A rank may have no rows that are new, while others have.
        mean = rows.mean(0) if len(rows) else torch.zeros_like(self.mean)
        moments = torch.cat([mean.new_tensor([len(rows)]), mean, (rows - mean).square().sum(0)])
        for count, *rest in (_split(other) for other in gather(moments)):
            self._merge(count, *rest)

    @property
    def std(self) -> Float[Tensor, " channels"]:
        """Standard deviation of every channel; 1 where nothing varies yet, or ever."""
        # Worked out once for every state: a step asks five times.
        if self._std is None or self._std.device != self.m2.device:
            # It outlives the call: a tensor made in inference mode could never be trained with.
            with torch.inference_mode(False):
                variance = self.m2 / self.count.clamp_min(1)
                # A constant channel leaves rounding behind, which must not be blown up to noise of size 1.
                negligible = variance <= (1e-7 * self.mean).square()
                self._std = torch.where(negligible, 1.0, variance).sqrt()
        return self._std

    @staticmethod
    def _forget(module: "RunningMoments", incompatible_keys: object) -> None:
        module._std = None

    def _merge(self, count: Tensor, mean: Tensor, m2: Tensor) -> None:
        total = (self.count + count).clamp_min(1)
        delta = mean - self.mean
        self.mean += delta * (count / total)
        self.m2 += m2 + delta.square() * (self.count * count / total)
        self.count += count


class Normalizer(nn.Module):
    """Scales what enters the network, and scales back what leaves it.

    `update` is called with every training batch and does nothing once `spec.samples` were seen. All ranks must call it
    together: it gathers the moments of all ranks. A sample that is used again teaches nothing new: `unseen` says which
    of a batch are there for the first time.

    Attributes:
        seen: the indices of the samples that were learned from, until it freezes; None learns from repeats, too.
    """

    samples_seen: Tensor
    logarithmic: Tensor

    def __init__(self, spec: NormalizationSpec, schema: SampleSchema) -> None:
        super().__init__()
        self.freeze_after = spec.samples
        logarithmic = [field.name in spec.log for field in schema.inputs for _ in range(field.components)]
        self._takes_log, self._log = any(logarithmic), spec.log
        self.register_buffer("samples_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("logarithmic", torch.tensor(logarithmic), persistent=False)
        self.input_moments = RunningMoments(schema.num_input_channels)
        self.output_moments = RunningMoments(schema.num_output_channels)
        self.parameter_moments = RunningMoments(schema.num_parameters)
        self.seen: set[int] | None = set()
        # Kept beside the buffer so that asking costs no transfer from an accelerator.
        self._frozen = False
        self.register_load_state_dict_post_hook(self._note_frozen)

    @property
    def is_frozen(self) -> bool:
        """Whether enough samples were seen."""
        return self._frozen

    def unseen(self, indices: Int64[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
        """Which samples of this rank's batch nobody has learned from yet; from now on they count as seen.

        Every rank must call it together. Of those that several ranks have at once, the first rank's is new.
        """
        if self.seen is None:
            return torch.ones_like(indices, dtype=torch.bool)
        mine = indices.to(device())
        sizes = [int(size) for size in gather(mine.new_tensor([len(mine)]))]
        padded = mine.new_full((max(sizes),), -1)
        padded[: len(mine)] = mine
        is_new: list[bool] = []
        for number, (size, found) in enumerate(zip(sizes, gather(padded), strict=True)):
            for index in found[:size].tolist():
                if number == rank():
                    is_new.append(index not in self.seen)
                self.seen.add(index)
        return torch.tensor(is_new, dtype=torch.bool, device=indices.device)

    def update(
        self,
        inputs: Float[Tensor, "rows channels_in *grid"],
        outputs: Float[Tensor, "rows time channels_out *grid"],
        parameters: Float[Tensor, "any_rows num_parameters"],
        num_samples: int | None = None,
        indices: Int64[Tensor, " samples"] | None = None,
    ) -> None:
        """Learn from a batch, unless frozen. Of one sample there may be several rows.

        Args:
            inputs: fields that enter the network.
            outputs: what it has to say.
            parameters: scalars that enter it.
            num_samples: how many samples they are of; default: a row of the parameters is one.
            indices: of these samples, to name one that is wrong.

        Raises:
            InputError: a field whose logarithm is wanted is not positive.
        """
        if self.is_frozen:
            return
        count = len(parameters) if num_samples is None else num_samples
        if self._takes_log and not bool((inputs[:, self.logarithmic] > 0).all()):
            row = int(torch.nonzero(~(inputs[:, self.logarithmic] > 0).flatten(1).all(1))[0])
            sample = "Some sample" if indices is None else f"Sample {int(indices[row * count // len(inputs)])}"
            least = inputs[row, self.logarithmic].amin().item()
            raise InputError.single(
                "training.normalization.log",
                "",
                "positive fields",
                f"{sample} has values of 0 or less in {', '.join(self._log)} (down to {least:.3g}): leave it out.",
            )
        self.input_moments.update(_rows(self._transform(inputs)))
        self.output_moments.update(_rows(outputs.flatten(0, 1)))
        self.parameter_moments.update(parameters)
        self.samples_seen += sum(int(rows) for rows in gather(self.samples_seen.new_tensor([count])))
        self._frozen = 0 < self.freeze_after <= int(self.samples_seen)
        if self._frozen and self.seen is not None:
            self.seen.clear()

    def normalize(
        self, inputs: Float[Tensor, "batch channels_in *grid"], parameters: Float[Tensor, "batch num_parameters"]
    ) -> tuple[Float[Tensor, "batch channels_in *grid"], Float[Tensor, "batch num_parameters"]]:
        """Inputs and parameters as the network wants them: mean 0, standard deviation 1."""
        mean, std = (
            _last(moment, inputs.ndim - 2, inputs) for moment in (self.input_moments.mean, self.input_moments.std)
        )
        shift, scale = (
            _last(moment, 0, parameters) for moment in (self.parameter_moments.mean, self.parameter_moments.std)
        )
        return (self._transform(inputs) - mean) / std, (parameters - shift) / scale

    def denormalize(
        self, outputs: Float[Tensor, "batch time channels_out *grid"]
    ) -> Float[Tensor, "batch time channels_out *grid"]:
        """What the network says, in physical units."""
        grid = outputs.ndim - 3
        return outputs * _last(self.output_moments.std, grid, outputs) + _last(self.output_moments.mean, grid, outputs)

    def in_standard_deviations(
        self, outputs: Float[Tensor, "batch time channels_out *grid"]
    ) -> Float[Tensor, "batch time channels_out *grid"]:
        """Physical outputs with every channel divided by its standard deviation, not shifted: what a loss compares."""
        return outputs / _last(self.output_moments.std, outputs.ndim - 3, outputs)

    def _transform(self, inputs: Tensor) -> Tensor:
        if not self._takes_log:
            return inputs
        shaped = self.logarithmic.reshape(-1, *(1 for _ in range(inputs.ndim - 2)))
        # The inner `where` keeps other channels' zeros out of the logarithm, and so NaN out of an input's gradient.
        return torch.where(shaped, torch.where(shaped, inputs, 1.0).log(), inputs)

    @staticmethod
    def _note_frozen(module: "Normalizer", incompatible_keys: object) -> None:
        module._frozen = 0 < module.freeze_after <= int(module.samples_seen)


class NormalizedNetwork(nn.Module):
    """A network with its normalisation: physical fields in, physical fields out.

    It puts the query together that the network is called with: what it declares that it takes, and nothing else.
    """

    def __init__(
        self, network: nn.Module, normalizer: Normalizer, capabilities: Capabilities, domain: Domain | None = None
    ) -> None:
        """Hold both.

        Args:
            network: called as `network(inputs, parameters, query)`.
            normalizer: its scales.
            capabilities: what the network declares.
            domain: where its fields live; for networks that take points.
        """
        super().__init__()
        self.network = network
        self.normalizer = normalizer
        self.capabilities = capabilities
        self.domain = domain

    def forward(
        self,
        inputs: Float[Tensor, "batch channels_in *grid"],
        parameters: Float[Tensor, "batch num_parameters"],
        *,
        time: Float[Tensor, " batch"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch time channels_out *grid"]:
        """Predict in physical units.

        Args:
            inputs: the fields.
            parameters: the scalars.
            time: of the prediction, as a share of the last output time.
            generator: what noise is drawn from; None is torch's own.
        """
        takes = self.capabilities
        query = NOTHING
        if takes.time or takes.points or takes.noise:
            query = Query(
                time=time if takes.time else None,
                points=self._points(inputs) if takes.points else None,
                noise=_noise(inputs, takes.noise, generator) if takes.noise else None,
            )
        return self.normalizer.denormalize(self.network(*self.normalizer.normalize(inputs, parameters), query))

    def _points(self, inputs: Tensor) -> Float[Tensor, "points dim"]:
        if self.domain is None:
            raise ValueError("a network that takes points was given no domain")
        return _shares_of_box(self.domain, tuple(inputs.shape[2:])).to(inputs.device, inputs.dtype)


@functools.lru_cache(maxsize=16)
def _shares_of_box(domain: Domain, shape: tuple[int, ...]) -> Float64[Tensor, "points dim"]:
    """The points of a mesh, or of a grid on the same box at some resolution, from 0 to 1 along each axis."""
    # The cache outlives the call: a tensor made in inference mode could never be trained with.
    with torch.inference_mode(False):
        if isinstance(domain, Mesh):
            low, high = domain.points.min(0), domain.points.max(0)
            return torch.tensor((domain.points - low) / np.where(high > low, high - low, 1.0))
        grid = dataclasses.replace(domain, shape=shape)
        axes = [x / length for x, length in zip(grid.coordinates(), grid.extent, strict=True)]
        return torch.tensor(np.stack([x.ravel() for x in np.meshgrid(*axes, indexing="ij")], axis=1))


def _noise(inputs: Tensor, count: int, generator: torch.Generator | None) -> Float[Tensor, "batch num_noise"]:
    return torch.randn(len(inputs), count, device=inputs.device, dtype=inputs.dtype, generator=generator)


def _rows(fields: Tensor) -> Tensor:
    """(batch, channels, *grid) to (batch * points, channels)."""
    return fields.movedim(1, -1).flatten(0, -2)


def _last(channels: Tensor, num_axes: int, like: Tensor) -> Tensor:
    """Channel values shaped to broadcast over (..., channels, *grid), in the precision of a field."""
    return channels.to(like.dtype).reshape(-1, *(1 for _ in range(num_axes)))


def _split(moments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    num_channels = (len(moments) - 1) // 2
    return moments[0], moments[1 : 1 + num_channels], moments[1 + num_channels :]
