"""Formats that say what they hold: The Well, opened by its own WellDataset too, and PDEBench's four layouts."""

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
from the_well.data.datasets import WellDataset
from the_well.utils.dummy_data import write_dummy_data

from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, Grid
from headrace.surrogates.formats import HDF5, PDEBench, TheWell
from headrace.surrogates.intake.layout import FieldLayout, Layout

rng = np.random.default_rng(3)
AXES = "xyz"


def described(dataset: h5py.Dataset, **attributes: object) -> None:
    for name, value in attributes.items():
        dataset.attrs[name] = value


def write_well(path: Path, shape: tuple[int, ...], *, wraps: bool, seed: int = 0, gamma: float = 1.4) -> dict:
    """A file in the structure that `write_dummy_data` of the_well shows, with every kind of field and scalar."""
    draw, dim, samples, times = np.random.default_rng(seed), len(shape), 3, 4
    arrays = {
        "density": draw.random((samples, times, *shape)),
        "profile": draw.random((1, *shape[1:])) if dim > 1 else draw.random(shape),
        "velocity": draw.normal(size=(samples, times, *shape, dim)),
        "stress": draw.normal(size=(samples, times, *shape, dim, dim)),
        "force": draw.normal(size=(samples, times)),
        "nu": draw.random(samples),
    }
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    with h5py.File(path, "w") as file:
        described(file, dataset_name="made", grid_type="cartesian", n_spatial_dims=dim, n_trajectories=samples)
        file.attrs["simulation_parameters"] = ["gamma"]
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = list(AXES[:dim])
        described(dimensions.create_dataset("time", data=np.arange(times) * 0.5 + 1), sample_varying=False)
        for axis, n in zip(AXES, shape, strict=False):
            points = (np.arange(n) / n if wraps else (np.arange(n) + 0.5) / n).astype(np.float32)
            described(dimensions.create_dataset(axis, data=points), sample_varying=False)
        for axis, n in zip(AXES, shape, strict=False):
            group = file.require_group("boundary_conditions").create_group(f"{axis}_boundary")
            mask = np.zeros(n, dtype=bool)
            mask[[0, -1]] = True
            group.create_dataset("mask", data=mask)
            described(group, associated_dims=[axis], associated_fields=[], bc_type="PERIODIC" if wraps else "WALL")
            described(group, sample_varying=False, time_varying=False)
        scalars = file.create_group("scalars")
        scalars.attrs["field_names"] = ["gamma", "nu", "force"]
        described(scalars.create_dataset("gamma", data=gamma), time_varying=False, sample_varying=False)
        described(scalars.create_dataset("nu", data=arrays["nu"]), time_varying=False, sample_varying=True)
        described(scalars.create_dataset("force", data=arrays["force"]), time_varying=True, sample_varying=True)
        constant = [dim == 1, *[True] * (dim - 1)]
        for order, names in enumerate((["density", "profile"], ["velocity"], ["stress"])):
            group = file.create_group(f"t{order}_fields")
            group.attrs["field_names"] = names
            for name in names:
                varies = name != "profile"
                described(
                    group.create_dataset(name, data=arrays[name]),
                    dim_varying=[True] * dim if varies else constant,
                    sample_varying=varies,
                    time_varying=varies,
                )
    return arrays


