"""How many processor-seconds does a Darcy surrogate of a given error take, from nothing to the last step?

Two pipelines make the same thing: an FNO (4 layers, width 32, 8 frequencies an axis) that predicts the pressure on
64 x 64 points within 5 % (mean relative L2 over 100 held-out samples, the same arrays for both), from 1500 samples.

- headrace: `headrace run` with a recipe: solvers stream while the network trains. Its own validation and test sets are
  cut to 2 samples each, its pictures and report are part of its time, MLflow is off.
- offline: `_offline_peer.py`, in one process: labels by SciPy's SuperLU (symmetric mode, minimum degree) into a file,
  then neuraloperator's FNO in a plain loop with the same batches and loss, AdamW, and a one-cycle or a linear schedule.

The error of either is set by its number of training steps, a ladder of which is tried until the error is reached; each
try is a run of its own, and the one that reaches it counts. By turns; processor time of all processes, start-up
included. From the seconds of the parts follows a line for each: what N samples on n points would take.

    PYTHONPATH=... python tests/benchmarks/time_to_surrogate.py [--points 64] [--samples 1500] [--error 0.05]

neuraloperator is no dependency: `--peer-path` names a folder that `pip install --target` put it into.
The last line is one JSON object.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from _machine import ran_on
from _process_tree import Usage, watched

from headrace.platform.seeding import generator
from headrace.solvers import Darcy, solve
from headrace.surrogates import Predictor

NUM_HELD_OUT, MODES, WIDTH, LAYERS, BATCH, RATE = 100, 8, 32, 4, 16, 5e-3
OPTIMIZERS = {
    "adamw": {"kind": "adamw", "learning_rate": RATE, "weight_decay": 1e-4},
    "muon": {"kind": "muon", "learning_rate": RATE, "matrix_learning_rate": 4.0 * RATE, "weight_decay": 1e-4},
}
LADDER = (200, 250, 300, 350, 400, 450, 500, 600, 700, 800, 1000)


def held_out(points: int, file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Samples that neither pipeline has seen, solved by a direct method."""
    problem = Darcy(resolution=points)
    a, u = [], []
    for index in range(NUM_HELD_OUT):
        fields = problem.draw(generator(10**6, "test", "fields", index))
        inputs, outputs, _ = problem.sample_arrays(
            fields, solve(problem.discretize(fields), rtol=1e-10, method="direct").value
        )
        a.append(inputs)
        u.append(outputs[0, 0])
    np.savez(file, a=np.stack(a)[:, 0], u=np.stack(u))
    return np.stack(a), np.stack(u)


def error_of(said: np.ndarray, truth: np.ndarray) -> float:
    """Mean relative L2."""
    size = np.linalg.norm(truth.reshape(len(truth), -1), axis=1)
    return float((np.linalg.norm((said - truth).reshape(len(truth), -1), axis=1) / size).mean())


