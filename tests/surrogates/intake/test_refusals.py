"""What is ambiguous, dangerous or no number is refused in one sentence that says what to give; nothing is written."""

import errno
import os
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
import zarr

from headrace.platform.errors import HeadraceError, InputError
from headrace.surrogates.format import AbstractFormat
from headrace.surrogates.formats import HDF5, NPY, NPZ, Mat, NetCDF, NeuralOperator, TheWell, Torch, ZarrFolder
from headrace.surrogates.intake.layout import FieldLayout, Layout

X = np.random.default_rng(0).normal(size=(4, 3, 8))


def pair(**more: object) -> Layout:
    fields = (FieldLayout(name="x", role="input"), FieldLayout(name="y", role="output"))
    said = {"fields": fields, "axes": ("sample", "channel", "x"), "extent": (1.0,), "periodic": ("x",)}
    return Layout.model_validate({**said, **more})


def refusal(tmp_path: Path, format_: AbstractFormat, path: Path, layout: Layout | None = None) -> str:
    with pytest.raises(InputError) as caught:
        format_.import_files(path, tmp_path / "out", layout)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def npz(tmp_path: Path, **arrays: np.ndarray) -> Path:
    np.savez(tmp_path / "d.npz", **arrays)
    return tmp_path / "d.npz"


# What is ambiguous


def test_a_file_that_says_nothing_lists_its_arrays(tmp_path: Path) -> None:
    words = refusal(tmp_path, NPZ(), npz(tmp_path, x=X, y=X))
    assert "the arrays x float64 (4, 3, 8), y float64 (4, 3, 8)" in words and "Give --input NAME=ARRAY" in words


@pytest.mark.parametrize(
    ("shape", "example"),
    [((4, 32, 32, 1), "sample,x,y,z"), ((4, 3, 64), "sample,x,y"), ((4, 7, 32, 32), "sample,x,y,z")],
    ids=["channels last", "channels of one dimension", "times"],
)
def test_axes_are_asked_for(tmp_path: Path, shape: tuple[int, ...], example: str) -> None:
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["x"], file["y"] = np.ones(shape), np.ones(shape)
    fields = (FieldLayout(name="x", role="input"), FieldLayout(name="y", role="output"))
    words = refusal(tmp_path, HDF5(), tmp_path / "d.h5", Layout(fields=fields))
    assert f"x is of shape {shape}; expected what each axis is (sample, time, channel, and one name" in words
    assert f"Give --axes x={example}, in the order that is right." in words


@pytest.mark.parametrize(
    ("x", "y"), [((5, 32, 32, 1), (5, 32, 32, 1)), ((5, 3, 64), (5, 3, 64)), ((5, 2, 8, 8), (5, 2, 8, 8))]
)
def test_neuraloperator_asks_where_two_ways_fit_or_none(tmp_path: Path, x: tuple[int, ...], y: tuple[int, ...]) -> None:
    torch.save({"x": torch.ones(x), "y": torch.ones(y)}, tmp_path / "d_train_8.pt")
    assert "expected what each axis is" in refusal(tmp_path, NeuralOperator(), tmp_path / "d_train_8.pt")
    axes = ("sample", "x", "y", "channel")[: len(x)] if len(x) == 4 else ("sample", "channel", "x")
    layout = Layout(axes=axes, extent=(1.0,) * (len(axes) - 2))
    assert NeuralOperator().import_files(tmp_path / "d_train_8.pt", tmp_path / "ok", layout) == {"train": 5}


