"""Torch files as the neuraloperator library reads them, written through mapped files: larger than memory works.

A dictionary of `x` (N, C, *grid) and `y` (N, C, *grid); its library looks at nothing else that is there: `parameters`
(N, P), and what makes the same data set again.
"""

import tempfile
from pathlib import Path

import numpy as np

from headrace.platform.dataset.samples import Samples
from headrace.surrogates.intake.layout import ATTRIBUTE
from headrace.surrogates.intake.origin import INDEX, ORIGIN, PROVENANCE
from headrace.surrogates.outlet.filling import fill, num_provenance, require_grid
from headrace.surrogates.outlet.parts import whole_plan


def write_pt(path: Path, stored: Samples) -> None:
    """Write steady samples on a grid into a new file."""
    import torch

    count = len(stored)
    grid = require_grid(stored, ".pt files")
    plan = whole_plan(stored.schema, grid, ("x", "y", "parameters"), has_times=False)
    with tempfile.TemporaryDirectory(prefix=f"{path.name}-", dir=path.parent) as folder:

        def mapped(name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> np.memmap:
            return np.memmap(Path(folder) / name, dtype=dtype, mode="w+", shape=(count, *shape))

        arrays = {part.path: mapped(part.path, part.shape, np.float32) for part in plan.parts}
        arrays[INDEX] = mapped("index", (), np.int64)
        arrays[PROVENANCE] = mapped("provenance", (num_provenance(),), np.float64)

        def put(key: str, rows: slice, values: np.ndarray) -> None:
            arrays[key][rows] = values

        texts = {ORIGIN: fill(stored, plan, put), ATTRIBUTE: plan.layout.to_json()}
        tensors = {part.path: torch.from_numpy(arrays[part.path]) for part in plan.parts}
        own = {key.partition("/")[2]: torch.from_numpy(arrays[key]) for key in (INDEX, PROVENANCE)}
        with path.open("wb") as file:  # by its name torch would not take a hidden file
            torch.save({**tensors, "headrace": own, **texts}, file)
