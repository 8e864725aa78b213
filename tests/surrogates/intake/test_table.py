"""The table format x case: files made by each format's own library are taken in with equal values."""

from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import hdf5storage
import netCDF4
import numpy as np
import pytest
import scipy.io
import torch
import zarr

from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.surrogates.format import AbstractFormat
from headrace.surrogates.formats import HDF5, NPY, NPZ, Mat, NetCDF, Torch, ZarrFolder
from headrace.surrogates.intake.layout import FieldLayout, Layout

type Arrays = Mapping[str, np.ndarray]

rng = np.random.default_rng(7)
AXES = {"u": ("sample", "time", "x", "y"), "a": ("sample", "x", "y"), "v": ("sample", "time", "x", "y", "channel")}
ARRAYS: Arrays = {
    "u": rng.normal(size=(5, 4, 6, 3)),
    "v": rng.normal(size=(5, 4, 6, 3, 2)).astype(np.float32),
    "a": rng.integers(-3, 9, size=(5, 6, 3)).astype(np.int32),
    "nu": rng.random(5),
    "t": np.array([0.0, 0.5, 1.0, 1.5]),
}


def npz(path: Path, arrays: Arrays) -> None:
    np.savez(path, **arrays)


def npz_compressed(path: Path, arrays: Arrays) -> None:
    np.savez_compressed(path, **arrays)


def npz_fortran(path: Path, arrays: Arrays) -> None:
    np.savez(path, **{name: np.asfortranarray(array) for name, array in arrays.items()})


def npy(path: Path, arrays: Arrays) -> None:
    path.mkdir()
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)


def hdf5(path: Path, arrays: Arrays) -> None:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, chunks=True if array.ndim > 1 else None)


def zarr_2(path: Path, arrays: Arrays) -> None:
    group = zarr.open_group(path, mode="w", zarr_format=2)
    for name, array in arrays.items():
        group.create_array(name, data=array, chunks=(2, *array.shape[1:]))


def zarr_3(path: Path, arrays: Arrays) -> None:
    group = zarr.open_group(path, mode="w", zarr_format=3)
    for name, array in arrays.items():
        group.create_array(name, data=array, chunks=(2, *array.shape[1:]))


def matlab_5(path: Path, arrays: Arrays) -> None:
    scipy.io.savemat(path, dict(arrays), do_compression=True)


def matlab_7_3(path: Path, arrays: Arrays) -> None:
    hdf5storage.savemat(str(path), dict(arrays), format="7.3", store_python_metadata=False, oned_as="column")


def torch_dictionary(path: Path, arrays: Arrays) -> None:
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)


def torch_with_gradients(path: Path, arrays: Arrays) -> None:
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    tensors["u"].requires_grad_()
    tensors["a"] = tensors["a"].to_sparse()
    torch.save(tensors, path)


def netcdf_3(path: Path, arrays: Arrays) -> None:
    with scipy.io.netcdf_file(path, "w") as file:
        for name, array in arrays.items():
            names = [f"{name}_{axis}" for axis in range(array.ndim)]
            for axis, length in zip(names, array.shape, strict=True):
                file.createDimension(axis, length)
            file.createVariable(name, array.dtype, names)[:] = array


def netcdf_4(path: Path, arrays: Arrays) -> None:
    with netCDF4.Dataset(path, "w") as file:
        for name, array in arrays.items():
            names = [f"{name}_{axis}" for axis in range(array.ndim)]
            for axis, length in zip(names, array.shape, strict=True):
                file.createDimension(axis, length)
            file.createVariable(name, array.dtype, names, zlib=True)[:] = array