def test_all_that_is_not_said_is_asked_for_at_once(tmp_path: Path) -> None:
    fields = (FieldLayout(name="x", role="state"),)
    path = npz(tmp_path, x=X, nu=np.ones(4))
    words = refusal(tmp_path, NPZ(), path, Layout(fields=fields, axes=("sample", "time", "x")))
    assert "times is not said in the file; expected the 3 times along the time axis. Give --dt STEP" in words
    words = refusal(tmp_path, NPZ(), path, Layout(fields=fields, axes=("sample", "time", "x"), dt=1))
    for asked in ("Give --periodic x, or --periodic none.", "Give --location nodes or cells.", "Give --extent 1."):
        assert asked in words


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (pair(axes=("sample", "x")), r"x is of shape \(4, 3, 8\), and --axes sample,x names 2; expected what each"),
        (pair(axes=("sample", "x", "x")), "two axes x"),
        (pair(extent=(1.0, 2.0)), r"extent is 2 numbers; expected one for each grid axis \(x\)"),
        (pair(periodic=("z",)), r"periodic is z; expected grid axes \(x\)"),
        (pair(fields=(FieldLayout(name="x", role="input"),)), "without an output"),
        (pair(fields=(FieldLayout(name="xx", role="output"),)), 'expected one of its arrays: .* Did you mean "x"'),
        (pair(fields=(FieldLayout(name="x", role="output", channels=(3,)),)), "asked for channel 3; expected 0 to 2"),
        (pair(axes=("sample", "time", "x"), times=(1.0, 2.0)), "is given at 3 times; .* Is it --state x"),
        (pair(units={"q": "m"}), 'for a field "q"; expected one of x, y'),
        (pair(split={"train": 0.9, "test": 0.05, "validation": 0.05}), "of 4 samples; .* would be empty"),
    ],
)
def test_a_layout_that_does_not_fit(tmp_path: Path, layout: Layout, words: str) -> None:
    assert re.search(words, refusal(tmp_path, NPZ(), npz(tmp_path, x=X, y=X), layout))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"split": {"../train": 1.0}}, "names of letters, digits"),
        ({"axes": ["sample", ""]}, "at least 1 character"),
        ({"dt": -1.0}, "a distance above 0"),
        ({"extent": [0.0]}, "lengths above 0"),
        ({"times": [0.0], "dt": 1.0}, "times or dt, not both"),
        ({"split": {"train": 0.5, "test": 0.4}}, "add up to 1"),
        ({"fields": [{"name": "u", "role": "state"}, {"name": "u", "role": "input"}]}, "each field once"),
    ],
)
def test_a_layout_that_contradicts_itself(said: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Layout.model_validate(said)


def test_several_resolutions_to_train_on(tmp_path: Path) -> None:
    for name, count in {"train_16": 5, "train_32": 7, "validation_16": 2, "validation_32": 2, "test_16": 3}.items():
        n = int(name[-2:])
        torch.save({"x": torch.ones(count, n, n), "y": torch.ones(count, n, n)}, tmp_path / f"d_{name}.pt")
    words = refusal(tmp_path, NeuralOperator(), tmp_path)
    assert "the train set is train_16 and train_32, of 2 files; expected one. Give --resolution 16 or" in words
    told: list = []
    counts = NeuralOperator().import_files(tmp_path, tmp_path / "new" / "out", resolution="32", tell=told.append)
    assert counts == {"test_16": 3, "train": 7, "validation": 2}
    assert "left out, of another resolution: train_16, validation_16" in told[0].notes
    with pytest.raises(InputError, match="--resolution is 64; expected one of train_16, train_32"):
        NeuralOperator().import_files(tmp_path, tmp_path / "out", resolution="64")


# Numbers


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda a: a.__setitem__((2, 1, 5), np.nan), "1 places, first in sample 2, channel 1, x 5 (nan)"),
        (lambda a: a.__setitem__((3, 0, 0), -np.inf), "1 places, first in sample 3, channel 0, x 0 (-inf)"),
        (lambda a: a.__setitem__((0, 2, 7), 1e39), "1 places, first in sample 0, channel 2, x 7 (1e+39)"),
        (lambda a: a.__imul__(1e-60), "which is 0 in float32; expected numbers of 1e-38 or more. Give it in another"),
    ],
)
def test_what_is_not_finite_in_float32(tmp_path: Path, spoil: Callable, words: str) -> None:
    y = X.copy()
    spoil(y)
    assert words in refusal(tmp_path, NPZ(), npz(tmp_path, x=X, y=y), pair())


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (X * 1j, "y is complex numbers (type complex128); expected real numbers or booleans. Give real and imaginary"),
        (X.astype("M8[s]"), "y is dates"),
        (X.astype("m8[s]"), "y is durations"),
        (X.astype("U5"), "y is text"),
        (X.astype(object), "y is an array of Python objects, a pickle, which could run code"),
        (X[:, :, :0], "y is of length 0 along x: (4, 3, 0); expected at least one entry"),
        (X[:0], "y is of length 0 along sample"),
        (X[:3], "y is of length 3 along sample; expected 4, as x has"),
    ],
)
def test_what_is_no_real_number_and_what_does_not_fit(tmp_path: Path, y: np.ndarray, words: str) -> None:
    assert words in refusal(tmp_path, NPZ(), npz(tmp_path, x=X, y=y), pair())


