"""The Well's HDF5 (Ohana et al., NeurIPS 2024): its groups, attributes and names, as its own checker wants them.

/                    dataset_name, grid_type, n_spatial_dims, n_trajectories, simulation_parameters
/dimensions          time and x, y, z, with `spatial_dims`
/boundary_conditions x_periodic, or x_open: where nothing wraps, The Well's own default; what is imposed on a side is
not part of a data set here
/scalars             the parameters (N,)
/t0_fields           scalar fields: inputs (N, *grid), outputs and states (N, T, *grid)
/t1_fields           fields with as many components as there are axes: the same with one more axis, the last
/t2_fields           none: other components stand apart, as scalar fields NAME_0, NAME_1, ...
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from headrace.platform.dataset.samples import Samples
from headrace.surrogates.intake.layout import CHANNEL, TIME
from headrace.surrogates.outlet.filling import require_grid
from headrace.surrogates.outlet.hdf5_file import write_arrays
from headrace.surrogates.outlet.parts import Part, Plan, plan_of

if TYPE_CHECKING:
    import h5py

_GROUPS = ("t0_fields", "t1_fields", "t2_fields", "scalars")


def write_well(file: "h5py.File", stored: Samples, name: str) -> None:
    """Write a data set into a new file.

    Args:
        file: open for writing.
        stored: the samples.
        name: what the data are called: The Well wants one name for all files of a folder.
    """
    plan = _plan(stored)
    file.attrs["dataset_name"] = name
    file.attrs["grid_type"] = "cartesian"
    file.attrs["n_spatial_dims"] = np.int64(len(plan.axes))
    file.attrs["n_trajectories"] = np.int64(len(stored))
    _names(file, "simulation_parameters", [])
    _dimensions(file.create_group("dimensions"), plan)
    _boundaries(file.create_group("boundary_conditions"), plan)
    for group in _GROUPS:
        paths = [part.path.partition("/") for part in plan.parts]
        _names(file.create_group(group), "field_names", [own for where, _, own in paths if where == group])

    def describe(dataset: "h5py.Dataset", part: Part) -> None:
        _varying(dataset, sample=True, time=TIME in part.axes)
        if part.role != "parameter":
            dataset.attrs["dim_varying"] = np.ones(len(plan.axes), dtype=bool)

    write_arrays(file, stored, plan, describe)


def _plan(stored: Samples) -> Plan:
    """Every part in the group of its tensor order."""
    plan = plan_of(stored.schema, require_grid(stored, "The Well's files"), components="apart")

    def placed(part: Part) -> Part:
        if part.role == "parameter":
            return dataclasses.replace(part, path=f"scalars/{part.path}")
        return dataclasses.replace(part, path=f"t{int(CHANNEL in part.axes)}_fields/{part.path}")

    return dataclasses.replace(plan, parts=tuple(placed(part) for part in plan.parts))


def _dimensions(group: "h5py.Group", plan: Plan) -> None:
    _names(group, "spatial_dims", list(plan.axes))
    group.create_dataset("time", data=np.asarray(plan.times, dtype=np.float32))
    # Its checker takes the time axis for the one along which the times vary.
    _varying(group["time"], sample=False, time=True)
    for axis, points in zip(plan.axes, plan.grid.coordinates(), strict=True):
        group.create_dataset(axis, data=points.astype(np.float32))
        _varying(group[axis], sample=False, time=False)


def _boundaries(group: "h5py.Group", plan: Plan) -> None:
    for axis, points, wraps in zip(plan.axes, plan.grid.shape, plan.grid.periodic, strict=True):
        kind = "PERIODIC" if wraps else "OPEN"
        side = group.create_group(f"{axis}_{kind.lower()}")
        side.attrs["bc_type"] = kind
        _names(side, "associated_dims", [axis])
        _names(side, "associated_fields", [])
        _varying(side, sample=False, time=False)
        mask = np.zeros(points, dtype=bool)
        mask[[0, -1]] = True
        side.create_dataset("mask", data=mask)


def _varying(node: "h5py.Dataset | h5py.Group", *, sample: bool, time: bool) -> None:
    node.attrs["sample_varying"] = sample
    node.attrs["time_varying"] = time


def _names(node: "h5py.File | h5py.Group", key: str, names: list[str]) -> None:
    import h5py

    node.attrs.create(key, np.array(names, dtype=object), shape=(len(names),), dtype=h5py.string_dtype())
