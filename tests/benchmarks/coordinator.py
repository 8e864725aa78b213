"""How many commits does one coordinator answer, and how long does each wait, against one sync a commit?

Clients are tasks of one event loop that call a `Coordinator`, without Ray between: what is measured is the coordinator.
Each client leases samples and commits them in messages of 32, one at a time, waiting for the answer. The peer is how it
was: a transaction and a sync for every message, on the event loop. By turns, in one process.

- idle: one client; its commits' latency.
- burst: `--clients` clients that commit as fast as they are answered.
- solvers: 1,000 clients, each a solver of samples of 2.5 ms: a message every 80 ms, a lease a second.

    PYTHONPATH=... python tests/benchmarks/coordinator.py [--clients 256] [--seconds 3] [--folder DIR]

The last line is one JSON object.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from _machine import ran_on

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.ledger.ledger import Ledger
from headrace.platform.stream.coordinator import Coordinator
from headrace.platform.stream.plan import StreamPlan

ROWS, SOLVERS, SAMPLE_SECONDS = 32, 1000, 2.5e-3
SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="a"),),
    outputs=(FieldSpec(name="b"),),
    domain=Grid(shape=(4,), extent=(1.0,), periodic=(False,)),
)


class Source:
    """What a plan asks of a source."""

    def schema(self) -> SampleSchema:
        """Of its samples."""
        return SCHEMA


class OneByOne(Coordinator):
    """How it was: a transaction and a sync for every message, on the event loop."""

    async def commit(self, split: str, shard: str, lease_id: int, indices: Sequence[int]) -> list[bool]:
        """As in `Coordinator`."""
        fresh = self._ledger.commit(split, shard, lease_id, indices)
        await self._wake()
        return fresh


def made(kind: type[Coordinator], folder: Path) -> Coordinator:
    """A coordinator of ten million samples."""
    Ledger.create(folder / "ledger.sqlite", {"train": 10_000_000}).close()
    plan = StreamPlan(
        run_dir=folder,
        checkpoint_dir=folder,
        sources={"train": Source()},  # type: ignore[dict-item]
        sequence_length=ROWS,
        message_bytes=1 << 20,
        message_seconds=1.0,
        credits=2,
        lease_seconds=600.0,
        reservoir=None,
        seed=0,
    )
    return kind(folder / "ledger.sqlite", plan)


async def client(
    coordinator: Coordinator, name: str, until: float, sequences: int, pause: float, waits: list[float]
) -> int:
    """Lease and commit; how many messages were answered."""
    done = last = 0
    due = time.perf_counter() + pause * (hash(name) % 997 / 997)
    while time.perf_counter() < until:
        lease = await coordinator.lease(name, sequences, last)
        if lease is None:
            return done
        last = lease.id
        for start in range(0, len(lease.indices), ROWS):
            if pause:
                due += pause
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            fresh = await coordinator.commit("train", "shard-0", lease.id, lease.indices[start : start + ROWS])
            waits.append(time.perf_counter() - began)
            assert all(fresh)
            done += 1
            if time.perf_counter() >= until:
                return done
    return done


def measured(kind: type[Coordinator], folder: Path, clients: int, seconds: float, sequences: int, pause: float) -> dict:
    """Messages a second, latency, and processor time a message."""
    place = Path(tempfile.mkdtemp(dir=folder))
    coordinator = made(kind, place)
    waits: list[float] = []

    async def act() -> int:
        until = time.perf_counter() + seconds
        return sum(
            await asyncio.gather(
                *(client(coordinator, f"solver-{k}", until, sequences, pause, waits) for k in range(clients))
            )
        )

    wall, cpu = time.perf_counter(), time.process_time()
    done = asyncio.run(act())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    coordinator._ledger.close()
    shutil.rmtree(place)
    waits.sort()
    return {
        "messages_per_second": round(done / wall),
        "cpu_us_per_message": round(1e6 * cpu / max(done, 1)),
        "p50_ms": round(1e3 * statistics.median(waits), 2),
        "p99_ms": round(1e3 * waits[int(0.99 * (len(waits) - 1))], 2),
    }


def main() -> None:
    """Measure by turns and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk that is measured")
    options = parser.parse_args()
    print(__doc__.splitlines()[0])
    machine = ran_on("numpy")
    print(machine, flush=True)
    cases: dict[str, Callable[[type[Coordinator]], dict]] = {
        "idle": lambda kind: measured(kind, options.folder, 1, options.seconds, 8, 0.0),
        "burst": lambda kind: measured(kind, options.folder, options.clients, options.seconds, 8, 0.0),
        "solvers": lambda kind: measured(
            kind, options.folder, SOLVERS, options.seconds, round(1.0 / (ROWS * SAMPLE_SECONDS)), ROWS * SAMPLE_SECONDS
        ),
    }
    rows = []
    for repeat in range(options.repeats):
        for case, run in cases.items():
            for kind in (OneByOne, Coordinator):
                row = {"case": case, "kind": kind.__name__, "repeat": repeat} | run(kind)
                rows.append(row)
                print(json.dumps(row), flush=True)
    print(json.dumps({"machine": machine, "options": {k: str(v) for k, v in vars(options).items()}, "rows": rows}))


if __name__ == "__main__":
    main()
