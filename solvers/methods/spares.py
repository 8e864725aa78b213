"""Workspaces that outlive the solver that made them: a single solve need not ask the system for memory."""

from collections import deque
from collections.abc import Hashable


class Spares[T]:
    """A few workspaces that nobody uses. Threads may share it: what is taken is out, and its operations are atomic."""

    def __init__(self, count: int, num_bytes: int) -> None:
        """Hold so many at most, none larger than `num_bytes`."""
        self._count, self._num_bytes = count, num_bytes
        self._held: deque[tuple[Hashable, T]] = deque()

    def take(self, key: Hashable) -> T | None:
        """The workspace that was left last under this key, or None."""
        for entry in reversed(tuple(self._held)):
            if entry[0] == key:
                try:
                    self._held.remove(entry)
                except ValueError:
                    continue  # another thread was faster
                return entry[1]
        return None

    def leave(self, key: Hashable, workspace: T, num_bytes: int) -> None:
        """Keep a workspace for whoever comes next; the one that was left first goes."""
        if num_bytes > self._num_bytes:
            return
        self._held.append((key, workspace))
        while len(self._held) > self._count:
            try:
                self._held.popleft()
            except IndexError:
                return
