"""`headrace import` and `headrace export`: data sets from and for other programs."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from headrace.pipelines.run_dir import RunDir, data_sets
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.dataset.trajectories import whole
from headrace.platform.errors import InputError, nearest
from headrace.platform.files import drafted_folder, usable_path
from headrace.platform.spec import kinds
from headrace.surrogates.capabilities import MODEL_FORMATS
from headrace.surrogates.format import AbstractFormat
from headrace.surrogates.formats import FORMATS
from headrace.surrogates.intake.layout import Layout
from headrace.surrogates.intake.sniffing import kind_of_file

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_SHORT = {"well": "the_well"}  # what a format is also called


def _formats() -> dict[str, AbstractFormat]:
    found = {}
    for kind, spec in kinds("headrace.formats", FORMATS).items():
        format_ = spec()
        assert isinstance(format_, AbstractFormat)
        found[kind] = format_
    return found


def _format_of(name: str | None, sources: Sequence[Path], also: Sequence[str] = ()) -> AbstractFormat:
    known = _formats()
    name = _SHORT.get(name, name) if name is not None else None
    if name is not None:
        if name not in known:
            names = (*known, *also)
            raise InputError.single("--format", f'"{name}"', f"one of {', '.join(names)}", nearest(name, names))
        return known[name]
    for file in _candidates(sources):
        for format_ in known.values():
            if file.suffix in format_.suffixes and format_.recognizes(file):
                return format_
    endings = ", ".join(f"{' or '.join(format_.suffixes)} ({kind})" for kind, format_ in known.items())
    words, kind = kind_of_file(sources[0])
    advice = f"It is {words}: give --format {kind}." if kind else f"It is {words}." if words else ""
    raise InputError.single("FILE", str(sources[0]), f"a file, or a folder of files, that ends in {endings}", advice)


def _candidates(sources: Sequence[Path]) -> Iterator[Path]:
    """The files that are given, and those of folders; a folder may be a file itself, as Zarr's are."""
    for source in sources:
        yield source
        if source.is_dir():
            folders = [source, *(one for base in (source, source / "data") for one in base.glob("*") if one.is_dir())]
            for folder in folders:
                yield from sorted(folder.glob("*"))


def _require_new(out: Path) -> None:
    faults = RunDir.unusable(out)
    if faults:
        raise InputError(faults)


def import_data(
    sources: Sequence[Path],
    format_name: str | None,
    out: Path,
    layout: Layout | None = None,
    *,
    name: str | None = None,
    resolution: str | None = None,
    tell: Callable[..., None] = lambda understood: None,
) -> dict[str, int]:
    """Take in a file, a folder of files, or several files; returns the number of samples of each data set written.

    Args:
        sources: what to take in.
        format_name: its format; None: by its ending and content.
        out: a new folder for the data sets.
        layout: what the user says of the arrays.
        name: what to call the only data set; `out` may then hold others.
        resolution: which of several training and validation files to take.
        tell: is called with what was understood of each data set, before any is written.

    Raises:
        InputError: nothing is there, nothing fits, a file is broken, or `out` is taken.
    """
    for source in sources:
        if str(source) == "-":
            advice = "Write it to a file first: formats are read at any place of it, and twice."
            raise InputError.single("FILE", "- (standard input)", "a file or a folder that exists", advice)
        if not usable_path(source, "FILE", "a file or a folder that exists").exists():
            raise InputError.single("FILE", str(source), "a file or a folder that exists")
    format_ = _format_of(format_name, sources)
    if name is None:
        _require_new(out)
    elif not _NAME.fullmatch(name):
        raise InputError.single("--as", f'"{name}"', "letters, digits, _ and -: train, test_16, ...")
    else:
        usable_path(out / name, "--out", "a folder that can be written", new="folder")
    return format_.import_files(sources, out, layout, name=name, resolution=resolution, tell=tell)


def export_data(directory: Path, format_name: str, out: Path) -> list[Path]:
    """Write every data set of a folder (a run's, a generated or imported one) as files; returns them.

    Trajectories that were stored in parts are written whole. `out` is there with all files, or not at all.

    Raises:
        InputError: there is no data set, or the format cannot hold it, or `out` is taken.
    """
    format_ = _format_of(format_name, [directory], MODEL_FORMATS)
    if not format_.writes:
        written = ", ".join(kind for kind, one in _formats().items() if one.writes)
        raise InputError.single("--format", f'"{format_name}", which is only read', f"one of {written}")
    sets = data_sets(directory, "DIR")
    if not sets:
        raise InputError.single("DIR", str(directory), "a run's folder, or one with data sets in it")
    _require_new(out)
    name = directory.resolve().name
    with drafted_folder(out) as draft:
        files = [
            file
            for split, path in sets.items()
            for file in format_.export_dataset(whole(StoredSamples.open(path)), draft, name, split)
        ]
    return [out / file.relative_to(draft) for file in files]