def headrace(
    steps: int, seed: int, options: argparse.Namespace, folder: Path, a: np.ndarray
) -> tuple[Usage, np.ndarray]:
    """Run a recipe; what it spent, and what its surrogate says of the held-out samples."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        json.dumps(
            {
                "name": "time-to-surrogate",
                "seed": seed,
                "data": {
                    "problem": {"kind": "darcy", "resolution": options.points},
                    "samples": options.samples,
                    "validation": 2,
                    "test": 2,
                },
                "stream": {"reservoir": {"kind": "reservoir", "capacity": options.samples, "watermark": 256}},
                "surrogate": {"kind": "fno", "modes": MODES, "width": WIDTH, "layers": LAYERS},
                "training": {
                    "steps": steps,
                    "batch_size": BATCH,
                    "optimizer": OPTIMIZERS[options.optimizer],
                    "schedule": {"kind": options.schedule},
                    "normalization": {"log": ["permeability"]},
                    "validate_every": 10 * steps,
                    "checkpoint_every": 10 * steps,
                },
                "resources": {"solvers": {"actors": options.solvers}, "trainers": {"threads": 1}},
                "tracking": {"enabled": False},
            }
        )
    )
    out = folder / f"headrace-{seed}-{steps}"
    program = Path(sys.executable).with_name("headrace")
    spent = watched([str(program), "run", str(recipe), "--out", str(out), "--json"], os.environ)
    if spent.status:
        raise SystemExit(spent.output)
    said = Predictor.from_checkpoint(out / "checkpoints" / "last.pt").predict(a, None)
    return spent, np.asarray(said)[:, 0, 0]


def offline(
    steps: int, seed: int, options: argparse.Namespace, folder: Path, file: Path, channel_mlp: bool
) -> tuple[Usage, np.ndarray, dict[str, float]]:
    """Run the peer; what it spent, what its surrogate says, and the processor time at the end of each part."""
    case = {
        "points": options.points,
        "samples": options.samples,
        "seed": seed,
        "steps": steps,
        "batch_size": BATCH,
        "modes": MODES,
        "width": WIDTH,
        "layers": LAYERS,
        "channel_mlp": channel_mlp,
        "learning_rate": RATE,
        "schedule": options.peer_schedule,
        "threads": 1,
        "folder": str(folder),
        "held_out": str(file),
        "prediction": str(folder / "said.npy"),
    }
    path = os.pathsep.join(filter(None, [options.peer_path, os.environ.get("PYTHONPATH")]))
    (folder / "case.json").write_text(json.dumps(case))
    peer = Path(__file__).with_name("_offline_peer.py")
    spent = watched([sys.executable, str(peer), str(folder / "case.json")], {**os.environ, "PYTHONPATH": path})
    if spent.status:
        raise SystemExit(spent.output)
    told = json.loads(spent.output.splitlines()[-1])
    # What it did after training, for us to judge it, is not its time.
    spent.cpu = {"offline": told["cpu_seconds"]}
    return spent, np.load(folder / "said.npy"), told["at"]


def main() -> None:
    """Try the ladders by turns and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=64)
    parser.add_argument("--samples", type=int, default=1500)
    parser.add_argument("--error", type=float, default=0.05)
    parser.add_argument("--solvers", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--peer-path", default=None)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="muon", help="Headrace's; the peer has AdamW")
    parser.add_argument("--schedule", choices=("linear", "one_cycle"), default="linear", help="Headrace's")
    parser.add_argument("--peer-schedule", choices=("linear", "one_cycle"), default="one_cycle")
    parser.add_argument("--peer-ladder", type=int, nargs="+", default=None, help="default: as Headrace's")
    parser.add_argument("--ladder", type=int, nargs="+", default=list(LADDER))
    options = parser.parse_args()
    print(__doc__.splitlines()[0])
    machine = ran_on("torch", "scipy", "ray", "pytorch-lightning")
    print(machine, flush=True)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        a, u = held_out(options.points, folder / "held_out.npz")
        for seed in range(options.repeats):
            open_ = {"headrace": True, "offline": True, "offline with channel mlp": True}
            for steps in sorted({*options.ladder, *(options.peer_ladder or options.ladder)}):
                for which in [which for which, is_open in open_.items() if is_open]:
                    if steps not in (options.ladder if which == "headrace" else options.peer_ladder or options.ladder):
                        continue
                    at: dict[str, float] = {}
                    if which == "headrace":
                        spent, said = headrace(steps, seed, options, folder, a)
                    else:
                        spent, said, at = offline(
                            steps, seed, options, folder, folder / "held_out.npz", which.endswith("mlp")
                        )
                    error = error_of(said, u)
                    open_[which] = error > options.error
                    row = {
                        "pipeline": which,
                        "seed": seed,
                        "steps": steps,
                        "error": round(error, 4),
                        "cpu_seconds": round(spent.total_cpu, 1),
                        "wall_seconds": round(spent.seconds, 1),
                        "peak_pss_gb": round(spent.total_pss / 1e9, 2),
                        "reached": error <= options.error,
                        "by_process": {name: round(seconds, 1) for name, seconds in spent.cpu.items()},
                        "at": {k: round(v, 1) for k, v in at.items()},
                    }
                    rows.append(row)
                    print(json.dumps(row), flush=True)
                if not any(open_.values()):
                    break
    reached = {
        which: [float(row["cpu_seconds"]) for row in rows if row["pipeline"] == which and row["reached"]]  # type: ignore[arg-type]
        for which in ("headrace", "offline", "offline with channel mlp")
    }
    medians = {which: statistics.median(values) for which, values in reached.items() if values}
    best = min((value for which, value in medians.items() if which != "headrace"), default=None)
    ratio = best / medians["headrace"] if best and "headrace" in medians else None
    print(f"processor-seconds to {options.error:g}: {medians}; the better offline one over headrace: {ratio}")
    print(json.dumps({"machine": machine, "options": vars(options), "medians": medians, "ratio": ratio, "rows": rows}))


if __name__ == "__main__":
    main()
