"""Batch: a batch of samples as tensors."""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from headrace.platform.lazy_torch import Tensor, torch
from headrace.platform.sample import SampleBatch


class Batch(NamedTuple):
    """A batch as tensors; Lightning moves it to the device.

    Attributes:
        inputs: fields that the network is given.
        outputs: what it has to say; a strategy hands a loss a batch with those of some times only.
        parameters: scalars that the network is given.
        indices: places of the samples in the planned data set.
        levels: names of their levels of difficulty; none where the samples come without provenance.
        weights: how much each counts.
        rank_weight: the weights of all ranks' batches of the step added up, over the number of ranks: what a rank
            divides its weighted losses by, so that the mean of the ranks is that of all samples.
        times: the time of each of `outputs`, where a strategy chose some; None for the schema's.
    """

    inputs: Float[Tensor, "batch channels_in *grid"]
    outputs: Float[Tensor, "batch time channels_out *grid"]
    parameters: Float[Tensor, "batch num_parameters"]
    indices: Int64[Tensor, " batch"]
    levels: tuple[str, ...]
    weights: Float[Tensor, " batch"]
    rank_weight: float
    times: Float[Tensor, "batch time"] | None = None

    @classmethod
    def of(cls, batch: SampleBatch) -> "Batch":
        """Copy arrays, which may be read-only views of shared memory, into tensors: pinned where there is CUDA."""
        count = len(batch)
        return cls(
            inputs=_copied(batch.inputs),
            outputs=_copied(batch.outputs),
            parameters=_copied(batch.parameters),
            indices=_copied(batch.indices, torch.int64),
            levels=tuple(item.level for item in batch.provenance),
            weights=_copied(np.ones(count, dtype=np.float32)),
            rank_weight=float(count),
        )

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Batch":
        """The batch on a device, its numbers in some precision; an accelerator copies while the host goes on."""
        asynchronous = torch.device(device).type != "cpu"

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype if tensor.is_floating_point() else None, non_blocking=asynchronous)

        return self._replace(
            inputs=moved(self.inputs),
            outputs=moved(self.outputs),
            parameters=moved(self.parameters),
            indices=moved(self.indices),
            weights=moved(self.weights),
            times=None if self.times is None else moved(self.times),
        )

    def rows(self, mask: Bool[Tensor, " batch"]) -> "Batch":
        """Some of the samples; `rank_weight` stays that of the step."""
        chosen = mask.cpu().tolist()
        if all(chosen):
            return self
        return self._replace(
            inputs=self.inputs[mask],
            outputs=self.outputs[mask],
            parameters=self.parameters[mask],
            indices=self.indices[mask],
            levels=tuple(level for level, is_chosen in zip(self.levels, chosen, strict=False) if is_chosen),
            weights=self.weights[mask],
            times=None if self.times is None else self.times[mask],
        )

    def mean(self, losses: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """A rank's share of the weighted mean over the samples of all ranks: the mean of the shares is that mean."""
        return (self.weights.to(losses.dtype) * losses).sum() / self.rank_weight


def _copied(array: np.ndarray, dtype: torch.dtype | None = None) -> Tensor:
    tensor = torch.empty(array.shape, dtype=dtype or torch.float32, pin_memory=_has_cuda())
    tensor.numpy()[...] = array
    return tensor


@functools.cache
def _has_cuda() -> bool:
    """Asking torch opens the driver's library every time, a tenth of a millisecond each."""
    return torch.cuda.is_available()
