"""Checkpoints: plain tensors and JSON, written atomically; and Predictor, which needs nothing but one."""

import json
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from headrace.platform.allocator import keep_freed_memory
from headrace.platform.errors import InputError, nearest
from headrace.platform.fields import SampleSchema
from headrace.platform.files import replacing
from headrace.platform.spec import kinds
from headrace.surrogates.inputs import checked_arrays, chosen_times
from headrace.surrogates.models import SURROGATES
from headrace.surrogates.normalization import NormalizationSpec
from headrace.surrogates.normalizer import NormalizedNetwork, Normalizer
from headrace.surrogates.strategies import AllAtOnce, AnyStrategy
from headrace.surrogates.strategy import AbstractStrategy
from headrace.surrogates.surrogate import AbstractSurrogate

FORMAT = 2
"""Raised when older code cannot read what newer code writes."""


MOST_AT_A_TIME = {"cpu": 64, "accelerator": 1024}
"""Samples that a predictor takes at a time, at most."""

POINTS_AT_A_TIME = {"cpu": 32_768, "accelerator": 4_194_304}
"""Points of all of them together. On a CPU 8 samples of 64 x 64, which take half as long each as 64 at a time; on an
accelerator some gibibytes, and fewer where they do not fit."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that training needs to go on, and prediction to start.

    Attributes:
        step: finished optimiser steps.
        surrogate: the network's spec.
        normalization: the normaliser's spec.
        strategy: how the network forecasts a trajectory.
        training: the training spec as JSON data, as it was written: a checkpoint outlives the plug-in of a loss.
        schema: what the samples look like.
        weights: the network's state.
        moments: the normaliser's state.
        optimizer: the optimiser's state.
        schedule: the learning-rate schedule's state.
        version: version of Headrace that wrote it.
        seen: the indices of the samples that a normaliser which is not frozen yet has learned from; None in
            those of before, which learned from repeats as well, and go on so.
        ranges: lowest and highest value of every input channel and parameter in training; None when it is not known.
    """

    step: int
    surrogate: AbstractSurrogate
    normalization: NormalizationSpec
    strategy: AbstractStrategy
    training: Mapping[str, Any]
    schema: SampleSchema
    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    schedule: Mapping[str, Any]
    version: str = version("headrace")
    seen: Sequence[int] | None = None
    ranges: Mapping[str, Tensor] | None = None

    def build(self) -> NormalizedNetwork:
        """The trained network with its normalisation, in evaluation mode; `strategy` forecasts with it."""
        capabilities = self.surrogate.capabilities
        seen = self.strategy.network_schema(self.schema, capabilities)
        with torch.random.fork_rng(devices=[]):
            network = self.surrogate.build(seen)
        model = NormalizedNetwork(network, Normalizer(self.normalization, seen), capabilities, seen.domain)
        model.network.load_state_dict(self.weights)
        model.normalizer.load_state_dict(self.moments)
        return model.eval()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a file that is either whole or absent, whatever is killed when.

    `torch.load(path, weights_only=True)` reads it: a dict of tensors, numbers and JSON strings.
    """
    content = {
        "format": FORMAT,
        "headrace": checkpoint.version,
        "step": checkpoint.step,
        "surrogate": checkpoint.surrogate.model_dump_json(),
        "normalization": checkpoint.normalization.model_dump_json(),
        "strategy": checkpoint.strategy.model_dump_json(),
        "training": json.dumps(checkpoint.training),
        "schema": json.dumps(checkpoint.schema.to_json()),
        "weights": dict(checkpoint.weights),
        "moments": dict(checkpoint.moments),
        "optimizer": dict(checkpoint.optimizer),
        "schedule": dict(checkpoint.schedule),
        "seen": None if checkpoint.seen is None else list(checkpoint.seen),
    }
    if checkpoint.ranges is not None:
        content["ranges"] = dict(checkpoint.ranges)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        torch.save(content, file)


def load_checkpoint(path: Path, *, schema: SampleSchema | None = None) -> Checkpoint:
    """Read a checkpoint without running any code that it might carry.

    Args:
        path: the file.
        schema: the problem at hand; the checkpoint must know the same fields in the same units, on the same box, with
            values at the same kind of places. The number of points may be another one.

    Raises:
        InputError: there is no such file, it is no Headrace checkpoint, it is damaged, newer than this program, of a
            surrogate that is not installed, or of another problem.
    """
    content = _read(path)
    try:
        found = SampleSchema.from_json(json.loads(content["schema"]))
        checkpoint = Checkpoint(
            step=content["step"],
            surrogate=_surrogate(path, json.loads(content["surrogate"])),
            normalization=NormalizationSpec.model_validate_json(content["normalization"]),
            strategy=_strategy(content),
            training=json.loads(content["training"]),
            schema=found,
            weights=content["weights"],
            moments=content["moments"],
            optimizer=content["optimizer"],
            schedule=content["schedule"],
            version=content["headrace"],
            seen=content.get("seen"),
            ranges=_ranges(content, found),
        )
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise InputError.single(
            str(path), "", "a Headrace checkpoint", f"Part of it cannot be read: {error}"
        ) from error
    if schema is not None and (reason := _differs(found, schema)):
        raise InputError.single(str(path), "", "a checkpoint of this problem", f"It is of another one, with {reason}.")
    return checkpoint


class Predictor:
    """A trained surrogate that takes and gives NumPy arrays in physical units.

    Example:
        `Predictor.from_checkpoint(Path("checkpoints/last.pt")).predict(permeability[:, None])`
    """

    def __init__(self, checkpoint: Checkpoint, *, device: str = "cpu") -> None:
        """Build the network on a device."""
        self.checkpoint = checkpoint
        self.schema = checkpoint.schema
        self._device = torch.device(device)
        self._model = checkpoint.build().to(self._device)

    @classmethod
    def from_checkpoint(cls, path: Path | str, device: str = "cpu") -> "Predictor":
        """Load a checkpoint.

        Raises:
            InputError: see `load_checkpoint`.
        """
        return cls(load_checkpoint(Path(path)), device=device)

    def check_schema(self, schema: SampleSchema, where: str) -> None:
        """See that data of this schema can be predicted; another resolution is fine where the surrogate can.

        Args:
            schema: the data's.
            where: the data's name, for the error.

        Raises:
            InputError: they are of another problem.
        """
        if reason := _differs(self.schema, schema):
            raise InputError.single(where, "", "data of the checkpoint's problem", f"The checkpoint has {reason}.")

    def predict(
        self,
        inputs: Shaped[np.ndarray, "..."],
        parameters: Shaped[np.ndarray, "..."] | None = None,
        *,
        times: Sequence[float] | None = None,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> Float32[np.ndarray, "batch time channels_out *grid"]:
        """Predict output times: all, or those that are asked for.

        Args:
            inputs: the fields, "batch channels_in *grid", in the schema's order; on another grid than it was trained on
                where the surrogate can.
            parameters: the scalars of each sample, "batch num_parameters", where the schema has some.
            times: which output times; others than the schema's where the strategy can be asked for any.
            batch_size: samples that go through the network at a time; default: on a CPU as many as have 32768 points,
                up to 64, since larger fields do not stay in its caches; on an accelerator as many as fit.
            seed: of the random numbers of a network that takes some; another one gives another member of an ensemble.

        Raises:
            InputError: the arrays do not fit the schema, or are no finite real numbers in single precision.
        """
        if parameters is None and self.schema.num_parameters == 0:
            parameters = np.zeros((len(np.asarray(inputs)) if np.ndim(inputs) else 0, 0))
        inputs, parameters = self.checked(inputs, parameters)
        chosen = self.schema.times if times is None else chosen_times(times, self.schema, self.checkpoint.strategy)
        return self.predict_checked(inputs, parameters, chosen, batch_size=batch_size, seed=seed)

    def checked(
        self, inputs: object, parameters: object
    ) -> tuple[Shaped[np.ndarray, "batch channels_in *grid"], Shaped[np.ndarray, "batch num_parameters"]]:
        """The arrays, as they are, once they are known to fit; see `predict`."""
        spec = self.checkpoint
        return checked_arrays(inputs, parameters, self.schema, spec.surrogate.capabilities, spec.normalization.log)

    def predict_checked(
        self,
        inputs: Shaped[np.ndarray, "batch channels_in *grid"],
        parameters: Shaped[np.ndarray, "batch num_parameters"],
        times: tuple[float, ...],
        *,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> Float32[np.ndarray, "batch time channels_out *grid"]:
        """Predict from what `checked` and `chosen_times` returned."""
        outputs = np.empty(
            (len(inputs), len(times), self.schema.num_output_channels, *inputs.shape[2:]), dtype=np.float32
        )
        size = self._batch_size(math.prod(inputs.shape[2:])) if batch_size is None else batch_size
        start = 0
        noise = torch.Generator(self._device).manual_seed(seed) if self._model.capabilities.noise else None
        while start < len(inputs):
            rows = slice(start, start + size)
            try:
                outputs[rows] = self._forecast(inputs[rows], parameters[rows], times, noise)
            except torch.OutOfMemoryError:
                if size == 1 or batch_size is not None:
                    raise
                torch.cuda.empty_cache()
                size = max(size // 2, 1)
                continue
            start += size
        return outputs

    def _forecast(
        self, inputs: np.ndarray, parameters: np.ndarray, times: tuple[float, ...], noise: torch.Generator | None
    ) -> np.ndarray:
        strategy, arrays = self.checkpoint.strategy, (self._tensor(inputs), self._tensor(parameters))
        with torch.inference_mode():
            if times == self.schema.times:
                said = strategy.forecast(self._model, self.schema, *arrays, noise)
            else:
                said = strategy.forecast_at(self._model, self.schema, *arrays, times, noise)
        result: np.ndarray = said.cpu().numpy()
        return result

    def _batch_size(self, num_points: int) -> int:
        where = "cpu" if self._device.type == "cpu" else "accelerator"
        return min(max(POINTS_AT_A_TIME[where] // max(num_points, 1), 1), MOST_AT_A_TIME[where])

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(array, dtype=np.float32)).to(self._device)


class _Served:
    """What MLflow calls of the models that Headrace 0.1.0 logged; `served.py` is called of those since."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(
        self, model_input: np.ndarray | Mapping[str, np.ndarray], params: Mapping[str, Any] | None = None
    ) -> np.ndarray:
        """Predict for an array of inputs, or for a dict with `inputs` and, where needed, `parameters`."""
        if not isinstance(model_input, Mapping):
            return self._predictor.predict(np.asarray(model_input))
        if unknown := sorted(set(model_input) - {"inputs", "parameters"}):
            raise InputError.single("model_input", ", ".join(unknown), "the keys inputs and parameters")
        if "inputs" not in model_input:
            raise InputError.single("model_input", "", "the key inputs")
        parameters = model_input.get("parameters")
        return self._predictor.predict(
            np.asarray(model_input["inputs"]), None if parameters is None else np.asarray(parameters)
        )


