"""Batch: a batch of samples as tensors."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headrace.platform.sample import SampleBatch


class Batch(NamedTuple):
    """A batch as tensors; Lightning moves it to the device."""

    inputs: Float[Tensor, "batch channels_in *grid"]
    outputs: Float[Tensor, "batch time channels_out *grid"]
    parameters: Float[Tensor, "batch num_parameters"]

    @classmethod
    def of(cls, batch: SampleBatch) -> "Batch":
        """Copy arrays, which may be read-only views of shared memory, into tensors: pinned where there is CUDA."""
        return cls(*(_copied(array) for array in (batch.inputs, batch.outputs, batch.parameters)))


def _copied(array: np.ndarray) -> Tensor:
    tensor = torch.empty(array.shape, dtype=torch.float32, pin_memory=torch.cuda.is_available())
    tensor.numpy()[...] = array
    return tensor
