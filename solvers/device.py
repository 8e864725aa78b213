"""Where the tensors of a batch live: on the CPU, or on a GPU where there is one."""

import functools
from pathlib import Path
from typing import Literal

Device = Literal["auto", "cpu", "cuda"]


@functools.cache
def cuda_is_available() -> bool:
    """Whether torch finds a CUDA device."""
    # Every sequence asks, and torch takes seconds to import: where there is no driver (Linux, WSL) it is not asked.
    if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
        return False
    import torch

    return torch.cuda.is_available()


def found_device(device: Device) -> Literal["cpu", "cuda"]:
    """The device that is meant: `auto` is CUDA where torch finds it, the CPU elsewhere."""
    if device == "auto":
        return "cuda" if cuda_is_available() else "cpu"
    return device
