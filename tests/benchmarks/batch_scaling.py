"""How many samples of an equation in time should be followed together?

For some equations and batches: samples a second of trajectories that are a tenth of a usual one or less, what memory
rises by while they are followed, and how near the batch that `batch_size` chooses comes to the fastest. Batches of a
repeat come one after the other, up and down in turn; the first of each is the warm-up. Draws are not in the time, which
is the processor's for one thread and the clock's for more.

    python tests/benchmarks/batch_scaling.py [--threads 1 2] [--equations burgers_64] [--repeats 3] [--most 256]

The last line is one JSON object.
"""

import argparse
import ctypes
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from _machine import ran_on

from headrace.platform.seeding import generator
from headrace.solvers import AbstractEvolution, Burgers, NavierStokes, ShallowWater
from headrace.solvers.evolution.evolution import Draw

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STEPS = 50
EQUATIONS: dict[str, AbstractEvolution] = {
    "burgers_64": Burgers(resolution=64),
    "navier_stokes_64x64": NavierStokes(resolution=64),
    "navier_stokes_128x128": NavierStokes(resolution=128),
    "shallow_water_64x64": ShallowWater(resolution=64),
}


def shortened(problem: AbstractEvolution) -> AbstractEvolution:
    """So many steps of an equation; of one whose waves set its steps about as many."""
    horizon = problem.horizon / 8.0 if isinstance(problem, ShallowWater) else STEPS * problem.default_step
    return problem.overridden({"horizon": horizon, "snapshots": 2})


def follow(problem: AbstractEvolution, draws: list[Draw]) -> tuple[float, int]:
    """Seconds for a batch, and the steps that its samples took at most."""
    # Of one thread the processor's time, which what else the machine does disturbs less.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    began, most = clock(), 0
    for snapshot in problem.follow(draws, problem.default_step):
        most = int(snapshot.num_steps.max())
    return clock() - began, most


def memory(problem: AbstractEvolution, draws: list[Draw]) -> float:
    """What the resident memory of this process rises by at most while a batch is followed [MiB]; Linux only."""
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    follow(problem, draws)
    return (_status("VmHWM") - before) / 1024.0


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def measured(problem: AbstractEvolution, batches: list[int], repeats: int) -> list[dict[str, float]]:
    """Figures of each batch."""
    draws = [problem.draw(generator(0, "benchmark", number)) for number in range(max(batches))]
    steps = {count: follow(problem, draws[:count])[1] for count in batches}
    rises = {count: memory(problem, draws[:count]) for count in batches}
    seconds: dict[int, list[float]] = {count: [] for count in batches}
    for repeat in range(repeats):
        for count in sorted(batches, reverse=bool(repeat % 2)):
            seconds[count].append(follow(problem, draws[:count])[0] / count)
    return [
        {
            "batch": count,
            "samples_per_second": 1.0 / statistics.median(seconds[count]),
            "least": 1.0 / max(seconds[count]),
            "most": 1.0 / min(seconds[count]),
            "mebibytes": rises[count],
            "steps": steps[count],
        }
        for count in batches
    ]


def main() -> None:
    """Measure."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments.add_argument("--equations", nargs="+", choices=EQUATIONS, default=list(EQUATIONS))
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--most", type=int, default=256, help="samples in the largest batch")
    given = arguments.parse_args()
    print(__doc__)
    about = ran_on("torch", "numpy")
    print(about)
    rows = []
    for threads in given.threads:
        torch.set_num_threads(threads)
        for name in given.equations:
            problem = shortened(EQUATIONS[name])
            chosen = problem.batch_size
            # Beyond four times the choice nothing is expected.
            batches = sorted({*(one for one in BATCHES if one <= min(given.most, 4 * chosen)), chosen})
            found = measured(problem, batches, given.repeats)
            fastest = max(found, key=lambda row: row["samples_per_second"])
            at_choice = next(row for row in found if row["batch"] == chosen)
            row = {
                "equation": name,
                "threads": threads,
                "chosen": chosen,
                "fastest": fastest["batch"],
                "share_of_fastest": at_choice["samples_per_second"] / fastest["samples_per_second"],
                "batches": found,
            }
            rows.append(row)
            print(f"{name}, {threads} thread(s): chosen {chosen}, {row['share_of_fastest']:.2f} of the fastest")
            for one in found:
                print("   " + ", ".join(f"{key} {value:.4g}" for key, value in one.items()), flush=True)
    print(json.dumps({"benchmark": Path(sys.argv[0]).stem, **about, "rows": rows}))


if __name__ == "__main__":
    main()
