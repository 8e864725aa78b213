"""MATLAB's `.mat` files: of version 5 by SciPy, of version 7.3, which are HDF5, by h5py."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from headrace.surrogates.format import AbstractFormat
from headrace.surrogates.formats.hdf5_tree import open_tree
from headrace.surrogates.intake.arrays import Container, Kept, Reversed, SourceArray
from headrace.surrogates.intake.layout import ATTRIBUTE, Layout
from headrace.surrogates.intake.sniffing import kind_of_file, not_of

_TYPES = {"double": "f8", "single": "f4", "logical": "?"} | {
    f"{sign}int{bits}": f"{sign[:1] or 'i'}{bits // 8}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_EXPECTED = "a MATLAB file"


class Mat(AbstractFormat):
    """MATLAB's .mat files, version 5 and 7.3, taken in with a layout; axes are in MATLAB's own order."""

    kind: Literal["mat"] = "mat"

    suffixes: ClassVar[tuple[str, ...]] = (".mat",)
    writes: ClassVar[bool] = False

    @contextmanager
    def open_file(self, path: Path) -> Iterator[Container]:
        """Open a file: its arrays, those of structures as `structure/field`.

        Version 7.3 is read by slices; a variable of version 5, which holds at most 2 GB, whole.

        Raises:
            InputError: it is no MATLAB file.
        """
        if kind_of_file(path)[0] in ("a MATLAB 7.3 file", "an HDF5 file"):
            with open_tree(path, "a MATLAB 7.3 file") as tree:
                arrays, refused = {}, dict(tree.refused)
                for name, dataset in tree.datasets.items():
                    if name.startswith("#refs#"):
                        continue
                    sort = dataset.attrs.get("MATLAB_class", b"")
                    sort = sort.decode() if isinstance(sort, bytes) else str(sort)
                    if "MATLAB_sparse" in dataset.parent.attrs:
                        refused[name.rpartition("/")[0]] = "a sparse matrix"
                    elif dataset.attrs.get("MATLAB_empty"):
                        refused[name] = "empty"
                    elif dataset.dtype.names == ("real", "imag"):
                        refused[name] = "of complex numbers"
                    elif sort in _TYPES:
                        arrays[name] = SourceArray(values=Reversed(dataset))
                    elif not sort:
                        arrays[name] = SourceArray(values=dataset)
                yield Container(path=path, arrays=arrays, refused=refused, layout=tree.layout())
            return
        yield _version_5(path)


def _version_5(path: Path) -> Container:
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    if kind_of_file(path)[0] not in ("a MATLAB file", ""):
        raise not_of(path, _EXPECTED)
    try:
        listed = whosmat(path)
    except (MatReadError, ValueError, OSError, EOFError, NotImplementedError, TypeError, IndexError) as error:
        raise not_of(path, _EXPECTED, str(error).splitlines()[0] if str(error) else "") from error
    arrays, refused, layout = {}, {}, None
    for name, shape, sort in listed:
        if sort == "sparse":
            refused[name] = "a sparse matrix"
        elif sort == "char" and name == ATTRIBUTE:
            layout = Layout.from_json(str(_load(loadmat, path, name).reshape(-1)[0]), str(path))
        elif sort in _TYPES:
            arrays[name] = SourceArray(values=Kept(tuple(shape), partial(_load, loadmat, path, name)))
        elif sort == "struct" and int(np.prod(shape)) == 1:
            _fields(_load(loadmat, path, name), name, arrays)
    return Container(path=path, arrays=arrays, refused=refused, layout=layout)


def _load(loadmat: object, path: Path, name: str) -> np.ndarray:
    assert callable(loadmat)
    try:
        return np.asarray(loadmat(path, variable_names=[name])[name])
    except (ValueError, OSError, EOFError, TypeError, KeyError) as error:
        raise not_of(path, _EXPECTED, f"{name}: {error}") from error


def _fields(values: np.ndarray, prefix: str, arrays: dict[str, SourceArray]) -> None:
    """The arrays of a structure."""
    record = values.reshape(-1)[0]
    for name in values.dtype.names or ():
        entry = np.asarray(record[name])
        if entry.dtype.names and entry.size == 1:
            _fields(entry, f"{prefix}/{name}", arrays)
        elif entry.dtype.kind in "biufc":
            arrays[f"{prefix}/{name}"] = SourceArray(values=entry)
