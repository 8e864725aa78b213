"""Which files make which data sets."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from headrace.platform.errors import InputError
from headrace.surrogates.intake.sniffing import kind_of_file, not_of

SPLITS = {"train": "train", "test": "test", "val": "validation", "valid": "validation", "validation": "validation"}
_NAME = re.compile(rf"(?:.*_)?({'|'.join(SPLITS)})(?:_(\d+(?:x\d+)*))?", re.IGNORECASE)
_RESOLUTION = re.compile(r"(\d+(?:x\d+)*)?")
JOINED = re.compile(rf"(.+)_({'|'.join(SPLITS)})", re.IGNORECASE)
"""An array of a split that has a file of its own: x_train.npy."""

_BLOCK = 1024**2


def is_there(path: Path) -> bool:
    """Whether a path leads to something.

    Raises:
        InputError: no file system could hold such a path.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        text = str(path) if len(str(path)) < 80 else f"{str(path)[:60]}... ({len(str(path))} characters)"
        raise InputError.single(text, f"not readable ({reason})", "a file or a folder that exists") from error
    return True


def find_sets(paths: Sequence[Path], suffixes: Sequence[str], *, joins: bool = False) -> dict[str, list[Path]]:
    """The files of each data set by its name.

    A file is one set. Of a folder, each folder `train`, `valid`, `test` in it (or in its folder `data`) is one set
    of all its files; without such folders each file is one.

    Args:
        paths: files, or one folder.
        suffixes: endings of the files.
        joins: each file holds one array; all together make a set, or one for each of `x_train`, `x_test`, ...

    Raises:
        InputError: there is none, or two would have the same name.
    """
    endings = " or ".join(suffixes)
    for path in paths:
        if not is_there(path):
            raise InputError.single(str(path), "not there", f"a {endings} file, or a folder with some")
        if not (path.is_file() or path.is_dir()):
            raise InputError.single(
                str(path), "neither a file nor a folder", f"a {endings} file, which can be sought in"
            )
    if len(paths) > 1 and (folders := [path for path in paths if path.is_dir() and path.suffix not in suffixes]):
        raise InputError.single(str(folders[0]), "a folder beside other files", "one folder, or files")
    path = paths[0]
    if len(paths) == 1 and path.is_dir() and path.suffix not in suffixes:
        for base in (path, path / "data"):
            folders = sorted(one for one in base.iterdir() if one.is_dir()) if base.is_dir() else []
            named = {name: one for one in folders if (name := _split_of(one.name)) is not None}
            if named:
                return {name: _files(one, suffixes) for name, one in named.items()}
        if kind_of_file(path)[1]:
            raise not_of(path, f"a {endings} file, or a folder with some")
        files = _files(path, suffixes)
    else:
        files = list(paths)
    if joins:
        found: dict[str, list[Path]] = {}
        for file in files:
            match = JOINED.fullmatch(file.stem)
            found.setdefault(SPLITS[match[2].lower()] if match else dataset_names([path])[0], []).append(file)
        return found
    return {name: [file] for name, file in zip(dataset_names(files), files, strict=True)}


def _split_of(folder: str) -> str | None:
    """The data set that a folder holds: `validation` for `valid`, `test_16` for itself; None for other folders."""
    split, _, resolution = folder.partition("_")
    if split not in SPLITS or not _RESOLUTION.fullmatch(resolution):
        return None
    return f"{SPLITS[split]}_{resolution}" if resolution else SPLITS[split]


def find_files(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """The file, or the files of a folder with these endings, by name.

    Raises:
        InputError: there is none.
    """
    return [file for files in find_sets([path], suffixes).values() for file in files]


def _files(path: Path, suffixes: Sequence[str]) -> list[Path]:
    files = sorted(file for file in path.iterdir() if file.suffix in suffixes)
    if not files:
        endings = " or ".join(suffixes)
        raise InputError.single(str(path), "a folder with nothing to import", f"files that end in {endings}")
    return files


def left_out(path: Path, sets: dict[str, list[Path]]) -> list[str]:
    """The names in a folder that become no part of a data set."""
    if not path.is_dir() or any(path == file for files in sets.values() for file in files):
        return []
    used = {file for files in sets.values() for file in files}
    used |= {parent for file in used for parent in file.parents}
    folders = {path} | {file.parent for files in sets.values() for file in files}
    names = [one.relative_to(path).as_posix() for folder in folders for one in folder.iterdir() if one not in used]
    return sorted(name for name in names if not Path(name).name.startswith("."))


def dataset_names(files: Sequence[Path]) -> list[str]:
    """What to call the data set of each file: `train`, `test_16`, or the file's own name when it tells no split.

    The only training file becomes `train`, as does the only validation file `validation`; others keep the resolution.

    Raises:
        InputError: two files would get the same name.
    """
    parts = [_NAME.fullmatch(file.stem) for file in files]
    splits = [SPLITS[match[1].lower()] if match else "" for match in parts]
    names = []
    for file, match, split in zip(files, parts, splits, strict=True):
        alone = split in ("train", "validation") and splits.count(split) == 1
        names.append(file.stem if not match else split if alone or not match[2] else f"{split}_{match[2]}")
    for position, name in enumerate(names):
        if name in names[:position]:
            other = files[names.index(name)]
            expected = f"another name: {other.name} takes it"
            advice = "Import the files one by one."
            raise InputError.single(str(files[position]), f'to become the data set "{name}"', expected, advice)
    return names


def of_resolution(sets: dict[str, list[Path]], resolution: str | None) -> tuple[dict[str, list[Path]], list[str]]:
    """The sets to take when there are several to train on or to validate with, and those that are left out.

    Args:
        sets: by name.
        resolution: of the training and validation sets that are wanted, as in their names; test sets are all taken.

    Raises:
        InputError: there are several and none was chosen, or none has it.
    """
    taken, dropped = dict(sets), []
    for role in ("train", "validation"):
        names = [name for name in sets if name.split("_")[0] == role]
        if len(names) < 2 and resolution is None:
            continue
        found = [name for name in names if resolution is not None and name == f"{role}_{resolution}"]
        if resolution is None:
            value = f"{' and '.join(names)}, of {sum(len(sets[name]) for name in names)} files"
            choices = " or ".join(f"--resolution {name.partition('_')[2]}" for name in names)
            raise InputError.single(f"the {role} set", value, "one", f"Give {choices}, or import the files one by one.")
        if len(names) > 1 and not found:
            raise InputError.single("--resolution", resolution, f"one of {', '.join(names)}")
        for name in names:
            if len(names) > 1 and name not in found:
                del taken[name]
                dropped.append(name)
    if resolution is None or not dropped:
        return taken, dropped
    renamed = {
        name.split("_")[0] if name in (f"train_{resolution}", f"validation_{resolution}") else name: files
        for name, files in taken.items()
    }
    return renamed, dropped


def require_new(directory: Path) -> None:
    """Make sure that nothing would be mixed into existing files.

    Raises:
        InputError: the directory holds something, or is a file.
    """
    if is_there(directory) and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError.single(str(directory), "not empty", "a new or empty directory")


def source_hash(path: Path) -> str:
    """The first 16 hex digits of the SHA-256 of a file, of a folder those of its files: stands for a spec."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            digest.update(os.path.relpath(os.path.join(folder, name), path).encode())
            with open(os.path.join(folder, name), "rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
    return digest.hexdigest()[:16]
