"""The threads of torch in this process."""

from collections.abc import Iterator
from contextlib import contextmanager

from headrace.platform.lazy_torch import torch


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch have so many threads in the block.

    Products of small matrices, as equations in time take thousands of, are a hundred times slower on two threads than
    on one where other work has the second core: each waits for a thread that does not run.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
