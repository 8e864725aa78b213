"""What does a run lose when its processes are killed at random? Nothing it had committed, and nothing twice.

A training run on real solves is disturbed by SIGKILL at random moments to random victims: a solver actor, a reservoir
shard, a training rank, the coordinator, the MLflow server (which is started again some seconds later), or the driver
itself (after which `headrace resume` goes on). The seeds fix who is killed and after how many seconds, from the first
step of training on, or for odd seeds from the first lease on; what a victim is doing then is left to chance. After each
campaign the ledger and the logs are compared: every committed sample must be on the disk, every stored one bit for bit
what its seed gives, and MLflow must have the loss of every step that the run's folder has.

    python tests/benchmarks/fault_campaign.py [--campaigns 3] [--kills 5] [--seed 0]

Time to recover is from the kill to the next sign of progress: a training step for a rank and for the driver, a stored
sample or a step for the others. The last line is one JSON object.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from _machine import ran_on

from headrace.pipelines.recipe.config import load
from headrace.platform.dataset.reader import StoredSamples, shard_indices, shard_paths
from headrace.platform.ledger.ledger import Ledger
from headrace.platform.sample import Sample
from headrace.platform.tracking.tracker import TrackingSpec
from headrace.platform.tracking.ui import ui_command

RECIPE = """
name: campaign
data:
  problem: {kind: darcy, resolution: 33}
  samples: %(samples)d
  validation: 8
  test: 8
solver: {method: {kind: direct}, sequence_length: 16}
stream: {reservoir: {capacity: 400, watermark: 64}, message_bytes: 65536}
surrogate: {kind: fno, modes: 6, width: 12, layers: 2}
training: {steps: %(steps)d, batch_size: 16, checkpoint_every: 25, validate_every: 1000, log_every: 5}
resources: {solvers: {actors: 2}}
tracking: {uri: "%(uri)s"}
"""
VICTIMS = {
    "solver": "ray::SolverActor",
    "shard": "ray::ReservoirShard",
    "rank": "RayTrainWorker",
    "coordinator": "ray::Coordinator",
    "driver": None,
    "mlflow": None,
}
PROGRAM = str(Path(sys.executable).with_name("headrace"))
# A part is restarted three times in a run, then the run fails: longer campaigns need more resumes.
MOST_OF_A_KIND = 3


@dataclass
class Tally:
    """What a campaign came to."""

    kills: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    recovery: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    resumes: int = 0


def progress(run: Path) -> tuple[int, int]:
    """The last reported step, and the stored samples."""
    step = stored = 0
    if (run / "metrics.jsonl").is_file():
        for line in (run / "metrics.jsonl").read_text().splitlines():
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if "train/loss" in found:
                step = max(step, found["step"])
            stored = max(stored, int(found.get("stream/stored", 0)))
    return step, stored


def victims(process: subprocess.Popen[bytes], pattern: str) -> list[psutil.Process]:
    """The run's processes whose name holds a pattern."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if pattern in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


class Server:
    """An MLflow server that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._store, self._log = f"sqlite:///{folder}/mlflow.db", folder / "mlflow.txt"
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = ui_command(TrackingSpec(uri=self._store), port=self._port)
        with self._log.open("ab") as file:
            self._process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.2)

    def kill(self) -> None:
        """Kill it with all of its workers."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def missing(self, run: Path) -> int:
        """Steps whose loss the run's folder has and MLflow has not."""
        import mlflow

        tracked = json.loads((run / "run.json").read_text())["tracking"]["run_id"]
        client = mlflow.MlflowClient(tracking_uri=self.uri)
        sent = {metric.step for metric in client.get_metric_history(tracked, "1 train/loss")}
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return len({line["step"] for line in lines if "train/loss" in line} - sent)


def start(run: Path, recipe: Path, log: Path, *, again: bool) -> subprocess.Popen[bytes]:
    command = [PROGRAM, "resume", str(run)] if again else [PROGRAM, "run", str(recipe), "--out", str(run)]
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, cwd=recipe.parent)


