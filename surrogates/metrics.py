"""How far a prediction is from the truth: one number per sample.

Every measure is a quotient, and where its truth is flat or zero the quotient has no meaning. All of them, and the
losses that are made from them, are guarded in one way: a denominator is at least what a field of `FLOOR` times the
variance of the data set would give, per channel. So a flat field neither dominates a mean nor ends a training, any
other sample has exactly the quotient that the formula says, and the result does not depend on units or precision.
`guarded` says which samples that concerns.
"""

import functools
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Bool, Float, Float64

from headrace.platform.fields import Domain, Grid, Mesh
from headrace.platform.lazy_torch import Tensor, torch

FLOOR = 1e-7
"""Least variance of a truth, as a share of the field's variance over the data set: 3.2e-4 of its standard deviation.

The number is that of the safeguard in Ohana et al., "The Well" (NeurIPS 2024), whose fields have a variance of about 1.
"""

Fields = Float[Tensor, "batch time channels *grid"]
PerSample = Float[Tensor, " batch"]
Scale = Float[Tensor, " channels"]


def relative_l1(prediction: Fields, truth: Fields, grid: Domain, scale: Scale | None = None) -> PerSample:
    """|u - v|_1 / |v|_1 over all points, channels and times; for the scale see `relative_l2`."""
    floor = FLOOR**0.5 * _num_points(truth) * _known(truth, scale).sum()
    return _ratio(_total((prediction - truth).abs()), _total(truth.abs()), floor)


def relative_l2(prediction: Fields, truth: Fields, grid: Domain, scale: Scale | None = None) -> PerSample:
    """||u - v||_2 / ||v||_2 over all points, channels and times.

    Args:
        prediction: u.
        truth: v.
        grid: where the fields live.
        scale: the standard deviation of every channel over the data set, by which the denominator is guarded; default:
            over these samples (see `field_scale`).
    """
    floor = FLOOR * _num_points(truth) * _known(truth, scale).square().sum()
    return _root(_ratio(_total((prediction - truth).square()), _total(truth.square()), floor))


def relative_h1(prediction: Fields, truth: Fields, grid: Domain, scale: Scale | None = None) -> PerSample:
    """||u - v||_H1 / ||v||_H1 with ||w||_H1^2 = ∫ w^2 + |∇w|^2, the gradient in the units of the domain.

    On a grid gradients are differences of neighbours divided by their distance: second-order at the midpoints, and,
    unlike central differences, not blind to a checkerboard. On a mesh fields are linear between the points, and the
    integrals exact. For the scale see `relative_l2`.
    """
    floor = FLOOR * truth.shape[1] * _known(truth, scale).square().sum()
    return _root(_ratio(_h1_squared(prediction - truth, grid), _h1_squared(truth, grid), floor))


def relative_linf(prediction: Fields, truth: Fields, grid: Domain, scale: Scale | None = None) -> PerSample:
    """Largest |u - v| over largest |v|, of all points, channels and times; for the scale see `relative_l2`."""
    floor = FLOOR**0.5 * _known(truth, scale).max()
    return _ratio((prediction - truth).abs().flatten(1).amax(1), truth.abs().flatten(1).amax(1), floor)


def vrmse(prediction: Fields, truth: Fields, grid: Domain, scale: Scale | None = None) -> PerSample:
    """Root mean square error over the truth's spatial standard deviation, averaged over channels and times.

    Predicting the spatial mean scores 1. This is the VRMSE of Ohana et al., "The Well" (NeurIPS 2024). Their safeguard
    adds 1e-7 to every variance; ours is relative to the field's own (`FLOOR`), and changes nothing of a field that
    varies more. For the scale see `relative_l2`.
    """
    error = (prediction - truth).flatten(3).square().mean(3)
    variance = truth.flatten(3).var(3, correction=0)
    return _root(_ratio(error, variance, FLOOR * _known(truth, scale).square())).mean((1, 2))


METRICS: dict[str, Callable[[Fields, Fields, Domain, Scale | None], PerSample]] = {
    metric.__name__: metric for metric in (relative_l2, relative_h1, relative_l1, relative_linf, vrmse)
}


