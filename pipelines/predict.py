"""`headrace predict`: apply a surrogate to inputs from a file."""

from pathlib import Path

import h5py
import numpy as np

from headrace.pipelines.run_dir import RunDir
from headrace.platform.allocator import keep_freed_memory
from headrace.platform.errors import InputError
from headrace.platform.files import usable_path
from headrace.surrogates.checkpoint import Predictor


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    expected = "a .npy array, or an .npz or .h5 file with `inputs` (and `parameters`)"
    usable_path(path, "INPUT", expected)
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False), None
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                found: dict[str, np.ndarray] = dict(arrays)
        elif path.suffix in (".h5", ".hdf5"):
            with h5py.File(path) as file:
                found = {name: file[name][()] for name in ("inputs", "parameters") if name in file}
        else:
            raise InputError.single("INPUT", str(path), expected)
    except (OSError, ValueError) as error:
        raise InputError.single("INPUT", str(path), expected, f"It cannot be read: {error}.") from error
    if "inputs" not in found:
        raise InputError.single("INPUT", str(path), expected, f"It holds {', '.join(found) or 'nothing'}.")
    return found["inputs"], found.get("parameters")


def predict_file(run: RunDir, source: Path, out: Path) -> tuple[int, ...]:
    """Predict for every input of a file; write `.npy`, or `.npz` with the array `outputs`; return its shape.

    Args:
        run: the run whose newest checkpoint is used.
        source: inputs "samples channels *grid", or "channels *grid" for one sample, in the problem's own units.
        out: the file to write.

    Raises:
        InputError: the file cannot be read, does not fit the surrogate, or `out` exists or has another ending.
    """
    expected = "a new file that ends in .npy or .npz, in a folder that exists"
    if usable_path(out, "--out", expected, new="file").suffix not in (".npy", ".npz"):
        raise InputError.single("--out", str(out), expected)
    inputs, parameters = _read(source)
    keep_freed_memory()
    predictor = Predictor.from_checkpoint(run.checkpoint)
    if inputs.ndim == len(predictor.schema.domain.shape) + 1:
        inputs = inputs[None]
    outputs = predictor.predict(inputs, parameters)
    with out.open("wb") as file:
        if out.suffix == ".npy":
            np.save(file, outputs)
        else:
            np.savez_compressed(file, outputs=outputs)
    return outputs.shape
