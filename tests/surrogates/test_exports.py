"""Exported data sets: bit for bit through each format, and as the formats' own libraries want them."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray

from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.dataset.writer import write_dataset
from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, Grid, Mesh, SampleSchema
from headrace.platform.sample import Provenance, SampleBatch
from headrace.surrogates.format import AbstractFormat
from headrace.surrogates.formats import HDF5, NetCDF, NeuralOperator, PDEBench, TheWell
from headrace.surrogates.intake import origin
from headrace.surrogates.intake.layout import ATTRIBUTE, FieldLayout, Layout
from headrace.surrogates.outlet import filling

WRITTEN = (TheWell, PDEBench, NetCDF, HDF5, NeuralOperator)
U = FieldSpec(name="u", unit="m/s")
V = FieldSpec(name="v", components=2, unit="m/s")


def schema(
    inputs: tuple[FieldSpec, ...],
    outputs: tuple[FieldSpec, ...],
    shape: tuple[int, ...],
    times: tuple[float, ...] = (0.0,),
    parameters: tuple[FieldSpec, ...] = (),
) -> SampleSchema:
    extent = tuple(1.0 + axis / 3 for axis in range(len(shape)))
    periodic = tuple(axis == 0 and len(times) > 1 for axis in range(len(shape)))
    grid = Grid(shape=shape, extent=extent, periodic=periodic, location="nodes" if len(shape) == 2 else "cells")
    return SampleSchema(inputs=inputs, outputs=outputs, parameters=parameters, domain=grid, times=times)


CASES = {
    "1-D in time, a parameter": schema((U,), (U,), (12,), (0.1, 0.2, 0.30000000000000004), (FieldSpec(name="nu"),)),
    "2-D steady, two inputs": schema(
        (FieldSpec(name="k", unit="m^2"), FieldSpec(name="f")), (FieldSpec(name="p"),), (5, 7)
    ),
    "2-D in time, a vector, a constant": schema(
        (FieldSpec(name="mask"), V), (V,), (5, 4), (1.0, 2.0), (FieldSpec(name="re"), FieldSpec(name="w", components=3))
    ),
    "2-D in time, more comes out than goes in": schema((V,), (V, FieldSpec(name="p", unit="Pa")), (5, 4), (1.0, 2.0)),
    "2-D, three components, names as they come": schema(
        (FieldSpec(name="time", components=3),), (FieldSpec(name="größe: x/y"), FieldSpec(name="2")), (5, 4)
    ),
    "3-D steady, a vector": schema((FieldSpec(name="k"),), (FieldSpec(name="u", components=3),), (3, 4, 5)),
    "parameters alone": schema((), (U,), (6,), parameters=(FieldSpec(name="a", unit="K"),)),
}


def dataset(directory: Path, schema: SampleSchema, count: int = 6) -> StoredSamples:
    """Random samples with odd indices and varied provenance."""
    rng = np.random.default_rng(0)
    shape, indices = schema.domain.shape, np.arange(count) * 3 + 1
    batch = SampleBatch(
        indices=indices,
        inputs=rng.normal(size=(count, schema.num_input_channels, *shape)).astype(np.float32),
        outputs=rng.normal(size=(count, len(schema.times), schema.num_output_channels, *shape)).astype(np.float32),
        parameters=rng.normal(size=(count, schema.num_parameters)).astype(np.float32),
        provenance=tuple(
            Provenance(
                spec_hash="0123456789abcdef",
                seed=2**62 + 1,
                index=int(index),
                level=("leicht", "schwierig: größer")[index % 2],
                solver="spectral",
                status="converged",
                relative_residual=float("nan") if index == 1 else float(rng.random()) * 1e-9,
                num_iterations=int(index),
                wall_seconds=float(rng.random()),
                cpu_seconds=float(rng.random()),
                version="0.1.0",
            )
            for index in indices
        ),
    )
    write_dataset(directory, schema, [batch], {})
    return StoredSamples.open(directory)


def refuse(self: StoredSamples) -> SampleBatch:
    raise AssertionError("all samples were read at once")


def holds(kind: type[AbstractFormat], schema: SampleSchema) -> bool:
    return kind is not NeuralOperator or (len(schema.times) == 1 and schema.num_input_channels > 0)


def pairs() -> Iterator[object]:
    for kind, name in itertools.product(WRITTEN, CASES):
        if holds(kind, CASES[name]):
            yield pytest.param(kind, CASES[name], id=f"{kind().kind}: {name}")


def same(one: StoredSamples, other: StoredSamples) -> bool:
    mine, theirs = one.read_all(), other.read_all()
    arrays = ("indices", "inputs", "outputs", "parameters")
    # NaN is not itself; in words it is.
    return (
        one.schema == other.schema
        and all(np.array_equal(getattr(mine, name), getattr(theirs, name)) for name in arrays)
        and repr(mine.provenance) == repr(theirs.provenance)
    )


@pytest.mark.parametrize(("kind", "schema"), pairs())
def test_what_was_exported_is_imported_as_the_same_data_set(
    tmp_path: Path, kind: type[AbstractFormat], schema: SampleSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = dataset(tmp_path / "stored", schema)
    # Two samples at a time, and never all of them: larger than memory works.
    monkeypatch.setattr(filling, "NBYTES", 2 * schema.sample_nbytes)
    monkeypatch.setattr(StoredSamples, "read_all", refuse)
    kind().export_dataset(stored, tmp_path / "out", "mine", "train")
    monkeypatch.undo()
    assert kind().import_files(tmp_path / "out", tmp_path / "in") == {"train": len(stored)}
    assert same(stored, StoredSamples.open(tmp_path / "in" / "train"))


@pytest.mark.parametrize("kind", [TheWell, PDEBench])
def test_what_is_hdf5_is_read_as_such_too(tmp_path: Path, kind: type[AbstractFormat]) -> None:
    stored = dataset(tmp_path / "stored", CASES["2-D in time, a vector, a constant"])
    [file] = kind().export_dataset(stored, tmp_path / "out", "mine", "train")
    HDF5().import_files(file, tmp_path / "in")
    assert same(stored, StoredSamples.open(next((tmp_path / "in").iterdir())))


@pytest.mark.parametrize("kind", WRITTEN)
def test_an_export_that_breaks_leaves_nothing(
    tmp_path: Path, kind: type[AbstractFormat], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = dataset(tmp_path / "stored", CASES["2-D steady, two inputs"])

    def batches(self: StoredSamples, size: int) -> Iterator[SampleBatch]:
        yield self.batch(np.arange(2))
        raise OSError("No space left on device")

    monkeypatch.setattr(StoredSamples, "batches", batches)
    with pytest.raises(OSError, match="No space left"):
        kind().export_dataset(stored, tmp_path / "out", "mine", "train")
    assert [file for file in (tmp_path / "out").rglob("*") if not file.is_dir()] == []


@pytest.mark.parametrize("kind", [TheWell, PDEBench, NetCDF, NeuralOperator])
def test_meshes_are_refused_where_there_is_no_place_for_them(tmp_path: Path, kind: type[AbstractFormat]) -> None:
    mesh = Mesh(points=np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), cells=np.array([[0, 1, 2]]))
    stored = dataset(tmp_path / "stored", SampleSchema(inputs=(U,), outputs=(U,), domain=mesh))
    with pytest.raises(InputError, match="expected one on a grid: .* Export to hdf5"):
        kind().export_dataset(stored, tmp_path / "out", "mine")


def test_damage_of_what_a_file_says_of_itself_is_named(tmp_path: Path) -> None:
    stored = dataset(tmp_path / "stored", CASES["2-D steady, two inputs"])
    [file] = PDEBench().export_dataset(stored, tmp_path / "out", "mine", "train")
    with h5py.File(file, "r+") as content:
        text = content.attrs[origin.ORIGIN]
        content.attrs[origin.ORIGIN] = text[:-20]
    with pytest.raises(InputError, match="headrace_origin is not readable"):
        PDEBench().import_files(file, tmp_path / "in")
    with h5py.File(file, "r+") as content:
        content.attrs[origin.ORIGIN] = text.replace('"p", "components": 1', '"p", "components": 2')
    with pytest.raises(InputError, match="headrace_origin is of other fields than the arrays"):
        PDEBench().import_files(file, tmp_path / "in")


def test_a_part_of_an_exported_file_is_taken_in_with_a_layout_of_ones_own(tmp_path: Path) -> None:
    """What the file says of itself without its origin: the layout alone, as another program would keep it."""
    stored = dataset(tmp_path / "stored", CASES["2-D in time, a vector, a constant"])
    [file] = NetCDF().export_dataset(stored, tmp_path / "out", "mine", "train")
    with h5py.File(file, "r+") as content:
        del content.attrs[origin.ORIGIN]
    NetCDF().import_files(file, tmp_path / "in")
    back = StoredSamples.open(tmp_path / "in" / "train")
    assert back.schema == stored.schema and back.content_hash() == stored.content_hash()
    assert set(back.levels) == {"imported"}


class TestTheWell:
    """The rules of The Well's own `scripts/check_thewell_formatting.py`, which its wheel does not have."""

    @pytest.mark.parametrize("name", CASES)
    def test_is_formatted_as_its_checker_wants_it(self, tmp_path: Path, name: str) -> None:
        stored = dataset(tmp_path / "stored", CASES[name])
        [path] = TheWell().export_dataset(stored, tmp_path / "out", "mine", "validation")
        assert path == tmp_path / "out" / "data" / "valid" / "mine.hdf5"
        with h5py.File(path) as file:
            dims, trajectories = list(file["dimensions"].attrs["spatial_dims"]), len(stored)
            assert file.attrs["dataset_name"] == "mine" and file.attrs["grid_type"] == "cartesian"
            assert (file.attrs["n_spatial_dims"], file.attrs["n_trajectories"]) == (len(dims), trajectories)
            assert len(file.attrs["simulation_parameters"]) == 0
            lengths = {dim: len(file["dimensions"][dim]) for dim in (*dims, "time")}
            for dim in (*dims, "time"):
                self.varies(file["dimensions"][dim], sample=False, time=dim == "time")
            for group, order in (("t0_fields", 0), ("t1_fields", 1), ("t2_fields", 2), ("scalars", None)):
                assert sorted(file[group].attrs["field_names"]) == sorted(file[group])
                for field in file[group].values():
                    shape = (trajectories,)
                    if order is not None:
                        assert field.attrs["dim_varying"].tolist() == [True] * len(dims)
                        shape += (lengths["time"],) * bool(field.attrs["time_varying"])
                        shape += tuple(lengths[dim] for dim in dims) + (len(dims),) * order
                    self.varies(field, sample=True, time=bool(field.attrs["time_varying"]))
                    assert field.shape == shape and field.dtype == np.float32
            assert isinstance(stored.schema.domain, Grid)
            for dim, wraps in zip(dims, stored.schema.domain.periodic, strict=True):
                side = file["boundary_conditions"][f"{dim}_{'periodic' if wraps else 'open'}"]
                self.varies(side, sample=False, time=False)
                assert side.attrs["bc_type"] == ("PERIODIC" if wraps else "OPEN")
                assert list(side.attrs["associated_dims"]) == [dim] and len(side.attrs["associated_fields"]) == 0
                assert side["mask"].dtype == bool and side["mask"].shape == (lengths[dim],)

    def varies(self, node: h5py.Dataset | h5py.Group, *, sample: bool, time: bool) -> None:
        for key, value in (("sample_varying", sample), ("time_varying", time)):
            assert isinstance(node.attrs[key], np.bool_) and node.attrs[key] == value, (node.name, key)

    def test_loads_as_its_library_loads_its_own(self, tmp_path: Path) -> None:
        from the_well.data import WellDataset

        stored = dataset(tmp_path / "stored", CASES["2-D in time, a vector, a constant"])
        TheWell().export_dataset(stored, tmp_path / "out", "mine", "train")
        loaded = WellDataset(path=str(tmp_path / "out"), well_split_name="train", n_steps_input=1, n_steps_output=2)
        assert len(loaded) == len(stored) and loaded.metadata.dataset_name == "mine"
        assert loaded.metadata.field_names == {0: [], 1: ["v_x", "v_y"], 2: []}
        batch = stored.read_all()
        for row in (0, len(stored) - 1):
            sample = {key: value.numpy() for key, value in loaded[row].items()}
            states = np.concatenate([batch.inputs[row, None, 1:], batch.outputs[row]])
            found = np.concatenate([sample["input_fields"], sample["output_fields"]])
            assert np.array_equal(found, np.moveaxis(states, 1, -1))
            assert np.array_equal(sample["constant_fields"][..., 0], batch.inputs[row, 0])
            assert np.array_equal(sample["constant_scalars"], batch.parameters[row])
            assert sample["output_time_grid"].tolist() == [1.0, 2.0]
            assert sample["boundary_conditions"].tolist() == [[2.0, 2.0], [1.0, 1.0]], "periodic, open"


