"""Tensors in .pt files, as the neuraloperator library reads and ships them (`PTDataset`).

A file `{name}_{split}_{resolution}.pt` holds a dict of two tensors, `x` and `y`, of (N, C, *grid), or of (N, H, W)
without channels. Neither grid, names nor parameters are told: the box has extent 1, values stand in cells. Written
are `x` and `y` of (N, C, *grid) in float32; only steady samples fit.
"""

import dataclasses
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

from headrace.platform.dataset.samples import Samples
from headrace.platform.errors import InputError
from headrace.surrogates.format import AbstractFormat
from headrace.surrogates.formats.torch_file import Torch, load
from headrace.surrogates.intake.arrays import Container
from headrace.surrogates.intake.axes import listing
from headrace.surrogates.intake.layout import CHANNEL, SAMPLE, FieldLayout, Layout, grid_axes
from headrace.surrogates.outlet.filling import new_file, require_grid
from headrace.surrogates.outlet.pt_file import write_pt

log = logging.getLogger(__name__)

_EXPECTED = "a torch file with a dict of two tensors, x (inputs) and y (outputs)"


class NeuralOperator(AbstractFormat):
    """Tensors in .pt files, as the neuraloperator library reads and ships them (`PTDataset`)."""

    kind: Literal["neuraloperator"] = "neuraloperator"

    suffixes: ClassVar[tuple[str, ...]] = (".pt",)
    holds_times: ClassVar[bool] = False
    holds_meshes: ClassVar[bool] = False

    def recognizes(self, path: Path) -> bool:
        """Whether a torch file is a dictionary with x and y."""
        try:
            content = load(path)
        except InputError:
            return True  # its words are as good as any
        return isinstance(content, dict) and {"x", "y"} <= set(content)

    @contextmanager
    def open_file(self, path: Path) -> Iterator[Container]:
        """Open a file: `x` and `y` of (sample, *grid) or (sample, channel, *grid), on the unit box, in cells.

        Which of the two they are is taken from their shapes where only one fits both.

        Raises:
            InputError: the file is not what it should be.
        """
        with Torch().open_file(path) as content:
            missing = [key for key in ("x", "y") if key not in content.arrays and key not in content.refused]
            if missing:
                there = listing(content) or "nothing"
                raise InputError.single(str(path), f"a torch file with {there}", _EXPECTED, "Give --format torch.")
            yield content if content.layout is not None else dataclasses.replace(content, layout=_layout(content))

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
        schema = stored.schema
        if len(schema.times) > 1:
            value = f"a data set with {len(schema.times)} output times"
            raise InputError.single(str(stored.directory), value, "one: .pt files have no time axis", "Export to hdf5.")
        if not schema.num_input_channels:
            value = "a data set without input fields"
            raise InputError.single(str(stored.directory), value, "some: .pt files are of x and y", "Export to hdf5.")
        shape = require_grid(stored, ".pt files").shape
        if schema.num_parameters:
            names = ", ".join(one.name for one in schema.parameters)
            log.warning("the library reads x and y alone: %s stand beside them, as parameters", names)
        resolution = str(shape[0]) if len(set(shape)) == 1 else "x".join(map(str, shape))
        target = Path(out_dir) / f"{name}_{split.removesuffix(f'_{resolution}')}_{resolution}.pt"
        with new_file(target) as draft:
            write_pt(draft, stored)
        return (target,)


def _layout(content: Container) -> Layout:
    """What the format says of its files; the axes where the shapes leave one way to read both arrays."""
    fields = [FieldLayout(name="x", role="input"), FieldLayout(name="y", role="output")]
    if not content.refused:
        x, y = (content.arrays[field.name].values.shape for field in fields)
        found = [(a, b) for a in _ways(x) for b in _ways(y) if x[len(x) - a :] == y[len(y) - b :] and a == b]
        if len(found) == 1:
            fields = [
                field.model_copy(
                    update={"axes": (SAMPLE, *[CHANNEL] * (len(shape) - 1 - num_axes), *grid_axes(num_axes))}
                )
                for field, shape, num_axes in zip(fields, (x, y), found[0], strict=True)
            ]
    num_axes = max((len(field.axes) - 1 - field.axes.count(CHANNEL) for field in fields if field.axes), default=0)
    return Layout(fields=tuple(fields), extent=(1.0,) * num_axes if num_axes else None, periodic=(), location="cells")


def _ways(shape: tuple[int, ...]) -> list[int]:
    """How many grid axes an array could have: without a channel axis, or with one after the samples."""
    without, channels = shape[1:], shape[2:]
    found = [len(without)] if without and 1 not in without and len(without) <= 3 else []
    # As many channels as points along each axis are taken for an axis of the grid.
    if channels and 1 not in channels and len(channels) <= 3 and set(channels) != {shape[1]}:
        found.append(len(channels))
    return found