@pytest.mark.parametrize("shape", [(6,), (6, 4), (4, 3, 2)], ids=["1-D", "2-D", "3-D"])
@pytest.mark.parametrize("wraps", [True, False], ids=["periodic", "walls"])
def test_the_well(tmp_path: Path, shape: tuple[int, ...], wraps: bool) -> None:
    dim = len(shape)
    for split, seed in (("train", 0), ("valid", 1), ("test", 2)):
        (tmp_path / "in" / "data" / split).mkdir(parents=True)
        write_well(tmp_path / "in" / "data" / split / f"{split}.hdf5", shape, wraps=wraps, seed=seed)
    arrays = write_well(tmp_path / "in" / "data" / "train" / "train_2.hdf5", shape, wraps=wraps, seed=5, gamma=1.6)
    # The file is what The Well's own reader takes.
    theirs = WellDataset(path=str(tmp_path / "in" / "data" / "train"), use_normalization=False)
    assert len(theirs) == 18 and theirs.metadata.n_fields == 1 + dim + dim * dim
    first = theirs[9]  # the first step of the second file's first trajectory

    understood: list = []
    counts = TheWell().import_files(tmp_path / "in", tmp_path / "out", tell=understood.append)
    assert counts == {"train": 6, "validation": 3, "test": 3}
    stored = StoredSamples.open(tmp_path / "out" / "train")
    schema = stored.schema
    states = (FieldSpec(name="density"), FieldSpec(name="velocity", components=dim))
    states = (*states, FieldSpec(name="stress", components=dim * dim))
    assert schema.outputs == states
    assert schema.inputs == (states[0], FieldSpec(name="profile"), *states[1:])
    assert schema.parameters == (FieldSpec(name="gamma"), FieldSpec(name="nu"), FieldSpec(name="force", components=4))
    assert schema.domain == Grid(
        shape=shape, extent=(1.0,) * dim, periodic=(wraps,) * dim, location="nodes" if wraps else "cells"
    )
    assert schema.times == (0.5, 1.0, 1.5)
    batch = stored.read_all()
    density, profile = arrays["density"], np.broadcast_to(arrays["profile"], shape)
    velocity = np.moveaxis(arrays["velocity"], -1, 2)
    stress = np.moveaxis(arrays["stress"].reshape(3, 4, *shape, dim * dim), -1, 2)
    np.testing.assert_array_equal(batch.outputs[3:], np.concatenate([density[:, :, None], velocity, stress], 2)[:, 1:])
    np.testing.assert_array_equal(batch.inputs[3:, 0], density[:, 0])
    np.testing.assert_array_equal(batch.inputs[4, 1], profile)
    np.testing.assert_array_equal(batch.inputs[3:, 2 : 2 + dim], velocity[:, 0])
    np.testing.assert_array_equal(batch.parameters[3:, 0], np.float32([1.6] * 3))
    np.testing.assert_array_equal(batch.parameters[:3, 0], np.float32([1.4] * 3))
    np.testing.assert_array_equal(batch.parameters[3:, 2:], arrays["force"])
    # And their reader hands out the same numbers: channels last, the fields by order.
    np.testing.assert_array_equal(np.moveaxis(first["output_fields"][0].numpy(), -1, 0), batch.outputs[3, 0])
    assert any("wall along x" in note for note in understood[0].notes) is not wraps


def test_the_files_that_the_wells_own_generator_writes(tmp_path: Path) -> None:
    write_dummy_data(str(tmp_path / "dummy_train.hdf5"))
    assert TheWell().recognizes(tmp_path / "dummy_train.hdf5") and not PDEBench().recognizes(
        tmp_path / "dummy_train.hdf5"
    )
    assert TheWell().import_files(tmp_path / "dummy_train.hdf5", tmp_path / "out") == {"train": 2}
    stored = StoredSamples.open(tmp_path / "out" / "train")
    assert [spec.name for spec in stored.schema.inputs] == ["constant_field", "field"]
    with h5py.File(tmp_path / "dummy_train.hdf5") as file:
        np.testing.assert_array_equal(
            stored.read_all().outputs, np.moveaxis(file["t1_fields/field"][:, 1:].astype(np.float32), -1, 2)
        )


def test_a_well_file_that_is_not_cartesian(tmp_path: Path) -> None:
    write_well(tmp_path / "disk.hdf5", (4, 4), wraps=True)
    with h5py.File(tmp_path / "disk.hdf5", "r+") as file:
        file.attrs["grid_type"] = "polar"
    with pytest.raises(InputError, match="grid_type is polar; expected cartesian"):
        TheWell().import_files(tmp_path / "disk.hdf5", tmp_path / "out")


