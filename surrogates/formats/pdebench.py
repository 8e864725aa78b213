"""PDEBench's HDF5 files (Takamoto et al., NeurIPS 2022, arXiv 2210.07182), in the four ways they are laid out.

- `tensor` (sample, time, *grid): advection, Burgers, reaction-diffusion in 1-D; with `nu` (sample, *grid) the steady
  Darcy flow, `nu` being the input.
- `density`, `pressure`, `Vx`, ... (sample, time, *grid): compressible flow.
- a group `0000`, `0001`, ... for each sample, with `data` (time, *grid, channel) and `grid/t`, `grid/x`, ...: diffusion
  with sorption or reaction, shallow water.
- `velocity`, `particles` (sample, time, *grid, channel), `force` and `t`: incompressible flow.

Coordinates stand in `x-coordinate`, `t-coordinate`, ...; of the latter one more than there are times is dropped, as
PDEBench's own readers do. Numbers that stand as attributes are parameters. Whether an axis wraps is said nowhere.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from headrace.platform.dataset.samples import Samples
from headrace.platform.errors import InputError
from headrace.surrogates.format import AbstractFormat
from headrace.surrogates.formats.hdf5_tree import Tree, described, exported, open_tree
from headrace.surrogates.intake.arrays import Container, SourceArray, Stacked, whole
from headrace.surrogates.intake.layout import CHANNEL, SAMPLE, TIME, FieldLayout, Layout
from headrace.surrogates.outlet.filling import new_file
from headrace.surrogates.outlet.pdebench import write_pdebench

if TYPE_CHECKING:
    import h5py

_EXPECTED = "an HDF5 file of PDEBench"
_GROUP = re.compile(r"\d+")
_FLOW = ("density", "pressure", "Vx", "Vy", "Vz")


class PDEBench(AbstractFormat):
    """PDEBench's HDF5 files: advection, Burgers, Darcy, reaction, shallow water, (in)compressible flow."""

    kind: Literal["pdebench"] = "pdebench"

    suffixes: ClassVar[tuple[str, ...]] = (".hdf5", ".h5")
    holds_meshes: ClassVar[bool] = False

    def recognizes(self, path: Path) -> bool:
        """Whether a file has the arrays of one of the four ways."""
        try:
            with open_tree(path, _EXPECTED) as tree:
                names = set(tree.datasets)
                is_plain = "x-coordinate" in names and names & {"tensor", "density"}
                is_grouped = any(_GROUP.fullmatch(one) and f"{one}/data" in names for one in tree.groups)
                return bool(is_plain or is_grouped or {"velocity", "particles", "t"} <= names)
        except InputError:
            return False

    @contextmanager
    def open_file(self, path: Path) -> Iterator[Container]:
        """Open a file.

        Raises:
            InputError: it is not of this format.
        """
        with open_tree(path, _EXPECTED) as tree:
            if (samples := exported(tree)) is not None:
                yield samples
                return
            if tree.refused and not tree.datasets:
                name, reason = next(iter(tree.refused.items()))
                raise InputError.single(f"{path}: {name}", reason, "an array in the file itself")
            arrays = tree.arrays()
            if any(_GROUP.fullmatch(name) for name in tree.groups):
                layout, notes = _by_group(tree, arrays)
            else:
                layout, notes = _by_field(tree, arrays)
            parameters = []
            for name, value in tree.file.attrs.items():
                if np.asarray(value).dtype.kind in "iuf" and np.asarray(value).size == 1:
                    arrays[f"attributes/{name}"] = SourceArray(values=np.array(np.ravel(value)[0]))
                    parameters.append(FieldLayout(name=name, role="parameter", array=f"attributes/{name}", axes=()))
            layout = layout.model_copy(update={"fields": (*layout.fields, *parameters)})
            said = tree.layout()
            yield Container(
                path=path,
                arrays=arrays,
                layout=layout if said is None else said,
                refused=tree.refused,
                notes=notes if said is None else (),
            )

    def export_dataset(
        self, stored: Samples, out_dir: str | os.PathLike[str], name: str, split: str = "train"
    ) -> tuple[Path, ...]:
        """Write a data set as `{name}_{split}.hdf5`.

        Args:
            stored: the samples.
            out_dir: the folder for the file.
            name: what to call the data.
            split: `train`, `test`, ...

        Raises:
            InputError: the file exists, or the samples live on a mesh.
        """
        import h5py

        target = Path(out_dir) / f"{name}_{split}.hdf5"
        with new_file(target) as draft, h5py.File(draft, "w") as file:
            write_pdebench(file, stored)
        return (target,)


