"""Capabilities: what a network declares that it can do, as data."""

from dataclasses import dataclass
from typing import Literal, get_args

from headrace.platform.fields import Grid, Mesh, SampleSchema

Place = Literal["grid", "mesh", "points"]

ModelFormat = Literal["onnx", "torch-export", "aoti", "torchscript"]
"""What `headrace export RUN` writes a trained model as: see `portable/`."""

MODEL_FORMATS: tuple[ModelFormat, ...] = get_args(ModelFormat)


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a network can do: `headrace list` shows it, problems are checked against it, and the tests test it.

    Attributes:
        dims: dimensions of space.
        domains: where its fields may live.
        resolution: whether a trained network runs on the grid or mesh of its schema only, or on others of the same
            domain, too.
        multiple_of: what the points of every axis of a grid have to be a multiple of.
        boundaries: whether all axes of a grid have to be periodic, or none may be.
        history: states of the past that it is given, the last one included.
        parameters: whether it takes the scalars of a problem.
        time: whether it takes `query.time`. It is then trained by strategies that tell the time.
        points: whether it takes `query.points`.
        noise: how many random numbers it takes for each sample as `query.noise`.
        exports: the formats that it can be exported to.
    """

    dims: tuple[Literal[1, 2, 3], ...] = (1, 2, 3)
    domains: tuple[Place, ...] = ("grid",)
    resolution: Literal["fixed", "free"] = "fixed"
    multiple_of: int = 1
    boundaries: Literal["any", "periodic", "walls"] = "any"
    history: int = 1
    parameters: bool = True
    time: bool = False
    points: bool = False
    noise: int = 0
    exports: tuple[ModelFormat, ...] = MODEL_FORMATS

    def __post_init__(self) -> None:
        if not self.dims or not self.domains or self.multiple_of < 1 or self.history < 1 or self.noise < 0:
            raise ValueError(f"at least one of dims and of domains, multiple_of and history from 1 on, got {self}")

    def mismatch(self, kind: str, schema: SampleSchema) -> str | None:
        """Why a network of this kind cannot learn a problem with this schema, as far as it is declared, or None."""
        domain = schema.domain
        if isinstance(domain, Mesh):
            if "mesh" not in self.domains and "points" not in self.domains:
                return f"{kind} needs a grid, the samples live on a mesh; where the problem offers it, set output: grid"
            dim = domain.dim
        else:
            if "grid" not in self.domains:
                return f"{kind} needs {' or '.join(self.domains)}, the samples live on a grid"
            dim = len(domain.shape)
        if dim not in self.dims:
            return f"{kind} works in {_dims(self.dims)}, the samples live in {dim}-D"
        if isinstance(domain, Grid) and (reason := self._grid_mismatch(domain)):
            return f"{kind} {reason}"
        if schema.num_parameters and not self.parameters:
            names = ", ".join(spec.name for spec in schema.parameters)
            return f"{kind} takes no parameters, the samples depend on {names}"
        return None

    def resolution_mismatch(self, shape: tuple[int, ...], trained: tuple[int, ...]) -> str | None:
        """Why a network that was trained on fields of one shape cannot take those of another, or None."""
        if self.resolution == "fixed" and shape != trained:
            return f"the grid {trained} that it was trained on"
        if any(n % self.multiple_of for n in shape):
            return f"a multiple of {self.multiple_of} along every axis of the grid"
        return None

    def export_mismatch(self, kind: str, name: str) -> str | None:
        """Why a network of this kind cannot be exported to a format, as far as it is declared, or None."""
        if name not in self.exports:
            return f"{kind} can be exported to {' or '.join(self.exports) or 'none'}, as it declares"
        if self.noise:
            return f"{kind} draws random numbers for each sample, which a file cannot"
        return None

    def _grid_mismatch(self, grid: Grid) -> str | None:
        if self.boundaries == "periodic" and not all(grid.periodic):
            return f"needs all axes periodic, axis {grid.periodic.index(False)} is not"
        if self.boundaries == "walls" and any(grid.periodic):
            return f"needs all axes with ends, axis {grid.periodic.index(True)} is periodic"
        for axis, n in enumerate(grid.shape):
            if n % self.multiple_of:
                return f"needs a multiple of {self.multiple_of} points along every axis, axis {axis} has {n}"
        return None

    def __str__(self) -> str:
        """One line, as `headrace list` shows it."""
        resolution = "any resolution" if self.resolution == "free" else "the resolution it was trained on"
        if self.multiple_of > 1:
            resolution += f", a multiple of {self.multiple_of}"
        parts = [_dims(self.dims), " or ".join(self.domains), resolution]
        if self.boundaries != "any":
            parts.append("periodic" if self.boundaries == "periodic" else "not periodic")
        if self.history > 1:
            parts.append(f"{self.history} states of the past")
        if self.exports != MODEL_FORMATS:
            parts.append(f"exported to {' or '.join(self.exports) or 'no format'}")
        takes = [name for name in ("parameters", "time", "points", "noise") if getattr(self, name)]
        return "; ".join([*parts, f"takes {', '.join(takes)}" if takes else "takes fields alone"])


def _dims(dims: tuple[int, ...]) -> str:
    return ", ".join(f"{dim}-D" for dim in dims)
