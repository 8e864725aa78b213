"""The Well's HDF5 files (Ohana et al., NeurIPS 2024, arXiv 2412.00568): fields by tensor order."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from headrace.platform.dataset.samples import Samples
from headrace.platform.errors import InputError
from headrace.surrogates.format import AbstractFormat
from headrace.surrogates.formats.hdf5_tree import Tree, exported, open_tree
from headrace.surrogates.intake.arrays import ArrayLike, Container, Selection, SourceArray
from headrace.surrogates.intake.layout import CHANNEL, SAMPLE, TIME, FieldLayout, Layout, Role
from headrace.surrogates.outlet.filling import new_file
from headrace.surrogates.outlet.well import write_well

if TYPE_CHECKING:
    import h5py

_FIELDS = ("t0_fields", "t1_fields", "t2_fields")
_EXPECTED = "an HDF5 file of The Well"


class TheWell(AbstractFormat):
    """The Well's HDF5 files: a file, a folder of them, or a data set's folder with data/train, valid and test."""

    kind: Literal["the_well"] = "the_well"

    suffixes: ClassVar[tuple[str, ...]] = (".hdf5", ".h5")
    holds_meshes: ClassVar[bool] = False

    def recognizes(self, path: Path) -> bool:
        """Whether a file has the groups of a Well file."""
        try:
            with open_tree(path, _EXPECTED) as tree:
                return "grid_type" in tree.file.attrs and {"dimensions", "t0_fields"} <= set(tree.groups)
        except InputError:
            return False

    @contextmanager
    def open_file(self, path: Path) -> Iterator[Container]:
        """Open a file. Fields that vary in time are states, others inputs; scalars are parameters.

        A scalar that varies in time is a parameter of as many components as there are times; a tensor's components are
        counted row by row.

        Raises:
            InputError: it is not of this format, or the grid is not Cartesian.
        """
        with open_tree(path, _EXPECTED) as tree:
            if (samples := exported(tree)) is not None:
                yield samples
                return
            if missing := [name for name in ("dimensions", *_FIELDS, "scalars") if name not in tree.groups]:
                raise InputError.single(str(path), f"without {', '.join(missing)}", _EXPECTED)
            grid_type = str(_value(tree.file.attrs, "grid_type", "cartesian"))
            if grid_type != "cartesian":
                raise InputError.single(f"{path}: grid_type", grid_type, "cartesian: other grids are not uniform")
            dims = tuple(_words(tree.groups["dimensions"].attrs.get("spatial_dims", ())))
            arrays = {name: SourceArray(values=one) for name, one in tree.datasets.items() if name.startswith("dim")}
            fields = _fields(tree, dims, arrays)
            periodic, notes = _boundaries(tree, dims)
            own = Layout(
                fields=tuple(fields),
                grid=dims,
                times="dimensions/time",
                coordinates=tuple(f"dimensions/{dim}" for dim in dims),
                periodic=periodic,
            )
            said = tree.layout()
            yield Container(
                path=path, arrays=arrays, layout=own if said is None else said, refused=tree.refused, notes=notes
            )

    def export_dataset(
        self, stored: Samples, out_dir: str | os.PathLike[str], name: str, split: str = "train"
    ) -> tuple[Path, ...]:
        """Write a data set as `data/{split}/{name}.hdf5`.

        Args:
            stored: the samples.
            out_dir: the folder for the file.
            name: what to call the data.
            split: `train`, `test`, ...

        Raises:
            InputError: the file exists, or the samples live on a mesh.
        """
        import h5py

        # Its loader wants a folder for each split, and knows the validation set as valid.
        target = Path(out_dir) / "data" / ("valid" if split == "validation" else split) / f"{name}.hdf5"
        with new_file(target) as draft, h5py.File(draft, "w") as file:
            write_well(file, stored, name)
        return (target,)


def _fields(tree: Tree, dims: tuple[str, ...], arrays: dict[str, SourceArray]) -> list[FieldLayout]:
    fields = []
    for order, group in enumerate((*_FIELDS, "scalars")):
        for name in _words(tree.groups[group].attrs.get("field_names", ())):
            path = f"{group}/{name}"
            if path in tree.refused:
                raise InputError.single(f"{tree.path}: {path}", tree.refused[path], "an array in the file itself")
            if path not in tree.datasets:
                raise InputError.single(f"{tree.path}: {path}", "not there", "an array, as field_names says")
            dataset = tree.datasets[path]
            in_time = bool(_value(dataset.attrs, "time_varying", False))
            axes = [SAMPLE] * bool(_value(dataset.attrs, "sample_varying", False)) + [TIME] * in_time
            values: ArrayLike = dataset
            role: Role = "parameter"
            if group != "scalars":
                role = "state" if in_time else "input"
                varying = [bool(one) for one in np.ravel(dataset.attrs.get("dim_varying", [True] * len(dims)))]
                before = len(axes)
                axes += [dim for dim, varies in zip(dims, varying, strict=True) if varies] + [CHANNEL] * order
                if dataset.ndim == before + len(dims) + order:
                    # An axis along which the field is constant is kept with one entry.
                    constant = [before + axis for axis, varies in enumerate(varying) if not varies]
                    values = _Without(dataset, tuple(constant)) if constant else dataset
            arrays[path] = SourceArray(values=values, unit=_unit(dataset))
            fields.append(FieldLayout(name=name, role=role, array=path, axes=tuple(axes)))
    return fields


def _boundaries(tree: Tree, dims: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The axes that wrap around, and the other boundaries in words."""
    periodic, others = [], []
    for path, group in tree.groups.items():
        if path.startswith("boundary_conditions/") and "bc_type" in group.attrs:
            sort = str(_value(group.attrs, "bc_type", "")).lower()
            along = _words(group.attrs.get("associated_dims", ()))
            if sort == "periodic":
                periodic += along
            else:
                others.append(f"{path.rpartition('/')[2]}: {sort} along {', '.join(along)}")
    notes = [f"boundaries, of which a data set keeps whether an axis wraps: {'; '.join(others)}"] if others else []
    return tuple(dim for dim in dims if dim in periodic), notes


@dataclass(frozen=True)
class _Without:
    """An array without some axes of one entry."""

    base: "h5py.Dataset"
    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(length for axis, length in enumerate(self.base.shape) if axis not in self.axes)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.base.dtype)

    def __getitem__(self, selection: Selection) -> np.ndarray:
        given = iter(selection)
        full = tuple(slice(None) if axis in self.axes else next(given) for axis in range(self.base.ndim))
        return np.squeeze(self.base[full], axis=self.axes)


def _value(attributes: Any, name: str, default: object) -> object:
    found = attributes.get(name, default)
    found = found.decode() if isinstance(found, bytes) else found
    return np.ravel(found)[0] if isinstance(found, np.ndarray) and found.size else found


def _words(found: Any) -> list[str]:
    """An attribute of several words, or of one."""
    return [one.decode() if isinstance(one, bytes) else str(one) for one in np.ravel(found)]


def _unit(dataset: "h5py.Dataset") -> str | None:
    found = dataset.attrs.get("units", dataset.attrs.get("unit"))
    return found if isinstance(found, str) else None
