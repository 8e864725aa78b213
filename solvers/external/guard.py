"""Runs one program and sees to it that nothing of it is left: not after its end, nor when whoever started it dies.

Run as a script by `process.py`, never imported, with the standard library's built-in modules alone: it starts once for
every process of an external solver.

    guard.py LIFELINE STATUS FOLDER COMMAND ...

LIFELINE is the reading end of a pipe whose writing end the parent holds and never writes to. Its end of file means that
the parent died or let go: the program gets a moment to end by itself (a program that reads requests has met the end of
its input), then SIGTERM, then SIGKILL, and FOLDER is removed. A byte on it means the same at once, but FOLDER stays.
STATUS is the writing end of another: it gets `RETURNCODE CPU_SECONDS`, and is closed when all is over.

On Linux the guard is a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER): what a descendant leaves behind becomes its child,
also in another process group or session, as the ranks of an MPI launcher are. Elsewhere it has only its process group.
"""

import os
import select
import signal
import sys
import time

PATIENCE_SECONDS = 1.0  # to end by itself when the parent is gone
GRACE_SECONDS = 3.0  # from SIGTERM to SIGKILL
KILL_SECONDS = 10.0  # for the kernel to carry out SIGKILL; a process that waits for a dead disk takes longer
PR_SET_CHILD_SUBREAPER = 36
CANNOT_RUN = 127  # as a shell says it

LINUX = sys.platform.startswith("linux")


def become_subreaper() -> None:
    """Inherit the orphans of all descendants."""
    if LINUX:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[int]:
    """The processes below this one."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The name of a program may hold spaces and brackets; it ends at the last bracket.
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue  # it has just ended
            children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    todo = [os.getpid()]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def signal_all(number: int) -> None:
    """Send a signal to everything below; where descendants cannot be listed, to the process group, the guard in it."""
    if not LINUX:
        os.killpg(0, number)
        return
    for pid in descendants():
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


class Guard:
    """One program under guard."""

    def __init__(self, lifeline: int, status: int, folder: str, command: list[str]) -> None:
        self.lifeline, self.status, self.folder = lifeline, status, folder
        for descriptor in (lifeline, status):
            os.set_inheritable(descriptor, False)
        become_subreaper()
        self.wake, wake = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self.returncode: int | None = None
        self.child = os.fork()
        if self.child == 0:
            become(command)
        # The program alone holds its pipes: their end is its end.
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)

    def run(self) -> None:
        """Wait for the program's end or the parent's, and leave nothing behind."""
        while self.returncode is None and not self._parent_speaks(None):
            self._reap()
        ended = self.returncode is not None
        parent_left = not ended and not os.read(self.lifeline, 1)
        if parent_left:
            self._wait_for_all(PATIENCE_SECONDS)
        if not ended and not self._wait_for_all(0.0):
            signal_all(signal.SIGTERM)
            self._wait_for_all(GRACE_SECONDS)
        self._tell()
        deadline = time.monotonic() + KILL_SECONDS
        while not self._wait_for_all(0.0) and time.monotonic() < deadline:
            signal_all(signal.SIGKILL)
            self._wait_for_all(0.05)
        if parent_left or (ended and self._parent_speaks(0.0) and not os.read(self.lifeline, 1)):
            import shutil

            shutil.rmtree(self.folder, ignore_errors=True)

    def _parent_speaks(self, timeout: float | None) -> bool:
        """Wait for the parent, or for a signal."""
        ready, _, _ = select.select([self.lifeline, self.wake], [], [], timeout)
        if self.wake in ready:
            os.read(self.wake, 4096)
        return self.lifeline in ready

    def _reap(self) -> bool:
        """Collect the dead; whether nobody is left."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return False
                if pid == self.child:
                    self.returncode = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            return True

    def _wait_for_all(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self._reap():
            left = deadline - time.monotonic()
            if left <= 0.0:
                return False
            if select.select([self.wake], [], [], left)[0]:
                os.read(self.wake, 4096)
        return True

    def _tell(self) -> None:
        times = os.times()
        words = (
            f"{'none' if self.returncode is None else self.returncode} {times.children_user + times.children_system}\n"
        )
        try:
            os.write(self.status, words.encode())
        except BrokenPipeError:
            return  # nobody is there to read it


def become(command: list[str]) -> None:
    """Turn this process into the program."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except (OSError, ValueError) as error:
        os.write(2, f"headrace: cannot run {command[0]}: {error}\n".encode())
    finally:
        os._exit(CANNOT_RUN)


if __name__ == "__main__":
    Guard(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]).run()