def test_netcdf_opens_with_its_names_units_and_coordinates(tmp_path: Path) -> None:
    stored = dataset(tmp_path / "stored", CASES["2-D in time, more comes out than goes in"])
    [path] = NetCDF().export_dataset(stored, tmp_path / "out", "mine", "test")
    batch = stored.read_all()
    assert isinstance(stored.schema.domain, Grid)
    for engine in ("h5netcdf", "netcdf4"):
        with xarray.open_dataset(path, engine=engine) as found:
            assert found.p.dims == ("sample", "time", "x", "y") and found.p.units == "Pa"
            assert np.array_equal(found.p.values, batch.outputs[:, :, 2])
            assert np.array_equal(found.v_initial.values, np.moveaxis(batch.inputs, 1, -1))
            assert found.time.values.tolist() == [1.0, 2.0]
            assert np.array_equal(found.y.values, stored.schema.domain.coordinates()[1])


def test_pdebench_has_the_names_of_its_own_files(tmp_path: Path) -> None:
    stored = dataset(tmp_path / "stored", CASES["2-D steady, two inputs"])
    [path] = PDEBench().export_dataset(stored, tmp_path / "out", "mine", "test")
    batch = stored.read_all()
    with h5py.File(path) as file:
        assert np.array_equal(file["tensor"], batch.outputs[:, :, 0]) and file["tensor"].shape == (6, 1, 5, 7)
        assert np.array_equal(file["k"], batch.inputs[:, 0])
        assert file["x-coordinate"].shape == (5,) and file["t-coordinate"].shape == (1,)
    stored = dataset(tmp_path / "burgers", CASES["1-D in time, a parameter"])
    [path] = PDEBench().export_dataset(stored, tmp_path / "out", "burgers", "test")
    with h5py.File(path) as file:
        assert file["tensor"].shape == (6, 4, 12) and file["t-coordinate"][0] == 0.0
        assert np.array_equal(file["tensor"][:, 0], stored.read_all().inputs[:, 0])


