"""Scattering: time-harmonic waves on a plane that go out through an absorbing layer."""

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast

import numpy as np
from jaxtyping import Complex128, Float, Float32, Float64
from pydantic import Field, model_validator

from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.samplers.sampler import Axis
from headrace.platform.spec import FieldError
from headrace.solvers.problem import AbstractProblem, as_generator
from headrace.solvers.random_inputs.parameters import Scalar, Uniform, as_fields, axes, bounds, drawn
from headrace.solvers.random_inputs.random_fields import Gaussian, LengthScale, Smoothness
from headrace.solvers.systems.arrays import checked, representable, require_names
from headrace.solvers.systems.system import LinearSystem, Structure, System

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_LEAST_POINTS_PER_WAVELENGTH = 6.0
# Share of the side, at each end, over which the medium fades into its surroundings.
_FADE = 0.2
# What a wave that meets the layer head on comes back with, were the grid infinitely fine.
_REFLECTION = 1e-6


class Scattering(AbstractProblem):
    """A plane wave meets a medium: the scattered field u of Δu + k² n² u = -k² (n² - 1) e^{i k d·x}, going out.

    n(x) is the refractive index, 1 around the unit square; k the wave number outside, and d = (cos θ, sin θ) where the
    plane wave goes. The total field is u plus the plane wave. With time it goes as e^{-iωt}.

    The grid has `resolution` nodes a side. Around it lies an absorbing layer, `absorbing` wide, in which positions are
    stretched into the complex plane (perfectly matched layer, Berenger 1994; Chew and Weedon 1994): waves of all
    directions enter it without an echo and die out. Derivatives are of fourth order on points between the nodes,
    (27 (u₁ - u₀) - (u₂ - u₋₁)) / (24 h), and the matrix is DᵀSD - k² n²: symmetric. It is solved in real numbers, the
    real parts first and then the imaginary ones.

    n² = 1 + c w (1 + g / √(1 + g²)) / 2 with a Gaussian field g and a window w that fades out towards the sides. Fewer
    than 6 points for the shortest possible wave are refused.

    The stored input is n, the outputs are the real and the imaginary part of u as the two components of
    `scattered_field`; the parameters are k and θ. All is dimensionless.

    Good values: levels `low`, `medium`, `high` set k to 2π, 4π and 8π (1, 2 and 4 wavelengths a side) and c to 0.5, 0.5
    and 0.5; 65 points a side for all, 129 above.

    Attributes:
        resolution: nodes of the grid along each axis.
        wave_number: k, a number, or drawn from a range; 2π is one wave a side.
        angle: θ, where the plane wave goes, a number, or drawn from a range [rad].
        contrast: c; n² stays between 1 and 1 + c.
        length_scale: correlation length of g as a fraction of the side.
        smoothness: the Matérn ν of g.
        absorbing: width of the absorbing layer as a fraction of the side.

    Example:
        >>> problem = Scattering(wave_number=12.0)
        >>> system = problem.discretize(problem.draw(0))
    """

    sorted_by: ClassVar[str | None] = "refractive_index"

    kind: Literal["scattering"] = "scattering"
    resolution: Annotated[int, Field(ge=9, le=2049)] = 65
    wave_number: Scalar = 4.0 * math.pi
    angle: Scalar = Uniform(low=0.0, high=2.0 * math.pi, unit="rad")
    contrast: Annotated[float, Field(gt=0.0, le=8.0)] = 0.5
    length_scale: LengthScale = 0.2
    smoothness: Smoothness = 2.5
    absorbing: Annotated[float, Field(ge=0.05, le=1.0)] = 0.15

    @model_validator(mode="after")
    def _resolved(self) -> Self:
        least, largest = bounds(self.wave_number)
        if not least > 0.0:
            raise FieldError("wave_number", f"{least:g}", "above 0")
        # Single precision may have rounded the largest value up.
        shortest = 2.0 * math.pi / (largest * math.sqrt(1.0 + self.contrast)) * (1.0 + 1e-6)
        if shortest * (self.resolution - 1) < _LEAST_POINTS_PER_WAVELENGTH:
            needed = math.ceil(_LEAST_POINTS_PER_WAVELENGTH / shortest) + 1
            raise ValueError(
                f"a wave number of {largest:g} has {shortest * (self.resolution - 1):.1f} points a shortest wave, "
                f"expected {_LEAST_POINTS_PER_WAVELENGTH:g} or more. Take a resolution of {needed} or more, or less "
                f"of a wave number"
            )
        return self

    @property
    def scalars(self) -> Mapping[str, Scalar]:
        """Wave number and angle."""
        return {"wave_number": self.wave_number, "angle": self.angle}

    def schema(self) -> SampleSchema:  # type: ignore[override]  # as in AbstractProblem
        """Input `refractive_index`; output `scattered_field` of two components; `wave_number` and `angle`."""
        return SampleSchema(
            inputs=(FieldSpec(name="refractive_index"),),
            outputs=(FieldSpec(name="scattered_field", components=2),),
            parameters=as_fields(self.scalars),
            domain=Grid(shape=(self.resolution,) * 2, extent=(1.0, 1.0), periodic=(False, False)),
        )

    @property
    def structure(self) -> Structure:
        """Symmetric, not definite."""
        return Structure(symmetric=True)

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`low`, `medium` and `high` wave number."""
        return {
            "low": {"wave_number": 2.0 * math.pi},
            "medium": {"wave_number": 4.0 * math.pi},
            "high": {"wave_number": 8.0 * math.pi},
        }

    @property
    def choosable(self) -> Mapping[str, Axis]:
        """Wave number and angle, where they are drawn."""
        return axes(self.scalars)

    def draw(self, seed: int | np.random.Generator) -> dict[str, Float64[np.ndarray, "..."]]:
        """Draw `wave_number` and `angle`, of one value each, and `refractive_index` at the nodes."""
        return self.draw_with(seed, {})

    def draw_with(
        self, seed: int | np.random.Generator, chosen: Mapping[str, float]
    ) -> dict[str, Float64[np.ndarray, "..."]]:
        """As `draw`, with a wave number or an angle that is given."""
        rng, n = as_generator(seed), self.resolution
        scalars = drawn(self.scalars, rng, chosen)
        g = Gaussian(length_scale=self.length_scale, smoothness=self.smoothness).draw(rng, n)
        window = _window(n)
        shape = window[:, np.newaxis] * window * 0.5 * (1.0 + g / np.sqrt(1.0 + g * g))
        index = np.sqrt(1.0 + self.contrast * shape)
        return {"refractive_index": representable(index)} | {name: np.array([x]) for name, x in scalars.items()}

    def discretize(self, fields: Mapping[str, Float[np.ndarray, "..."]]) -> LinearSystem:
        """The system of a medium and a plane wave.

        Args:
            fields: `refractive_index` n at the nodes, positive; `wave_number` k and `angle` θ, of one value each;
                optionally `source` f at the nodes, real, which is taken off the right-hand side.

        Raises:
            ValueError: an array is missing, unknown, misshapen, not finite, or n or k is not positive.
        """
        require_names(fields, ["refractive_index", "wave_number", "angle"], ["source"])
        n = self.resolution
        index = checked("refractive_index", fields["refractive_index"], (n, n))
        (k,) = checked("wave_number", fields["wave_number"], (1,), "one number")
        (angle,) = checked("angle", fields["angle"], (1,), "one number")
        if not (index.min() > 0.0 and k > 0.0):
            raise ValueError(f"expected a positive refractive_index and wave_number, got {index.min():g} and {k:g}")
        from scipy.sparse import block_array, diags_array, kron

        stiffness, stretch = _axis(n, self._layer, k)
        mass = diags_array(stretch)
        h = 1.0 / (n - 1)
        q = np.zeros((len(stretch),) * 2)
        inner = slice(self._layer, self._layer + n)
        q[inner, inner] = index * index - 1.0
        reaction = (k * h) ** 2 * ((1.0 + q) * stretch[:, np.newaxis] * stretch).ravel()
        # Times -h².
        matrix = kron(stiffness, mass) + kron(mass, stiffness) - diags_array(reaction)
        x = np.arange(n) * h
        wave = np.exp(1j * k * (math.cos(angle) * x[:, np.newaxis] + math.sin(angle) * x))
        b = np.zeros(q.shape, dtype=np.complex128)
        b[inner, inner] = (k * h) ** 2 * q[inner, inner] * wave
        if "source" in fields:
            b[inner, inner] += h * h * checked("source", fields["source"], (n, n))
        a = matrix.tocsr()
        real, imaginary = a.real, a.imag
        # (P + iQ)(v + iw) = b: the second row with the other sign, so that the whole is symmetric.
        whole = block_array([[real, -imaginary], [-imaginary, -real]], format="csr")
        rhs = np.concatenate([b.real.ravel(), -b.imag.ravel()])
        return LinearSystem.from_matrix(cast("csr_array", whole), rhs, symmetric=True, feature=index)

    def sample_arrays(
        self, fields: Mapping[str, Float[np.ndarray, "..."]], solution: Float[np.ndarray, " unknowns"]
    ) -> tuple[
        Float32[np.ndarray, "1 points points"], Float32[np.ndarray, "1 2 points points"], Float32[np.ndarray, " 2"]
    ]:
        """Index, scattered field, and wave number with angle."""
        side, inner = self.resolution + 2 * self._layer, slice(self._layer, self._layer + self.resolution)
        parts = solution.reshape(2, side, side)[:, inner, inner]
        inputs = fields["refractive_index"].astype(np.float32)[np.newaxis]
        parameters = np.concatenate([fields["wave_number"], fields["angle"]]).astype(np.float32)
        return inputs, parts.astype(np.float32)[np.newaxis], parameters

    def fields_of(
        self,
        inputs: Float[np.ndarray, "1 points points"],
        parameters: Float[np.ndarray, " 2"],
    ) -> dict[str, Float[np.ndarray, "..."]]:
        """Index, wave number and angle."""
        k, angle = parameters.astype(np.float64)
        return {
            "refractive_index": inputs[0].astype(np.float64),
            "wave_number": np.array([k]),
            "angle": np.array([angle]),
        }

    def unknowns_of(
        self,
        outputs: Float[np.ndarray, "1 2 points points"],
        system: System,
    ) -> Float64[np.ndarray, " unknowns"]:
        """Not to be had: what the field is in the absorbing layer is not stored.

        Raises:
            InputError: always.
        """
        raise InputError.single(
            "problem",
            "scattering",
            "one whose outputs tell all unknowns",
            "The field in the absorbing layer is not kept.",
        )

    @property
    def _layer(self) -> int:
        """Nodes of the absorbing layer on each side."""
        return max(4, math.ceil(self.absorbing * (self.resolution - 1)))


def _window(n: int) -> Float64[np.ndarray, " nodes"]:
    """From 0 at the ends to 1 inside, twice differentiable (the quintic of Perlin 2002)."""
    t = np.minimum(np.minimum(np.linspace(0.0, 1.0, n), np.linspace(1.0, 0.0, n)) / _FADE, 1.0)
    return np.asarray(t**3 * (10.0 + t * (6.0 * t - 15.0)))


@functools.lru_cache(maxsize=4)
def _derivative(count: int) -> "csr_array":
    """The derivative, times h, between the nodes, one before the first and one behind the last included; 0 beyond."""
    from scipy.sparse import diags_array

    weights, offsets = np.array([1.0, -27.0, 27.0, -1.0]) / 24.0, (-2, -1, 0, 1)
    bands = [np.full(count + 1, weight) for weight in weights]
    return cast("csr_array", diags_array(bands, offsets=offsets, shape=(count + 1, count)).tocsr())


def _axis(n: int, layer: int, k: float) -> tuple["csr_array", Complex128[np.ndarray, " nodes"]]:
    """h² Dᵀ (1/s) D of an axis, and its stretching s at the nodes.

    s = 1 + i σ / k with σ growing as the square of the depth in the layer, so that ∫ σ dx = -½ log of the reflection.
    """
    from scipy.sparse import diags_array

    count, h = n + 2 * layer, 1.0 / (n - 1)
    thick = layer * h

    def stretch(at: Float64[np.ndarray, " places"]) -> Complex128[np.ndarray, " places"]:
        depth = np.maximum(np.maximum(layer - at, at - (layer + n - 1)), 0.0) * h
        sigma = -1.5 * math.log(_REFLECTION) / thick * (depth / thick) ** 2
        return np.asarray(1.0 + 1j * sigma / k)

    d = _derivative(count)
    between = diags_array(1.0 / stretch(np.arange(count + 1) - 0.5))
    return cast("csr_array", (d.T @ between @ d).tocsr()), stretch(np.arange(count, dtype=np.float64))
