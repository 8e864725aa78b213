"""HDF5 files that are written in pieces, with all that makes the same data set of them again."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from headrace.platform.dataset.samples import Samples
from headrace.surrogates.intake.layout import ATTRIBUTE
from headrace.surrogates.intake.origin import INDEX, ORIGIN, PROVENANCE
from headrace.surrogates.outlet.filling import fill, num_provenance
from headrace.surrogates.outlet.parts import Part, Plan

if TYPE_CHECKING:
    import h5py

_LONGEST_ATTRIBUTE = 60_000  # characters; HDF5 stops at 64 KiB, header included


def write_arrays(
    file: "h5py.File", stored: Samples, plan: Plan, describe: Callable[["h5py.Dataset", Part], None] = lambda *_: None
) -> None:
    """Write the arrays of a plan, and what reads them back.

    Args:
        file: open for writing.
        stored: the samples.
        plan: the arrays.
        describe: is called with each dataset and its part once it is made, to write attributes.
    """
    count = len(stored)
    for part in plan.parts:
        dataset = file.create_dataset(part.path, shape=(count, *part.shape), dtype=np.float32)
        dataset.attrs["units"] = part.unit
        describe(dataset, part)
    file.create_dataset(INDEX, shape=(count,), dtype=np.int64)
    file.create_dataset(PROVENANCE, shape=(count, num_provenance()), dtype=np.float64)

    def put(path: str, rows: slice, values: np.ndarray) -> None:
        file[path][rows] = values

    write_text(file, ORIGIN, fill(stored, plan, put))
    write_text(file, ATTRIBUTE, plan.layout.to_json())


def write_text(file: "h5py.File", name: str, text: str) -> None:
    """Write a text as an attribute of the root, or as a dataset where it is too long for one."""
    import h5py

    if len(text.encode("utf-8")) < _LONGEST_ATTRIBUTE:
        file.attrs[name] = text
    else:
        file.create_dataset(name, data=text, dtype=h5py.string_dtype())
