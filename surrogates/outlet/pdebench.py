"""PDEBench's HDF5 (Takamoto et al., NeurIPS 2022): one array a quantity, and the coordinates beside them.

    /tensor              the only output or state (N, T, *grid), T = 1 where it is steady
    /NAME                the others, and what is given: (N, *grid), as `nu` of its Darcy flow
    /t-coordinate, /x-coordinate, /y-coordinate, /z-coordinate
    /parameters/NAME     numbers of each sample (N,)

Components stand apart, as its Vx and Vy do: NAME_0, NAME_1, ...
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from headrace.platform.dataset.samples import Samples
from headrace.surrogates.outlet.filling import require_grid
from headrace.surrogates.outlet.hdf5_file import write_arrays
from headrace.surrogates.outlet.parts import Part, Plan, plan_of

if TYPE_CHECKING:
    import h5py


def write_pdebench(file: "h5py.File", stored: Samples) -> None:
    """Write a data set into a new file."""
    plan = _plan(stored)
    file.create_dataset("t-coordinate", data=np.asarray(plan.times, dtype=np.float32))
    for axis, points in zip(plan.axes, plan.grid.coordinates(), strict=True):
        file.create_dataset(f"{axis}-coordinate", data=points.astype(np.float32))
    write_arrays(file, stored, plan)


def _plan(stored: Samples) -> Plan:
    plan = plan_of(stored.schema, require_grid(stored, "PDEBench's files"), components="apart", vectors=False)
    is_alone = sum(part.role in ("output", "state") for part in plan.parts) == 1

    def placed(part: Part) -> Part:
        if part.role == "parameter":
            return dataclasses.replace(part, path=f"parameters/{part.path}")
        if is_alone and part.role in ("output", "state"):
            return dataclasses.replace(part, path="tensor")
        return dataclasses.replace(part, path=f"{part.path}_") if part.path == "tensor" else part

    return dataclasses.replace(plan, parts=tuple(placed(part) for part in plan.parts))
