"""The compiled part of ETDRK4: the sums of its stages, each in one pass over memory.

Layout. A spectrum is "batch components waves"; what belongs to a step is "batch components waves" too, real or complex,
with one row along an axis that all share. Nothing is reordered or fused, so that a value does not depend on its place.
"""

import numpy as np
from jaxtyping import Complex128, Shaped
from numba import njit

from headrace.solvers.disjoint import Disjoint

type Waves = Complex128[np.ndarray, " waves"]
type Factors = Shaped[np.ndarray, " waves"]
type Spectra = Complex128[np.ndarray, "batch components waves"]
type Coefficients = Shaped[np.ndarray, "rows columns waves"]

_OPTIONS = {"nogil": True, "error_model": "numpy"}
_LOOP = _OPTIONS | {
    "pipeline_class": Disjoint, "forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True,
}  # fmt: skip


@njit(**_LOOP)
def _first(v: Waves, n_v: Waves, half: Factors, stage: Factors, base: Waves, a: Waves) -> None:
    for k in range(len(v)):
        base[k] = half[k] * v[k]
        a[k] = base[k] + stage[k] * n_v[k]


@njit(**_LOOP)
def _second(base: Waves, n_a: Waves, stage: Factors, b: Waves) -> None:
    for k in range(len(base)):
        b[k] = base[k] + stage[k] * n_a[k]


@njit(**_LOOP)
def _third(a: Waves, n_v: Waves, n_b: Waves, half: Factors, stage: Factors, c: Waves) -> None:
    for k in range(len(a)):
        c[k] = half[k] * a[k] + stage[k] * (2.0 * n_b[k] - n_v[k])


@njit(**_LOOP)
def _last(
    v: Waves, n_v: Waves, n_a: Waves, n_b: Waves, n_c: Waves, full: Factors, first: Factors, middle: Factors,
    last: Factors, later: Waves,
) -> None:  # fmt: skip
    for k in range(len(v)):
        later[k] = (full[k] * v[k] + first[k] * n_v[k]) + (middle[k] * (n_a[k] + n_b[k]) + last[k] * n_c[k])


@njit(**_OPTIONS, cache=True)
def first_stage(v: Spectra, n_v: Spectra, half: Coefficients, stage: Coefficients, base: Spectra, a: Spectra) -> None:
    """e^{h L / 2} v, and a."""
    for i in range(len(v)):
        for j in range(v.shape[1]):
            p, q = min(i, len(half) - 1), min(j, half.shape[1] - 1)
            _first(v[i, j], n_v[i, j], half[p, q], stage[p, q], base[i, j], a[i, j])


@njit(**_OPTIONS, cache=True)
def second_stage(base: Spectra, n_a: Spectra, stage: Coefficients, b: Spectra) -> None:
    """Stage b."""
    for i in range(len(base)):
        for j in range(base.shape[1]):
            p, q = min(i, len(stage) - 1), min(j, stage.shape[1] - 1)
            _second(base[i, j], n_a[i, j], stage[p, q], b[i, j])


@njit(**_OPTIONS, cache=True)
def third_stage(
    a: Spectra, n_v: Spectra, n_b: Spectra, half: Coefficients, stage: Coefficients, c: Spectra
) -> None:  # fmt: skip
    """Stage c."""
    for i in range(len(a)):
        for j in range(a.shape[1]):
            p, q = min(i, len(half) - 1), min(j, half.shape[1] - 1)
            _third(a[i, j], n_v[i, j], n_b[i, j], half[p, q], stage[p, q], c[i, j])


@njit(**_OPTIONS, cache=True)
def last_stage(
    v: Spectra, n_v: Spectra, n_a: Spectra, n_b: Spectra, n_c: Spectra, full: Coefficients, first: Coefficients,
    middle: Coefficients, last: Coefficients, later: Spectra,
) -> None:  # fmt: skip
    """V one step later."""
    for i in range(len(v)):
        for j in range(v.shape[1]):
            p, q = min(i, len(full) - 1), min(j, full.shape[1] - 1)
            _last(
                v[i, j], n_v[i, j], n_a[i, j], n_b[i, j], n_c[i, j], full[p, q], first[p, q], middle[p, q], last[p, q],
                later[i, j],
            )  # fmt: skip
