"""Requests for samples, samples, batches of them, and where each one came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64


@dataclass(frozen=True, kw_only=True)
class Request:
    """One sample that is wanted: with the problem, the seed and the split it fixes the sample.

    Attributes:
        index: position in the planned data set.
        level: name of its difficulty level.
        parameters: numbers of its equation that something chose, by name; None and those left out are drawn.
    """

    index: int
    level: str
    parameters: Mapping[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a sample came from and what it cost.

    Attributes:
        spec_hash: hash of the spec that drew and solved it.
        seed: the seed of the data set; with index, level and chosen parameters it fixes the sample.
        index: position in the planned data set.
        level: name of its difficulty level.
        solver: the method that solved it.
        status: how the solve ended: `converged`; `backward_stable` where the tolerance is beyond double precision and
            the solution solves a system that differs by no more than rounding; `unverified` for a program outside
            Headrace; `imported`.
        relative_residual: ||b - A x|| / ||b|| recomputed in float64; of an unverified sample, what its program reports.
            NaN when it is not known.
        num_iterations: iterations of the solver; 0 for a direct method, or when it is not known.
        wall_seconds: draw, discretise, solve and verify together [s].
        cpu_seconds: the same in process CPU time [s].
        version: version of Headrace.
    """

    spec_hash: str
    seed: int
    index: int
    level: str
    solver: str
    status: str
    relative_residual: float
    num_iterations: int
    wall_seconds: float
    cpu_seconds: float
    version: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One solved problem. Arrays are float32, channels first."""

    inputs: Float32[np.ndarray, "channels_in *grid"]
    outputs: Float32[np.ndarray, "time channels_out *grid"]
    parameters: Float32[np.ndarray, " num_parameters"]
    provenance: Provenance


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A sample that could not be solved: recorded with its reason, never trained on."""

    index: int
    level: str
    reason: str
    wall_seconds: float
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class SampleBatch:
    """Samples stacked along a leading axis: a message of the stream, or a batch for the trainer."""

    indices: Int64[np.ndarray, " batch"]
    inputs: Float32[np.ndarray, "batch channels_in *grid"]
    outputs: Float32[np.ndarray, "batch time channels_out *grid"]
    parameters: Float32[np.ndarray, "batch num_parameters"]
    provenance: tuple[Provenance, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.inputs.nbytes + self.outputs.nbytes + self.parameters.nbytes + self.indices.nbytes

    @classmethod
    def stack(cls, samples: Sequence[Sample]) -> "SampleBatch":
        """Copy samples into one batch, keeping their order."""
        return cls(
            indices=np.array([sample.provenance.index for sample in samples], dtype=np.int64),
            inputs=np.stack([sample.inputs for sample in samples]),
            outputs=np.stack([sample.outputs for sample in samples]),
            parameters=np.stack([sample.parameters for sample in samples]),
            provenance=tuple(sample.provenance for sample in samples),
        )

    def take(self, rows: Sequence[int] | np.ndarray) -> "SampleBatch":
        """Some rows as a batch: a copy, or this very batch when they are all of its rows in order."""
        rows = np.asarray(rows, dtype=np.int64)
        if np.array_equal(rows, np.arange(len(self))):
            return self
        return SampleBatch(
            indices=self.indices[rows],
            inputs=self.inputs[rows],
            outputs=self.outputs[rows],
            parameters=self.parameters[rows],
            provenance=tuple(self.provenance[row] for row in rows) if self.provenance else (),
        )
