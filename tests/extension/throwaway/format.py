"""Steady samples on grids as .npz files with x and y."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from headrace.platform.dataset.samples import Samples
from headrace.platform.errors import InputError
from headrace.platform.fields import Mesh
from headrace.surrogates import AbstractFormat
from headrace.surrogates.intake.arrays import Container, SourceArray
from headrace.surrogates.intake.layout import FieldLayout, Layout


class ThrowawayArchive(AbstractFormat):
    """NumPy archives with x and y."""

    kind: Literal["throwaway_archive"] = "throwaway_archive"

    suffixes: ClassVar[tuple[str, ...]] = (".npz",)
    holds_times: ClassVar[bool] = False
    holds_parameters: ClassVar[bool] = False
    holds_meshes: ClassVar[bool] = False

    @contextmanager
    def open_file(self, path: Path) -> Iterator[Container]:
        with np.load(path) as file:
            arrays = {name: SourceArray(values=file[name]) for name in ("x", "y")}
        grid = ("x", "y", "z")[: len(arrays["x"].values.shape) - 2]
        axes = ("sample", "channel", *grid)
        layout = Layout(
            fields=(
                FieldLayout(name="x", role="input", axes=axes),
                FieldLayout(name="y", role="output", axes=axes),
            ),
            extent=(1.0,) * len(grid),
            periodic=(),
            location="cells",
        )
        yield Container(path=path, arrays=arrays, layout=layout)

    def export_dataset(
        self, stored: Samples, out_dir: str | os.PathLike[str], name: str, split: str = "train"
    ) -> tuple[Path, ...]:
        schema = stored.schema
        if len(schema.times) > 1 or schema.parameters or isinstance(schema.domain, Mesh):
            value = "not steady, with parameters, or on a mesh"
            raise InputError.single(str(stored.directory), value, "steady fields on a grid")
        batch = stored.read_all()
        target = Path(out_dir) / f"{name}_{split}.npz"
        target.parent.mkdir(parents=True, exist_ok=True)
        np.savez(target, x=batch.inputs, y=batch.outputs[:, 0])
        return (target,)
