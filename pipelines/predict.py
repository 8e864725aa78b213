"""`headrace predict`: apply a surrogate to inputs from a file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from headrace.platform.errors import InputError
from headrace.platform.fields import SampleSchema
from headrace.platform.files import usable_path
from headrace.platform.tracking.models import is_model_uri
from headrace.surrogates.named import Given, to_names
from headrace.surrogates.seen import Outside
from headrace.surrogates.trained import TrainedSurrogate, load

if TYPE_CHECKING:
    from headrace.pipelines.certify import Certified
    from headrace.surrogates.labelled import Labelled

type Certify = Callable[[np.ndarray, np.ndarray, np.ndarray], Certified]

HDF5 = (".h5", ".hdf5")
ENDINGS = (".npz", ".npy", *HDF5, ".nc")
FLAG = "outside_training"
EXPECTED = (
    "a file of arrays: .npy (all input fields), .npz or .h5 with `inputs` (and `parameters`, `times`) or with fields "
    "and parameters by their names, or .nc"
)


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What came of it.

    Attributes:
        shapes: of each array that was written, and what its axes are.
        outside: which samples are outside of what training saw.
        warnings: what the user should know.
        certified: what the equation says of the predictions, if it was asked.
    """

    shapes: dict[str, tuple[tuple[int, ...], str]]
    outside: Outside
    warnings: tuple[str, ...]
    certified: "Certified | None" = None


def predict_file(
    model: str,
    source: Path,
    out: Path,
    *,
    times: str | None = None,
    strict: bool = False,
    tracking_uri: str | None = None,
    certify: "Certify | None" = None,
) -> Predicted:
    """Predict for every input of a file, and say which of them are outside of what training saw.

    Inputs that come as one array give one array, `outputs`; inputs by name give outputs by name. Beside them the file
    has `outside_training`, a flag for each sample, `outside_reasons`, and `times` where there are several; a .npy has
    no place for them.

    Args:
        model: what `headrace.surrogates.load` takes; of a run its newest checkpoint.
        source: inputs in the problem's own units.
        out: the file to write.
        times: output times, separated by commas.
        strict: refuse inputs that are outside.
        tracking_uri: the store of a model in MLflow.
        certify: called with inputs, predictions and parameters; its arrays are written beside the prediction.

    Raises:
        InputError: the file cannot be read, does not fit the surrogate, or `out` exists or has another ending; or
            inputs are outside of what training saw, and that shall be refused.
    """
    expected = f"a new file that ends in {', '.join(ENDINGS)}, in a folder that exists"
    if usable_path(out, "--out", expected, new="file").suffix not in ENDINGS:
        raise InputError.single("--out", str(out), expected)
    if certify is not None and out.suffix not in (".npz", *HDF5):
        raise InputError.single(
            "--out", str(out), "a file that ends in .npz or .h5", "A certificate is several arrays."
        )
    usable_path(source, "INPUT", EXPECTED)
    surrogate = _surrogate(model, tracking_uri)
    asked = None if times is None else _times(times)
    labelled = _labelled(source, surrogate.schema) if source.suffix == ".nc" else None
    found: Mapping[str, Any] = _read(source) if labelled is None else labelled.fields
    by_name = labelled is not None or "inputs" not in found or _is_field("inputs", surrogate.schema)
    if by_name:
        given = surrogate.given(found)
    elif unknown := sorted(set(found) - {"inputs", "parameters", "times"}):
        raise InputError.single("INPUT", f"{source} with {', '.join(unknown)} beside `inputs`", EXPECTED)
    else:
        given = surrogate.given(found["inputs"], found.get("parameters"))
        asked = found.get("times") if asked is None else asked
    if not len(given.inputs):
        raise InputError.single("INPUT", str(source), "at least one sample", "It holds none.")
    chosen = surrogate.chosen_times(asked)
    outside = surrogate.valid_range.outside(given.inputs, given.parameters, chosen)
    warnings = _compared(surrogate, outside, strict=strict, has_flag=out.suffix != ".npy")
    outputs = surrogate.predict_given(given, chosen, when_outside="ignore")
    certified = None if certify is None else certify(given.inputs, outputs, given.parameters)
    shapes = _write(out, outputs, given, surrogate, chosen, outside, labelled, certified, by_name=by_name)
    return Predicted(shapes=shapes, outside=outside, warnings=warnings, certified=certified)