def test_parameters_are_looked_at_too(tmp_path: Path) -> None:
    fields = (FieldLayout(name="x", role="output"), FieldLayout(name="nu", role="parameter"))
    path = npz(tmp_path, x=X, nu=np.array([1.0, np.nan, 2.0, np.inf]))
    words = refusal(tmp_path, NPZ(), path, pair(fields=fields))
    assert "nu is not finite in float32 at 2 places, first in sample 1 (nan)" in words


def test_missing_values_of_netcdf(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "d.nc", "w") as file:
        for axis, n in zip(("sample", "channel", "x"), X.shape, strict=True):
            file.createDimension(axis, n)
        for name in "xy":
            file.createVariable(name, "f4", ("sample", "channel", "x"), fill_value=-1.0)[:] = np.abs(X)
        file["y"][1, 0, 2] = np.ma.masked
        file.createVariable("never", "f8", ("sample", "channel", "x"))
    assert "y is not finite in float32 at 1 places, first in sample 1, channel 0, x 2" in refusal(
        tmp_path, NetCDF(), tmp_path / "d.nc", pair()
    )
    fields = (FieldLayout(name="never", role="output"),)
    assert "at 96 places" in refusal(tmp_path, NetCDF(), tmp_path / "d.nc", pair(fields=fields))


# Other files


