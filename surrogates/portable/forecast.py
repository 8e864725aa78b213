"""Forecast: a trained surrogate as one module from physical fields to physical fields, which is what is exported."""

import dataclasses
import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from headrace.platform.fields import Grid, SampleSchema
from headrace.surrogates.checkpoint import Checkpoint
from headrace.surrogates.layers.spectral_conv import SpectralConv
from headrace.surrogates.normalizer import NormalizedNetwork, RunningMoments
from headrace.surrogates.strategy import AbstractStrategy

Precision = Literal["float32", "float64"]

LOWEST = 4
"""Self-test inputs have wavelengths down to a fourth of the box: as smooth as fields of equations mostly are."""


class Forecast(nn.Module):
    """All output times, in physical units, from the fields and parameters that the schema has.

    A schema without input fields, or without parameters, has no such argument: called as `forecast(inputs)`,
    `forecast(inputs, parameters)` or `forecast(parameters)`.
    """

    def __init__(
        self, model: NormalizedNetwork, strategy: AbstractStrategy, schema: SampleSchema, precision: Precision
    ) -> None:
        """Hold a network and how it forecasts.

        Args:
            model: in evaluation mode.
            strategy: how it was trained.
            schema: the problem's, on the grid that the module shall work on.
            precision: of the model, and so of all that goes in and comes out.
        """
        super().__init__()
        self.model = model
        self.strategy = strategy
        self.schema = schema
        self.precision = precision
        self.names = tuple(
            name
            for name, count in (("inputs", schema.num_input_channels), ("parameters", schema.num_parameters))
            if count
        )

    def forward(self, *given: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch time channels_out *grid"]:
        """Forecast; the arguments are those of `names`."""
        found = dict(zip(self.names, given, strict=True))
        first, shape = given[0], self.schema.domain.shape
        inputs = found["inputs"] if "inputs" in found else first.new_zeros((first.shape[0], 0, *shape))
        parameters = found["parameters"] if "parameters" in found else first.new_zeros((first.shape[0], 0))
        return self.strategy.forecast(self.model, self.schema, inputs, parameters)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of what one sample has of an argument."""
        if name == "parameters":
            return (self.schema.num_parameters,)
        return (self.schema.num_input_channels, *self.schema.domain.shape)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of what one sample comes out with: "time channels_out *grid"."""
        return (len(self.schema.times), self.schema.num_output_channels, *self.schema.domain.shape)

    @property
    def dtype(self) -> torch.dtype:
        """The precision as torch's."""
        return torch.float64 if self.precision == "float64" else torch.float32


def forecast_of(
    checkpoint: Checkpoint, precision: Precision, grid: tuple[int, ...] | None = None, *, without_fft: bool = False
) -> Forecast:
    """The forecast of a checkpoint.

    Args:
        checkpoint: the trained surrogate.
        precision: of its numbers; the weights were trained in float32.
        grid: the points that it shall work on; None for those of the training.
        without_fft: whether to use matrices in place of FFTs, for formats that have no complex numbers.
    """
    schema = checkpoint.schema
    if grid is not None and isinstance(schema.domain, Grid):
        schema = dataclasses.replace(schema, domain=dataclasses.replace(schema.domain, shape=grid))
    model = checkpoint.build()
    if precision == "float64":
        # Not `to(float32)` for the other: the moments are float64 at any time.
        model = model.double()
    for module in model.modules():
        if isinstance(module, SpectralConv):
            module.always_by_matrix = without_fft
    return Forecast(model, checkpoint.strategy, schema, precision).eval().requires_grad_(False)


def self_test_inputs(forecast: Forecast, count: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Smooth random fields and parameters of the scales that training saw, for so many samples."""
    rng = np.random.default_rng(seed)
    normalizer = forecast.model.normalizer
    found = []
    for name in forecast.names:
        if name == "inputs":
            values = _smooth(rng, (count, *forecast.shape(name)), forecast.schema.domain)
            mean, std = (_numpy(normalizer.input_moments, what, values.ndim - 2) for what in ("mean", "std"))
            values = mean + std * values
            taken_as_log = normalizer.logarithmic.numpy()
            values[:, taken_as_log] = np.exp(values[:, taken_as_log])
        else:
            # Of a parameter that was always the same, or never seen, its mean.
            values = rng.uniform(-1.0, 1.0, (count, *forecast.shape(name)))
            moments, num = normalizer.parameter_moments, values.shape[1]
            values = _numpy(moments, "mean", 0)[:num] + _numpy(moments, "std", 0)[:num] * values
        found.append(torch.from_numpy(values).to(forecast.dtype))
    return tuple(found)


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], domain: object) -> np.ndarray:
    """Fields of mean about 0 and standard deviation 1."""
    values = rng.standard_normal(shape)
    if not isinstance(domain, Grid):
        return values
    axes = tuple(range(2, len(shape)))
    spectrum = np.fft.fftn(values, axes=axes)
    for axis in axes:
        k = np.abs(np.fft.fftfreq(shape[axis], 1 / shape[axis]))
        spectrum *= (k <= LOWEST).reshape(-1, *(1 for _ in range(len(shape) - axis - 1)))
    smooth = np.fft.ifftn(spectrum, axes=axes).real
    return smooth * math.sqrt(smooth.size / max(float(np.square(smooth).sum()), 1e-300))


def _numpy(moments: RunningMoments, what: str, num_axes: int) -> np.ndarray:
    values: Tensor = getattr(moments, what)
    return values.detach().numpy().reshape(-1, *(1 for _ in range(num_axes)))
