"""A steady problem: a rod on springs."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from scipy.sparse import diags_array

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.solvers import AbstractProblem, LinearSystem, Structure


class ThrowawayRod(AbstractProblem):
    """-u'' + s u = f on a rod of length 1, u = 0 at its ends: f is a sum of three sines."""

    kind: Literal["throwaway_rod"] = "throwaway_rod"
    resolution: int = 33
    stiffness: float = 1.0

    @property
    def structure(self) -> Structure:
        return Structure(positive_definite=True, repeats=True)

    def schema(self) -> SampleSchema:
        grid = Grid(shape=(self.resolution,), extent=(1.0,), periodic=(False,))
        return SampleSchema(inputs=(FieldSpec(name="load"),), outputs=(FieldSpec(name="deflection"),), domain=grid)

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        return {"stiff": {"stiffness": 100.0}}

    def draw(self, seed: int | np.random.Generator) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        x = np.linspace(0.0, 1.0, self.resolution)
        load = sum(rng.normal() * np.sin(k * np.pi * x) for k in (1, 2, 3))
        return {"load": np.asarray(load, dtype=np.float32).astype(np.float64)}

    def discretize(self, fields: Mapping[str, np.ndarray]) -> LinearSystem:
        n, h = self.resolution - 2, 1.0 / (self.resolution - 1)
        beside = np.full(n - 1, -1.0 / h**2)
        matrix = diags_array([beside, np.full(n, 2.0 / h**2 + self.stiffness), beside], offsets=[-1, 0, 1])
        return LinearSystem.from_matrix(matrix, fields["load"][1:-1].copy(), positive_definite=True, repeats=True)

    def sample_arrays(
        self, fields: Mapping[str, np.ndarray], solution: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        deflection = np.pad(solution, 1)
        inputs = fields["load"][None].astype(np.float32)
        return inputs, deflection[None, None].astype(np.float32), np.zeros(0, dtype=np.float32)
