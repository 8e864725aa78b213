"""PipeProgram: a program that is kept, and asked for one sample after the other through its standard streams."""

import contextlib
import json
import logging
import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace.solvers.external.files import MAX_ANSWER_NBYTES, Unusable
from headrace.solvers.external.process import Ended, Guarded, last_words

log = logging.getLogger(__name__)

_MAX_TALK_NBYTES = 4 * 1024 * 1024  # of what a kept process says, before the older part is dropped
_MAX_PENDING = 4 * MAX_ANSWER_NBYTES  # bytes without the end of a line


class PipeProgram:
    """A program that is kept and asked for one sample after the other; it is started when needed, and anew if it ends.

    A program may end by itself after any answer, with exit code 0: the next request goes to a new process.
    """

    def __init__(self, command: Sequence[str], *, program: str, environment: Mapping[str, str], folder: Path) -> None:
        """Start nothing yet.

        Args:
            command: the words to run.
            program: its name in errors.
            environment: its variables.
            folder: where it starts and its words are kept; removed with it.
        """
        self._command, self._program, self._environment = list(command), program, environment
        self.folder = folder
        self._process: Guarded | None = None
        self._unread = b""
        self._cpu_seconds = 0.0
        self._words_from = 0
        self._lock = threading.Lock()

    def ask(self, line: bytes, index: int, timeout: float) -> tuple[Mapping[str, object], float]:
        """Send one line, and return the object that answers it, with the CPU time that it took [s].

        An answer is a JSON object that names the sample's index, on one line. Other lines are the program's own talk.

        Raises:
            Ended: the program ended, or took too long and was stopped.
            Unusable: it answered for another sample, or wrote a line that does not end; it was stopped.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            while True:
                fresh = self._process is None or self._process.wait(0.0) is not None
                try:
                    return self._ask(line, index, deadline, timeout)
                except Ended as ended:
                    # One that was about to end when it was asked has not looked at the request.
                    if fresh or ended.returncode != 0:
                        raise

    def close(self) -> None:
        """Let the process go, and remove the folder."""
        if self._process is not None:
            self._process.let_go()
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _started(self) -> Guarded:
        if self._process is not None and self._process.wait(0.0) is None:
            return self._process
        if self._process is not None:
            self._process.let_go()
        (self.folder / "stderr.txt").unlink(missing_ok=True)
        with (self.folder / "stderr.txt").open("ab") as stderr:
            self._process = Guarded(
                self._command,
                folder=self.folder,
                environment=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        os.set_blocking(self._process.stdin, False)
        self._unread, self._cpu_seconds = b"", 0.0
        return self._process

    def _ask(self, line: bytes, index: int, deadline: float, timeout: float) -> tuple[Mapping[str, object], float]:
        process = self._started()
        self._forget_old_words()
        pending = memoryview(line)
        poll = select.poll()
        poll.register(process.stdin, select.POLLOUT)
        poll.register(process.stdout, select.POLLIN)
        speaks = True
        while speaks:
            left = deadline - time.monotonic()
            events = dict(poll.poll(max(0.0, left) * 1000.0)) if left > 0.0 else {}
            if not events:
                process.stop()
                raise Ended(f"{self._program} gave no answer within {timeout:g} s and was stopped{self._last_words()}")
            if process.stdin in events:
                try:
                    pending = pending[os.write(process.stdin, pending) :]
                except BlockingIOError:
                    pass
                except BrokenPipeError:
                    pending = pending[:0]  # it reads no more; what it says or how it ends tells the rest
                if not pending:
                    poll.unregister(process.stdin)
            if process.stdout in events:
                chunk = os.read(process.stdout, 65536)
                speaks = bool(chunk)
                self._unread += chunk
                # What came earlier holds no end of a line.
                while b"\n" in chunk and (end := self._unread.find(b"\n")) >= 0:
                    said, self._unread = self._unread[:end], self._unread[end + 1 :]
                    if (found := self._answer(said)) is None:
                        continue
                    if found["index"] != index:
                        process.stop()
                        raise Unusable(f"{self._program} answered for sample {found['index']}, was asked for {index}")
                    return found, self._spent(process)
                if len(self._unread) > _MAX_PENDING:
                    process.stop()
                    raise Unusable(f"{self._program} wrote {len(self._unread)} bytes without the end of a line")
        self._answer(self._unread)
        ended = process.wait(max(0.0, deadline - time.monotonic()))
        if ended is None:
            process.stop()
            raise Ended(
                f"{self._program} closed its output, did not end within {timeout:g} s and was stopped"
                f"{self._last_words()}"
            )
        raise Ended(f"{ended.told(self._program)} and gave no answer{self._last_words()}", returncode=ended.returncode)

    def _answer(self, said: bytes) -> Mapping[str, object] | None:
        """The answer in a line, if it is one; else the line goes to what the program said."""
        if said.lstrip().startswith(b"{") and len(said) <= MAX_ANSWER_NBYTES:
            try:
                values = json.loads(said.decode("utf-8", errors="replace"))
            except (ValueError, RecursionError):
                values = None
            if isinstance(values, dict) and "index" in values:
                return values
        if said.strip():
            log.debug("%s says: %s", self._program, said[:500])
            with contextlib.suppress(FileNotFoundError), (self.folder / "stdout.txt").open("ab") as file:
                file.write(said + b"\n")
        return None

    def _spent(self, process: Guarded) -> float:
        before, self._cpu_seconds = self._cpu_seconds, process.cpu_seconds()
        return max(0.0, self._cpu_seconds - before)

    def _forget_old_words(self) -> None:
        """What it said about samples that are done is of no use, and must not fill the disk."""
        (self.folder / "stdout.txt").unlink(missing_ok=True)
        path = self.folder / "stderr.txt"
        self._words_from = 0
        with contextlib.suppress(FileNotFoundError):  # a program may tidy up too much
            if path.stat().st_size > _MAX_TALK_NBYTES:
                os.truncate(path, 0)
            self._words_from = path.stat().st_size

    def _last_words(self) -> str:
        return last_words(self.folder, self._words_from)
