"""Export: a checkpoint as a file of some format, which is left only when it says what the surrogate says."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headrace.platform.errors import InputError, RunFailed
from headrace.platform.fields import FieldSpec, Mesh
from headrace.platform.files import drafted_folder
from headrace.platform.spec import kind_of
from headrace.surrogates.checkpoint import Checkpoint, load_checkpoint
from headrace.surrogates.portable.conversions import FORMATS, AbstractModelFormat, quiet
from headrace.surrogates.portable.forecast import Forecast, Precision, forecast_of, self_test_inputs
from headrace.surrogates.portable.native import write_sources

LIMITS: dict[Precision, float] = {"float32": 1e-6, "float64": 1e-12}
"""How much a file may differ from the surrogate: some units in the last place, and not what a mistake makes."""

BATCHES = (3, 1, 8)
"""Samples at a time that are compared; the first is what the file is made with, and the self-test pair."""

CARD = "card.json"
SELF_TEST = "selftest.npz"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was left.

    Attributes:
        files: all files, the model first.
        error: the largest relative difference from the surrogate.
        limit: what it was allowed to be.
        card: what `card.json` says.
    """

    files: tuple[Path, ...]
    error: float
    limit: float
    card: dict[str, Any]


def export_model(
    checkpoint_file: Path,
    name: str,
    out: Path,
    *,
    precision: Precision = "float32",
    grid: tuple[int, ...] | None = None,
) -> Exported:
    """Write a trained surrogate as a file of a format, a self-test pair and a card that describes it.

    Args:
        checkpoint_file: the trained surrogate.
        name: of the format.
        out: the folder to make.
        precision: of the numbers in the file and of those that go in and come out.
        grid: the points along each axis that the file shall take, where the surrogate takes any; None for those of
            the training.

    Raises:
        InputError: the checkpoint, the format or the grid do not fit, or something that the format needs is missing.
        RunFailed: the file does not say what the surrogate says; nothing is left then.
    """
    checkpoint = load_checkpoint(checkpoint_file)
    format_ = FORMATS[name]
    _check(checkpoint, name, grid)
    if absent := format_.missing():
        raise InputError.single("--format", f'"{name}"', *absent)
    eager = forecast_of(checkpoint, precision, grid)
    given = {count: self_test_inputs(eager, count) for count in BATCHES}
    with torch.no_grad():
        said = {count: eager(*inputs) for count, inputs in given.items()}
    if not all(bool(outputs.isfinite().all()) for outputs in said.values()):
        raise RunFailed(
            f"{checkpoint_file}: its forecasts of fields like those of the training are not finite: train it further"
        )
    with drafted_folder(out) as draft:
        card = _card(checkpoint, checkpoint_file, eager, format_)
        error = _write(checkpoint, format_, draft / format_.file, eager, given, said, card)
        if not error <= LIMITS[precision]:
            raise RunFailed(_disagreement(name, error, precision))
        card["agreement"] = {"relative_error": error, "limit": LIMITS[precision], "batches": list(BATCHES)}
        arrays = [tensor.numpy() for tensor in (*given[BATCHES[0]], said[BATCHES[0]])]
        named: Mapping[str, Any] = dict(zip((*eager.names, "outputs"), arrays, strict=True))
        np.savez(draft / SELF_TEST, **named)
        (draft / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        if name == "aoti":
            write_sources(draft, arrays)
    files = (out / format_.file, *sorted(file for file in out.iterdir() if file.name != format_.file))
    return Exported(files=files, error=error, limit=LIMITS[precision], card=card)


def _disagreement(name: str, error: float, precision: Precision) -> str:
    words = (
        f"the {name} file differs from the surrogate by {error:.1e} (relative), more than {LIMITS[precision]:g}: "
        "nothing was left."
    )
    if precision == "float32" and error < 1e-3:
        words += " Where a long forecast adds rounding up, --precision float64 agrees."
    return words


def relative_difference(said: Tensor, truth: Tensor) -> float:
    """The largest, over output times and channels, of ‖said - truth‖ / ‖truth‖ over samples and points.

    Infinite where shapes differ or a number is not finite.
    """
    if said.shape != truth.shape or said.dtype != truth.dtype:
        return math.inf
    said, truth = said.double(), truth.double()
    axes = (0, *range(3, truth.ndim))
    difference, size = ((x.square().sum(dim=axes)).sqrt() for x in (said - truth, truth))
    # A channel that is exactly zero has to be said exactly.
    worst = torch.where(difference == 0, 0.0, difference / size).max().item()
    return worst if math.isfinite(worst) else math.inf


def _check(checkpoint: Checkpoint, name: str, grid: tuple[int, ...] | None) -> None:
    kind = kind_of(type(checkpoint.surrogate))
    capabilities = checkpoint.surrogate.capabilities
    if reason := capabilities.export_mismatch(kind, name):
        raise InputError.single("--format", f'"{name}"', "a format that the network can be exported to", f"{reason}.")
    if grid is None:
        return
    shape = checkpoint.schema.domain.shape
    if isinstance(checkpoint.schema.domain, Mesh) or len(grid) != len(shape):
        raise InputError.single(
            "--grid", "x".join(map(str, grid)), f"{len(shape)} numbers of points", f"It was trained on {shape}."
        )
    wanted = "positive numbers" if min(grid) < 1 else capabilities.resolution_mismatch(grid, shape)
    if wanted is not None:
        raise InputError.single("--grid", "x".join(map(str, grid)), wanted)


def _write(
    checkpoint: Checkpoint,
    format_: AbstractModelFormat,
    path: Path,
    eager: Forecast,
    given: dict[int, tuple[Tensor, ...]],
    said: dict[int, Tensor],
    card: dict[str, Any],
) -> float:
    """Write the file, read it again, and return by how much it differs."""
    grid = eager.schema.domain.shape if eager.schema is not checkpoint.schema else None
    forecast = forecast_of(checkpoint, eager.precision, grid, without_fft=format_.without_fft)
    about = {"headrace_card": json.dumps(card), "headrace_shapes": shapes(eager)}
    try:
        with quiet(), torch.no_grad():
            # Once as it is: constants that are kept from call to call must be made of numbers, not while it is traced.
            forecast(*given[BATCHES[0]])
            format_.write(forecast, given[BATCHES[0]], path, about)
            call = format_.read(path)
            found = {count: call(*inputs) for count, inputs in given.items()}
    except Exception as error:
        # Whatever a converter raises for a network that it cannot take, the reader can do one thing about it.
        told = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        kind = kind_of(type(checkpoint.surrogate))
        raise InputError.single(
            "--format",
            f'"{format_.name}"',
            f"a format that {kind} can be exported to in {eager.precision}",
            f"{type(error).__name__}: {told[:300]}",
        ) from error
    return max(relative_difference(found[count], said[count]) for count in found)


def shapes(forecast: Forecast) -> str:
    """Names and shapes of one sample's arrays, for programs that read no JSON.

    As in `float32;inputs 2 64 64;outputs 1 1 64 64`.
    """
    entries = [(name, forecast.shape(name)) for name in forecast.names] + [("outputs", forecast.output_shape)]
    return forecast.precision + ";" + ";".join(" ".join([name, *map(str, shape)]) for name, shape in entries)


def _card(checkpoint: Checkpoint, file: Path, forecast: Forecast, format_: AbstractModelFormat) -> dict[str, Any]:
    schema = forecast.schema
    fields = {"inputs": schema.inputs, "parameters": schema.parameters, "outputs": schema.outputs}

    def array(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
        return {"name": name, "shape": ["batch", *shape], "fields": _fields(fields[name])}

    domain = schema.domain
    return {
        "headrace_model": 1,
        "format": format_.name,
        "file": format_.file,
        "precision": forecast.precision,
        "inputs": [array(name, forecast.shape(name)) for name in forecast.names],
        "outputs": [array("outputs", forecast.output_shape)],
        "axes": {
            "inputs": "batch channel *grid",
            "parameters": "batch parameter",
            "outputs": "batch time channel *grid",
        },
        "times": list(schema.times),
        "domain": {"kind": "mesh", "points": domain.shape[0], "digest": domain.digest}
        if isinstance(domain, Mesh)
        else {"kind": "grid", **dataclasses.asdict(domain)},
        "valid_sizes": {"batch": "any from 1 on", "grid": list(domain.shape)},
        "self_test": SELF_TEST,
        "checkpoint": {
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "step": checkpoint.step,
            "headrace": checkpoint.version,
            "surrogate": json.loads(checkpoint.surrogate.model_dump_json()),
            "strategy": json.loads(checkpoint.strategy.model_dump_json()),
        },
        "versions": {"headrace": version("headrace"), **format_.versions()},
    }


def _fields(specs: tuple[FieldSpec, ...]) -> list[dict[str, Any]]:
    """Which channels each field has, from 0 on."""
    found, first = [], 0
    for spec in specs:
        channels = list(range(first, first + spec.components))
        found.append({"name": spec.name, "unit": spec.unit, "channels": channels})
        first += spec.components
    return found
