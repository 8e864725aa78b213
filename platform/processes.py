"""Processes that this one has started, and those that they have."""

from collections.abc import Iterable, Set
from contextlib import suppress

import psutil


def descendants(*, besides: Set[int] = frozenset()) -> list[psutil.Process]:
    """The children of this process and all below them, without some children and what is below those.

    Args:
        besides: the ids of the children to leave out.
    """
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        if child.pid not in besides:
            with suppress(psutil.NoSuchProcess):
                found += [child, *child.children(recursive=True)]
    return found


def kill(processes: Iterable[psutil.Process], wait_seconds: float = 1.0) -> None:
    """Kill processes, some of which may have ended, and wait for their end."""
    processes = list(processes)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=wait_seconds)