def test_hdf5_that_leads_to_another_file(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(X.tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = X
    source = h5py.VirtualSource(tmp_path / "other.h5", "x", shape=X.shape)
    virtual = h5py.VirtualLayout(shape=X.shape, dtype=X.dtype)
    virtual[:] = source
    inner = h5py.VirtualLayout(shape=X.shape, dtype=X.dtype)
    inner[:] = h5py.VirtualSource(".", "stored", shape=X.shape)
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["y"] = X
        file["linked"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
        file["softly"] = h5py.SoftLink("/linked")
        file.create_dataset("stored", X.shape, X.dtype, external=[(str(tmp_path / "secret.bin"), 0, X.nbytes)])
        file.create_virtual_dataset("virtual", virtual)
        file.create_virtual_dataset("inner", inner)
        file.move("y", "group/y")
        file["y"] = h5py.SoftLink("/group/y")
    reasons = {
        "linked": "a link to another file",
        "softly": "a link to another file",
        "stored": "stored in another file",
        "virtual": "virtual, put together from another place",
        "inner": "virtual, put together from another place (stored)",
    }
    for name, reason in reasons.items():
        fields = (FieldLayout(name="x", role="input", array=name), FieldLayout(name="y", role="output"))
        words = refusal(tmp_path, HDF5(), tmp_path / "d.h5", pair(fields=fields))
        assert f"{name} is {reason}" in words and "expected an array in the file itself" in words
    fields = (FieldLayout(name="y", role="output"),)  # a soft link within the file is another name
    assert HDF5().import_files(tmp_path / "d.h5", tmp_path / "ok", pair(fields=fields)) == {"d": 4}


@pytest.mark.parametrize("kind", ["headrace", "well", "netcdf"])
def test_formats_on_hdf5_follow_no_links_either(tmp_path: Path, kind: str) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = X.astype(np.float32)
    path = tmp_path / ("d.nc" if kind == "netcdf" else "d.h5")
    with h5py.File(path, "w") as file:
        if kind == "well":
            file.attrs["grid_type"] = "cartesian"
            for group in ("dimensions", "t0_fields", "t1_fields", "t2_fields", "scalars"):
                file.create_group(group).attrs["field_names"] = ["x"] if group == "t0_fields" else []
            file["dimensions"].attrs["spatial_dims"] = ["x"]
        if kind == "headrace":
            file.attrs["headrace_schema"] = (
                '{"inputs": [{"name": "x"}], "outputs": [{"name": "y"}], "parameters": [], "times": [0.0],'
                ' "domain": {"shape": [8], "extent": [1], "periodic": [true], "location": "nodes"}}'
            )
            file["index"] = np.arange(4)
        file["t0_fields/x" if kind == "well" else "inputs"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
    format_ = {"headrace": HDF5(), "well": TheWell(), "netcdf": NetCDF()}[kind]
    assert "is a link to another file" in refusal(tmp_path, format_, path, pair() if kind == "netcdf" else None)


def test_links_and_pickles_in_zarr(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "d.zarr", mode="w", zarr_format=2)
    group.create_array("x", data=X, chunks=X.shape)
    chunk = tmp_path / "d.zarr" / "x" / "0.0.0"
    chunk.rename(tmp_path / "chunk")
    chunk.symlink_to(tmp_path / "chunk")
    assert "x/0.0.0 is a link to" in refusal(tmp_path, ZarrFolder(), tmp_path / "d.zarr", pair())
    chunk.unlink()
    (tmp_path / "chunk").rename(chunk)
    metadata = tmp_path / "d.zarr" / "x" / ".zarray"
    for codec in ('"filters": [{"id": "pickle", "protocol": 5}]', '"compressor": {"id": "pickle", "protocol": 5}'):
        key = codec.split(":")[0]
        text = re.sub(rf"{key}: (null|\{{.*?\}})", codec, metadata.read_text(), flags=re.DOTALL)
        assert text != metadata.read_text()
        metadata.write_text(text)
        words = refusal(tmp_path, ZarrFolder(), tmp_path / "d.zarr", pair())
        assert "pickle" in words


class Marks:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_pickles_are_not_run(tmp_path: Path) -> None:
    evil = np.empty(1, dtype=object)
    evil[0] = Marks(tmp_path / "ran")
    np.save(tmp_path / "x.npy", evil, allow_pickle=True)
    np.savez(tmp_path / "d.npz", x=evil)
    (tmp_path / "d.pt").write_bytes(pickle.dumps(Marks(tmp_path / "ran")))
    (tmp_path / "y.npy").write_bytes(pickle.dumps(Marks(tmp_path / "ran")))
    fields = (FieldLayout(name="x", role="output"),)
    assert "could run code" in refusal(tmp_path, NPY(), tmp_path / "x.npy", pair(fields=fields))
    assert "could run code" in refusal(tmp_path, NPZ(), tmp_path / "d.npz", pair(fields=fields))
    assert "could run code" in refusal(tmp_path, Torch(), tmp_path / "d.pt", pair(fields=fields))
    assert "y.npy is a pickle; expected a NumPy array" in refusal(tmp_path, NPY(), tmp_path / "y.npy", pair())
    assert not (tmp_path / "ran").exists()


FORMATS = {
    ".npz": NPZ(),
    ".npy": NPY(),
    ".h5": HDF5(),
    ".zarr": ZarrFolder(),
    ".mat": Mat(),
    ".nc": NetCDF(),
    ".pt": Torch(),
}


def write_each(folder: Path) -> dict[str, tuple[Path, str]]:
    """A true file of each kind, with what it is in words."""
    np.savez(folder / "a.npz", x=X)
    np.save(folder / "a.npy", X)
    torch.save({"x": torch.ones(2)}, folder / "a.pt")
    scipy.io.savemat(folder / "a.mat", {"x": X})
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"] = X
    with scipy.io.netcdf_file(folder / "a.nc", "w") as file:
        file.createDimension("n", 2)
    zarr.open_group(folder / "a.zarr", mode="w")
    words = {
        ".npz": "a NumPy archive",
        ".npy": "a NumPy array",
        ".h5": "an HDF5 file",
        ".zarr": "a Zarr folder",
        ".mat": "a MATLAB file",
        ".nc": "a NetCDF-3 file",
        ".pt": "a torch file",
    }
    return {suffix: (folder / f"a{suffix}", text) for suffix, text in words.items()}


def test_a_file_of_another_format_is_named_for_what_it_is(tmp_path: Path) -> None:
    files = write_each(tmp_path)
    for suffix, format_ in FORMATS.items():
        for other, (path, words) in files.items():
            if other == suffix or (suffix in (".nc", ".mat") and other == ".h5"):
                continue  # NetCDF 4 and MATLAB 7.3 are HDF5
            said = refusal(tmp_path, format_, path, pair())
            assert f"{path} is {words}; expected" in said and "Give --format" in said, (suffix, other, said)
            assert "pickle" not in said


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".h5", ".mat", ".nc", ".pt"])
@pytest.mark.parametrize(
    "content", [b"", b"hello,world\n1,2\n", struct.pack("<64d", *range(64))], ids=["empty", "text", "bytes"]
)
def test_what_is_no_such_file(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"d{suffix}"
    path.write_bytes(content)
    words = refusal(tmp_path, FORMATS[suffix], path, pair())
    assert f"{path} is " in words and "expected a" in words and "allow_pickle" not in words


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".h5", ".mat", ".nc", ".pt"])
def test_what_is_cut_off(tmp_path: Path, suffix: str) -> None:
    x = np.random.default_rng(0).normal(size=(64, 3, 8))
    path = tmp_path / f"d{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, x=x, y=x)
    elif suffix == ".npy":
        np.save(path, x)
    elif suffix == ".mat":
        scipy.io.savemat(path, {"x": x, "y": x})
    elif suffix == ".pt":
        torch.save({"x": torch.from_numpy(x), "y": torch.from_numpy(x)}, path)
    else:
        with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC" if suffix == ".nc" else "NETCDF4") as file:
            for axis, n in zip(("sample", "channel", "x"), x.shape, strict=True):
                file.createDimension(axis, n)
            for name in "xy":
                file.createVariable(name, "f8", ("sample", "channel", "x"))[:] = x
    os.truncate(path, path.stat().st_size // 2)
    assert str(path) in refusal(tmp_path, FORMATS[suffix], path, pair())


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".nc"])
def test_what_is_damaged_inside(tmp_path: Path, suffix: str) -> None:
    x = np.random.default_rng(0).normal(size=(64, 3, 8))
    path = tmp_path / f"d{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, x=x, y=x)
    else:
        with h5py.File(path, "w") as file:
            for name in "xy":
                file.create_dataset(name, data=x, chunks=(8, 3, 8), compression="gzip", fletcher32=True)
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4 :: 997] = b"\xff" * len(content[len(content) * 3 // 4 :: 997])
    middle = len(content) // 2
    content[middle : middle + 512] = b"\xff" * 512
    path.write_bytes(content)
    assert str(path) in refusal(tmp_path, FORMATS[suffix], path, pair())


def test_nothing_is_left_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("headrace.surrogates.intake.writing.SampleStore.append", full)
    with pytest.raises(HeadraceError, match="could not be written: No space left on device. Nothing was kept."):
        NPZ().import_files(npz(tmp_path, x=X, y=X), tmp_path / "out", pair())
    assert not (tmp_path / "out" / "d").exists()


def test_kinds_of_tensors_and_matrices_without_plain_values(tmp_path: Path) -> None:
    quantized = torch.quantize_per_tensor(torch.ones(2, 3, 8), 0.1, 0, torch.qint8)
    torch.save({"x": quantized, "y": torch.ones(2, 3, 8)}, tmp_path / "d.pt")
    assert "x is a tensor that has no plain values (quantized)" in refusal(tmp_path, Torch(), tmp_path / "d.pt", pair())
    scipy.io.savemat(tmp_path / "d.mat", {"x": scipy.sparse.eye(4), "y": X * 1j})
    words = refusal(tmp_path, Mat(), tmp_path / "d.mat", pair())
    assert "x is a sparse matrix" in words and "y is complex numbers" in words
