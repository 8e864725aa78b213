"""Data sets from and to other programs' files: bit for bit, and in clear words when a file cannot be used."""

import dataclasses
import json
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from headrace.platform.dataset.writer import StoredSamples, read_manifest, write_dataset
from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, Grid, Mesh, SampleSchema
from headrace.platform.sample import Provenance, SampleBatch
from headrace.platform.spec import kinds
from headrace.surrogates.format import AbstractFormat
from headrace.surrogates.formats import FORMATS, HDF5, NeuralOperator
from headrace.surrogates.formats import hdf5 as hdf5_module
from headrace.surrogates.intake.layout import FieldLayout, Layout

EVOLVING = SampleSchema(
    inputs=(FieldSpec(name="vorticity", unit="1/s"),),
    outputs=(FieldSpec(name="velocity", components=2, unit="m/s"),),
    parameters=(FieldSpec(name="reynolds"),),
    domain=Grid(shape=(6, 9), extent=(1.0, 1.5), periodic=(True, False)),
    times=(0.5, 1.0, 1.5),
)
hdf5, neuraloperator = HDF5(), NeuralOperator()
EVERY_FORMAT = pytest.mark.parametrize(
    "kind",
    [kind for kind in kinds("headrace.formats", FORMATS).values() if issubclass(kind, AbstractFormat) and kind.writes],
)
NAMED = Layout(
    fields=(FieldLayout(name="geometry", role="input", array="x"), FieldLayout(name="u", role="output", array="y")),
    axes=("sample", "channel", "x", "y"),
)
STEADY = dataclasses.replace(EVOLVING, parameters=(), times=(0.0,))


