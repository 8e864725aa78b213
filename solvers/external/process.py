"""The processes of an external program: started under guard, waited for, stopped, and started anew when they die.

    source (this process) --- starts ---> guard.py --- starts ---> the program (launcher, ranks, ...)
         |                                   |
         +---- lifeline: closed = stop ----->|
         |<--- status: return code, CPU s ---+

The source waits for the program's end or its answer, at most `timeout_seconds`; the guard waits for the program's end
or that of the lifeline, which the kernel closes when the source dies, however it dies.
"""

import contextlib
import json
import logging
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from headrace.solvers.external.files import MAX_ANSWER_NBYTES, Unusable

log = logging.getLogger(__name__)

_GUARD = Path(__file__).with_name("guard.py")
_GUARD_SECONDS = 20.0  # more than a guard takes to stop a program
_LISTED_SECONDS = 1.0  # looking for descendants takes milliseconds: not for every request
_TAIL_LINES, _TAIL_CHARACTERS = 5, 600
_MAX_TALK_NBYTES = 4 * 1024 * 1024  # of what a kept process says, before the older part is dropped
_MAX_PENDING = 4 * MAX_ANSWER_NBYTES  # bytes without the end of a line


class Ended(Exception):
    """A program ended, or was stopped, without what was asked of it; says how."""

    def __init__(self, reason: str, *, returncode: int | None = None, cpu_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.returncode, self.cpu_seconds = returncode, cpu_seconds


@dataclass(frozen=True, kw_only=True)
class End:
    """How a process ended: its exit code (negative: the signal; None: its guard was killed) and CPU time [s]."""

    returncode: int | None
    cpu_seconds: float

    def told(self, program: str) -> str:
        """In words."""
        if self.returncode is None:
            return f"{program} was lost: its guard was killed"
        if self.returncode < 0:
            number = -self.returncode
            known = {one.value: one.name for one in signal.Signals}
            return f"{program} was killed by {known.get(number, f'signal {number}')}"
        return f"{program} ended with exit code {self.returncode}"


class Guarded:
    """A program under guard; see `guard.py`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        stdin: int,
        stdout: int | IO[bytes],
        stderr: IO[bytes],
    ) -> None:
        """Start it in a folder, which is removed should this process die.

        Raises:
            OSError: no process can be started.
        """
        lifeline, self._lifeline = os.pipe()
        self._status, status = os.pipe()
        try:
            # Isolated and without site: a guard starts in hundredths of a second, whatever the environment says.
            guard = [sys.executable, "-I", "-S", str(_GUARD), str(lifeline), str(status), str(folder)]
            self._process = subprocess.Popen(
                [*guard, *command],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=folder,
                env=dict(environment),
                pass_fds=(lifeline, status),
                start_new_session=True,
            )
        except BaseException:
            os.close(self._lifeline)
            os.close(self._status)
            raise
        finally:
            os.close(lifeline)
            os.close(status)
        self._words = b""
        self._end: End | None = None
        self._descendants: list[psutil.Process] = []
        self._listed_at = -math.inf

    @property
    def status(self) -> int:
        """A descriptor that becomes readable when the program has ended."""
        return self._status

    @property
    def stdin(self) -> int:
        """The writing end of its standard input, if that is a pipe."""
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    @property
    def stdout(self) -> int:
        """The reading end of its standard output, if that is a pipe."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def wait(self, seconds: float) -> End | None:
        """Wait until the program, and all that it started, has ended; None when it has not by then."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._status, select.POLLIN)
        while self._end is None:
            left = max(0.0, deadline - time.monotonic())
            if not poll.poll(left * 1000.0):
                return None
            chunk = os.read(self._status, 4096)
            self._words += chunk
            if not chunk:
                self._finish()
        return self._end

    def stop(self) -> End:
        """Stop the program and all that it started: SIGTERM, SIGKILL some seconds later; its folder stays."""
        with contextlib.suppress(OSError):
            os.write(self._lifeline, b"k")
        end = self.wait(_GUARD_SECONDS)
        if end is None:
            self._kill_group()
            end = self.wait(1.0) or End(returncode=None, cpu_seconds=0.0)
        return end

    def let_go(self) -> None:
        """Leave it to the guard to end the program and to remove the folder; waits for nothing."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._end is None:
            os.close(self._lifeline)
            os.close(self._status)
            self._end = End(returncode=None, cpu_seconds=0.0)

    def cpu_seconds(self) -> float:
        """CPU time of the program and its descendants on this machine so far [s]."""
        if time.monotonic() - self._listed_at > _LISTED_SECONDS:
            self._listed_at = time.monotonic()
            with contextlib.suppress(psutil.Error):
                self._descendants = psutil.Process(self._process.pid).children(recursive=True)
        total = 0.0
        for process in self._descendants:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def _finish(self) -> None:
        words = self._words.split()
        if len(words) == 2:
            code = None if words[0] == b"none" else int(words[0])
            self._end = End(returncode=code, cpu_seconds=float(words[1]))
        else:
            # The guard itself was killed; the program, if it is still there, is in its process group.
            self._kill_group()
            self._end = End(returncode=None, cpu_seconds=0.0)
        os.close(self._lifeline)
        os.close(self._status)
        self._process.wait()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


def run_once(
    command: Sequence[str], *, program: str, folder: Path, environment: Mapping[str, str], timeout: float
) -> float:
    """Run a program to its end in a folder, where it finds no input and leaves its words; its CPU time [s].

    Raises:
        Ended: it took too long, or ended with an exit code other than 0.
    """
    with (folder / "stdout.txt").open("wb") as stdout, (folder / "stderr.txt").open("wb") as stderr:
        guarded = Guarded(
            command, folder=folder, environment=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
        )
    end = guarded.wait(timeout)
    if end is None:
        cpu = guarded.stop().cpu_seconds
        raise Ended(f"{program} took longer than {timeout:g} s and was stopped{last_words(folder)}", cpu_seconds=cpu)
    if end.returncode != 0:
        reason = f"{end.told(program)}{last_words(folder)}"
        raise Ended(reason, returncode=end.returncode, cpu_seconds=end.cpu_seconds)
    return end.cpu_seconds


def last_words(folder: Path, since: int = 0) -> str:
    """The last lines of what a program said, as the ending of a reason; empty when it was silent.

    Args:
        folder: where stderr.txt and stdout.txt lie; the first that has words counts.
        since: where in stderr.txt to begin [B].
    """
    for name in ("stderr.txt", "stdout.txt"):
        try:
            with (folder / name).open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(since if name == "stderr.txt" else 0, file.tell() - 16 * 1024))
                text = file.read().decode("utf-8", errors="replace")
        except OSError:
            continue
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if lines:
            return f"; it said: {' | '.join(lines[-_TAIL_LINES:])[-_TAIL_CHARACTERS:]}"
    return ""


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