def _load_pyfunc(data_path: str) -> _Served:
    """MLflow's `loader_module` entry: the predictor of a checkpoint, or of a folder that holds one."""
    path = Path(data_path)
    if path.is_dir():
        found = sorted(path.glob("*.pt"))
        last = path / "last.pt"
        if len(found) != 1 and last not in found:
            raise InputError.single(str(path), f"a folder with {len(found)} .pt files", "one checkpoint, or last.pt")
        path = last if last in found else found[0]
    keep_freed_memory()
    return _Served(Predictor.from_checkpoint(path))


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError.single(str(path), "", "a checkpoint file", "There is no such file.") from error
    except IsADirectoryError as error:
        raise InputError.single(str(path), "a folder", "a checkpoint file") from error
    except PermissionError as error:
        raise InputError.single(str(path), "", "a file that may be read", str(error)) from error
    # What torch raises depends on where the bytes stop making sense; a truncated archive is even an OSError.
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        raise InputError.single(
            str(path), "", "a Headrace checkpoint", "The file is damaged, or something else: it cannot be read as one."
        ) from error
    if not isinstance(content, dict) or "headrace" not in content or "format" not in content:
        raise InputError.single(str(path), "a file of another program", "a Headrace checkpoint")
    if content["format"] > FORMAT:
        raise InputError.single(
            str(path),
            f"of format {content['format']}, written by Headrace {content['headrace']}",
            f"format {FORMAT} at most",
            "Install that version, or a newer one.",
        )
    return content


