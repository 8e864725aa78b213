"""How many processor-seconds and how much memory does a run take until its first step, and a command that only looks?

Every process below a command counts, those that have ended and those of Ray's that leave its tree included: this
process is made the one that orphans fall to (`PR_SET_CHILD_SUBREAPER`), and reads the processor time of all of its
descendants every 50 ms; what a process used after it was last read is lost, and so is one that lived for less. Memory
is proportional (PSS: a page that n processes share counts a share of n), summed over all of them, read at the first
step and a few times before; the largest counts.

The floor is what no start can save: the same Ray cluster with one actor that does nothing, and torch and Lightning
imported in one process.
"""

import argparse
import ctypes
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from _machine import ran_on

PR_SET_CHILD_SUBREAPER = 36
TICKS = os.sysconf("SC_CLK_TCK")
SECONDS_BETWEEN_LOOKS = 0.05
SECONDS_BETWEEN_MEMORY = 2.0

RAY = """
import ray
from headrace.platform.cluster.cluster import start_embedded

class Idle:
    def answer(self):
        return 1

start_embedded()
actor = ray.remote(Idle).options(num_cpus=0).remote()
ray.get(actor.answer.remote())
ray.shutdown()
"""
COMMANDS = {"check": ["check", "smoke"], "list": ["list"], "schema": ["schema"]}


@dataclass
class Usage:
    """What was seen of a command.

    Attributes:
        seconds: wall time from its start to its end, or to the moment that was waited for.
        first_line: wall time to the first line on its output [s].
        cpu: processor time of each kind of process [s].
        pss: proportional memory of each kind of process when the sum was largest [B].
        status: its exit status; None when it was ended.
    """

    seconds: float = 0.0
    first_line: float | None = None
    cpu: dict[str, float] = field(default_factory=dict)
    pss: dict[str, int] = field(default_factory=dict)
    status: int | None = None

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
    command: Sequence[str], environment: dict[str, str], until: Callable[[], float | None] = lambda: None
) -> Usage:
    """Run a command to its end, or until a moment that has come, and see what it used.

    Args:
        command: the program and its arguments.
        environment: its environment.
        until: the Unix time of a moment to stop at, once it is known.
    """
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
        if process.stdout.read() and usage.first_line is None:
            usage.first_line = time.time() - began
        watch.look()
        history.append((time.time(), watch.cpu()))
        if status is not None:
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


def first_step(folder: Path) -> Callable[[], float | None]:
    """Finds the Unix time of the first report of a step in a run's folder."""

    def look() -> float | None:
        try:
            lines = (folder / "metrics.jsonl").read_text().splitlines()
            rows = [json.loads(line) for line in lines if '"train/loss"' in line]
            if not rows:
                return None
            # The log counts from the start of the run, which its summary has to the second only: the file is as old.
            return min(os.stat(folder / "metrics.jsonl").st_mtime, time.time())
        except (OSError, ValueError):
            return None

    return look


def show(name: str, usages: Sequence[Usage]) -> dict[str, object]:
    """Print what several goes at the same came to, the one in the middle by process; return it for the last line."""
    middle = sorted(usages, key=lambda usage: usage.total_cpu)[len(usages) // 2]
    cpu = [usage.total_cpu for usage in usages]
    line = "" if middle.first_line is None else f", first line after {middle.first_line:.2f} s"
    print(
        f"{name:<22} {statistics.median(cpu):6.2f} processor-s ({min(cpu):.2f} to {max(cpu):.2f}), "
        f"{middle.seconds:.1f} s of wall time, {middle.total_pss / 1e9:.2f} GB{line}"
    )
    if len(middle.cpu) > 1:
        for process, seconds in sorted(middle.cpu.items(), key=lambda item: -item[1]):
            print(f"    {process:<24} {seconds:6.2f} processor-s {middle.pss.get(process, 0) / 1e9:6.2f} GB")
    return {
        "cpu_seconds": round(statistics.median(cpu), 2),
        "wall_seconds": round(middle.seconds, 2),
        "pss_bytes": middle.total_pss,
        "first_line_seconds": middle.first_line,
        "by_process": {process: round(seconds, 2) for process, seconds in middle.cpu.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--tree", type=Path, help="A folder that holds another headrace, to measure in place of this one."
    )
    parser.add_argument("--only", nargs="*", default=["check", "list", "schema", "floor", "run", "train"])
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if options.tree is not None:
        environment["PYTHONPATH"] = str(options.tree.resolve())
    program = [sys.executable, "-m", "headrace.pipelines.cli"]
    here = ran_on("ray", "torch", "pytorch-lightning")
    print(__doc__.splitlines()[0])
    print(f"{here}; {options.repeats} times each after one to warm up; median, smallest, largest")

    found: dict[str, object] = {}
    for name in (name for name in COMMANDS if name in options.only):
        usages = [watched([*program, *COMMANDS[name]], environment) for _ in range(1 + options.repeats)]
        found[name] = show(f"headrace {name}", usages[1:])
    if "floor" in options.only:
        libraries = [sys.executable, "-c", "import pytorch_lightning"]
        cluster = [watched([sys.executable, "-c", RAY], environment) for _ in range(1 + options.repeats)][1:]
        imports = [watched(libraries, environment) for _ in range(1 + options.repeats)][1:]
        found["floor_ray"] = show("floor: Ray, one actor", cluster)
        found["floor_torch"] = show("floor: torch, Lightning", imports)
    with TemporaryDirectory(prefix="start-up-") as temporary:
        os.chdir(temporary)
        if "run" in options.only:
            usages = []
            for number in range(1 + options.repeats):
                folder = Path(temporary) / f"run-{number}"
                command = [*program, "run", "smoke", "training.log_every=1", "--out", str(folder)]
                usages.append(watched(command, environment, first_step(folder)))
            found["run"] = show("run smoke: first step", usages[1:])
        if "train" in options.only:
            data = Path(temporary) / "data"
            watched([*program, "generate", "smoke", "--out", str(data)], environment)
            usages = []
            for number in range(1 + options.repeats):
                folder = Path(temporary) / f"train-{number}"
                command = [
                    *program,
                    "train",
                    "smoke",
                    "training.log_every=1",
                    "--data",
                    str(data),
                    "--out",
                    str(folder),
                ]
                usages.append(watched(command, environment, first_step(folder)))
            found["train"] = show("train: first step", usages[1:])
    print(json.dumps({"benchmark": "start_up", **here, "repeats": options.repeats, **found}))


if __name__ == "__main__":
    main()
