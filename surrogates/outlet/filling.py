"""Filling: the samples of a data set go into the arrays of a file, a few at a time."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from headrace.platform.dataset.samples import Samples
from headrace.platform.errors import InputError
from headrace.platform.fields import Grid, Mesh
from headrace.platform.files import drafted
from headrace.surrogates.intake.origin import INDEX, PROVENANCE
from headrace.surrogates.outlet.parts import Plan

NBYTES = 32 * 1024**2  # of samples that are in memory at a time


def require_grid(stored: Samples, kind: str) -> Grid:
    """The grid of a data set, for formats that know nothing else.

    Raises:
        InputError: its samples live on a mesh.
    """
    domain = stored.schema.domain
    if isinstance(domain, Mesh):
        value = f"a data set on {domain}"
        raise InputError.single(str(stored.directory), value, f"one on a grid: {kind} know no mesh", "Export to hdf5.")
    return domain


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Write a file under another name, which becomes `target` when the block ends well, and is gone else.

    Raises:
        InputError: there is a file of this name.
    """
    if target.exists():
        raise InputError.single(str(target), "there already", "a new file")
    target.parent.mkdir(parents=True, exist_ok=True)
    with drafted(target) as draft:
        yield draft


def fill(stored: Samples, plan: Plan, put: Callable[[str, slice, np.ndarray], None]) -> str:
    """Hand all samples over, array by array, `NBYTES` at a time.

    Args:
        stored: the samples.
        plan: which array holds what.
        put: takes the path of an array, the samples, and their values.

    Returns:
        What the file has to say as `headrace_origin`.
    """
    # Zarr, which it brings, takes a moment to import.
    from headrace.platform.dataset.layout import NAMED, encode_provenance

    names: dict[str, list[str]] = {name: [] for name in NAMED}
    start = 0
    for batch in stored.batches(max(1, NBYTES // max(1, stored.schema.sample_nbytes))):
        rows = slice(start, start + len(batch))
        start = rows.stop
        for part in plan.parts:
            put(part.path, rows, part.values(batch))
        put(INDEX, rows, batch.indices)
        put(PROVENANCE, rows, encode_provenance(batch, names))
    return json.dumps({"schema": plan.schema.to_json(), "names": names})


def num_provenance() -> int:
    """Columns of the provenance."""
    from headrace.platform.dataset.layout import COLUMNS

    return len(COLUMNS)