PERIODIC = Layout(periodic=("all",))
WALLS = Layout(periodic=())


def test_pdebench_in_one_dimension(tmp_path: Path) -> None:
    tensor = rng.normal(size=(4, 5, 8)).astype(np.float32)
    with h5py.File(tmp_path / "1D_Burgers_Nu0.01.hdf5", "w") as file:
        file["tensor"], file["x-coordinate"] = tensor, ((np.arange(8) + 0.5) / 8).astype(np.float32)
        file["t-coordinate"] = np.linspace(0, 2.5, 6, dtype=np.float32)  # one too many, as shipped
        file.attrs["Nu"] = 0.01
    assert PDEBench().recognizes(tmp_path / "1D_Burgers_Nu0.01.hdf5")
    with pytest.raises(InputError, match="periodic is not said in the file; .* Give --periodic x, or --periodic none"):
        PDEBench().import_files(tmp_path / "1D_Burgers_Nu0.01.hdf5", tmp_path / "out")
    split = Layout(periodic=("x",), split={"train": 0.5, "test": 0.5})
    assert PDEBench().import_files(tmp_path / "1D_Burgers_Nu0.01.hdf5", tmp_path / "out", split) == {
        "train": 2,
        "test": 2,
    }
    stored = StoredSamples.open(tmp_path / "out" / "train")
    assert stored.schema.times == (0.5, 1.0, 1.5, 2.0) and stored.schema.domain.extent == (1.0,)
    assert stored.schema.parameters == (FieldSpec(name="Nu"),)
    np.testing.assert_array_equal(stored.read_all().outputs[:, :, 0], tensor[stored.indices, 1:])
    np.testing.assert_array_equal(stored.read_all().inputs[:, 0], tensor[stored.indices, 0])


def test_pdebench_darcy(tmp_path: Path) -> None:
    nu, tensor = rng.random((3, 6, 6)).astype(np.float32), rng.random((3, 1, 6, 6)).astype(np.float32)
    with h5py.File(tmp_path / "2D_DarcyFlow_beta1.0_Train.hdf5", "w") as file:
        file["nu"], file["tensor"] = nu, tensor
        for axis in "xy":
            file[f"{axis}-coordinate"] = ((np.arange(6) + 0.5) / 6).astype(np.float32)
        file.attrs["beta"] = 1.0
    assert PDEBench().import_files(tmp_path, tmp_path / "out", WALLS) == {"train": 3}
    stored = StoredSamples.open(tmp_path / "out" / "train")
    assert stored.schema.domain == Grid(shape=(6, 6), extent=(1.0, 1.0), periodic=(False, False), location="cells")
    np.testing.assert_array_equal(stored.read_all().inputs[:, 0], nu)
    np.testing.assert_array_equal(stored.read_all().outputs[:, :, 0], tensor)


