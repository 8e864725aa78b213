"""How far a prediction is from the truth: one number per sample."""

import functools
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float, Float64

from headrace.platform.fields import Domain, Grid, Mesh
from headrace.platform.lazy_torch import Tensor, torch

Fields = Float[Tensor, "batch time channels *grid"]
PerSample = Float[Tensor, " batch"]


def relative_l1(prediction: Fields, truth: Fields, grid: Domain) -> PerSample:
    """|u - v|_1 / |v|_1 over all points, channels and times."""
    return _ratio(_total((prediction - truth).abs()), _total(truth.abs()))


def relative_l2(prediction: Fields, truth: Fields, grid: Domain) -> PerSample:
    """||u - v||_2 / ||v||_2 over all points, channels and times."""
    return _root(_ratio(_total((prediction - truth).square()), _total(truth.square())))


def relative_h1(prediction: Fields, truth: Fields, grid: Domain) -> PerSample:
    """||u - v||_H1 / ||v||_H1 with ||w||_H1^2 = ∫ w^2 + |∇w|^2, the gradient in the units of the domain.

    On a grid gradients are differences of neighbours divided by their distance: second-order at the midpoints, and,
    unlike central differences, not blind to a checkerboard. On a mesh fields are linear between the points, and the
    integrals exact.
    """
    return _root(_ratio(_h1_squared(prediction - truth, grid), _h1_squared(truth, grid)))


def relative_linf(prediction: Fields, truth: Fields, grid: Domain) -> PerSample:
    """Largest |u - v| over largest |v|, of all points, channels and times."""
    return _ratio((prediction - truth).abs().flatten(1).amax(1), truth.abs().flatten(1).amax(1))


def vrmse(prediction: Fields, truth: Fields, grid: Domain) -> PerSample:
    """Root mean square error over the truth's spatial standard deviation, averaged over channels and times.

    Predicting the spatial mean scores 1. This is the VRMSE of Ohana et al., "The Well" (NeurIPS 2024), without its
    safeguard of 1e-7.
    """
    error = (prediction - truth).flatten(3).square().mean(3)
    return _root(_ratio(error, truth.flatten(3).var(3, correction=0))).mean((1, 2))


METRICS: dict[str, Callable[[Fields, Fields, Domain], PerSample]] = {
    metric.__name__: metric for metric in (relative_l2, relative_h1, relative_l1, relative_linf, vrmse)
}


def over_time(
    prediction: Float[np.ndarray, "..."], truth: Float[np.ndarray, "..."], grid: Domain, names: Iterable[str]
) -> dict[str, Float64[np.ndarray, "batch time"]]:
    """Some metrics of every sample at every output time, in float64; for the arguments see `per_sample`."""
    found = [
        per_sample(prediction[:, [number]], truth[:, [number]], grid, names) for number in range(prediction.shape[1])
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
) -> dict[str, Float64[np.ndarray, " batch"]]:
    """Metrics of every sample, in float64.

    Args:
        prediction: "batch time channels *grid".
        truth: the same shape.
        grid: the domain; the fields may be sampled on it at another resolution.
        names: which metrics; default: all.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"the prediction has shape {prediction.shape}, the truth {truth.shape}")
    u, v = (torch.from_numpy(array.astype(np.float64)) for array in (prediction, truth))
    return {name: METRICS[name](u, v, grid).numpy() for name in names}


def _total(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient; a zero truth counts as the smallest normal number, so that an exact prediction of it scores 0."""
    return numerator / denominator.clamp_min(torch.finfo(denominator.dtype).tiny)


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
