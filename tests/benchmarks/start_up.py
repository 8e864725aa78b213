"""How many processor-seconds and how much memory does a run take until its first step, and a command that only looks?

Every process below a command counts, those that have ended and those of Ray's that leave its tree included; memory is
proportional: see `_process_tree.py`.

The floor is what no start can save: the same Ray cluster with one actor that does nothing, and torch and Lightning
imported in one process.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from _machine import ran_on
from _process_tree import Usage, watched

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
