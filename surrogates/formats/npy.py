"""NumPy arrays, one a file: `.npy`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from headrace.platform.errors import InputError
from headrace.surrogates.format import AbstractFormat
from headrace.surrogates.formats.npz import read_header
from headrace.surrogates.intake.arrays import Container, SourceArray
from headrace.surrogates.intake.sniffing import not_of
from headrace.surrogates.intake.sources import JOINED


class NPY(AbstractFormat):
    """NumPy arrays (.npy), one a file: several files, or a folder of them, taken in with a layout."""

    kind: Literal["npy"] = "npy"

    suffixes: ClassVar[tuple[str, ...]] = (".npy",)
    writes: ClassVar[bool] = False
    joins: ClassVar[bool] = True

    @contextmanager
    def open_file(self, path: Path) -> Iterator[Container]:
        """Open one file: an array that is called like it.

        Raises:
            InputError: it is no NumPy array.
        """
        with self.open_files([path]) as container:
            yield container

    @contextmanager
    def open_files(self, paths: Sequence[Path]) -> Iterator[Container]:
        """Open several files: each an array that is called like it, without its split (`x` for `x_train.npy`).

        Raises:
            InputError: one is no NumPy array.
        """
        arrays: dict[str, SourceArray] = {}
        refused = {}
        for path in paths:
            match = JOINED.fullmatch(path.stem)
            name = match[1] if match else path.stem
            if name in arrays:
                raise InputError.single(str(path), f'a second array "{name}"', "each array once")
            try:
                with path.open("rb") as file:
                    shape, _, dtype = read_header(file)
                if dtype.hasobject:
                    refused[name] = "an array of Python objects, a pickle, which could run code"
                    continue
                is_mapped = 0 not in shape and dtype.itemsize
                arrays[name] = SourceArray(values=np.load(path, "r" if is_mapped else None, allow_pickle=False))
            except (ValueError, OSError, EOFError) as error:
                raise not_of(path, "a NumPy array", str(error).splitlines()[0]) from error
        where = paths[0] if len(paths) == 1 else paths[0].parent
        yield Container(path=where, arrays=arrays, refused=refused)
