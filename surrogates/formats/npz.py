"""NumPy archives: `.npz`."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from typing import IO, ClassVar, Literal

import numpy as np
from numpy.lib import format as npy

from headrace.surrogates.format import AbstractFormat
from headrace.surrogates.intake.arrays import ArrayLike, Container, Kept, Selection, SourceArray
from headrace.surrogates.intake.layout import ATTRIBUTE, Layout
from headrace.surrogates.intake.sniffing import not_of

_LOCAL_HEADER = 30  # bytes, then name and extra field; their lengths stand at 26 and 28 (APPNOTE 4.3.7)
_PICKLED = "an array of Python objects, a pickle, which could run code"


class NPZ(AbstractFormat):
    """NumPy archives (.npz): arrays with any names, taken in with a layout."""

    kind: Literal["npz"] = "npz"

    suffixes: ClassVar[tuple[str, ...]] = (".npz",)
    writes: ClassVar[bool] = False

    @contextmanager
    def open_file(self, path: Path) -> Iterator[Container]:
        """Open an archive; what is not compressed is read from the disk by slices, what is, from front to back.

        Raises:
            InputError: it is no archive of NumPy arrays.
        """
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise not_of(path, "a NumPy archive", str(error)) from error
        with archive:
            if not any(name.endswith(".npy") for name in archive.namelist()):
                raise not_of(path, "a NumPy archive")
            arrays, refused, layout = {}, {}, None
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if not member.filename.endswith(".npy"):
                    continue
                try:
                    with archive.open(member) as file:
                        shape, is_fortran, dtype = read_header(file)
                        offset = file.tell()
                except (ValueError, EOFError, zipfile.BadZipFile) as error:
                    raise not_of(path, "a NumPy archive", f"{member.filename}: {error}") from error
                if dtype.hasobject:
                    refused[name] = _PICKLED
                elif name == ATTRIBUTE and dtype.kind in "US" and shape == ():
                    layout = Layout.from_json(str(np.load(path, allow_pickle=False)[name][()]), str(path))
                elif member.compress_type == zipfile.ZIP_STORED and dtype.itemsize and 0 not in shape:
                    start = _start(path, member.header_offset) + offset
                    order: Literal["F", "C"] = "F" if is_fortran else "C"
                    arrays[name] = SourceArray(values=np.memmap(path, dtype, "r", start, shape, order))
                else:
                    arrays[name] = SourceArray(values=_packed(path, archive, member, shape, dtype, is_fortran))
            yield Container(path=path, arrays=arrays, refused=refused, layout=layout)


def read_header(file: IO[bytes] | BufferedIOBase) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the first axis runs fastest, and type of the array that begins here.

    Raises:
        ValueError: none begins here.
    """
    major, _ = npy.read_magic(file)
    if major == 1:
        return npy.read_array_header_1_0(file)
    if major == 2:
        return npy.read_array_header_2_0(file)
    raise ValueError(f"a NumPy file of version {major}, expected 1 or 2: it holds records")


def _start(path: Path, header: int) -> int:
    """Where the bytes of a member begin."""
    with path.open("rb") as file:
        file.seek(header)
        fixed = file.read(_LOCAL_HEADER)
    return header + _LOCAL_HEADER + int.from_bytes(fixed[26:28], "little") + int.from_bytes(fixed[28:30], "little")


def _packed(
    path: Path,
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    shape: tuple[int, ...],
    dtype: np.dtype,
    is_fortran: bool,
) -> ArrayLike:
    if is_fortran or not shape:
        return Kept(shape, partial(_whole, path, member.filename.removesuffix(".npy")))
    return Unpacked(archive, member, shape, dtype)


def _whole(path: Path, name: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as file:
        return np.asarray(file[name])


class Unpacked:
    """A compressed array: its rows are unpacked in order, a few at a time; going back begins anew."""

    def __init__(
        self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._archive, self._member = archive, member
        self._file: IO[bytes] | BufferedIOBase | None = None
        self._next = 0

    def __getitem__(self, selection: Selection) -> np.ndarray:
        start, stop, _ = selection[0].indices(self.shape[0])
        if self._file is None or start < self._next:
            self._file = self._archive.open(self._member)
            read_header(self._file)
            self._next = 0
        file = self._file
        row = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        while self._next < start:
            self._next += 1
            file.read(row)
        data = file.read(row * (stop - start))
        self._next = stop
        if len(data) < row * (stop - start):
            raise not_of(Path(self._archive.filename or ""), "a NumPy archive", f"{self._member.filename} ends early")
        values = np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])
        return values[(slice(None), *selection[1:])]