def _ranges(content: Mapping[str, Any], schema: SampleSchema) -> Mapping[str, Tensor] | None:
    # Written since predictions tell what is outside of it.
    if "ranges" not in content:
        return None
    bounds = {name: content["ranges"][name] for name in ("inputs", "parameters")}
    wanted = {"inputs": schema.num_input_channels, "parameters": schema.num_parameters}
    for name, tensor in bounds.items():
        if tuple(tensor.shape) != (2, wanted[name]):
            raise ValueError(f"what training saw of {name} has shape {tuple(tensor.shape)}")
    return bounds


def _strategy(content: Mapping[str, Any]) -> AbstractStrategy:
    # Format 1 knew one way only.
    written = content["strategy"] if content["format"] > 1 else AllAtOnce().model_dump_json()
    strategy = TypeAdapter(AnyStrategy).validate_json(written)
    assert isinstance(strategy, AbstractStrategy)
    return strategy


def _surrogate(path: Path, data: dict[str, Any]) -> AbstractSurrogate:
    known = kinds("headrace.surrogates", SURROGATES)
    kind = str(data.get("kind"))
    if kind not in known:
        raise InputError.single(
            str(path),
            f'of a surrogate of kind "{kind}"',
            f"one of {', '.join(sorted(known))}",
            f"{nearest(kind, known)} A plug-in may be missing.".strip(),
        )
    spec = known[kind].model_validate(data)
    if not isinstance(spec, AbstractSurrogate):
        raise TypeError(f"{known[kind].__name__} is not an AbstractSurrogate")
    return spec


def _differs(found: SampleSchema, wanted: SampleSchema) -> str | None:
    """How two problems differ for a network; another resolution is no difference."""
    return "; ".join(found.differences(wanted, resolution=False)) or None