def _surrogate(model: str, tracking_uri: str | None) -> TrainedSurrogate:
    expected = (
        "a folder that `headrace run` or `headrace train` made, with a run.json in it; a checkpoint; or a model of "
        "MLflow, models:/NAME@ALIAS or runs:/RUN_ID/NAME"
    )
    if not is_model_uri(model) and not usable_path(Path(model), "RUN", expected).exists():
        raise InputError.single(model, "not a run", expected)
    return load(model, tracking_uri=tracking_uri)


def _is_field(name: str, schema: SampleSchema) -> bool:
    return any(spec.name == name for spec in schema.inputs)


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".npy":
            return {"inputs": np.load(path, allow_pickle=False)}
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        if path.suffix in HDF5:
            with h5py.File(path) as file:
                return {name: item[()] for name, item in file.items() if isinstance(item, h5py.Dataset)}
    except (OSError, ValueError, KeyError) as error:
        reason = "it holds Python objects, or is damaged" if "allow_pickle" in str(error) else str(error)
        raise InputError.single("INPUT", str(path), EXPECTED, f"It cannot be read: {reason}.") from error
    raise InputError.single("INPUT", str(path), EXPECTED)


def _labelled(path: Path, schema: SampleSchema) -> "Labelled":
    _need_xarray(".nc")
    import xarray

    from headrace.surrogates.labelled import to_arrays

    try:
        with xarray.open_dataset(path, engine="h5netcdf") as data:
            return to_arrays(data.load(), schema)
    except (OSError, ValueError, KeyError) as error:
        raise InputError.single("INPUT", str(path), EXPECTED, f"It cannot be read: {error}.") from error


def _need_xarray(ending: str) -> None:
    try:
        import xarray  # noqa: F401  (asked whether it is there)
    except ImportError as error:
        advice = "Install headrace[xarray], or use .h5."
        raise InputError.single(ending, "", "xarray, which reads and writes such files", advice) from error


def _times(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError.single("--times", f'"{text}"', "numbers separated by commas, as in 0.1,0.5") from error


def _compared(surrogate: TrainedSurrogate, outside: Outside, *, strict: bool, has_flag: bool) -> tuple[str, ...]:
    """What to say of inputs that are unlike those of training.

    Raises:
        InputError: they are, or may be, and that shall be refused.
    """
    if strict and outside:
        raise InputError.single("INPUT", "outside of what training saw", "what is inside", "; ".join(outside.reasons))
    said = [f"outside of what training saw: {reason}" for reason in outside.reasons]
    if not outside.is_known:
        known = f"what training saw is {surrogate.valid_range}"
        if strict:
            raise InputError.single("--strict", known, "a checkpoint that tells it", "Train on, or leave out --strict.")
        said.append(f"{known}: inputs were not compared with it")
    if outside and not has_flag:
        said.append(f"a .npy file has no place for the flags: .npz and .h5 have {FLAG}")
    return tuple(said)


def _write(
    out: Path,
    outputs: np.ndarray,
    given: Given,
    surrogate: TrainedSurrogate,
    times: tuple[float, ...],
    outside: Outside,
    labelled: "Labelled | None",
    certified: "Certified | None",
    *,
    by_name: bool,
) -> dict[str, tuple[tuple[int, ...], str]]:
    schema = surrogate.schema
    if out.suffix == ".nc":
        _need_xarray(".nc")
        from headrace.surrogates.labelled import dataset

        data = dataset(surrogate, outputs, given, times, outside, labelled)
        data.to_netcdf(out, engine="h5netcdf")
        names = [spec.name for spec in schema.outputs]
        return {name: (data[name].shape, ", ".join(map(str, data[name].dims))) for name in names}
    arrays: Mapping[str, np.ndarray] = {"outputs": outputs}
    axes = "samples, times, channels, grid"
    if by_name and out.suffix != ".npy":
        arrays = to_names(outputs, schema, is_batch=given.is_batch)
        axes = "what there is of samples, times, components; grid"
    beside: dict[str, np.ndarray] = {FLAG: outside.samples, "outside_reasons": np.array(outside.reasons, dtype="U")}
    if certified is not None:
        beside |= certified.arrays
    if len(schema.times) > 1:
        beside["times"] = np.array(times)
    if out.suffix == ".npy":
        with out.open("wb") as file:
            np.save(file, outputs)
    elif out.suffix == ".npz":
        with out.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays, **beside)
    else:
        with h5py.File(out, "w") as target:
            for name, values in {**arrays, **beside}.items():
                target[name] = values.astype(h5py.string_dtype()) if values.dtype.kind == "U" else values
    return {name: (values.shape, axes) for name, values in arrays.items()}