def test_torch_files_hold_what_neuraloperator_reads(tmp_path: Path) -> None:
    stored = dataset(tmp_path / "stored", CASES["parameters alone"])
    with pytest.raises(InputError, match="without input fields; expected some"):
        NeuralOperator().export_dataset(stored, tmp_path / "none", "mine", "test")
    stored = dataset(tmp_path / "steady", CASES["3-D steady, a vector"])
    [path] = NeuralOperator().export_dataset(stored, tmp_path / "out", "mine", "test")
    content = torch.load(path, weights_only=True)
    batch = stored.read_all()
    assert np.array_equal(content["x"].numpy(), batch.inputs)
    assert np.array_equal(content["y"].numpy(), batch.outputs[:, 0])
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine_test_3x4x5.pt"]


def test_every_set_of_a_folder_comes_back_under_its_name(tmp_path: Path) -> None:
    stored = dataset(tmp_path / "stored", CASES["2-D steady, two inputs"])
    for kind in (TheWell, PDEBench, NetCDF, HDF5):
        for split in ("train", "validation", "test_16", "test_32"):
            kind().export_dataset(stored, tmp_path / kind().kind, "mine", split)
        found = kind().import_files(tmp_path / kind().kind, tmp_path / f"{kind().kind}-in")
        assert set(found) == {"train", "validation", "test_16", "test_32"}, kind


def test_every_layout_that_is_written_can_be_read(tmp_path: Path) -> None:
    stored = dataset(tmp_path / "stored", CASES["2-D steady, two inputs"])
    [path] = HDF5().export_dataset(stored, tmp_path / "out", "mine", "test")
    with h5py.File(path) as file:
        layout = Layout.from_json(file.attrs[ATTRIBUTE], "here")
    assert layout.fields[1] == FieldLayout(
        name="f", role="input", array="inputs", axes=("sample", "channel", "x", "y"), channels=(1,), unit="1"
    )