def dataset(directory: Path, schema: SampleSchema, count: int = 7) -> StoredSamples:
    """A stored data set with random numbers, odd indices and varied provenance."""
    rng = np.random.default_rng(0)
    indices = np.sort(rng.choice(1000, count, replace=False))
    grid = schema.domain.shape
    batch = SampleBatch(
        indices=indices,
        inputs=rng.normal(size=(count, schema.num_input_channels, *grid)).astype(np.float32),
        outputs=rng.normal(size=(count, len(schema.times), schema.num_output_channels, *grid)).astype(np.float32),
        parameters=rng.normal(size=(count, schema.num_parameters)).astype(np.float32),
        provenance=tuple(
            Provenance(
                spec_hash="0123456789abcdef",
                seed=2**62 + 1,
                index=int(index),
                level=("leicht", "schwierig: größer")[index % 2],
                solver="spectral",
                status="converged",
                relative_residual=float(rng.random()) * 1e-9,
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


def save(path: Path, **tensors: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: torch.from_numpy(t) if isinstance(t, np.ndarray) else t for name, t in tensors.items()}, path)
    return path


def fields(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(dtype)


@EVERY_FORMAT
@pytest.mark.parametrize("what", ["fields", "times", "parameters", "meshes"])
def test_every_format_gives_back_what_it_declares_to_hold(tmp_path: Path, kind: type[AbstractFormat], what: str):
    triangle = Mesh(points=np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), cells=np.array([[0, 1, 2]]))
    changes = {
        "fields": {},
        "times": {"times": EVOLVING.times},
        "parameters": {"parameters": EVOLVING.parameters},
        "meshes": {"domain": triangle},
    }
    stored = dataset(tmp_path / "set", dataclasses.replace(STEADY, **changes[what]))
    if not getattr(kind, f"holds_{what}", True):
        with pytest.raises(InputError, match="set"):
            kind().export_dataset(stored, tmp_path / "files", "flow")
        return
    paths = kind().export_dataset(stored, tmp_path / "files", "flow", "test")
    assert paths and all(path.is_file() and path.suffix == kind.suffixes[0] for path in paths)
    ((name, count),) = kind().import_files(tmp_path / "files", tmp_path / "back").items()
    assert name.startswith("test") and count == 7
    back, expected = StoredSamples.open(tmp_path / "back" / name).read_all(), stored.read_all()
    for array in ("inputs", "outputs", "parameters"):
        np.testing.assert_array_equal(getattr(back, array), getattr(expected, array))


# neuraloperator


def test_a_folder_as_the_library_ships_it(tmp_path: Path):
    x, y = fields(11, 16, 16) > 0, fields(11, 16, 16)
    save(tmp_path / "in" / "darcy_train_16.pt", x=x, y=y)
    save(tmp_path / "in" / "darcy_test_16.pt", x=x[:3], y=y[:3])
    save(tmp_path / "in" / "darcy_test_32.pt", x=fields(2, 32, 32) > 0, y=fields(2, 32, 32))
    (tmp_path / "in" / "README.md").write_text("not data")
    counts = neuraloperator.import_files(tmp_path / "in", tmp_path / "out")
    assert counts == {"train": 11, "test_16": 3, "test_32": 2}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["test_16", "test_32", "train"]
    stored = StoredSamples.open(tmp_path / "out" / "train")
    assert stored.schema == SampleSchema(
        inputs=(FieldSpec(name="x"),),
        outputs=(FieldSpec(name="y"),),
        domain=Grid(shape=(16, 16), extent=(1.0, 1.0), periodic=(False, False), location="cells"),
    )
    batch = stored.read_all()
    np.testing.assert_array_equal(batch.inputs[:, 0], x.astype(np.float32))
    np.testing.assert_array_equal(batch.outputs[:, 0, 0], y)
    assert batch.indices.tolist() == list(range(11))
    assert set(stored.levels) == {"imported"} and batch.provenance[0].solver == "imported"
    assert read_manifest(tmp_path / "out" / "train").content_hash == stored.content_hash()


def test_one_file_with_channels_and_names(tmp_path: Path):
    x, y = fields(4, 3, 8, 6, dtype="float64"), fields(4, 2, 8, 6)
    path = save(tmp_path / "flow_test_8x6.pt", x=x, y=y)
    assert neuraloperator.import_files(path, tmp_path / "out", NAMED) == {"test_8x6": 4}
    stored = StoredSamples.open(tmp_path / "out" / "test_8x6")
    assert stored.schema.inputs == (FieldSpec(name="geometry", components=3),)
    assert stored.schema.outputs == (FieldSpec(name="u", components=2),)
    batch = stored.read_all()
    np.testing.assert_array_equal(batch.inputs, x.astype(np.float32))
    np.testing.assert_array_equal(batch.outputs[:, 0], y)


def test_other_kinds_of_numbers_and_grids(tmp_path: Path):
    cases = {
        "a.pt": (np.arange(12).reshape(3, 4), fields(3, 4)),
        "b.pt": (fields(2, 1, 3, 4, 5), fields(2, 3, 4, 5)[:, None]),
    }
    for name, (x, y) in cases.items():
        save(tmp_path / "in" / name, x=x, y=y)
    torch.save({"x": torch.ones(2, 4, dtype=torch.bfloat16), "y": torch.ones(2, 4).half()}, tmp_path / "in" / "c.pt")
    assert neuraloperator.import_files(tmp_path / "in", tmp_path / "out") == {"a": 3, "b": 2, "c": 2}
    assert StoredSamples.open(tmp_path / "out" / "a").schema.domain.shape == (4,)
    assert StoredSamples.open(tmp_path / "out" / "b").schema.domain.shape == (3, 4, 5)
    assert (StoredSamples.open(tmp_path / "out" / "c").read_all().inputs == 1).all()


@pytest.mark.parametrize(
    ("names", "sets"),
    [
        (("ns_val_64", "ns_train_64"), ("train", "validation")),
        (("valid", "test"), ("test", "validation")),
        (("my_training_data",), ("my_training_data",)),
        (("darcy_test_16x32",), ("test_16x32",)),
    ],
)
def test_names_of_data_sets(tmp_path: Path, names: tuple[str, ...], sets: tuple[str, ...]):
    for name in names:
        save(tmp_path / "in" / f"{name}.pt", x=fields(2, 4, 4), y=fields(2, 4, 4))
    assert tuple(sorted(neuraloperator.import_files(tmp_path / "in", tmp_path / "out"))) == sets


def test_a_data_set_written_for_the_library_reads_back(tmp_path: Path):
    stored = dataset(tmp_path / "set", STEADY)
    (path,) = neuraloperator.export_dataset(stored, tmp_path / "out", "flow", "test")
    assert path == tmp_path / "out" / "flow_test_6x9.pt"
    content = torch.load(path, weights_only=True)
    batch = stored.read_all()
    assert {"x", "y"} <= set(content) and content["x"].dtype == content["y"].dtype == torch.float32
    np.testing.assert_array_equal(content["x"].numpy(), batch.inputs)  # (N, C, H, W), as PTDataset expects
    np.testing.assert_array_equal(content["y"].numpy(), batch.outputs[:, 0])
    assert neuraloperator.import_files(path, tmp_path / "back") == {"test_6x9": 7}
    back = StoredSamples.open(tmp_path / "back" / "test_6x9")
    assert back.schema == STEADY and back.content_hash() == stored.content_hash()
    with pytest.raises(InputError, match="flow_test_6x9.pt is there already; expected a new file"):
        neuraloperator.export_dataset(stored, tmp_path / "out", "flow", "test")


def test_what_a_pt_file_cannot_hold_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with pytest.raises(InputError, match="3 output times; expected one: .pt files have no time axis. Export to hdf5"):
        neuraloperator.export_dataset(dataset(tmp_path / "evolving", EVOLVING), tmp_path / "out", "flow")
    schema = dataclasses.replace(EVOLVING, times=(0.0,))
    (path,) = neuraloperator.export_dataset(dataset(tmp_path / "with", schema), tmp_path / "out", "flow")
    assert "the library reads x and y alone: reynolds stand beside them, as parameters" in caplog.text
    assert torch.load(path, weights_only=True)["parameters"].shape == (7, 1)


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_objects_are_never_unpickled(tmp_path: Path):
    torch.save({"x": Malicious(tmp_path / "pwned"), "y": torch.ones(2, 4)}, tmp_path / "evil_train_4.pt")
    (tmp_path / "bare_test_4.pt").write_bytes(pickle.dumps({"x": Malicious(tmp_path / "pwned")}))
    with pytest.raises(InputError) as caught:
        neuraloperator.import_files(tmp_path, tmp_path / "out")
    assert not (tmp_path / "pwned").exists() and not (tmp_path / "out").exists()
    assert len(caught.value.faults) == 2
    for fault in caught.value.faults:
        assert "could run code" in fault.value and "torch.save" in fault.advice


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"x": fields(3, 4, 4)}, "a torch file with x float32 .3, 4, 4.; expected .* two tensors, x"),
        ({"x": fields(3, 4, 4), "y": "text"}, "expected .* y .outputs.. Give --format torch"),
        ({"x": fields(3, 4, 4), "y": fields(2, 4, 4)}, "y is of length 2 along sample; expected 3, as x has"),
        ({"x": fields(3, 4, 4), "y": fields(3, 1, 4, 5)}, r"y is of shape \(3, 1, 4, 5\); expected what each axis is"),
        ({"x": fields(3, 4).astype(complex), "y": fields(3, 4)}, "x is complex numbers .* expected real numbers"),
        ({"x": fields(3), "y": fields(3)}, r"x is of shape \(3,\); expected what each axis is"),
        ({"x": fields(0, 4, 4), "y": fields(0, 4, 4)}, r"x is of length 0 along sample"),
    ],
)
def test_a_pt_file_with_the_wrong_content(tmp_path: Path, content: dict, words: str):
    path = save(tmp_path / "bad_train_4.pt", **content)
    with pytest.raises(InputError, match=words) as caught:
        neuraloperator.import_files(path, tmp_path / "out")
    assert str(path) in str(caught.value) and not (tmp_path / "out").exists()


