"""Processor time and memory of a command with everything that it starts, whoever ends up as whose parent.

Ray's daemons outlive whoever started them, workers are reaped by nobody who says so: no `wait` sees all of them. So all
processes that inherited a mark in their environment are looked at again and again, until the last one is gone.
"""

import os
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_MARK = "HEADRACE_BENCHMARK"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Process:
    """One process as it was seen last: its command line, processor time [s], largest proportional memory [B]."""

    command: str
    cpu_seconds: float = 0.0
    peak_pss: int = 0


@dataclass
class Spent:
    """What a command came to.

    Attributes:
        wall_seconds: from its start to its end [s].
        cpu_seconds: of all processes together [s]; up to one interval of each process's last moments is missing.
        peak_pss: the largest sum of proportional set sizes at one moment [B]; 0 if it was not asked for.
        processes: by process id.
        output: what it printed.
        returncode: its exit status.
    """

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_pss: int = 0
    processes: dict[int, Process] = field(default_factory=dict)
    output: str = ""
    returncode: int = 0

    def by_command(self) -> dict[str, float]:
        """Processor time by what the processes call themselves, the most first [s]."""
        found: dict[str, float] = {}
        for one in self.processes.values():
            found[one.command] = found.get(one.command, 0.0) + one.cpu_seconds
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def spend(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    memory: bool = False,
    interval: float = 0.1,
) -> Spent:
    """Run a command to the end of its last process and count."""
    mark = uuid.uuid4().hex
    spent, known = Spent(), dict[int, bool]()
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={**os.environ, **(environment or {}), _MARK: mark},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
    reader.start()
    last_memory = 0.0
    while True:
        now = time.perf_counter()
        with_memory = memory and now - last_memory > 0.5
        if with_memory:
            last_memory = now
        alive = _look(spent, known, mark, with_memory=with_memory)
        if process.poll() is not None:
            spent.wall_seconds = spent.wall_seconds or time.perf_counter() - started
            if not alive or time.perf_counter() - started > spent.wall_seconds + 30.0:
                break
        time.sleep(interval)
    reader.join(timeout=1.0)
    spent.output, spent.returncode = "".join(lines), process.returncode
    spent.cpu_seconds = sum(one.cpu_seconds for one in spent.processes.values())
    return spent


def _look(spent: Spent, known: dict[int, bool], mark: str, *, with_memory: bool) -> int:
    """Note what the marked processes have spent; how many there are."""
    alive, pss = 0, 0
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        pid, folder = int(entry), f"/proc/{entry}"
        try:
            if not known.get(pid):
                # Asked again while it has not: between fork and exec the environment is the parent's, or empty.
                with open(f"{folder}/environ", "rb") as file:
                    known[pid] = f"{_MARK}={mark}".encode() in file.read()
                if not known[pid]:
                    continue
            with open(f"{folder}/stat") as file:
                values = file.read().rpartition(")")[2].split()
            if values[0] == "Z":
                continue
            alive += 1
            with open(f"{folder}/cmdline", "rb") as file:
                words = file.read().replace(b"\0", b" ").decode(errors="replace").split()
            one = spent.processes.setdefault(pid, Process(command=""))
            one.command = _called(words) or one.command
            one.cpu_seconds = (int(values[11]) + int(values[12])) / _TICKS
            if with_memory:
                with open(f"{folder}/smaps_rollup") as file:
                    for line in file:
                        if line.startswith("Pss:"):
                            size = 1024 * int(line.split()[1])
                            pss, one.peak_pss = pss + size, max(one.peak_pss, size)
                            break
        except (OSError, ValueError, IndexError):
            continue  # it has ended
    spent.peak_pss = max(spent.peak_pss, pss)
    return alive


def _called(words: Sequence[str]) -> str:
    """A process by the name that tells it from others: Ray's workers name themselves, programs have a script."""
    if not words:
        return ""
    if words[0].startswith("ray::"):
        return words[0]
    names = [Path(word).name for word in words[:6] if not word.startswith("-")]
    return " ".join(names[:2])
