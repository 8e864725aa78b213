"""Processes that this one has started, and those that they have."""

import signal
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress

import psutil

_uninterruptible = 0


@contextmanager
def uninterruptible() -> Iterator[None]:
    """A block in which an exception at any line may crash the process: Ctrl-C had better end it then and there."""
    global _uninterruptible
    _uninterruptible += 1
    try:
        yield
    finally:
        _uninterruptible -= 1


def is_uninterruptible() -> bool:
    """Whether such a block is being carried out."""
    return _uninterruptible > 0


def end_children(*, besides: Set[int] = frozenset(), wait_seconds: float = 1.0) -> None:
    """Kill the children of this process and all that is below them.

    Each is stopped first: one that is killed while it starts another leaves that one behind, without a parent to be
    found by.

    Args:
        besides: the ids of the children that stay, with all that is below them.
        wait_seconds: how long to wait for their end [s].
    """
    found: list[psutil.Process] = []
    waiting = [child for child in psutil.Process().children() if child.pid not in besides]
    while waiting:
        process = waiting.pop()
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGSTOP)
            found.append(process)
            waiting += process.children()
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(found, timeout=wait_seconds)
