"""How far are the labels of every built-in problem, at its defaults, from the truth?

For each problem and each of its levels, the discretisation error of samples in the norm of the output grid (relative L2
at the worst output time), on pilots against grids, and steps, two and four times as fine; see
`headrace.solvers.label_error`. With what a sample costs.

    PYTHONPATH=... python tests/benchmarks/label_errors.py [KIND ...] [--pilots 3] [--seconds 60]

The last line is one JSON object.
"""

import argparse
import json
import time

from _machine import ran_on

from headrace.platform.spec import kinds
from headrace.solvers import External
from headrace.solvers.sources.all_sampled import SAMPLED
from headrace.solvers.sources.source_of import source_of


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--pilots", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU time a level may take")
    parser.add_argument("--coarse", action="store_true", help="on the output grid, whatever a level needs")
    options = parser.parse_args()
    print(__doc__.splitlines()[0])
    machine = ran_on("numpy", "scipy", "torch")
    print(machine, flush=True)
    rows = []
    for name, kind in kinds("headrace.problems", SAMPLED).items():
        if kind is External or (options.kinds and name not in options.kinds):
            continue
        problem = kind()
        for level in problem.levels():
            needed = problem.refinement_needed(level)
            numerics = {level: {"refinement": needed}} if needed > 1 and not options.coarse else {}
            source = source_of(problem, mix={level: 1.0}, numerics=numerics)
            began = time.process_time()
            found = source.label_error(level, num_pilots=options.pilots, seconds=options.seconds)
            row = {"problem": name} | found.to_json() | {"measuring_cpu_seconds": round(time.process_time() - began, 2)}
            rows.append(row)
            told = found.reason or (
                f"worst {100 * (found.worst or 0):6.2f} %, median {100 * (found.median or 0):6.2f} %, order "
                f"{found.order}, {found.num_pilots} pilots, {found.finest} x, refinement {found.refinement}"
            )
            print(f"{name:22} {level:12} {told}", flush=True)
    print(json.dumps({"machine": machine, "options": vars(options), "rows": rows}))


if __name__ == "__main__":
    main()
