"""Tensors in .pt files, as the neuraloperator library reads and ships them (`PTDataset`).

A file `{name}_{split}_{resolution}.pt` holds a dict of two tensors, `x` and `y`, of (N, C, *grid), or of (N, H, W)
without channels. Neither grid, names nor parameters are told: see `PlainData` for what is assumed. Written are `x` and
`y` of (N, C, *grid) in float32; only steady samples fit.
"""

import logging
import os
import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from headrace.platform.dataset.samples import Samples
from headrace.platform.errors import Fault, InputError
from headrace.platform.fields import Mesh
from headrace.surrogates.format import AbstractFormat
from headrace.surrogates.formats.plain import PlainData, dataset_names, find_files, require_new

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_EXPECTED = "a torch file with a dict of two tensors, x (inputs) and y (outputs)"


class NeuralOperator(AbstractFormat):
    """Tensors in .pt files, as the neuraloperator library reads and ships them (`PTDataset`)."""

    kind: Literal["neuraloperator"] = "neuraloperator"

    suffixes: ClassVar[tuple[str, ...]] = (".pt",)
    holds_times: ClassVar[bool] = False
    holds_parameters: ClassVar[bool] = False
    holds_meshes: ClassVar[bool] = False

    def import_files(
        self,
        path: str | os.PathLike[str],
        out_dir: str | os.PathLike[str],
        *,
        input_name: str = "x",
        output_name: str = "y",
    ) -> dict[str, int]:
        """Take in one .pt file, or all of a folder: `darcy_train_16.pt` becomes `train`, `darcy_test_32.pt` `test_32`.

        Everything is checked before the first data set is written. Files are read without unpickling objects.

        Args:
            path: the file or folder.
            out_dir: where to put the data sets; new or empty.
            input_name: what to call the input field.
            output_name: what to call the output field.

        Returns:
            The number of samples of each data set by name.

        Raises:
            InputError: nothing to import, a file is not of this format, or its numbers cannot be used.
        """
        from headrace.platform.dataset.writer import write_dataset

        files = find_files(Path(path), self.suffixes)
        names = dataset_names(files)
        require_new(Path(out_dir))
        faults: list[Fault] = []
        for file in files:  # checked one by one and read again: no more than one file is in memory
            try:
                faults += _read(file).check()
            except InputError as error:
                faults += error.faults
        if faults:
            raise InputError(faults)
        counts = {}
        for name, file in zip(names, files, strict=True):
            data = _read(file)
            metadata = {"imported_from": file.name, "format": "neuraloperator"}
            schema = data.schema(input_name, output_name)
            counts[name] = write_dataset(Path(out_dir) / name, schema, data.batches(), metadata).count
        return counts

    def export_dataset(
        self, stored: Samples, out_dir: str | os.PathLike[str], name: str, split: str = "train"
    ) -> tuple[Path, ...]:
        """Write a data set as `{name}_{split}_{resolution}.pt`.

        Args:
            stored: the samples.
            out_dir: the folder for the file.
            name: what to call the data.
            split: `train`, `test`, ...

        Raises:
            InputError: the file exists, or the samples have several output times or live on a mesh.
        """
        import torch

        schema = stored.schema
        if len(schema.times) > 1:
            value = f"a data set with {len(schema.times)} output times"
            raise InputError.single(str(stored.directory), value, "one: .pt files have no time axis", "Export to hdf5.")
        if schema.num_parameters:
            log.warning(
                ".pt files have no place for parameters: %s left out", ", ".join(p.name for p in schema.parameters)
            )
        if isinstance(schema.domain, Mesh):
            value = f"a data set on {schema.domain}"
            raise InputError.single(
                str(stored.directory), value, "one on a grid: .pt files know no mesh", "Export to hdf5."
            )
        shape = schema.domain.shape
        resolution = str(shape[0]) if len(set(shape)) == 1 else "x".join(map(str, shape))
        target = Path(out_dir) / f"{name}_{split.removesuffix(f'_{resolution}')}_{resolution}.pt"
        if target.exists():
            raise InputError.single(str(target), "there already", "a new file")
        target.parent.mkdir(parents=True, exist_ok=True)
        batch = stored.read_all()
        scratch = target.with_name(f".{target.name}.new")
        torch.save({"x": torch.from_numpy(batch.inputs), "y": torch.from_numpy(batch.outputs[:, 0])}, scratch)
        scratch.replace(target)
        return (target,)


def _read(path: Path) -> PlainData:
    """The two tensors of a file as arrays.

    Raises:
        InputError: the file is not what it should be.
    """
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path) or "weights_only" in str(error).lower():
            value = "a pickle of other objects than tensors, which could run code"
            advice = 'Save it anew with torch.save({"x": x, "y": y}, path).'
            raise InputError.single(str(path), value, _EXPECTED, advice) from error
        raise InputError.single(str(path), "not readable by torch", _EXPECTED) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError.single(str(path), f"not readable by torch ({reason})", _EXPECTED, "Is it cut off?") from error
    if not isinstance(content, dict):
        raise InputError.single(str(path), f"a {type(content).__name__}", _EXPECTED)
    missing = [key for key in ("x", "y") if not isinstance(content.get(key), torch.Tensor)]
    if missing:
        found = ", ".join(f"{key}: {type(value).__name__}" for key, value in content.items()) or "nothing"
        raise InputError.single(str(path), f"a dict with {found}", _EXPECTED)
    return PlainData(path=path, inputs=("x", _array(content["x"])), outputs=("y", _array(content["y"])))


def _array(tensor: "torch.Tensor") -> np.ndarray:
    """A tensor as an array; kinds that NumPy lacks (bfloat16) as float32."""
    import torch

    known = not tensor.dtype.is_floating_point or tensor.dtype in (torch.float16, torch.float32, torch.float64)
    return (tensor if known else tensor.float()).contiguous().numpy()
