"""What the training ranks tell each other; without a process group there is one rank, which knows everything."""

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """How many ranks train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this process is."""
    return dist.get_rank() if world_size() > 1 else 0


def gather(values: Tensor) -> list[Tensor]:
    """This tensor of every rank, in rank order. Every rank must call it; it waits for the slowest."""
    if world_size() == 1:
        return [values]
    gathered = [torch.empty_like(values) for _ in range(world_size())]
    dist.all_gather(gathered, values)
    return gathered


def total(values: Tensor) -> Tensor:
    """The sum over ranks, the same to the bit on each. Every rank must call it; it waits for the slowest."""
    return torch.stack(gather(values)).sum(0)


def wait_for_all() -> None:
    """Return once every rank has come here."""
    total(torch.zeros(1, device=device()))


def device() -> torch.device:
    """Where tensors must be for ranks to exchange them: NCCL wants them on the GPU."""
    if world_size() > 1 and dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
