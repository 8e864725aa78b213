"""Prefetcher: one thread that stays a few items ahead of its consumer."""

import logging
import threading
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)


class Prefetcher[T]:
    """Calls `produce` in a thread, and keeps at most `depth` results waiting.

    The thread waits for `produce` and, when `depth` results wait, for `get` or `close`, which wake it. `get` waits for
    the thread to finish a result. Nothing polls. The thread ends at the first None or exception of `produce`; `get`
    passes that on, after the results before it.
    """

    def __init__(self, produce: Callable[[], T | None], *, depth: int = 2, name: str = "prefetch") -> None:
        self._produce = produce
        self._depth = depth
        self._ready: deque[T] = deque()
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        # A daemon, because `produce` may be blocked in a remote call when the process wants to leave.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def get(self) -> T | None:
        """The next result; None after the last.

        Raises:
            BaseException: what `produce` raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended)
            if self._ready:
                item = self._ready.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            return None

    def close(self, timeout: float = 5.0) -> None:
        """Drop what waits and end the thread; one that is inside `produce` ends when that returns."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join(timeout)
        if self._thread.is_alive():
            log.warning("thread %s is still waiting for data; it ends when they come", self._thread.name)

    def _run(self) -> None:
        try:
            while (item := self._produce()) is not None:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._ready) < self._depth or self._closed)
                    if self._closed:
                        break
                    self._ready.append(item)
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001  (it belongs to the consumer, whatever it is)
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