WRITERS: list[tuple[Callable[[Path, Arrays], None], AbstractFormat, str]] = [
    (npz, NPZ(), "d.npz"),
    (npz_compressed, NPZ(), "d.npz"),
    (npz_fortran, NPZ(), "d.npz"),
    (npy, NPY(), "d"),
    (hdf5, HDF5(), "d.h5"),
    (zarr_2, ZarrFolder(), "d.zarr"),
    (zarr_3, ZarrFolder(), "d.zarr"),
    (matlab_5, Mat(), "d.mat"),
    (matlab_7_3, Mat(), "d.mat"),
    (torch_dictionary, Torch(), "d.pt"),
    (torch_with_gradients, Torch(), "d.pt"),
    (netcdf_3, NetCDF(), "d.nc"),
    (netcdf_4, NetCDF(), "d.nc"),
]
GRID = {"extent": (2.0, 1.0), "periodic": ("x",), "location": "nodes"}


def field(name: str, role: str, **more: object) -> FieldLayout:
    return FieldLayout.model_validate({"name": name, "role": role, "axes": AXES.get(name, ("sample",)), **more})


@pytest.mark.parametrize(("write", "format_", "name"), WRITERS, ids=[write.__name__ for write, _, _ in WRITERS])
def test_values_are_equal(
    tmp_path: Path, write: Callable[[Path, Arrays], None], format_: AbstractFormat, name: str
) -> None:
    write(tmp_path / name, ARRAYS)
    u, v, a, nu = (ARRAYS[one].astype(np.float32) for one in ("u", "v", "a", "nu"))
    domain = Grid(shape=(6, 3), extent=(2.0, 1.0), periodic=(True, False))
    # A steady problem: an input and an output at one time.
    layout = Layout(fields=(field("a", "input", unit="m2"), field("y", "output", array="a", axes=AXES["a"])), **GRID)
    assert format_.import_files(tmp_path / name, tmp_path / "steady", layout) == {"d": 5}
    stored = StoredSamples.open(tmp_path / "steady" / "d")
    assert stored.schema == SampleSchema(
        inputs=(FieldSpec(name="a", unit="m2"),), outputs=(FieldSpec(name="y"),), domain=domain
    )
    np.testing.assert_array_equal(stored.read_all().inputs[:, 0], a)
    np.testing.assert_array_equal(stored.read_all().outputs[:, 0, 0], a)
    # In time: two states of which one is a component of a vector, a constant input, a parameter, times from the file.
    layout = Layout(
        fields=(
            field("a", "input"),
            field("u", "state", unit="m/s"),
            field("w", "state", array="v", axes=AXES["v"], channels=(1,)),
            field("nu", "parameter"),
        ),
        times="t",
        **GRID,
    )
    assert format_.import_files(tmp_path / name, tmp_path / "evolving", layout) == {"d": 5}
    stored = StoredSamples.open(tmp_path / "evolving" / "d")
    assert stored.schema == SampleSchema(
        inputs=(FieldSpec(name="a"), FieldSpec(name="u", unit="m/s"), FieldSpec(name="w")),
        outputs=(FieldSpec(name="u", unit="m/s"), FieldSpec(name="w")),
        parameters=(FieldSpec(name="nu"),),
        domain=domain,
        times=(0.5, 1.0, 1.5),
    )
    batch = stored.read_all()
    w = v[..., 1]
    np.testing.assert_array_equal(batch.inputs, np.stack([a, u[:, 0], w[:, 0]], axis=1))
    np.testing.assert_array_equal(batch.outputs, np.stack([u[:, 1:], w[:, 1:]], axis=2))
    np.testing.assert_array_equal(batch.parameters[:, 0], nu)


def test_a_tuple_and_a_single_tensor(tmp_path: Path) -> None:
    x, y = torch.randn(4, 8), torch.randn(4, 2, 8)
    torch.save((x, y), tmp_path / "pair.pt")
    fields = (
        FieldLayout(name="x", role="input", array="0", axes=("sample", "x")),
        FieldLayout(name="y", role="output", array="1", axes=("sample", "channel", "x")),
    )
    layout = Layout(fields=fields, extent=(1.0,), periodic=("all",))
    assert Torch().import_files(tmp_path / "pair.pt", tmp_path / "out", layout) == {"pair": 4}
    np.testing.assert_array_equal(StoredSamples.open(tmp_path / "out" / "pair").read_all().outputs[:, 0], y.numpy())
    torch.save(torch.randn(4, 3, 8), tmp_path / "one.pt")
    layout = Layout(
        fields=(FieldLayout(name="u", role="state", array="tensor", axes=("sample", "time", "x")),),
        dt=0.1,
        extent=(1.0,),
        periodic=("x",),
    )
    Torch().import_files(tmp_path / "one.pt", tmp_path / "single", layout)
    assert StoredSamples.open(tmp_path / "single" / "one").schema.times == (0.1, 0.2)


