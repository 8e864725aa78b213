"""The offline pipeline of time_to_surrogate.py: labels by SciPy onto disk, then neuraloperator's FNO in a plain loop.

Reads one JSON object from the file that it is given, writes one to standard output. Nothing of Headrace takes part but
`Darcy.draw`, so that the permeabilities are those that Headrace draws; assembling, solving, storing and training are
what a group would write: a five-point scheme with harmonic means, SuperLU, one .npz, AdamW with a one-cycle schedule.
"""

import json
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from neuralop.models import FNO
from scipy.sparse.linalg import splu

from headrace.platform.seeding import generator
from headrace.solvers import Darcy


def solved(a: np.ndarray) -> np.ndarray:
    """The pressure of -div(a grad u) = 1, u = 0 on the boundary, at all points; `a` is given at the points."""
    n = len(a)
    h = 1.0 / (n - 1)
    x = 2.0 * a[:-1] * a[1:] / (a[:-1] + a[1:])
    y = 2.0 * a[:, :-1] * a[:, 1:] / (a[:, :-1] + a[:, 1:])
    m = n - 2
    west, east = x[:-1, 1:-1], x[1:, 1:-1]
    south, north = y[1:-1, :-1], y[1:-1, 1:]
    center = (west + east + south + north).ravel()
    to_x, to_y = -east[:-1].ravel(), -north.copy()
    to_y[:, -1] = 0.0
    to_y = to_y.ravel()[:-1]
    matrix = sp.diags_array([center, to_x, to_x, to_y, to_y], offsets=[0, m, -m, 1, -1], format="csc")
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    u = np.zeros_like(a)
    u[1:-1, 1:-1] = factors.solve(np.full(m * m, h * h)).reshape(m, m)
    return u


def labels(case: Mapping, file: Path) -> None:
    """Draw, solve and store the training samples."""
    problem = Darcy(resolution=case["points"])
    a, u = [], []
    for index in range(case["samples"]):
        field = problem.draw(generator(case["seed"], "train", "fields", index))["permeability"]
        a.append(field.astype(np.float32))
        u.append(solved(field).astype(np.float32))
    np.savez(file, a=np.stack(a), u=np.stack(u))


def train(case: Mapping, file: Path) -> tuple[torch.nn.Module, float, float]:
    """The trained network, and the scales of what goes in."""
    with np.load(file) as arrays:
        a, u = torch.from_numpy(arrays["a"]).log()[:, None], torch.from_numpy(arrays["u"])[:, None]
    mean, std, size = a.mean().item(), a.std().item(), u.std().item()
    a = (a - mean) / std
    torch.manual_seed(case["seed"])
    network = FNO(
        n_modes=(2 * case["modes"],) * 2,
        in_channels=1,
        out_channels=1,
        hidden_channels=case["width"],
        n_layers=case["layers"],
        use_channel_mlp=case["channel_mlp"],
    )
    steps, batch = case["steps"], case["batch_size"]
    optimizer = torch.optim.AdamW(network.parameters(), lr=case["learning_rate"], weight_decay=1e-4)
    schedule: torch.optim.lr_scheduler.LRScheduler
    if case.get("schedule") == "linear":
        top = 0.3 * steps
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: (step + 1) / top if step + 1 <= top else max(0.0, (steps - step) / (steps - top))
        )
    else:
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=case["learning_rate"], total_steps=steps)
    order, at = torch.randperm(len(a)), 0
    for _ in range(steps):
        if at + batch > len(a):
            order, at = torch.randperm(len(a)), 0
        rows = order[at : at + batch]
        at += batch
        error = (size * network(a[rows]) - u[rows]).flatten(1).norm(dim=1) / u[rows].flatten(1).norm(dim=1)
        optimizer.zero_grad()
        error.mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network, mean, std


def main() -> None:
    """Carry out the case and tell what it took."""
    case = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(case["threads"])
    folder = Path(case["folder"])
    clock = {"imports": time.process_time()}
    labels(case, folder / "train.npz")
    clock["labels"] = time.process_time()
    network, mean, std = train(case, folder / "train.npz")
    clock["training"] = time.process_time()
    spent = resource.getrusage(resource.RUSAGE_SELF)
    # From here on nothing is timed.
    with np.load(case["held_out"]) as arrays:
        a, u = torch.from_numpy(arrays["a"]), arrays["u"]
    with np.load(folder / "train.npz") as arrays:
        size = float(arrays["u"].std())
    network.eval()
    with torch.no_grad():
        said = torch.cat([network(((part.log() - mean) / std)[:, None])[:, 0] for part in a.split(16)])
    np.save(case["prediction"], size * said.numpy())
    whole = {name: clock[name] for name in clock}
    print(json.dumps({"cpu_seconds": spent.ru_utime + spent.ru_stime, "at": whole, "rows": len(u)}))


if __name__ == "__main__":
    main()