def field_scale(truth: Float[np.ndarray, "batch time channels *grid"]) -> Float64[np.ndarray, " channels"]:
    """The standard deviation of every channel over all samples, times and points.

    Of a channel that is the same everywhere it is the size of its value, and 1 where that is 0: then nothing says what
    is large.
    """
    if not len(truth):
        return np.ones(truth.shape[2])
    # Sample by sample: a data set in double precision would need twice its memory again.
    axes = (0, *range(2, truth.ndim - 1))
    mean = np.mean([sample.mean(axes, dtype=np.float64) for sample in truth], axis=0)
    about = mean.reshape(-1, *(1 for _ in axes[1:]))
    std = np.sqrt(np.mean([np.square(sample - about).mean(axes) for sample in truth], axis=0))
    is_constant = ~(std > 1e-7 * np.abs(mean))  # what rounding leaves is no variation
    size = np.where(mean != 0.0, np.abs(mean), 1.0)
    return np.where(is_constant, size, std)


def is_zero(truth: Fields, scale: Scale) -> Bool[Tensor, " batch"]:
    """Whether a sample is so small, against the scale of the data set, that its relative norms are guarded."""
    return _total(truth.square()) < FLOOR * _num_points(truth) * scale.square().sum()


def guarded(
    truth: Float[np.ndarray, "batch time channels *grid"], scale: Float64[np.ndarray, " channels"] | None = None
) -> dict[str, Bool[np.ndarray, " batch"]]:
    """Which samples have a denominator that is guarded.

    Args:
        truth: the fields.
        scale: see `per_sample`.

    Returns:
        `flat`: some channel does not vary in space at some output time, so that VRMSE is guarded there; `zero`: the
        whole sample is next to nothing, so that its relative errors are.
    """
    scale = field_scale(truth) if scale is None else scale
    variances = np.stack([sample.reshape(*sample.shape[:2], -1).var(-1, dtype=np.float64) for sample in truth])
    v = torch.from_numpy(truth.astype(np.float64))
    return {
        "flat": (variances < FLOOR * np.square(scale)).any((1, 2)),
        "zero": is_zero(v, torch.from_numpy(scale)).numpy(),
    }


def over_time(
    prediction: Float[np.ndarray, "..."],
    truth: Float[np.ndarray, "..."],
    grid: Domain,
    names: Iterable[str],
    scale: Float64[np.ndarray, " channels"] | None = None,
) -> dict[str, Float64[np.ndarray, "batch time"]]:
    """Some metrics of every sample at every output time, in float64; for the arguments see `per_sample`."""
    # Over all times: a field may have become flat, or zero, by one of them.
    scale = field_scale(truth) if scale is None else scale
    found = [
        per_sample(prediction[:, [number]], truth[:, [number]], grid, names, scale)
        for number in range(prediction.shape[1])
    ]
    return {name: np.stack([one[name] for one in found], axis=1) for name in names}


def quantile(errors: Float64[np.ndarray, "samples *rest"], share: float) -> Float64[np.ndarray, "*rest"]:
    """That of errors over samples. One that is not finite, of a forecast that broke, is larger than any other."""
    errors = np.where(np.isfinite(errors), errors, np.inf)
    below, above = (np.quantile(errors, share, axis=0, method=method) for method in ("lower", "higher"))
    with np.errstate(invalid="ignore"):  # next to one that is infinite
        between: Float64[np.ndarray, "*rest"] = np.quantile(errors, share, axis=0)
    return np.where((below < above) & np.isfinite(above), between, above)