def test_matlab_structures_and_vectors(tmp_path: Path) -> None:
    u = rng.normal(size=(3, 5))
    scipy.io.savemat(tmp_path / "s.mat", {"run": {"u": u, "nu": np.array([[1.0], [2.0], [3.0]]), "dx": 0.25}})
    layout = Layout(
        fields=(
            FieldLayout(name="u", role="output", array="run/u", axes=("sample", "x")),
            FieldLayout(name="nu", role="parameter", array="run/nu", axes=("sample",)),
            FieldLayout(name="dx", role="parameter", array="run/dx"),
        ),
        extent=(1.0,),
        periodic=("x",),
    )
    assert Mat().import_files(tmp_path / "s.mat", tmp_path / "out", layout) == {"s": 3}
    batch = StoredSamples.open(tmp_path / "out" / "s").read_all()
    np.testing.assert_array_equal(batch.outputs[:, 0, 0], u.astype(np.float32))
    assert batch.parameters.tolist() == [[1.0, 0.25], [2.0, 0.25], [3.0, 0.25]]


def test_netcdf_names_its_axes_times_units_and_packing(tmp_path: Path) -> None:
    temperature = np.round(rng.normal(size=(2, 3, 8)) * 50) * 0.5 + 20
    with netCDF4.Dataset(tmp_path / "sea.nc", "w") as file:
        for name, length in {"sample": 2, "time": 3, "x": 8}.items():
            file.createDimension(name, length)
        file.createVariable("time", "f8", ("time",))[:] = [10.0, 12.0, 14.0]
        file.createVariable("x", "f4", ("x",))[:] = np.arange(8) / 8 + 1 / 16
        packed = file.createVariable("temperature", "i2", ("sample", "time", "x"), fill_value=-999)
        packed.scale_factor, packed.add_offset, packed.units = 0.5, 20.0, "K"
        packed[:] = temperature
    layout = Layout(fields=(FieldLayout(name="temperature", role="state"),), periodic=())
    assert NetCDF().import_files(tmp_path / "sea.nc", tmp_path / "out", layout) == {"sea": 2}
    stored = StoredSamples.open(tmp_path / "out" / "sea")
    assert stored.schema.outputs == (FieldSpec(name="temperature", unit="K"),)
    assert stored.schema.times == (2.0, 4.0)
    assert stored.schema.domain == Grid(shape=(8,), extent=(1.0,), periodic=(False,), location="cells")
    np.testing.assert_array_equal(stored.read_all().outputs[:, :, 0], temperature[:, 1:].astype(np.float32))


def test_xarray_names_its_axes_in_zarr(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    u = rng.normal(size=(3, 4, 6))
    data = xarray.Dataset({"u": (("sample", "time", "x"), u, {"units": "m"})}, {"time": [0.0, 0.1, 0.2, 0.3]})
    for version in (2, 3):
        data.to_zarr(tmp_path / f"v{version}.zarr", zarr_format=version, consolidated=False)
        layout = Layout(fields=(FieldLayout(name="u", role="state"),), extent=(1.0,), periodic=("x",))
        ZarrFolder().import_files(tmp_path / f"v{version}.zarr", tmp_path / f"{version}", layout)
        stored = StoredSamples.open(tmp_path / f"{version}" / f"v{version}")
        assert stored.schema.outputs[0].unit == "m" and stored.schema.times == (0.1, 0.2, 0.3)
        np.testing.assert_array_equal(stored.read_all().outputs[:, :, 0], u[:, 1:].astype(np.float32))
