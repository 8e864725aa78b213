"""NetCDF: version 3 by SciPy, version 4, which is HDF5, by h5netcdf."""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from headrace.platform.dataset.samples import Samples
from headrace.platform.errors import InputError
from headrace.surrogates.format import AbstractFormat
from headrace.surrogates.formats.hdf5_tree import open_tree
from headrace.surrogates.intake.arrays import ArrayLike, Container, Mapped, SourceArray
from headrace.surrogates.intake.layout import ATTRIBUTE, Layout
from headrace.surrogates.intake.origin import ORIGIN, completed
from headrace.surrogates.intake.sniffing import kind_of_file, not_of
from headrace.surrogates.outlet.filling import new_file
from headrace.surrogates.outlet.netcdf import write_netcdf

_EXPECTED = "a NetCDF file"
_FILLS = ("_FillValue", "missing_value")
_NEVER_WRITTEN = 9.969209968386869e36  # what the library fills floating-point variables with (NC_FILL_DOUBLE)


class NetCDF(AbstractFormat):
    """NetCDF (.nc), versions 3 and 4: variables by their dimensions, packed and missing values understood."""

    kind: Literal["netcdf"] = "netcdf"

    suffixes: ClassVar[tuple[str, ...]] = (".nc", ".nc4", ".cdf")
    holds_meshes: ClassVar[bool] = False

    @contextmanager
    def open_file(self, path: Path) -> Iterator[Container]:
        """Open a file: its variables by their dimensions' names.

        Raises:
            InputError: it is no NetCDF file, or variables of it stand in other files.
        """
        if kind_of_file(path)[0] == "an HDF5 file":
            with _version_4(path) as container:
                yield container
            return
        from scipy.io import netcdf_file

        try:
            file = netcdf_file(path, "r", mmap=True)
        except (TypeError, ValueError, OSError, IndexError, KeyError) as error:
            raise not_of(path, _EXPECTED, str(error).splitlines()[0] if str(error) else "") from error
        try:
            arrays = {
                name: _described(_Copied(variable), variable.dimensions, variable._attributes)
                for name, variable in file.variables.items()
            }
            text = getattr(file, ATTRIBUTE, None)
            layout = None if text is None else Layout.from_json(text, str(path))
            yield Container(path=path, arrays=arrays, layout=layout)
        finally:
            with warnings.catch_warnings():
                # Whoever read the arrays may hold them still; what was read is copied, and the map goes with the last.
                warnings.simplefilter("ignore", RuntimeWarning)
                file.close()

    def export_dataset(
        self, stored: Samples, out_dir: str | os.PathLike[str], name: str, split: str = "train"
    ) -> tuple[Path, ...]:
        """Write a data set as `{name}_{split}.nc`.

        Args:
            stored: the samples.
            out_dir: the folder for the file.
            name: what to call the data.
            split: `train`, `test`, ...

        Raises:
            InputError: the file exists, or the samples live on a mesh.
        """
        target = Path(out_dir) / f"{name}_{split}.nc"
        with new_file(target) as draft:
            write_netcdf(draft, stored, name)
        return (target,)


@contextmanager
def _version_4(path: Path) -> Iterator[Container]:
    import h5netcdf

    with open_tree(path, _EXPECTED) as tree:
        # The library would follow links and open what they lead to.
        if tree.refused:
            name, reason = next(iter(tree.refused.items()))
            raise InputError.single(f"{path}: {name}", reason, "an array in the file itself")
        layout, origin = tree.layout(), tree.text(ORIGIN)
    try:
        file = h5netcdf.File(path, "r", decode_vlen_strings=True, phony_dims="sort")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise not_of(path, _EXPECTED, str(error).splitlines()[0]) from error
    with file:
        arrays: dict[str, SourceArray] = {}
        _variables(file, "", arrays)
        yield completed(Container(path=path, arrays=arrays, layout=layout), origin)


def _variables(group: Any, prefix: str, arrays: dict[str, SourceArray]) -> None:
    for name, variable in group.variables.items():
        axes = [axis.rpartition("/")[2] for axis in variable.dimensions]
        named = not any(axis.startswith("phony_dim_") for axis in axes)
        arrays[prefix + name] = _described(variable, axes if named else None, dict(variable.attrs))
    for name, child in group.groups.items():
        _variables(child, f"{prefix}{name}/", arrays)


class _Copied:
    """A variable of a mapped file: what is read of it outlives the file."""

    def __init__(self, variable: Any) -> None:
        self._variable = variable
        self.shape: tuple[int, ...] = tuple(variable.shape)
        self.dtype: np.dtype = variable.data.dtype.newbyteorder("=")

    def __getitem__(self, selection: tuple[slice, ...]) -> np.ndarray:
        return np.array(self._variable.data[selection] if self.shape else self._variable.data, dtype=self.dtype)


def _described(values: ArrayLike, axes: Any, attributes: Mapping[str, Any]) -> SourceArray:
    unit = attributes.get("units")
    unit = unit.decode("utf-8", "replace") if isinstance(unit, bytes) else unit
    fills = tuple(float(np.ravel(attributes[name])[0]) for name in _FILLS if _is_number(attributes.get(name)))
    if values.dtype.kind == "f":
        fills = (*fills, _NEVER_WRITTEN)
    scale, offset = (
        float(np.ravel(attributes.get(name, one))[0]) for name, one in (("scale_factor", 1.0), ("add_offset", 0.0))
    )
    is_number = values.dtype.kind in "iuf"
    if is_number and (fills or scale != 1.0 or offset != 0.0):
        is_packed = scale != 1.0 or offset != 0.0
        kind = np.dtype(np.float64) if is_packed or values.dtype.kind != "f" else values.dtype
        values = Mapped(values, partial(_unpacked, fills=fills, scale=scale, offset=offset, dtype=kind), kind)
    return SourceArray(
        values=values, axes=None if axes is None else tuple(axes), unit=unit if isinstance(unit, str) else None
    )


def _unpacked(values: np.ndarray, fills: tuple[float, ...], scale: float, offset: float, dtype: np.dtype) -> np.ndarray:
    """Packed numbers as they are meant; missing ones are no numbers."""
    missing = np.isin(values, [np.asarray(fill).astype(values.dtype) for fill in fills])
    found = values.astype(dtype) if scale == 1.0 and offset == 0.0 else values.astype(np.float64) * scale + offset
    found[missing] = np.nan
    return found


def _is_number(value: object) -> bool:
    return value is not None and np.asarray(value).dtype.kind in "iuf" and np.asarray(value).size > 0