def per_sample(
    prediction: Float[np.ndarray, "..."],
    truth: Float[np.ndarray, "..."],
    grid: Domain,
    names: Iterable[str] = tuple(METRICS),
    scale: Float64[np.ndarray, " channels"] | None = None,
) -> dict[str, Float64[np.ndarray, " batch"]]:
    """Metrics of every sample: here alone scores are taken, in float64 whatever the fields come in.

    So they are the same during training and after it, and do not depend on the units: single precision would lose
    squares of fields beyond 1e19, or below 1e-19.

    Args:
        prediction: "batch time channels *grid".
        truth: the same shape.
        grid: the domain; the fields may be sampled on it at another resolution.
        names: which metrics; default: all.
        scale: the standard deviation of every channel over the data set, by which denominators are guarded; default:
            over these samples, for which they should be the whole set.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"the prediction has shape {prediction.shape}, the truth {truth.shape}")
    u, v = (torch.from_numpy(array.astype(np.float64)) for array in (prediction, truth))
    guard = torch.from_numpy(field_scale(truth) if scale is None else np.asarray(scale, dtype=np.float64))
    return {name: METRICS[name](u, v, grid, guard).numpy() for name in names}


def _total(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


def _num_points(field: Tensor) -> int:
    """Of a channel, at all times."""
    return field.shape[1] * field[0, 0, 0].numel() if len(field) else 1


def _known(truth: Tensor, scale: Tensor | None) -> Tensor:
    """The scale of the data set, or of these samples where it was not given, in the precision of the fields."""
    found = torch.from_numpy(field_scale(truth.detach().double().cpu().numpy())) if scale is None else scale
    return found.to(truth.device, truth.dtype)


def _ratio(numerator: Tensor, denominator: Tensor, floor: Tensor) -> Tensor:
    """The quotient, whose denominator is at least `floor`."""
    return numerator / torch.maximum(denominator, floor)


def _root(values: Tensor) -> Tensor:
    """The square root, with a finite gradient where a prediction is exact."""
    return values.clamp_min(torch.finfo(values.dtype).tiny).sqrt()


def _h1_squared(field: Tensor, grid: Domain) -> Tensor:
    """∫ w² + |∇w|² over the domain, divided by its volume; summed over channels and times."""
    return _h1_on_mesh(field, grid) if isinstance(grid, Mesh) else _h1_on_grid(field, grid)


def _h1_on_mesh(field: Tensor, mesh: Mesh) -> Tensor:
    cells, shares, slopes = _simplices(mesh, field.device, field.dtype)
    corners = field[..., cells]
    count = corners.shape[-1]
    # ∫ w² of a linear function over a simplex: its volume times (Σ wᵢ² + (Σ wᵢ)²) / ((d + 1) (d + 2)).
    square = (corners.square().sum(-1) + corners.sum(-1).square()) / (count * (count + 1))
    gradient = torch.einsum("...ci,cik->...ck", corners, slopes).square().sum(-1)
    return ((square + gradient) * shares).sum((-1, 1, 2))


@functools.lru_cache(maxsize=4)
def _simplices(mesh: Mesh, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Corners, shares of the volume, and gradients of the barycentric coordinates "cells corners dim"."""
    points = mesh.points[mesh.cells]
    edges = points[:, 1:] - points[:, :1]
    # The rows of `edges` times the gradients of coordinates 1 to d give the identity; all gradients sum to 0.
    inner = np.swapaxes(np.linalg.inv(edges), 1, 2)
    slopes = np.concatenate([-inner.sum(axis=1, keepdims=True), inner], axis=1)
    volumes = np.abs(np.linalg.det(edges))
    shares, gradients = (torch.as_tensor(a, dtype=dtype, device=device) for a in (volumes / volumes.sum(), slopes))
    return torch.as_tensor(np.array(mesh.cells, dtype=np.int64), device=device), shares, gradients


def _h1_on_grid(field: Tensor, grid: Grid) -> Tensor:
    """Second-order quadrature."""
    # The field may be sampled at another resolution than the grid: only its box and its ends count.
    axes = range(3, field.ndim)
    integrands: list[tuple[Tensor, int | None]] = [(field.square(), None)]
    for axis, length, wraps in zip(axes, grid.extent, grid.periodic, strict=True):
        n = field.shape[axis]
        spacing = length / (n - 1 if grid.location == "nodes" and not wraps else n)
        step = field.roll(-1, axis) - field if wraps else field.diff(dim=axis)
        integrands.append(((step / spacing).square(), axis))
    total = field.new_zeros(())
    for values, stepped in integrands:
        for axis in reversed(axes):
            values = _mean_along(values, grid, axis, is_stepped=axis == stepped)
        total = total + values.sum((1, 2))
    return total


def _mean_along(values: Tensor, grid: Grid, axis: int, *, is_stepped: bool) -> Tensor:
    """The mean over the last axis, which is `axis` of the fields, at its points or at the midpoints between them."""
    plain = values.mean(-1)
    if grid.periodic[axis - 3] or is_stepped == (grid.location == "nodes"):
        return plain
    n = values.shape[-1]
    ends = (values[..., 0] + values[..., -1]) / 2
    # Points at the ends of the box stand for half a cell each; midpoints of cells leave half a cell out at each end.
    return (plain * n + ends) / (n + 1) if is_stepped else (plain * n - ends) / (n - 1)
