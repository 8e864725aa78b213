"""Sources that call a model of format `aoti` from C, C++ and Fortran, and an example of each that tests itself."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

SOURCES = ("headrace_model.h", "headrace_model.cpp", "headrace_model.f90", "example.c", "example.f90", "Makefile")
SELF_TEST = "selftest.bin"


def write_sources(folder: Path, self_test: Sequence[np.ndarray]) -> None:
    """Write the sources beside a model.

    Args:
        folder: where the model is.
        self_test: its arguments for some samples, and what it says of them; written one after the other as doubles, in
            the order of C, for programs that cannot read .npz, behind the number of samples as a double.
    """
    for name in SOURCES:
        (folder / name).write_bytes((files(__name__) / name).read_bytes())
    numbers = [np.array([len(self_test[0])]), *(array.ravel() for array in self_test)]
    (folder / SELF_TEST).write_bytes(np.concatenate(numbers).astype("<f8").tobytes())
