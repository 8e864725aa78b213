"""load: a trained surrogate from a run, a checkpoint or MLflow, which predicts in physical units, by name."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
from jaxtyping import Float32, Shaped

from headrace.platform.allocator import keep_freed_memory
from headrace.platform.errors import InputError
from headrace.platform.fields import SampleSchema
from headrace.platform.files import usable_path
from headrace.platform.tracking.models import MODEL_FILE, data_folder, find_model, is_model_uri
from headrace.surrogates.checkpoint import Predictor
from headrace.surrogates.inputs import chosen_times
from headrace.surrogates.named import Given, from_array, from_names, to_names
from headrace.surrogates.seen import Outside, ValidRange

if TYPE_CHECKING:
    import xarray

HERE = os.path.dirname(__file__)
"""Whose lines no warning is about."""


class OutsideTraining(UserWarning):
    """Inputs are outside of what training saw: the surrogate extrapolates."""


class TrainedSurrogate:
    """A trained surrogate that predicts in physical units.

    Example:
        >>> model = load("runs/darcy_fno-...")                          # doctest: +SKIP
        >>> model.predict({"permeability": permeability})["pressure"]   # doctest: +SKIP
    """

    def __init__(self, predictor: Predictor, source: str = "") -> None:
        """Wrap a predictor; `load` makes one from what was trained.

        Args:
            predictor: what computes.
            source: where it comes from.
        """
        self.predictor = predictor
        self.checkpoint = predictor.checkpoint
        self.source = source
        self.valid_range = ValidRange.of(self.schema, self.checkpoint.ranges, self.checkpoint.version)

    @property
    def schema(self) -> SampleSchema:
        """What the samples that it was trained on look like: fields, parameters, grid, times."""
        return self.predictor.schema

    def __repr__(self) -> str:
        kind = type(self.checkpoint.surrogate).model_fields["kind"].default
        return f"TrainedSurrogate({kind} after {self.checkpoint.step} steps, {self.source}; range: {self.valid_range})"

    @overload
    def predict(  # type: ignore[overload-overlap]  # a Dataset is a mapping, too, and asked for first
        self,
        inputs: "xarray.Dataset | xarray.DataArray",
        parameters: object = None,
        times: Sequence[float] | None = None,
        *,
        when_outside: Literal["warn", "refuse", "ignore"] = "warn",
        batch_size: int | None = None,
        seed: int = 0,
    ) -> "xarray.Dataset": ...
    @overload
    def predict(
        self,
        inputs: Mapping[str, object],
        parameters: object = None,
        times: Sequence[float] | None = None,
        *,
        when_outside: Literal["warn", "refuse", "ignore"] = "warn",
        batch_size: int | None = None,
        seed: int = 0,
    ) -> dict[str, Float32[np.ndarray, "..."]]: ...
    @overload
    def predict(
        self,
        inputs: Shaped[np.ndarray, "..."],
        parameters: object = None,
        times: Sequence[float] | None = None,
        *,
        when_outside: Literal["warn", "refuse", "ignore"] = "warn",
        batch_size: int | None = None,
        seed: int = 0,
    ) -> Float32[np.ndarray, "batch time channels_out *grid"]: ...
    def predict(
        self,
        inputs: object,
        parameters: object = None,
        times: Sequence[float] | None = None,
        *,
        when_outside: Literal["warn", "refuse", "ignore"] = "warn",
        batch_size: int | None = None,
        seed: int = 0,
    ) -> object:
        """Predict; what comes back is of the kind that went in.

        Args:
            inputs: an array "batch channels_in *grid", which gives "batch time channels_out *grid"; or a mapping of
                field names to arrays "[batch] [components] *grid" (parameters may be among them), which gives one of
                "[batch] [time] [components] *grid"; or an xarray Dataset or DataArray, which gives a Dataset. An axis
                in brackets is there if there are several: of times when the schema has more than one, of components
                when the field has, of the batch when the inputs have it.
            parameters: where the schema has some: an array "batch num_parameters" or "num_parameters", or a mapping of
                names to numbers or arrays "batch".
            times: output times; default: the schema's. A surrogate of the strategy time_conditioned takes any.
            when_outside: what to do when inputs are outside of what training saw: a warning `OutsideTraining`, an
                error, or nothing. `outside` tells sample by sample.
            batch_size: see `Predictor.predict`.
            seed: see `Predictor.predict`.

        Raises:
            InputError: the arrays do not fit the schema, or are no finite real numbers in single precision; or they are
                outside of what training saw, and that shall be refused.
        """
        if _is_labelled(inputs):
            from headrace.surrogates import labelled

            return labelled.predict(
                self, inputs, parameters, times, when_outside=when_outside, batch_size=batch_size, seed=seed
            )
        given = self.given(inputs, parameters)
        outputs = self.predict_given(
            given, self.chosen_times(times), when_outside=when_outside, batch_size=batch_size, seed=seed
        )
        if not isinstance(inputs, Mapping):
            return outputs
        return to_names(outputs, self.schema, is_batch=given.is_batch)

    def outside(self, inputs: object, parameters: object = None, times: Sequence[float] | None = None) -> Outside:
        """Which samples are outside of what training saw, and why; arguments as in `predict`.

        Raises:
            InputError: the arrays do not fit the schema.
        """
        if _is_labelled(inputs):
            from headrace.surrogates import labelled

            inputs = labelled.to_arrays(inputs, self.schema).fields
        given = self.given(inputs, parameters)
        return self.valid_range.outside(given.inputs, given.parameters, self.chosen_times(times))

    def given(self, inputs: object, parameters: object = None) -> Given:
        """Arrays of all fields and parameters from what `predict` takes, other than xarray's.

        Raises:
            InputError: they do not fit the schema, or are no finite real numbers in single precision.
        """
        if isinstance(inputs, Mapping):
            given = from_names(inputs, parameters, self.schema)
        else:
            given = from_array(inputs, parameters, self.schema)
        fields, scalars = self.predictor.checked(given.inputs, given.parameters)
        return Given(inputs=fields, parameters=scalars, is_batch=given.is_batch)

    def chosen_times(self, times: Sequence[float] | None) -> tuple[float, ...]:
        """Those that are asked for; all of the schema's when none are.

        Raises:
            InputError: it does not predict at one of them.
        """
        return self.schema.times if times is None else chosen_times(times, self.schema, self.checkpoint.strategy)

    def predict_given(
        self,
        given: Given,
        times: tuple[float, ...],
        *,
        when_outside: Literal["warn", "refuse", "ignore"] = "warn",
        batch_size: int | None = None,
        seed: int = 0,
    ) -> Float32[np.ndarray, "batch time channels_out *grid"]:
        """Predict from what `given` and `chosen_times` returned; see `predict`."""
        if when_outside != "ignore":
            self._compare(given, times, when_outside)
        return self.predictor.predict_checked(given.inputs, given.parameters, times, batch_size=batch_size, seed=seed)

    def _compare(self, given: Given, times: tuple[float, ...], when_outside: str) -> None:
        found = self.valid_range.outside(given.inputs, given.parameters, times)
        if not found:
            return
        words = "; ".join(found.reasons)
        if when_outside == "refuse":
            raise InputError.single("inputs", "", "what training saw", f"Outside of it: {words}.")
        warnings.warn(f"outside of what training saw: {words}", OutsideTraining, skip_file_prefixes=(HERE,))


def load(source: str | os.PathLike[str], *, device: str = "cpu", tracking_uri: str | None = None) -> TrainedSurrogate:
    """A trained surrogate.

    Args:
        source: a run's folder (its newest checkpoint), a checkpoint file or a folder that holds one; a model of MLflow,
            `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `runs:/RUN_ID/NAME`, or a folder with one.
        device: where it computes, as torch names it.
        tracking_uri: the store of such a model; default: `MLFLOW_TRACKING_URI`, else `runs/mlflow.db`.

    Raises:
        InputError: there is nothing of the kind, or it cannot be read.
    """
    keep_freed_memory()
    name = os.fspath(source)
    path = find_model(name, tracking_uri) if is_model_uri(name) else Path(name)
    return TrainedSurrogate(Predictor.from_checkpoint(checkpoint_of(path), device=device), name)


def checkpoint_of(path: Path) -> Path:
    """The checkpoint file that is meant by a path: a file, or a folder of a run, of checkpoints, or of an MLflow model.

    Raises:
        InputError: a folder holds none, or several without a `last.pt`; or nothing can be at such a path.
    """
    expected = "a run with a checkpoint, a checkpoint, a folder with one or with last.pt, or a model of MLflow"
    if not usable_path(path, "the model", expected).is_dir():
        return path
    if (path / MODEL_FILE).is_file():
        path = data_folder(path)
        if path.is_file():
            return path
    for place in (path / "checkpoints" / "last.pt", path / "last.pt"):
        if place.is_file():
            return place
    found = sorted(path.glob("*.pt"))
    if len(found) != 1:
        raise InputError.single(str(path), f"a folder with {len(found)} .pt files", expected)
    return found[0]


def _is_labelled(inputs: object) -> bool:
    """Whether it comes from xarray; nobody who did not import that has any."""
    return type(inputs).__module__.partition(".")[0] == "xarray"
