"""Ctrl-C, from the first moment of a command to its last."""

import os
import signal
import threading
from types import FrameType, TracebackType

from headrace.platform.processes import end_children, is_uninterruptible

SECONDS_TO_END = 7.0  # after Ctrl-C, for closing files and saying so; the machine may be busy
WORDS = "interrupted; what was stored is safe"
STATUS = 130


class Interrupts:
    """Turns Ctrl-C into a KeyboardInterrupt in the main thread, and sees that the process ends soon. Use with `with`.

    Whoever tidies up may wait for a server, for a process, or for a library that is being imported. When it takes too
    long, when Ctrl-C comes again, or where nothing bears an interrupt, the process ends at once, with all that it has
    started: what is stored is safe whenever it is killed.

    Attributes:
        came: whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.came = False
        self._before: signal._HANDLER = None
        self._is_ours = False

    def __enter__(self) -> "Interrupts":
        # A job in the background has Ctrl-C ignored, and a program that calls us from a thread keeps its own ways.
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            self._before, self._is_ours = signal.signal(signal.SIGINT, self._take), True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Once it came, the interpreter's own end counts, too: it waits for threads.
        if self._is_ours and not self.came:
            signal.signal(signal.SIGINT, self._before)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.came or is_uninterruptible():
            _end()
        self.came = True
        clock = threading.Timer(SECONDS_TO_END, _end)
        clock.daemon = True
        clock.start()
        raise KeyboardInterrupt


def _end() -> None:
    end_children(wait_seconds=0.5)
    os.write(2, f"{WORDS}\n".encode())
    os._exit(STATUS)
