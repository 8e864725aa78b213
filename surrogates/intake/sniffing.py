"""What a file is by its first bytes, for true words where it is not what was expected."""

import zipfile
from pathlib import Path

from headrace.platform.errors import InputError

_BEGINNINGS = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "hdf5"),
    (b"\x93NUMPY", "a NumPy array", "npy"),
    (b"CDF\x01", "a NetCDF-3 file", "netcdf"),
    (b"CDF\x02", "a NetCDF-3 file", "netcdf"),
    (b"CDF\x05", "a NetCDF file of the CDF-5 kind", ""),
    (b"MATLAB 5.0", "a MATLAB file", "mat"),
    (b"MATLAB 7.3", "a MATLAB 7.3 file", "mat"),
    (b"\x1f\x8b", "a gzip archive", ""),
    (b"\x80", "a pickle", ""),
)


def kind_of_file(path: Path) -> tuple[str, str]:
    """What a file is in words, and the format that reads it; both empty when nobody knows.

    Raises:
        InputError: it cannot be read.
    """
    try:
        if path.is_dir():
            is_zarr = any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))
            return ("a Zarr folder", "zarr") if is_zarr else ("a folder", "")
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise InputError.single(str(path), f"not readable ({error.strerror})", "a file that can be read") from error
    if not start:
        return "an empty file", ""
    for beginning, words, format_ in _BEGINNINGS:
        if start.startswith(beginning):
            return words, format_
    if start.startswith(b"PK"):
        return _zip(path)
    if all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in start):
        return "a text file", ""
    return "", ""


def _zip(path: Path) -> tuple[str, str]:
    """What a zip archive is by the names in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return "a zip archive that ends early", ""
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return "a torch file", "torch"
    return ("a NumPy archive", "npz") if any(name.endswith(".npy") for name in names) else ("a zip archive", "")


def not_of(path: Path, expected: str, reason: str = "", advice: str = "") -> InputError:
    """The error of a file that is not of the format that it was taken for.

    Args:
        path: the file.
        expected: what it was taken for: `an HDF5 file`.
        reason: what its library says.
        advice: what to do, where the file itself does not tell.
    """
    words, format_ = kind_of_file(path)
    if words and words not in expected:
        return InputError.single(str(path), words, expected, f"Give --format {format_}." if format_ else advice)
    said = f" ({reason})" if reason else ""
    return InputError.single(str(path), f"not readable{said}", expected, advice or "Is it cut off?")
