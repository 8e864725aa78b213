"""What the training ranks tell each other; without a process group there is one rank, which knows everything."""

from headrace.platform.lazy_torch import Tensor, torch


def world_size() -> int:
    """How many ranks train together."""
    return (
        torch.distributed.get_world_size()
        if torch.distributed.is_available() and torch.distributed.is_initialized()
        else 1
    )


def rank() -> int:
    """Which of them this process is."""
    return torch.distributed.get_rank() if world_size() > 1 else 0


def gather(values: Tensor) -> list[Tensor]:
    """This tensor of every rank, in rank order. Every rank must call it; it waits for the slowest."""
    if world_size() == 1:
        return [values]
    gathered = [torch.empty_like(values) for _ in range(world_size())]
    torch.distributed.all_gather(gathered, values)
    return gathered


def total(values: Tensor) -> Tensor:
    """The sum over ranks, the same to the bit on each. Every rank must call it; it waits for the slowest."""
    return torch.stack(gather(values)).sum(0)


def wait_for_all() -> None:
    """Return once every rank has come here."""
    total(torch.zeros(1, device=device()))


def device() -> torch.device:
    """Where tensors must be for ranks to exchange them: NCCL wants them on the GPU."""
    if world_size() > 1 and torch.distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