def test_numbers_that_cannot_be_used_are_counted_and_located(tmp_path: Path):
    x, y = fields(700, 4, 4), fields(700, 4, 4, dtype="float64")
    x[5, 2, 2] = np.nan
    x[600, :2, 0] = -np.inf
    y[300, 0, 0] = 1e39  # finite, but not in float32
    path = save(tmp_path / "bad_train_4.pt", x=x, y=y)
    with pytest.raises(InputError) as caught:
        neuraloperator.import_files(path, tmp_path / "out")
    assert [fault.value for fault in caught.value.faults] == [
        "not finite in float32 at 3 places, first in sample 5, x 2, y 2 (nan)",
        "not finite in float32 at 1 places, first in sample 300, x 0, y 0 (1e+39)",
    ]


def test_all_faults_of_a_folder_are_told_and_nothing_is_written(tmp_path: Path):
    save(tmp_path / "in" / "a_train_4.pt", x=fields(3, 4, 4), y=fields(3, 4, 4))
    save(tmp_path / "in" / "a_test_4.pt", x=fields(3, 4, 4), y=fields(2, 4, 4))
    torch.save([1, 2], tmp_path / "in" / "a_test_8.pt")
    with pytest.raises(InputError) as caught:
        neuraloperator.import_files(tmp_path / "in", tmp_path / "out")
    assert [Path(fault.where.split(":")[0]).name for fault in caught.value.faults] == ["a_test_4.pt", "a_test_8.pt"]
    assert "is a torch file with nothing; expected" in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_pt_file(tmp_path: Path, keep: float):
    path = save(tmp_path / "cut_train_32.pt", x=fields(20, 32, 32), y=fields(20, 32, 32))
    os.truncate(path, keep if keep > 1 else int(keep * path.stat().st_size))
    with pytest.raises(InputError, match="cut_train_32.pt is (not readable|an empty file|a zip archive)"):
        neuraloperator.import_files(path, tmp_path / "out")


