"""Steady samples on grids as .npz files with x and y."""

import os
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from headrace.platform.dataset.samples import Samples
from headrace.platform.dataset.writer import write_dataset
from headrace.platform.errors import InputError
from headrace.platform.fields import Mesh
from headrace.surrogates import AbstractFormat
from headrace.surrogates.formats.plain import PlainData, dataset_names, find_files, require_new


class ThrowawayArchive(AbstractFormat):
    """NumPy archives with x and y."""

    kind: Literal["throwaway_archive"] = "throwaway_archive"

    suffixes: ClassVar[tuple[str, ...]] = (".npz",)
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
        files = find_files(Path(path), self.suffixes)
        require_new(Path(out_dir))
        counts = {}
        for name, file in zip(dataset_names(files), files, strict=True):
            with np.load(file) as arrays:
                data = PlainData(path=file, inputs=("x", arrays["x"]), outputs=("y", arrays["y"]))
            schema = data.schema(input_name, output_name)
            counts[name] = write_dataset(Path(out_dir) / name, schema, data.batches(), {}).count
        return counts

    def export_dataset(
        self, stored: Samples, out_dir: str | os.PathLike[str], name: str, split: str = "train"
    ) -> tuple[Path, ...]:
        if len(stored.schema.times) > 1 or isinstance(stored.schema.domain, Mesh):
            raise InputError.single(str(stored.directory), "not steady, or on a mesh", "steady samples on a grid")
        batch = stored.read_all()
        target = Path(out_dir) / f"{name}_{split}.npz"
        target.parent.mkdir(parents=True, exist_ok=True)
        np.savez(target, x=batch.inputs, y=batch.outputs[:, 0])
        return (target,)
