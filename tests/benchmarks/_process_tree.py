"""Processor time and memory of a command with everything that it starts, whoever ends up as whose parent.

This process is made the one that orphans fall to (`PR_SET_CHILD_SUBREAPER`), and reads the processor time of all of its
descendants every 50 ms; what a process used after it was last read is lost, and so is one that lived for less. Memory
is proportional (PSS: a page that n processes share counts a share of n), summed over all of them, read every two
seconds and at the end; the largest counts.
"""

import ctypes
import os
import re
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
TICKS = os.sysconf("SC_CLK_TCK")
SECONDS_BETWEEN_LOOKS = 0.05
SECONDS_BETWEEN_MEMORY = 2.0


@dataclass
class Usage:
    """What was seen of a command.

    Attributes:
        seconds: wall time from its start to its end, or to the moment that was waited for.
        first_line: wall time to the first line on its output [s].
        cpu: processor time of each kind of process [s].
        pss: proportional memory of each kind of process when the sum was largest [B].
        status: its exit status; None when it was ended.
        output: what it printed.
    """

    seconds: float = 0.0
    first_line: float | None = None
    cpu: dict[str, float] = field(default_factory=dict)
    pss: dict[str, int] = field(default_factory=dict)
    status: int | None = None
    output: str = ""

    @property
    def total_cpu(self) -> float:
        """Of all processes [s]."""
        return sum(self.cpu.values())

    @property
    def total_pss(self) -> int:
        """Of all processes [B]."""
        return sum(self.pss.values())


class Watch:
    """Reads the processor time and memory of all processes below this one."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._cpu: dict[tuple[int, int], float] = {}
        self._names: dict[tuple[int, int], str] = {}
        self._pss: dict[str, int] = {}
        self._alive: list[tuple[int, int]] = []

    def look(self) -> None:
        """Take note of the processor time of every process that lives."""
        children: dict[int, list[tuple[int, int, float]]] = defaultdict(list)
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                text = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            fields = text[text.rindex(")") + 2 :].split()
            cpu = (int(fields[11]) + int(fields[12])) / TICKS
            children[int(fields[1])].append((int(entry), int(fields[19]), cpu))
        self._alive, waiting = [], [os.getpid()]
        while waiting:
            for pid, started, cpu in children.get(waiting.pop(), ()):
                waiting.append(pid)
                self._alive.append((pid, started))
                self._cpu[pid, started] = max(cpu, self._cpu.get((pid, started), 0.0))
                self._names[pid, started] = self._name(pid) or self._names.get((pid, started), "gone")

    def look_at_memory(self) -> None:
        """Take note of the proportional memory of every process that lives, if it is more than ever before."""
        found: dict[str, int] = defaultdict(int)
        for pid, started in self._alive:
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
            found[self._names[pid, started]] += 1024 * int(match[1]) if match else 0
        if sum(found.values()) > sum(self._pss.values()):
            self._pss = dict(found)

    def cpu(self) -> dict[str, float]:
        """Processor time by kind of process so far [s]."""
        by_name: dict[str, float] = defaultdict(float)
        for key, seconds in self._cpu.items():
            by_name[self._names[key]] += seconds
        return dict(by_name)

    def pss(self) -> dict[str, int]:
        """The largest memory so far."""
        return dict(self._pss)

    def _name(self, pid: int) -> str | None:
        """What a process is, by the title that Ray gives its workers, or by its program."""
        if pid == self._root:
            return "driver"
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            return None
        title = words[0].split(" ")[0]
        if title.startswith("ray::"):
            return title.removeprefix("ray::").split(".")[0].split("(")[0]
        programs = (
            "gcs_server",
            "raylet",
            "agent",
            "log_monitor",
            "monitor",
            "dashboard",
            "setup_worker",
            "default_worker",
        )
        text = " ".join(words)
        return next((f"ray's {name}" for name in programs if name in text), Path(title).name or None)


def watched(
    command: Sequence[str], environment: Mapping[str, str], until: Callable[[], float | None] = lambda: None
) -> Usage:
    """Run a command to its end, or until a moment that has come, and see what it used.

    Args:
        command: the program and its arguments.
        environment: its environment.
        until: the Unix time of a moment to stop at, once it is known.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    began = time.time()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    watch, usage = Watch(process.pid), Usage()
    history: list[tuple[float, dict[str, float]]] = []
    memory_at, moment = 0.0, None
    while moment is None:
        # The process itself stays a zombie, whose processor time can be read, until it is waited for below.
        status = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        # All of it, always: a full pipe would hold the command up.
        said = process.stdout.read()
        if said and usage.first_line is None:
            usage.first_line = time.time() - began
        usage.output += (said or b"").decode(errors="replace")
        watch.look()
        history.append((time.time(), watch.cpu()))
        if status is not None:
            usage.output += (process.stdout.read() or b"").decode(errors="replace")
            usage.status, moment = status.si_status, time.time()
            break
        moment = until()
        if time.time() - memory_at > SECONDS_BETWEEN_MEMORY or moment is not None:
            watch.look_at_memory()
            memory_at = time.time()
        time.sleep(SECONDS_BETWEEN_LOOKS)
    usage.seconds = moment - began
    usage.cpu = next((cpu for at, cpu in history if at >= moment), history[-1][1])
    usage.pss = watch.pss()
    _end(process)
    return usage


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End what is left of a command, and wait for all that fell to this process."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.1)
        except ChildProcessError:
            return