@EVERY_FORMAT
def test_nothing_to_import_and_nowhere_to_put_it(tmp_path: Path, kind: type[AbstractFormat]):
    module = kind()
    with pytest.raises(InputError, match=f"nowhere is not there; expected a {module.suffixes[0]}"):
        module.import_files(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match=f"nothing to import; expected files that end in {module.suffixes[0]}"):
        module.import_files(tmp_path / "in", tmp_path / "out")
    (path,) = module.export_dataset(dataset(tmp_path / "set", STEADY), tmp_path / "in", "flow")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("important")
    with pytest.raises(InputError, match="full is not empty; expected a new or empty directory"):
        module.import_files(path, tmp_path / "full")
    with pytest.raises(InputError, match="is not empty"):
        module.import_files(path, tmp_path / "full" / "thesis.tex")


def test_two_files_for_one_data_set(tmp_path: Path):
    for name in ("darcy_test_16", "burgers_test_16"):
        save(tmp_path / f"{name}.pt", x=fields(2, 16), y=fields(2, 16))
    with pytest.raises(InputError, match='"test_16"; expected another name: burgers_test_16.pt takes it'):
        neuraloperator.import_files(tmp_path, tmp_path / "out")


# HDF5


@pytest.mark.parametrize("schema", [EVOLVING, STEADY], ids=["evolving", "steady"])
def test_hdf5_keeps_everything(tmp_path: Path, schema: SampleSchema, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hdf5_module, "ROWS", 3)  # several pieces
    stored = dataset(tmp_path / "set", schema)
    (path,) = hdf5.export_dataset(stored, tmp_path / "files", "flow", "test")
    assert path.name == "flow_test.h5" and [file.name for file in path.parent.iterdir()] == ["flow_test.h5"]
    assert hdf5.import_files(path, tmp_path / "back") == {"test": 7}
    back = StoredSamples.open(tmp_path / "back" / "test")
    a, b = stored.read_all(), back.read_all()
    assert back.schema == schema and a.provenance == b.provenance
    for name in ("indices", "inputs", "outputs", "parameters"):
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes()
    with pytest.raises(InputError, match="there already"):
        hdf5.export_dataset(stored, tmp_path / "files", "flow", "test")


def test_the_layout_is_as_documented(tmp_path: Path):
    stored = dataset(tmp_path / "set", EVOLVING)
    (path,) = hdf5.export_dataset(stored, tmp_path, "flow")
    with h5py.File(path) as file:
        assert json.loads(file.attrs["headrace_schema"])["times"] == [0.5, 1.0, 1.5]
        assert set(file) == {"index", "inputs", "outputs", "parameters", "provenance"}
        assert file["outputs"].shape == (7, 3, 2, 6, 9) and file["outputs"].dtype == np.float32
        assert file["index"][:].tolist() == stored.indices.tolist()
        assert file["provenance/level"].asstr()[:].tolist() == list(stored.levels)
        assert set(file["provenance"]) == {field.name for field in dataclasses.fields(Provenance)} - {"index"}


@pytest.mark.parametrize("names", [("inputs", "outputs"), ("x", "y")])
def test_plain_hdf5(tmp_path: Path, names: tuple[str, str]):
    x, y = fields(5, 8, 8, dtype="float64"), fields(5, 2, 8, 8)
    (tmp_path / "in").mkdir()
    with h5py.File(tmp_path / "in" / "flow_train.hdf5", "w") as file:
        file[names[0]], file[names[1]], file["notes"] = x, y, np.arange(3)
    layout = Layout(
        fields=(
            FieldLayout(name="x", role="input", array=names[0], axes=("sample", "x", "y")),
            FieldLayout(name="velocity", role="output", array=names[1], axes=("sample", "channel", "x", "y")),
        ),
        extent=(1.0, 1.0),
        periodic=(),
        location="nodes",
    )
    assert hdf5.import_files(tmp_path / "in", tmp_path / "out", layout) == {"train": 5}
    stored = StoredSamples.open(tmp_path / "out" / "train")
    assert stored.schema.outputs == (FieldSpec(name="velocity", components=2),)
    np.testing.assert_array_equal(stored.read_all().inputs[:, 0], x.astype(np.float32))
    np.testing.assert_array_equal(stored.read_all().outputs[:, 0], y)


