"""Checkpoints: plain tensors and JSON, written atomically; and Predictor, which needs nothing but one."""

import itertools
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
from headrace.platform.fields import FieldSpec, SampleSchema, field_text
from headrace.platform.files import replacing
from headrace.platform.spec import kinds
from headrace.surrogates.models import SURROGATES
from headrace.surrogates.normalization import NormalizationSpec
from headrace.surrogates.normalizer import NormalizedNetwork, Normalizer
from headrace.surrogates.strategies import AllAtOnce, AnyStrategy
from headrace.surrogates.strategy import AbstractStrategy
from headrace.surrogates.surrogate import AbstractSurrogate

FORMAT = 2
"""Raised when older code cannot read what newer code writes."""


MOST_AT_A_TIME = 64
"""Samples that a predictor takes at a time."""

POINTS_AT_A_TIME = 32_768
"""Points of all of them together on a CPU: 8 samples of 64 x 64, which take half as long each as 64 at a time."""


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
        seen: the indices of the samples that a normaliser which is not frozen yet has learned from.
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
    seen: Sequence[int] = ()

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
        "seen": list(checkpoint.seen),
    }
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
            seen=content.get("seen", ()),
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
        batch_size: int | None = None,
        seed: int = 0,
    ) -> Float32[np.ndarray, "batch time channels_out *grid"]:
        """Predict all output times.

        Args:
            inputs: the fields, "batch channels_in *grid", in the schema's order; on another grid than it was trained on
                where the surrogate can.
            parameters: the scalars of each sample, "batch num_parameters", where the schema has some.
            batch_size: samples that go through the network at a time; default: 64 on an accelerator, and on a CPU
                as many as have 32768 points, up to 64, since larger fields do not stay in its caches.
            seed: of the random numbers of a network that takes some; another one gives another member of an ensemble.

        Raises:
            InputError: the arrays do not fit the schema, or are not finite.
        """
        inputs = np.asarray(inputs)
        if parameters is None and self.schema.num_parameters == 0:
            parameters = np.zeros((len(inputs) if inputs.ndim else 0, 0))
        self._check(inputs, parameters)
        parameters = np.asarray(parameters)
        outputs = np.empty(
            (len(inputs), len(self.schema.times), self.schema.num_output_channels, *inputs.shape[2:]), np.float32
        )
        if batch_size is None:
            batch_size = self._batch_size(math.prod(inputs.shape[2:]))
        noise = torch.Generator(self._device).manual_seed(seed) if self._model.capabilities.noise else None
        with torch.inference_mode():
            for start in range(0, len(inputs), batch_size):
                rows = slice(start, start + batch_size)
                prediction = self.checkpoint.strategy.forecast(
                    self._model, self.schema, self._tensor(inputs[rows]), self._tensor(parameters[rows]), noise
                )
                outputs[rows] = prediction.cpu().numpy()
        return outputs

    def _batch_size(self, num_points: int) -> int:
        if self._device.type != "cpu":
            return MOST_AT_A_TIME
        return min(max(POINTS_AT_A_TIME // max(num_points, 1), 1), MOST_AT_A_TIME)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(array, dtype=np.float32)).to(self._device)

    def _check(self, inputs: np.ndarray, parameters: np.ndarray | None) -> None:
        schema, shape = self.schema, inputs.shape
        axes = len(schema.domain.shape)
        if inputs.ndim != axes + 2:
            expected = f"{axes + 2} axes (batch, channels, {axes} of the grid)"
            raise InputError.single("inputs", f"of shape {shape}", expected)
        if shape[1] != schema.num_input_channels:
            raise InputError.single(
                "inputs",
                f"of shape {shape}",
                f"{schema.num_input_channels} on axis 1",
                f"Inputs have {shape[1]} channels, the schema has {schema.num_input_channels} "
                f"({_names(schema.inputs)}). Is the checkpoint from another problem?",
            )
        if wanted := self.checkpoint.surrogate.capabilities.resolution_mismatch(shape[2:], schema.domain.shape):
            raise InputError.single("inputs", f"of shape {shape}", wanted)
        if parameters is None or np.shape(parameters) != (len(inputs), schema.num_parameters):
            raise InputError.single(
                "parameters",
                "missing" if parameters is None else f"of shape {np.shape(parameters)}",
                f"shape {(len(inputs), schema.num_parameters)} ({_names(schema.parameters) or 'there are none'})",
            )
        for name, array in (("inputs", inputs), ("parameters", np.asarray(parameters))):
            if not np.issubdtype(array.dtype, np.number) and array.dtype != np.bool_:
                raise InputError.single(name, f"an array of {array.dtype}", "numbers")
            if not np.isfinite(array).all():
                raise InputError.single(name, "", "finite values", "There are NaN or infinite values among them.")
        channels = itertools.chain.from_iterable([field.name] * field.components for field in schema.inputs)
        for channel, name in enumerate(channels):
            if name in self.checkpoint.normalization.log and not (inputs[:, channel] > 0).all():
                raise InputError.single(f"inputs ({name})", "", "positive values", "The network takes its logarithm.")


class _Served:
    """What MLflow calls."""

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


def _names(fields: tuple[FieldSpec, ...]) -> str:
    return ", ".join(map(field_text, fields))
