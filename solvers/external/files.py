"""What a program left behind: its answer and its arrays, looked at with distrust. Nothing is ever unpickled."""

import json
import math
import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Shaped

from headrace.platform.errors import nearest
from headrace.solvers.external.request import ProgramRequest
from headrace.solvers.external.spec import FORMATS, Input, Output

MAX_ANSWER_NBYTES = 1024 * 1024
# What NumPy, zipfile and h5py raise on files that are not what they seem.
_READING = (
    OSError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    OverflowError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


class Unusable(Exception):
    """What came from a program cannot become a sample; says why."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a program says that it has done a sample.

    Attributes:
        sent: what was sent through the client, "NAME.TIME"; None when the program used none.
        relative_residual: as the program reports it; NaN when it does not.
        num_iterations: the same; 0 when it does not.
    """

    sent: frozenset[str] | None = None
    relative_residual: float = math.nan
    num_iterations: int = 0

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> "Answer":
        """The answer in a JSON object: what the client writes, or a program by itself.

        Raises:
            Unusable: the program reports an error, or values that make no sense.
        """
        if values.get("error") is not None:
            raise Unusable(f"the program says: {str(values['error'])[:500]}")
        sent = values.get("sent")
        if sent is not None and not (isinstance(sent, list) and all(isinstance(name, str) for name in sent)):
            raise Unusable(f"the answer has sent = {str(sent)[:80]}, expected a list of names")
        residual, iterations = values.get("relative_residual"), values.get("num_iterations")
        if residual is None:
            residual = math.nan
        elif isinstance(residual, bool) or not isinstance(residual, int | float) or not 0.0 <= residual < math.inf:
            raise Unusable(f"the answer has relative_residual = {residual}, expected a finite number of at least 0")
        if iterations is None:
            iterations = 0
        elif isinstance(iterations, bool) or not isinstance(iterations, int) or not 0 <= iterations < 2**53:
            raise Unusable(f"the answer has num_iterations = {iterations}, expected an integer of at least 0")
        return cls(
            sent=None if sent is None else frozenset(sent),
            relative_residual=float(residual),
            num_iterations=iterations,
        )


def read_answer(folder: Path) -> Answer | None:
    """What the client wrote at the end of a sample, in the protocol `files`; None when there is nothing.

    Raises:
        Unusable: it is damaged, or the program reports an error.
    """
    try:
        path = _inside(folder, "answer.json")
    except FileNotFoundError:
        return None
    if path.stat().st_size > MAX_ANSWER_NBYTES:
        raise Unusable(f"answer.json has {path.stat().st_size} bytes, expected at most {MAX_ANSWER_NBYTES}")
    try:
        values = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError) as error:
        raise Unusable(f"answer.json is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise Unusable(f"answer.json holds a {type(values).__name__}, expected an object")
    return Answer.parse(values)


def read_arrays(
    request: ProgramRequest, answer: Answer | None
) -> tuple[Float32[np.ndarray, "channels_in *grid"], Float32[np.ndarray, "time channels_out *grid"]]:
    """The inputs and outputs of a sample, from the files in its folder.

    Raises:
        Unusable: a file is missing, of another shape or type, or has values that are not finite.
    """
    problem = request.problem
    times = len(problem.times)
    _require_sent(request, answer)
    inputs = [_input(request, name, spec) for name, spec in problem.fields_in.items()]
    outputs = [
        _sent(request, name, spec, times) if spec.file is None else _read(request, name, spec, times)
        for name, spec in problem.outputs.items()
    ]
    return np.concatenate(inputs), np.concatenate(outputs, axis=1)


def _require_sent(request: ProgramRequest, answer: Answer | None) -> None:
    """Refuse a sample that was not finished, or of which something is missing or too much."""
    wanted = request.problem.sent()
    if not wanted:
        return
    if answer is None or answer.sent is None:
        raise Unusable(
            "the program ended without finalize: it does not say that the sample is whole"
            if answer is None
            else f"the answer does not say what was sent, expected {', '.join(wanted)} through the client"
        )
    found: dict[str, set[str]] = {}
    for entry in answer.sent:
        name, _, time = entry.rpartition(".")
        found.setdefault(name, set()).add(time)
    for name in found:
        if name not in wanted:
            hint = nearest(name, wanted)
            raise Unusable(f'the field "{name}" was sent, expected {", ".join(wanted)}. {hint}'.strip())
    for name in wanted:
        times = len(request.problem.times) if name in request.problem.outputs else 1
        expected = {str(number) for number in range(times)}
        came = found.get(name, set())
        if missing := sorted(expected - came, key=int):
            which = "" if not came else f" ({', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''} missing)"
            raise Unusable(f"{name} was sent at {len(came & expected)} times, expected {times}{which}")
        if came - expected:
            raise Unusable(f"{name} was sent at {len(came)} times, expected {times}: 0 to {times - 1}")


def _input(request: ProgramRequest, name: str, spec: Input) -> Float32[np.ndarray, "components *grid"]:
    if spec.parameter is not None:
        return np.full((1, *request.problem.grid.shape), request.parameters[spec.parameter], dtype=np.float32)
    return (_sent(request, name, spec, 1) if spec.file is None else _read(request, name, spec, 1))[0]


def _sent(request: ProgramRequest, name: str, spec: Output, times: int) -> Float32[np.ndarray, "time components *grid"]:
    """A field as the client writes it: one file a time."""
    shape = (spec.components, *request.problem.grid.shape)
    read = [
        _checked(_load(request.folder, f"{name}.{time}.npy", None), shape, f"{name}.{time}.npy", ("components",))
        for time in range(times)
    ]
    return np.stack(read)


def _read(request: ProgramRequest, name: str, spec: Output, times: int) -> Float32[np.ndarray, "time components *grid"]:
    """A field from the file that the recipe names."""
    assert spec.file is not None
    shape = (times, spec.components, *request.problem.grid.shape)
    label = f"{spec.file}[{spec.dataset}]" if spec.dataset is not None else spec.file
    axes = ("times", "components") if name in request.problem.outputs else ("", "components")
    return _checked(_load(request.folder, spec.file, spec.dataset), shape, label, axes)


def _checked(
    array: Shaped[np.ndarray, "..."], shape: tuple[int, ...], label: str, leading: tuple[str, ...]
) -> Float32[np.ndarray, "..."]:
    """The array in single precision and full shape; leading axes of length 1 may have been left out."""
    if array.dtype.kind not in "fiu":
        raise Unusable(f"{label} holds values of type {array.dtype}, expected real numbers")
    grid = shape[len(leading) :]
    kept = [length for length, name in zip(shape, leading, strict=False) if name]
    options = {(*(n for n, keep in zip(kept, flags, strict=True) if keep), *grid) for flags in _choices(kept)}
    if array.shape not in options and not (array.ndim == 1 and label.endswith((".txt", ".dat"))):
        names = [name for name in leading if name]
        full = f"({', '.join(names)}, *grid) = {(*kept, *grid)}" if names else str(grid)
        raise Unusable(f"{label} has shape {array.shape}, expected {full}")
    if array.size != math.prod(shape):
        raise Unusable(f"{label} has {array.size} numbers, expected {math.prod(shape)}: {(*kept, *grid)}")
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.array(array, dtype=np.float32).reshape(shape)
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise Unusable(f"{label} has {bad} of {values.size} values that are not finite numbers in single precision")
    return values


def _choices(lengths: list[int]) -> list[tuple[bool, ...]]:
    """Which leading axes are there: all of them, or without some of length 1."""
    flags: list[tuple[bool, ...]] = [()]
    for length in lengths:
        flags = [(*before, keep) for before in flags for keep in ((True, False) if length == 1 else (True,))]
    return flags


def _load(folder: Path, name: str, dataset: str | None) -> Shaped[np.ndarray, "..."]:
    try:
        path = _inside(folder, name)
    except FileNotFoundError as error:
        raise Unusable(f"{name} is missing") from error
    assert path.suffix in FORMATS
    label = name if dataset is None else f"{name}[{dataset}]"
    try:
        if path.suffix == ".npy":
            # Mapped: a header that promises more than there is, or than there is memory, costs nothing.
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(found, np.ndarray):
                raise ValueError("an archive of several arrays")
            return found
        if path.suffix == ".npz":
            assert dataset is not None
            with np.load(path, allow_pickle=False) as archive:
                if dataset not in archive:
                    raise Unusable(f"{name} has no array {dataset}; it has {', '.join(archive) or 'none'}")
                return np.asarray(archive[dataset])
        if path.suffix in (".txt", ".dat"):
            return np.loadtxt(path, dtype=np.float64, ndmin=1).ravel()  # however the numbers are broken into lines
        return _load_hdf5(path, name, str(dataset))
    except _READING as error:
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise Unusable(f"{label} holds no array of numbers; Python objects are never loaded") from error
        raise Unusable(f"{label} cannot be read: {error}") from error


def _load_hdf5(path: Path, name: str, dataset: str) -> Shaped[np.ndarray, "..."]:
    import h5py

    with h5py.File(path, "r") as file:
        # A link may lead to another file.
        if file.get(dataset, getclass=True, getlink=True) is h5py.ExternalLink:
            raise Unusable(f"{name}[{dataset}] is a link to another file, expected a dataset")
        found = file.get(dataset)
        if not isinstance(found, h5py.Dataset):
            raise Unusable(f"{name} has no dataset {dataset}; it has {', '.join(file) or 'none'}")
        return np.asarray(found[()])


def _inside(folder: Path, name: str) -> Path:
    """A regular file in the folder.

    Raises:
        FileNotFoundError: it is not there.
        Unusable: it lies elsewhere, by a link, or is no file.
    """
    try:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise Unusable(f"{name} is a link that leads out of the scratch folder")
        # Opening a pipe would wait for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise Unusable(f"{name} is not a regular file")
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:  # a loop of links, a folder that is a file
        raise Unusable(f"{name} cannot be read: {error}") from error
    return path