def test_hdf5_files_that_cannot_be_used(tmp_path: Path):
    layout = Layout(
        fields=(FieldLayout(name="x", role="input"), FieldLayout(name="y", role="output")),
        axes=("sample", "x"),
        extent=(1.0,),
        periodic=(),
        location="nodes",
    )

    def refused(words: str, **datasets: np.ndarray) -> None:
        path = tmp_path / "bad.h5"
        path.unlink(missing_ok=True)
        with h5py.File(path, "w") as file:
            for name, values in datasets.items():
                file[name.replace("__", "/")] = values
        with pytest.raises(InputError, match=words):
            hdf5.import_files(path, tmp_path / "out", layout)
        assert not (tmp_path / "out").exists()

    refused(
        r"x is not there; expected one of its arrays: flow/tensor float32 \(2, 4\), nu float32 \(2, 4\)",
        flow__tensor=fields(2, 4),
        nu=fields(2, 4),
    )
    refused("x is not there; expected one of its arrays: no array")
    refused("y is of length 2 along sample; expected 3, as x has", x=fields(3, 4), y=fields(2, 4))
    refused("first in sample 1", x=fields(3, 4), y=np.array([[0.0], [np.nan], [0.0]]) * fields(3, 4))
    refused("x is text .type .S1.; expected real numbers", x=np.array([[b"a"]]), y=fields(1, 1))


def test_a_file_that_is_no_hdf5_or_cut_off(tmp_path: Path):
    (path,) = hdf5.export_dataset(dataset(tmp_path / "set", EVOLVING), tmp_path, "flow")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(InputError, match=r"flow_train.h5 is not readable \(.*truncated.*Is it cut off"):
        hdf5.import_files(path, tmp_path / "out")
    path.write_text("x,y\n1,2\n")
    with pytest.raises(InputError, match="flow_train.h5 is a text file; expected an HDF5 file"):
        hdf5.import_files(path, tmp_path / "out")


def test_hdf5_that_contradicts_its_own_schema(tmp_path: Path):
    stored = dataset(tmp_path / "set", EVOLVING)

    def refused(number: int, change, words: str) -> None:
        (path,) = hdf5.export_dataset(stored, tmp_path / str(number), "flow")
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(InputError, match=words):
            hdf5.import_files(path, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def drop_inputs(file: h5py.File) -> None:
        del file["inputs"]

    def halve_parameters(file: h5py.File) -> None:
        del file["parameters"]
        file["parameters"] = np.zeros((3, 1), dtype=np.float32)

    def repeat_index(file: h5py.File) -> None:
        file["index"][1] = file["index"][0]

    def spoil(file: h5py.File) -> None:
        file["outputs"][4, 1, 0, 0, 0] = np.inf

    def spoil_parameters(file: h5py.File) -> None:
        file["parameters"][2, 0] = np.nan

    def damage_schema(file: h5py.File) -> None:
        file.attrs["headrace_schema"] = "{"

    def drop_level(file: h5py.File) -> None:
        del file["provenance/level"]

    def drop_index(file: h5py.File) -> None:
        del file["index"]

    refused(1, drop_inputs, r"inputs is missing; expected float32 of shape \(7, 1, 6, 9\), as the schema says")
    refused(2, halve_parameters, r"parameters is float32 of shape \(3, 1\); expected float32 of shape \(7, 1\)")
    refused(3, repeat_index, "index is negative or repeated; expected distinct indices")
    refused(4, spoil, "outputs .velocity. is not finite in float32 at 1 places, first in sample 4, time 1")
    refused(8, spoil_parameters, "parameters .reynolds. is not finite in float32 at 1 places, first in sample 2")
    refused(5, damage_schema, "headrace_schema is not readable")
    refused(6, drop_level, "provenance/level is missing; expected 7 values")
    refused(7, drop_index, "index is missing; expected integers, one for each sample")


@pytest.mark.parametrize("count", [12, 4000], ids=["small", "more than an HDF5 attribute holds"])
def test_meshes_go_through_hdf5_and_not_through_torch_files(tmp_path: Path, count: int) -> None:
    points = np.random.default_rng(0).random((count, 2))
    cells = np.stack([np.arange(count - 2), np.arange(1, count - 1), np.arange(2, count)], axis=1)
    stored = dataset(tmp_path / "in", dataclasses.replace(STEADY, domain=Mesh(points=points, cells=cells)), count=3)
    hdf5.export_dataset(stored, tmp_path / "files", "plate")
    hdf5.import_files(tmp_path / "files", tmp_path / "out")
    back = StoredSamples.open(tmp_path / "out" / "train")
    assert back.schema == stored.schema and back.content_hash() == stored.content_hash()
    with pytest.raises(InputError, match="a data set on Mesh.* know no mesh. Export to hdf5."):
        neuraloperator.export_dataset(stored, tmp_path / "files", "plate")
