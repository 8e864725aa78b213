"""Batched multigrid: many systems of one shape solved at once with torch, on a GPU where there is one."""

import time
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, cast

import numpy as np
from pydantic import Field

from headrace.solvers.device import Device, cuda_is_available
from headrace.solvers.methods.direct import Direct
from headrace.solvers.systems.family import Candidacy, Family
from headrace.solvers.systems.operators import DiffusionOperator
from headrace.solvers.systems.solver import AbstractSolver, RunningSolver, Solution, SolveStatus
from headrace.solvers.systems.system import LinearSystem, Structured


class BatchedMultigrid(AbstractSolver):
    """Multigrid-preconditioned conjugate gradients on a whole batch of 2-D diffusion systems an operation.

    The method of `multigrid` (operator-dependent interpolation, fourth-kind Chebyshev smoothing, cycle in single and
    conjugate gradients in double precision) as operations on tensors "batch nx ny": what a GPU needs to be busy on
    grids of a data set. On a CPU it is correct, and about ten times slower than `multigrid`, which works in cache
    (docs/benchmarks has the figures); `auto` is not meant to choose it there.

    Takes positive definite five-point operators with Dirichlet or Neumann boundaries and a reaction ≥ 0, of any grid;
    a system that is singular because all its boundaries are Neumann has the solution of mean 0. Periodic systems are
    passed on to the direct method. Systems of a batch go on until the last of them is done, and do not touch each
    other: one that is not finite, or hard, does not change what is found for its neighbours.

    Attributes:
        batch: systems solved at once; 8 bytes times about 25 per unknown and system are needed for them.
        device: `auto` is CUDA where torch finds it, the CPU elsewhere.
        max_iterations: iterations after which to give up.
    """

    waits: ClassVar[bool] = True

    kind: Literal["batched_multigrid"] = "batched_multigrid"

    candidacies: ClassVar[tuple[Candidacy, ...]] = (
        Candidacy(family=Family.structured, cost=1.0, settings={"device": "cuda"}),
    )
    seconds_an_entry: ClassVar[float | None] = None
    batch: Annotated[int, Field(ge=1, le=4096)] = 32
    device: Device = "auto"
    max_iterations: Annotated[int, Field(ge=1, le=10_000)] = 100

    def batch_size(self, target: Structured) -> int:
        """As configured."""
        return self.batch

    def build(self) -> "RunningBatchedMultigrid":
        """Start a sequence; nothing is carried from batch to batch."""
        return RunningBatchedMultigrid(self)

    def mismatch(self, target: Structured) -> str | None:
        """Needs a positive definite five-point operator, and the device that it was told to use."""
        known = target.structure
        if known.diffusion != 2:
            return (
                "Batched multigrid needs a diffusion operator on a 2-D grid, "
                f"this is {f'one in {known.diffusion}-D' if known.diffusion else 'a general matrix'}; use auto."
            )
        if not known.positive_definite:
            return "Batched multigrid needs a positive definite operator, this one is not; use auto or direct."
        if self.device == "cuda" and not cuda_is_available():
            return "Batched multigrid was told to use cuda, which torch does not find here; use device auto."
        return None


class RunningBatchedMultigrid(RunningSolver):
    """Sorts what it is given into batches of one shape."""

    def __init__(self, spec: BatchedMultigrid) -> None:
        self._spec = spec
        self._others = Direct().build()

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        """Solve a batch of one."""
        return self.solve_batch([system], rtol)[0]

    def solve_batch(self, systems: Sequence[LinearSystem], rtol: float) -> list[Solution]:
        """Solve the systems of each shape together, at most `batch` at a time.

        Raises:
            ValueError: a system has no five-point operator.
        """
        groups: dict[tuple[int, ...], list[int]] = {}
        solutions: dict[int, Solution] = {}
        for index, system in enumerate(systems):
            operator = system.operator
            if operator is None or operator.ndim != 2:
                raise ValueError("batched multigrid needs systems with a diffusion operator in 2-D, got another")
            if any(operator.periodic):
                solutions[index] = self._others.solve(system, rtol)
            else:
                groups.setdefault(operator.shape, []).append(index)
        for members in groups.values():
            for start in range(0, len(members), self._spec.batch):
                batch = members[start : start + self._spec.batch]
                found = self._solve_alike([systems[index] for index in batch], rtol)
                solutions.update(zip(batch, found, strict=True))
        return [solutions[index] for index in range(len(systems))]

    def _solve_alike(self, systems: Sequence[LinearSystem], rtol: float) -> list[Solution]:
        # torch takes seconds to import: those who do not solve do not wait for it.
        import torch

        from headrace.solvers.methods import batched_multigrid_tensors as tensors

        started = time.perf_counter()
        on_gpu = self._spec.device != "cpu" and cuda_is_available()
        device = torch.device("cuda" if on_gpu else "cpu")

        def moved(arrays: Sequence[np.ndarray]) -> torch.Tensor:
            return torch.from_numpy(np.stack(arrays).astype(np.float64, copy=False)).to(device)

        operators = [cast(DiffusionOperator, system.operator) for system in systems]
        shape = operators[0].shape
        reactions = [operator.reaction for operator in operators]
        with torch.inference_mode():
            batch = tensors.Batch(
                cx=moved([operator.conductances[0] for operator in operators]),
                cy=moved([operator.conductances[1] for operator in operators]),
                reaction=(
                    moved([np.zeros(shape) if reaction is None else reaction for reaction in reactions])
                    if any(reaction is not None for reaction in reactions)
                    else None
                ),
                rhs=moved([system.rhs.reshape(shape) for system in systems]),
                singular=torch.tensor([system.structure.singular for system in systems], device=device),
            )
            values, counts, residuals = (
                found.cpu().numpy() for found in tensors.solve(batch, rtol, self._spec.max_iterations)
            )
        seconds = (time.perf_counter() - started) / len(systems)
        return [
            Solution(
                value=value.ravel().copy(),
                status=self._status(float(residual), int(count), rtol),
                relative_residual=float(residual),
                num_iterations=int(count),
                seconds=seconds,
                method="batched_multigrid",
            )
            for value, count, residual in zip(values, counts, residuals, strict=True)
        ]

    def _status(self, residual: float, count: int, rtol: float) -> SolveStatus:
        if residual <= rtol:
            return SolveStatus.converged
        return SolveStatus.max_iterations if count >= self._spec.max_iterations else SolveStatus.breakdown
