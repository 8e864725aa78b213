"""The processes of external programs: started under guard, waited for, stopped. `pipe.py` has those that are kept.

    source (this process) --- starts ---> guard.py --- starts ---> the program (launcher, ranks, ...)
         |                                   |
         +---- lifeline: closed = stop ----->|
         |<--- status: return code, CPU s ---+

The source waits for the program's end or its answer, at most `timeout_seconds`; the guard waits for the program's end
or that of the lifeline, which the kernel closes when the source dies, however it dies.
"""

import contextlib
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

_GUARD = Path(__file__).with_name("guard.py")
_GUARD_SECONDS = 20.0  # more than a guard takes to stop a program
_LISTED_SECONDS = 1.0  # looking for descendants takes milliseconds: not for every request
_TAIL_LINES, _TAIL_CHARACTERS = 5, 600


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
