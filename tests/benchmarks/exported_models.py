"""How large is an exported model, and how fast is it beside the surrogate that it was made from?

Networks of the recipes' sizes, with weights as drawn: neither size nor time depends on them. Each is exported to every
format; then all of them and the surrogate itself (`eager`: the same forecast in torch, under `inference_mode`) predict
the same samples by turns, at batch 1 and 8, on the same number of threads: best and median of several repeats.

    python tests/benchmarks/exported_models.py [--repeats 15] [--threads 1]

The last line is one JSON object.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from _machine import ran_on

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.surrogates.capabilities import MODEL_FORMATS
from headrace.surrogates.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from headrace.surrogates.models import FNO, MLP
from headrace.surrogates.normalization import NormalizationSpec
from headrace.surrogates.normalizer import Normalizer
from headrace.surrogates.portable.conversions import FORMATS, Call, quiet
from headrace.surrogates.portable.export import export_model
from headrace.surrogates.portable.forecast import forecast_of, self_test_inputs
from headrace.surrogates.strategies import AllAtOnce, Autoregressive, TimeConditioned
from headrace.surrogates.strategy import AbstractStrategy
from headrace.surrogates.surrogate import AbstractSurrogate

TIMES = tuple(0.125 * (i + 1) for i in range(8))
CASES: dict[str, tuple[AbstractSurrogate, AbstractStrategy, tuple[int, ...], tuple[float, ...], int]] = {
    "FNO 64 x 64, steady": (FNO(modes=12, width=32), AllAtOnce(), (64, 64), (0.0,), 0),
    "FNO 128, 8 times, autoregressive": (FNO(modes=16, width=32), Autoregressive(), (128,), TIMES, 1),
    "MLP 32 x 32, 8 times, time-conditioned": (MLP(hidden=(256, 256)), TimeConditioned(), (32, 32), TIMES, 2),
}


def checkpoint(case: str, path: Path) -> None:
    """Write the case's checkpoint."""
    network, strategy, grid, times, num_parameters = CASES[case]
    schema = SampleSchema(
        inputs=(FieldSpec(name="u"),) if isinstance(network, FNO) else (),
        outputs=(FieldSpec(name="u"),),
        parameters=tuple(FieldSpec(name=f"p{i}") for i in range(num_parameters)),
        domain=Grid(shape=grid, extent=(1.0,) * len(grid), periodic=(False,) * len(grid)),
        times=times,
    )
    spec = NormalizationSpec()
    seen = strategy.network_schema(schema, network.capabilities)
    torch.manual_seed(0)
    save_checkpoint(
        path,
        Checkpoint(
            step=0,
            surrogate=network,
            normalization=spec,
            strategy=strategy,
            training={},
            schema=schema,
            weights=network.build(seen).state_dict(),
            moments=Normalizer(spec, seen).state_dict(),
            optimizer={},
            schedule={},
        ),
    )


def main() -> None:
    """Export and time every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(ran_on("torch", "onnx", "onnxruntime"))
    print(f"{options.threads} thread(s), {options.repeats} repeats by turns after 3 calls of each; milliseconds a call")
    found = {}
    for case in CASES:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.pt"
            checkpoint(case, path)
            eager = forecast_of(load_checkpoint(path), "float32")
            calls: dict[str, Call] = {"eager": eager}
            rows = {"eager": {"bytes": float(path.stat().st_size), "seconds": 0.0, "error": 0.0}}
            for name in MODEL_FORMATS:
                started = time.perf_counter()
                done = export_model(path, name, Path(folder) / name)
                seconds = time.perf_counter() - started
                rows[name] = {"bytes": done.files[0].stat().st_size, "seconds": seconds, "error": done.error}
                with quiet():
                    calls[name] = FORMATS[name].read(done.files[0])
            for batch in (1, 8):
                given = self_test_inputs(eager, batch)
                taken: dict[str, list[float]] = {name: [] for name in calls}
                with torch.inference_mode():
                    for repeat in range(-3, options.repeats):
                        for name, call in calls.items():
                            started = time.perf_counter()
                            call(*given)
                            if repeat >= 0:
                                taken[name].append(1e3 * (time.perf_counter() - started))
                for name, times in taken.items():
                    rows[name][f"best_{batch}"] = min(times)
                    rows[name][f"median_{batch}"] = statistics.median(times)
        heads = ("format", "MiB", "seconds to export", "differs by", "batch 1: best (median)", "batch 8: best (median)")
        print(f"\n{case}\n| {' | '.join(heads)} |")
        print("|---|---|---|---|---|---|")
        for name, row in rows.items():
            timed = [f"{row[f'best_{batch}']:.2f} ({row[f'median_{batch}']:.2f})" for batch in (1, 8)]
            entries = (name, f"{row['bytes'] / 2**20:.2f}", f"{row['seconds']:.0f}", f"{row['error']:.1e}", *timed)
            print(f"| {' | '.join(entries)} |")
        found[case] = rows
    print(json.dumps(found))


if __name__ == "__main__":
    main()