def _by_field(tree: Tree, arrays: dict[str, SourceArray]) -> tuple[Layout, list[str]]:
    grid = [axis for axis in "xyz" if f"{axis}-coordinate" in arrays]
    names = [name for name in ("tensor", *_FLOW, "velocity", "particles") if name in arrays]
    if not names:
        raise InputError.single(str(tree.path), "without tensor, density or velocity", _EXPECTED)
    fields = []
    is_steady = "tensor" in arrays and "nu" in arrays and arrays["nu"].values.shape != ()
    if is_steady:
        fields.append(FieldLayout(name="nu", role="input", axes=(SAMPLE, *grid)))
    if not grid:
        # Incompressible flow says no coordinates; its last axis is that of the components.
        grid = list("xyz"[: len(arrays[names[0]].values.shape) - 3])
    for name in names:
        shape = arrays[name].values.shape
        components = [CHANNEL] * (len(shape) == len(grid) + 3)
        role: Literal["output", "state"] = "output" if is_steady else "state"
        fields.append(FieldLayout(name=name, role=role, axes=(SAMPLE, TIME, *grid, *components)))
    if "force" in arrays:
        components = [CHANNEL] * (len(arrays["force"].values.shape) == len(grid) + 2)
        fields.insert(0, FieldLayout(name="force", role="input", axes=(SAMPLE, *grid, *components)))
    coordinates = tuple(f"{axis}-coordinate" for axis in grid)
    layout = Layout(
        fields=tuple(fields),
        grid=tuple(grid),
        coordinates=coordinates if all(name in arrays for name in coordinates) else None,
    )
    times = next((name for name in ("t-coordinate", "t") if name in arrays), None)
    if times is None or is_steady:
        return layout, []
    count, given = arrays[names[0]].values.shape[1], arrays[times].values.shape
    if given == (count + 1,):
        numbers = tuple(whole(arrays[times].values, f"{tree.path}: {times}")[:count].astype(float).tolist())
        note = f"{times} has one more entry than there are times: dropped"
        return layout.model_copy(update={"times": numbers}), [note]
    return layout.model_copy(update={"times": times}), []


def _by_group(tree: Tree, arrays: dict[str, SourceArray]) -> tuple[Layout, list[str]]:
    names = sorted(name for name in tree.groups if _GROUP.fullmatch(name))
    parts: list[h5py.Dataset] = []
    for name in names:
        path = f"{name}/data"
        if path in tree.refused or path not in tree.datasets:
            value = tree.refused.get(path, "not there")
            raise InputError.single(f"{tree.path}: {path}", value, "an array in the file itself")
        if parts and tree.datasets[path].shape != parts[0].shape:
            value = f"of shape {tree.datasets[path].shape}"
            raise InputError.single(f"{tree.path}: {path}", value, f"{parts[0].shape}, as {names[0]} has")
        parts.append(tree.datasets[path])
    grid = [axis for axis in "xyz" if f"{names[0]}/grid/{axis}" in tree.datasets]
    arrays["data"] = SourceArray(values=Stacked(parts), unit=described(parts[0]).unit)
    components = [CHANNEL] * (parts[0].ndim == len(grid) + 2)
    coordinates = tuple(f"{names[0]}/grid/{axis}" for axis in grid)
    layout = Layout(
        fields=(FieldLayout(name="data", role="state", axes=(SAMPLE, TIME, *grid, *components)),),
        grid=tuple(grid),
        times=f"{names[0]}/grid/t",
        coordinates=coordinates,
    )
    return layout, [f"{len(names)} groups, of which the grid and the times of {names[0]} are taken for all"]
