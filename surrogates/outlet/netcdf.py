"""NetCDF 4, by h5netcdf: one variable a field, with dimensions, coordinates and units after the CF conventions."""

from pathlib import Path
from typing import Any

import numpy as np

from headrace.platform.dataset.samples import Samples
from headrace.surrogates.intake.layout import ATTRIBUTE, CHANNEL, SAMPLE, TIME
from headrace.surrogates.intake.origin import INDEX, ORIGIN, PROVENANCE
from headrace.surrogates.outlet.filling import fill, num_provenance, require_grid
from headrace.surrogates.outlet.parts import Part, Plan, plan_of


def write_netcdf(path: Path, stored: Samples, name: str) -> None:
    """Write a data set into a new file.

    Args:
        path: the file.
        stored: the samples.
        name: what the data are called.
    """
    import h5netcdf

    plan = plan_of(stored.schema, require_grid(stored, "these NetCDF files"))
    with h5netcdf.File(path, "w") as file:
        file.attrs["Conventions"] = "CF-1.11"
        file.attrs["title"] = name
        _dimensions(file, plan, len(stored))
        for part in plan.parts:
            variable = file.create_variable(part.path, _dimension_names(part), np.float32)
            variable.attrs["units"] = part.unit
            variable.attrs["long_name"] = part.name
        group = file.create_group("headrace")
        group.dimensions["column"] = num_provenance()
        group.create_variable(INDEX.partition("/")[2], (SAMPLE,), np.int64)
        group.create_variable(PROVENANCE.partition("/")[2], (SAMPLE, "column"), np.float64)

        def put(path: str, rows: slice, values: np.ndarray) -> None:
            file[path][rows] = values

        file.attrs[ORIGIN] = fill(stored, plan, put)
        file.attrs[ATTRIBUTE] = plan.layout.to_json()


def _dimensions(file: Any, plan: Plan, count: int) -> None:
    file.dimensions = {SAMPLE: count, TIME: len(plan.times)} | dict(zip(plan.axes, plan.grid.shape, strict=True))
    for part in plan.parts:
        if CHANNEL in part.axes:
            file.dimensions[_channel(part)] = part.shape[-1]
    _coordinate(file, TIME, np.asarray(plan.times), "T")
    for axis, points in zip(plan.axes, plan.grid.coordinates(), strict=True):
        _coordinate(file, axis, points, axis.upper() if len(axis) == 1 else "")


def _coordinate(file: Any, name: str, values: np.ndarray, letter: str) -> None:
    variable = file.create_variable(name, (name,), np.float64, data=values)
    variable.attrs["units"] = "1"
    if letter:
        variable.attrs["axis"] = letter


def _dimension_names(part: Part) -> tuple[str, ...]:
    return tuple(_channel(part) if axis == CHANNEL else axis for axis in part.axes)


def _channel(part: Part) -> str:
    return f"{part.path}_component"
