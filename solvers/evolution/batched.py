"""AbstractBatchedEvolution: an equation whose samples are followed many at a time, in torch."""

import math

from pydantic import Field

from headrace.platform.spec import FieldError
from headrace.solvers.device import Device, cuda_is_available, found_device
from headrace.solvers.evolution.evolution import AbstractEvolution

# Values of a state that keep a GPU busy. A step takes some tens of times their memory: 1 to 2 GiB in double precision.
_GPU_VALUES = 2**22


class AbstractBatchedEvolution(AbstractEvolution):
    """An equation whose samples are followed many at a time, as tensors on a CPU or a GPU, in double precision.

    On a CPU what a sample comes to does not depend on the others in its batch, to the last bit. A GPU's transforms and
    sums may take another way for another batch: there that is true up to rounding.

    Attributes:
        device: `cpu`; `cuda`; or `auto`, which is CUDA where torch finds it and the CPU elsewhere.
    """

    device: Device = Field(default="cpu", description="cpu, cuda, or auto: CUDA where torch finds it, else the CPU.")

    @property
    def batch_size(self) -> int:
        """How many samples are best solved together: on a GPU as many as keep it busy."""
        if found_device(self.device) == "cpu":
            return super().batch_size
        values = math.prod(self.grid.shape) * sum(spec.components for spec in self.state)
        return max(1, min(4096, _GPU_VALUES // values))

    def unrepeatable(self) -> FieldError | None:
        """The device, unless it is the CPU."""
        if self.device == "cpu":
            return None
        return FieldError("device", self.device, "cpu: on a GPU the last bits of a sample depend on those beside it")

    def unavailable(self) -> str | None:
        """That the device it was told to use is not there."""
        if self.device == "cuda" and not cuda_is_available():
            return "It was told to use cuda, which torch does not find here; use device auto or cpu."
        return super().unavailable()