@pytest.mark.parametrize("shape", [(8,), (6, 4), (4, 3, 2)], ids=["1-D", "2-D", "3-D"])
def test_pdebench_compressible_flow(tmp_path: Path, shape: tuple[int, ...]) -> None:
    names = ["density", "pressure", *("Vx", "Vy", "Vz")[: len(shape)]]
    arrays: Mapping = {name: rng.random((2, 3, *shape)).astype(np.float32) for name in names}
    with h5py.File(tmp_path / "CFD_Train.hdf5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
        for axis, n in zip(AXES, shape, strict=False):
            file[f"{axis}-coordinate"] = (np.arange(n) + 0.5) / n
        file["t-coordinate"] = np.arange(4) * 0.05
        file.attrs["eta"], file.attrs["zeta"] = 1e-8, 1e-8
    PDEBench().import_files(tmp_path / "CFD_Train.hdf5", tmp_path / "out", PERIODIC)
    stored = StoredSamples.open(tmp_path / "out" / "train")
    assert [spec.name for spec in stored.schema.outputs] == names
    np.testing.assert_array_equal(stored.read_all().outputs, np.stack([arrays[name][:, 1:] for name in names], 2))


def test_pdebench_a_group_for_each_sample(tmp_path: Path) -> None:
    data = rng.random((3, 4, 6, 5, 2)).astype(np.float32)
    with h5py.File(tmp_path / "2D_diff-react.h5", "w") as file:
        for number, one in enumerate(data):
            group = file.create_group(f"{number:04d}")
            group["data"] = one
            group["grid/x"], group["grid/y"] = (np.arange(6) + 0.5) / 6, (np.arange(5) + 0.5) / 5
            group["grid/t"] = np.array([0.0, 0.1, 0.2, 0.3])
    assert PDEBench().recognizes(tmp_path / "2D_diff-react.h5")
    PDEBench().import_files(tmp_path / "2D_diff-react.h5", tmp_path / "out", WALLS)
    stored = StoredSamples.open(tmp_path / "out" / "2D_diff-react")
    assert stored.schema.outputs == (FieldSpec(name="data", components=2),)
    np.testing.assert_array_equal(stored.read_all().outputs, np.moveaxis(data[:, 1:], -1, 2))


def test_pdebench_incompressible_flow(tmp_path: Path) -> None:
    velocity, force = rng.random((2, 3, 6, 5, 2)).astype(np.float32), rng.random((2, 6, 5, 2)).astype(np.float32)
    with h5py.File(tmp_path / "ns_incom.h5", "w") as file:
        file["velocity"], file["particles"], file["force"] = velocity, velocity[..., :1], force
        file["t"] = np.broadcast_to(np.array([0.0, 0.25, 0.5]), (2, 3))
    with pytest.raises(InputError) as caught:
        PDEBench().import_files(tmp_path / "ns_incom.h5", tmp_path / "out")
    assert {fault.where.rpartition(" ")[2] for fault in caught.value.faults} == {"periodic", "location", "extent"}
    layout = Layout(periodic=(), extent=(1.0, 1.0), location="cells")
    PDEBench().import_files(tmp_path / "ns_incom.h5", tmp_path / "out", layout)
    batch = StoredSamples.open(tmp_path / "out" / "ns_incom").read_all()
    np.testing.assert_array_equal(batch.inputs[:, :2], np.moveaxis(force, -1, 1))
    np.testing.assert_array_equal(batch.outputs[:, :, :2], np.moveaxis(velocity[:, 1:], -1, 2))


def test_a_layout_that_stands_in_the_file_makes_the_data_set_again(tmp_path: Path) -> None:
    u, index = rng.normal(size=(4, 3, 6)), np.array([2, 3, 5, 7])
    layout = Layout(
        fields=(FieldLayout(name="u", role="state", array="g/u", axes=("sample", "time", "x"), unit="m"),),
        times=(0.0, 0.5, 1.0),
        extent=(2.0,),
        periodic=("x",),
        index="index",
    )
    with h5py.File(tmp_path / "u_test.h5", "w") as file:
        file["g/u"], file["index"] = u, index
        file.attrs["headrace_layout"] = layout.to_json()
    assert HDF5().import_files(tmp_path / "u_test.h5", tmp_path / "out") == {"test": 4}
    stored = StoredSamples.open(tmp_path / "out" / "test")
    assert stored.indices.tolist() == [2, 3, 5, 7] and stored.schema.times == (0.5, 1.0)
    assert stored.schema.outputs == (FieldSpec(name="u", unit="m"),)
    with h5py.File(tmp_path / "u_test.h5", "r+") as file:
        file.attrs["headrace_layout"] = "{"
    with pytest.raises(InputError, match="headrace_layout is not readable"):
        HDF5().import_files(tmp_path / "u_test.h5", tmp_path / "again")