def campaign(
    folder: Path, kills: int, rng: random.Random, server: Server, *, samples: int, steps: int, early: bool
) -> tuple[Path, Tally]:
    """One run with so many kills; returns its folder when it has finished."""
    recipe, run, log = folder / "recipe.yaml", folder / "run", folder / "log.txt"
    recipe.write_text(RECIPE % {"samples": samples, "steps": steps, "uri": server.uri})
    tally = Tally()
    process = start(run, recipe, log, again=False)
    while not (run / "ledger.sqlite").exists() if early else progress(run)[0] == 0:
        assert process.poll() is None, log.read_text()
        time.sleep(0.2)
    for _ in range(kills):
        time.sleep(rng.uniform(0.5, 6.0))
        role = rng.choice([role for role in VICTIMS if tally.kills[role] < MOST_OF_A_KIND])
        if process.poll() is not None:
            break
        pattern = VICTIMS[role]
        if role == "driver":
            process.kill()
            process.wait()
        elif role == "mlflow":
            server.kill()
        elif pattern is not None:
            found = victims(process, pattern)
            if not found:
                continue
            os.kill(rng.choice(sorted(found, key=lambda one: one.pid)).pid, signal.SIGKILL)
        killed, before = time.monotonic(), progress(run)
        tally.kills[role] += 1
        if role == "driver":
            tally.resumes += 1
            process = start(run, recipe, log, again=True)
        lines = len((run / "metrics.jsonl").read_text().splitlines())
        while process.poll() is None:
            new = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()[lines:]]
            stepped = any("train/loss" in line for line in new)
            if stepped or (role not in ("rank", "driver") and progress(run)[1] > before[1]):
                tally.recovery[role].append(time.monotonic() - killed)
                break
            time.sleep(0.1)
        if role == "mlflow":
            server.start()
        print(f"    killed {role:12s} at step {before[0]:4d}, {before[1]:5d} stored", flush=True)
    assert process.wait() == 0, log.read_text()[-3000:]
    return run, tally


def examine(run: Path) -> dict[str, int]:
    """Compare the ledger, the logs, and what the seeds give."""
    config = load(str(run / "recipe.yaml"), [], "run")
    total = dict.fromkeys(("planned", "committed", "failed", "lost", "doubled", "rows twice", "wrong", "dropped"), 0)
    with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
        for split in config.planned():
            counts = ledger.counts(split)
            committed = np.concatenate([np.zeros(0, np.int64), *ledger.committed(split).values()])
            stored = StoredSamples.open(run / "data" / split)
            rows = np.concatenate([shard_indices(path) for path in shard_paths(run / "data" / split)])
            total["planned"] += counts.planned
            total["committed"] += counts.stored
            total["failed"] += counts.failed
            total["dropped"] += counts.duplicates
            total["lost"] += len(set(committed.tolist()) - set(stored.indices.tolist()))
            total["doubled"] += len(stored) - len(set(stored.indices.tolist()))
            total["rows twice"] += len(rows) - len(set(rows.tolist()))
            batch = stored.read_all()
            expectations = config.source(split).samples(batch.indices.tolist())
            for row, expected in zip(range(len(batch)), expectations, strict=True):
                assert isinstance(expected, Sample)
                same = np.array_equal(expected.inputs, batch.inputs[row])
                total["wrong"] += not (same and np.array_equal(expected.outputs, batch.outputs[row]))
    return total


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--campaigns", type=int, default=3)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=1500)
    arguments = parser.parse_args()
    about = ran_on("numpy", "zarr", "ray", "torch")
    print("Question: what does a run lose when its processes are killed at random?")
    print("Machine: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    results = []
    for seed in range(arguments.seed, arguments.seed + arguments.campaigns):
        print(f"  seed {seed}", flush=True)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            server = Server(Path(folder))
            sizes = {"samples": arguments.samples, "steps": arguments.steps}
            run, tally = campaign(
                Path(folder), arguments.kills, random.Random(seed), server, **sizes, early=bool(seed % 2)
            )
            found = {**examine(run), "not in MLflow": server.missing(run)}
            server.kill()
        recovery = {role: [round(seconds, 1) for seconds in times] for role, times in tally.recovery.items()}
        result = {"seed": seed, "kills": dict(tally.kills), "resumes": tally.resumes, **found, "recovery": recovery}
        results.append({**result, "seconds": round(time.monotonic() - began)})
        print(f"    {results[-1]}", flush=True)
    for key in ("planned", "committed", "failed", "lost", "doubled", "wrong", "dropped", "rows twice", "not in MLflow"):
        print(f"  {key:12s} {sum(int(str(result[key])) for result in results)}")
    print(json.dumps({"benchmark": "fault_campaign", "machine": about, "results": results}))


if __name__ == "__main__":
    main()
