"""`headrace import` and `headrace export`: data sets from and for other programs."""

from pathlib import Path

from headrace.pipelines.run_dir import RunDir, data_sets
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.dataset.trajectories import whole
from headrace.platform.errors import InputError, nearest
from headrace.platform.files import usable_path
from headrace.platform.spec import kinds
from headrace.surrogates.format import AbstractFormat
from headrace.surrogates.formats import FORMATS


def _formats() -> dict[str, AbstractFormat]:
    found = {}
    for kind, spec in kinds("headrace.formats", FORMATS).items():
        format_ = spec()
        assert isinstance(format_, AbstractFormat)
        found[kind] = format_
    return found


def _format_of(name: str | None, source: Path) -> AbstractFormat:
    known = _formats()
    if name is not None:
        if name not in known:
            raise InputError.single("--format", f'"{name}"', f"one of {', '.join(known)}", nearest(name, known))
        return known[name]
    files = [source] if source.is_file() else sorted(source.glob("*"))
    for file in files:
        for format_ in known.values():
            if file.suffix in format_.suffixes:
                return format_
    endings = ", ".join(f"{' or '.join(format_.suffixes)} ({kind})" for kind, format_ in known.items())
    raise InputError.single("FILE", str(source), f"a file, or a folder of files, that ends in {endings}")


def _require_new(out: Path) -> None:
    faults = RunDir.unusable(out)
    if faults:
        raise InputError(faults)


def import_data(source: Path, format_name: str | None, out: Path) -> dict[str, int]:
    """Take in a file or a folder of files; returns the number of samples of each data set written below `out`.

    Raises:
        InputError: nothing is there, nothing fits, a file is broken, or `out` is taken.
    """
    if not usable_path(source, "FILE", "a file or a folder that exists").exists():
        raise InputError.single("FILE", str(source), "a file or a folder that exists")
    format_ = _format_of(format_name, source)
    _require_new(out)
    return format_.import_files(source, out)


def export_data(directory: Path, format_name: str, out: Path) -> list[Path]:
    """Write every data set of a folder (a run's, a generated or imported one) as files; returns them.

    Trajectories that were stored in parts are written whole.

    Raises:
        InputError: there is no data set, or the format cannot hold it, or `out` is taken.
    """
    format_ = _format_of(format_name, directory)
    sets = data_sets(directory, "DIR")
    if not sets:
        raise InputError.single("DIR", str(directory), "a run's folder, or one with data sets in it")
    _require_new(out)
    out.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for split, path in sets.items():
        files += format_.export_dataset(whole(StoredSamples.open(path)), out, directory.resolve().name, split)
    return files
