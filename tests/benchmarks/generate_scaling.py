"""Do two solver actors of `headrace generate` scale as well as two plain processes on this machine?

Two processes rarely run twice as fast as one: they share caches, memory and the clock's budget. So the peer is the same
source in plain processes, `SolverSource.build().solve(...)` and nothing else, no Ray, no store. Samples per second are
taken in the steady state: for plain processes between the first and the last sample while all of them are at work, for
`headrace generate` from the stored counts in its `metrics.jsonl`, from the first record with samples to the last.

    efficiency = (generate with 2 actors / generate with 1) / (2 plain processes / 1 plain process)

With one actor, the coordinator, the driver, Ray and the actor's own storing thread have the second core of a small
machine to themselves; with two they have none. So the same is also taken with everything of the first run on one core:
as many cores as actors, which is what a cluster node full of actors looks like.

    efficiency by cores = (generate with 2 actors on 2 cores / generate with 1 on 1) / (the same of plain processes)

Also printed: how much of the plain processes' throughput generate reaches; it sends, stores and syncs on top.

    python tests/benchmarks/generate_scaling.py [--resolution 129] [--method auto] [--samples 3000]

`--samples` is a process's share. The last line is one JSON object. Needs a free machine: look at the load.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _machine import ran_on

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

PLAIN = """
import sys, time
from headrace.solvers import SolverSource
from headrace.solvers.problems import Darcy
number, count, resolution, method = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
spec = SolverSource.model_validate({"problem": {"kind": "darcy", "resolution": resolution}, "method": {"kind": method}})
source = spec.build()
next(source.solve(spec.requests([0])))
print("ready", flush=True)
sys.stdin.readline()
started = time.perf_counter()
for _ in source.solve(spec.requests(range(number * count, (number + 1) * count))):
    pass
print(time.perf_counter() - started, flush=True)
"""


def on_one_core() -> None:
    """Keep a process and all that it starts on the first core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def plain(processes: int, count: int, resolution: int, method: str, *, pinned: bool = False) -> float:
    """Samples per second of plain processes that start together; the slowest one ends the count."""
    environment = {**os.environ, **dict.fromkeys(VARIABLES, "1")}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PLAIN, str(number), str(count), str(resolution), method],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            preexec_fn=on_one_core if pinned else None,
        )
        for number in range(processes)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    seconds = [float(worker.communicate()[0]) for worker in workers]
    return processes * count / max(seconds)


def generate(actors: int, count: int, resolution: int, method: str, *, pinned: bool = False) -> float:
    """Samples per second that `headrace generate` stores."""
    with tempfile.TemporaryDirectory() as folder:
        recipe, out = Path(folder) / "recipe.yaml", Path(folder) / "out"
        recipe.write_text(
            f"name: scaling\n"
            f"data:\n  problem: {{kind: darcy, resolution: {resolution}}}\n"
            f"  samples: {actors * count}\n  validation: 1\n  test: 1\n"
            f"solver: {{method: {{kind: {method}}}}}\n"
            f"resources: {{solvers: {{actors: {actors}}}}}\n"
        )
        program = str(Path(sys.executable).with_name("headrace"))
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        done = subprocess.run(
            [program, "generate", str(recipe), "--out", str(out), "--json"],
            check=False, capture_output=True, text=True, env=environment, cwd=folder,
            preexec_fn=on_one_core if pinned else None,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        samples = json.loads(done.stdout.splitlines()[-1])["samples"]
        assert samples["stored"] == samples["planned"], samples
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    records = [(line["seconds"], line["stream/stored"]) for line in lines if line.get("stream/stored")]
    # The last record is taken after the end; the one before it may be, too.
    full = [record for record in records if record[1] < samples["stored"]]
    assert len(full) >= 2, f"too short for a steady state: {records}; raise --samples"
    return (full[-1][1] - full[0][1]) / (full[-1][0] - full[0][0])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--resolution", type=int, default=129)
    parser.add_argument("--method", default="auto")
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    about = ran_on("numpy", "numba", "ray")
    print("Question: do two solver actors scale as well as two plain processes? Stored samples per second, wall time.")
    print("Machine: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"Warm-up: compilation before the clock. Repeats: {arguments.repeats}, turn by turn; the best counts.")
    case = (arguments.samples, arguments.resolution, arguments.method)
    ways = {"1": (1, False), "2": (2, False), "1 on 1 core": (1, True)}
    rates: dict[str, list[float]] = {f"{what} {way}": [] for what in ("plain", "generate") for way in ways}
    for _ in range(arguments.repeats):
        for way, (workers, pinned) in ways.items():
            rates[f"plain {way}"].append(plain(workers, *case, pinned=pinned))
            time.sleep(1.0)
            rates[f"generate {way}"].append(generate(workers, *case, pinned=pinned))
    best = {name: max(found) for name, found in rates.items()}
    for name, found in rates.items():
        print(f"  {name:20s} {best[name]:9.1f} samples / s  (all: {', '.join(f'{rate:.1f}' for rate in found)})")
    result = {
        "plain_scaling": round(best["plain 2"] / best["plain 1"], 3),
        "generate_scaling": round(best["generate 2"] / best["generate 1"], 3),
        "efficiency": round((best["generate 2"] / best["generate 1"]) / (best["plain 2"] / best["plain 1"]), 3),
        "efficiency_by_cores": round(
            (best["generate 2"] / best["generate 1 on 1 core"]) / (best["plain 2"] / best["plain 1 on 1 core"]), 3
        ),
        "share_of_plain_with_1": round(best["generate 1"] / best["plain 1"], 3),
        "share_of_plain_with_2": round(best["generate 2"] / best["plain 2"], 3),
    }
    for name, value in result.items():
        print(f"  {name:24s} {value}")
    print(json.dumps({"benchmark": "generate_scaling", "machine": about, "case": case, "rates": rates, **result}))


if __name__ == "__main__":
    main()
