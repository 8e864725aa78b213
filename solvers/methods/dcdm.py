"""The deep conjugate direction method: a network, trained on the sequence itself, chooses the search directions."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from jaxtyping import Float32, Float64
from pydantic import Field

from headrace.solvers.methods.direct import Direct
from headrace.solvers.systems.operators import DiffusionOperator
from headrace.solvers.systems.solver import AbstractSolver, RunningSolver, Solution, SolveStatus
from headrace.solvers.systems.system import LinearSystem, Structured

if TYPE_CHECKING:
    from headrace.solvers.methods.dcdm_network import Network, ScaledOperator, TrainingSystem

# The recurrence aims a little below the tolerance, so that the recomputed residual does not miss it by rounding.
_MARGIN = 0.9
# The network is stalled when so many of its directions together do not halve the residual.
_PATIENCE = 10
# A network that stalled on so many systems in a row is not asked again.
_STRIKES = 3
# Training goes in rounds; after each, the residuals that the network itself leaves behind join the training set.
_ROUNDS = 3
# Of a training system: residuals of conjugate gradients that are kept, random combinations of Ritz vectors, and
# residuals of the network's own solves, in every round.
_RESIDUALS, _COMBINATIONS, _OWN = 200, 200, 40
# Ritz vectors of the lower half of the spectrum weigh so much more: smooth errors are the hard ones (Kaneda et al.).
_LOW_WEIGHT = 9.0

type _Grid = Float64[np.ndarray, "nx ny"]


class DCDM(AbstractSolver):
    """Conjugate directions that a convolutional network proposes, guarded by the true residual.

    "A Deep Conjugate Direction Method for Iteratively Solving Linear Systems" (Kaneda, Akar, Chen, Kala, Hyde & Teran,
    ICML 2023, Algorithm 1): d = f(r / ‖r‖) with f ≈ A⁻¹ up to a factor, made A-orthogonal to the directions before,
    followed by the exact step α = r·d / d·A d. The loss is theirs, ‖r - α A f(r)‖² over unit vectors r.

    We differ in what the network learns from, and in its guard. The first systems of the sequence are solved by
    conjugate gradients; their residuals, and random combinations of the Ritz vectors that the same iteration yields
    (the training set of the paper), train the network, and after every round of training so do the residuals that it
    leaves behind itself. Residuals are scaled by the root of the diagonal. The network is linear in the residual
    (`dcdm_network`). When ten of its directions do not halve the residual, or one is not finite, conjugate gradients
    take over from where it stands; after three such systems in a row the network is not asked again. What conjugate
    gradients do not finish goes to a direct method. `Solution.method` says who finished.

    It is here to be compared with. Where multigrid applies, and it applies wherever this does, multigrid is faster by
    orders of magnitude (docs/benchmarks), training not counted.

    Takes positive definite 2-D diffusion operators with the same boundaries and similar coefficients in all systems of
    one shape; it learns anew when the shape changes. Good values: the defaults, up to about 64 x 64 points.

    Attributes:
        training_systems: systems that conjugate gradients solve first.
        training_steps: steps of Adam in all; 0 leaves the network untrained.
        channels: hidden channels of the network.
        learning_rate: of Adam, at the start of each of three rounds.
        directions: how many earlier directions a new one is made orthogonal to; the paper takes 2.
        seed: of the network's weights and of its training.
        max_iterations: products with A after which a direct method takes over.
    """

    kind: Literal["dcdm"] = "dcdm"
    training_systems: Annotated[int, Field(ge=1, le=1000)] = 4
    training_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 900
    channels: Annotated[int, Field(ge=1, le=256)] = 8
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-2
    directions: Annotated[int, Field(ge=1, le=1000)] = 10
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    max_iterations: Annotated[int, Field(ge=1, le=1_000_000)] = 5000

    def build(self) -> "RunningDCDM":
        """Start a sequence with a network that knows nothing."""
        return RunningDCDM(self)

    def mismatch(self, target: Structured) -> str | None:
        """Needs a positive definite five-point operator that is not singular."""
        known = target.structure
        if known.diffusion != 2:
            return "DCDM needs a diffusion operator on a 2-D grid, this is another system; use auto."
        if not known.positive_definite or known.singular:
            return "DCDM needs a positive definite operator that is not singular, this one is not; use auto or direct."
        return None


@dataclass
class _Progress:
    """Where a solve stands: x, the residual r = b - A x, and the products with A that were spent."""

    x: _Grid
    r: _Grid
    count: int = 0


@dataclass(frozen=True, kw_only=True)
class _Lesson:
    """A system of the training set."""

    operator: DiffusionOperator
    rhs: _Grid
    training: "TrainingSystem"


class RunningDCDM(RunningSolver):
    """Gathers the first systems of a sequence, trains, and lets the network propose from then on."""

    def __init__(self, spec: DCDM) -> None:
        self._spec = spec
        self._direct = Direct().build()
        self._start(())

    def _start(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._rng = np.random.default_rng(self._spec.seed)
        self._lessons: list[_Lesson] = []
        self.network: Network | None = None
        self._strikes = 0

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        """Solve one system; the one that completes the training set pays for the training.

        Raises:
            ValueError: the system has no five-point operator.
        """
        operator = system.operator
        if operator is None or operator.ndim != 2:
            raise ValueError("DCDM needs a system with a diffusion operator in 2-D, got another")
        started = time.perf_counter()
        if operator.shape != self._shape:
            self._start(operator.shape)
        b = system.rhs.reshape(operator.shape)
        norm = float(np.linalg.norm(b))
        state = _Progress(x=np.zeros(operator.shape), r=b.copy())
        method = "dcdm"
        if norm > 0.0:
            diagonal = operator.diagonal()
            if not (np.isfinite(norm) and np.isfinite(diagonal).all() and diagonal.min() > 0.0) or any(
                operator.periodic
            ):
                return self._by_direct(system, rtol, 0, started, "not a system that DCDM can scale")
            method = self._iterate(operator, b, state, rtol * norm)
        residual = float(np.linalg.norm(b - operator.apply(state.x)))
        if not residual <= rtol * norm:
            return self._by_direct(system, rtol, state.count, started, f"DCDM and CG ended at {residual / norm:.1e}")
        return Solution(
            value=state.x.ravel(),
            status=SolveStatus.converged,
            relative_residual=residual / (norm or 1.0),
            num_iterations=state.count,
            seconds=time.perf_counter() - started,
            method=method,
        )

    def _by_direct(self, system: LinearSystem, rtol: float, count: int, started: float, why: str) -> Solution:
        found = self._direct.solve(system, rtol)
        return Solution(
            value=found.value,
            status=found.status,
            relative_residual=found.relative_residual,
            num_iterations=count,
            seconds=time.perf_counter() - started,
            method=found.method,
            detail=f"{why}. {found.detail}".strip(),
        )

    def _iterate(self, operator: DiffusionOperator, b: _Grid, state: _Progress, target: float) -> str:
        """Reduce the residual to the target by whatever method is due, and learn; returns who finished."""
        from headrace.solvers.methods import dcdm_network as networks

        scaled = networks.ScaledOperator.of(operator)
        if self.network is None:
            krylov: list[_Grid] = []
            steps = self._conjugate_gradients(operator, scaled, b, state, target, krylov)
            vectors = self._training_vectors(krylov, steps)
            if len(vectors):
                training = networks.TrainingSystem(operator=scaled, vectors=vectors)
                self._lessons.append(_Lesson(operator=operator, rhs=b, training=training))
            if len(self._lessons) >= self._spec.training_systems:
                self._train()
            return "cg"
        if self._strikes < _STRIKES:
            limit = self._spec.max_iterations
            self._conjugate_directions(operator, scaled, b, state, target, self.network, limit)
            if not float(np.linalg.norm(state.r)) > target:
                self._strikes = 0
                return "dcdm"
            self._strikes += 1
        self._conjugate_gradients(operator, scaled, b, state, target)
        return "cg"

    def _conjugate_directions(
        self,
        operator: DiffusionOperator,
        scaled: "ScaledOperator",
        b: _Grid,
        state: _Progress,
        target: float,
        network: "Network",
        limit: int,
        own: list[_Grid] | None = None,
    ) -> None:
        """Algorithm 1 of Kaneda et al., until the target, a stall, or a direction that cannot be used."""
        gates = network.gates(scaled.coefficient[None])
        directions: list[tuple[_Grid, _Grid, float]] = []
        norms = [float(np.linalg.norm(state.r))]
        while norms[-1] > target and state.count < limit:
            residual = state.r * scaled.scale
            if own is not None:
                own.append(residual / np.linalg.norm(residual))
            d = network.direction(residual, gates) * scaled.scale
            for before, image, energy in directions:
                d -= (np.vdot(d, image) / energy) * before
            image = operator.apply(d)
            state.count += 1
            energy = float(np.vdot(d, image))
            if not (energy > 0.0 and np.isfinite(energy)):
                return
            step = float(np.vdot(state.r, d)) / energy
            state.x += step * d
            # From x itself, as in the paper: the recurrence would drift over directions that are nearly dependent.
            state.r = b - operator.apply(state.x)
            directions = [*directions, (d, image, energy)][-self._spec.directions :]
            norms.append(float(np.linalg.norm(state.r)))
            if len(norms) > _PATIENCE and norms[-1] > 0.5 * norms[-1 - _PATIENCE]:
                return

    def _conjugate_gradients(
        self,
        operator: DiffusionOperator,
        scaled: "ScaledOperator",
        b: _Grid,
        state: _Progress,
        target: float,
        krylov: list[_Grid] | None = None,
    ) -> list[tuple[float, float]]:
        """Conjugate gradients on the scaled system from where the solve stands; r is recomputed at the end.

        Returns:
            The step α and the factor β of every iteration.
        """
        steps: list[tuple[float, float]] = []
        for _ in range(3):  # rounding lets the recurrence drift; it starts anew from the true residual
            p = np.zeros_like(state.x)
            rz_before = np.inf
            while float(np.linalg.norm(state.r)) > _MARGIN * target and state.count < self._spec.max_iterations:
                residual = state.r * scaled.scale
                rz = float(np.vdot(residual, residual))
                if krylov is not None:
                    krylov.append(residual / np.sqrt(rz))
                beta = rz / rz_before
                p = residual * scaled.scale + beta * p
                image = operator.apply(p)
                state.count += 1
                energy = float(np.vdot(p, image))
                if not energy > 0.0:
                    break
                alpha = rz / energy
                steps.append((alpha, beta))
                state.x += alpha * p
                state.r = state.r - alpha * image
                rz_before = rz
            state.r = b - operator.apply(state.x)
            krylov = None
            if not float(np.linalg.norm(state.r)) > target or state.count >= self._spec.max_iterations:
                break
        return steps

    def _training_vectors(
        self, krylov: list[_Grid], steps: list[tuple[float, float]]
    ) -> Float32[np.ndarray, "vectors nx ny"]:
        """Unit vectors like those that the network will meet: residuals, and combinations of Ritz vectors.

        Normalised residuals of conjugate gradients are, up to sign, the Lanczos basis Q; α and β are the entries of the
        tridiagonal T = Qᵀ Ã Q (Saad, "Iterative methods for sparse linear systems", 2003, Sec. 6.7.3).
        """
        count = min(len(krylov), len(steps))
        if count < 2:
            return np.zeros((0, *self._shape), dtype=np.float32)
        basis = np.stack(krylov[:count])
        signs = (-1.0) ** np.arange(count)
        alpha, beta = (np.array(column) for column in zip(*steps[:count], strict=True))
        diagonal = 1.0 / alpha
        diagonal[1:] += beta[1:] / alpha[:-1]
        tridiagonal = np.diag(diagonal)
        beside = np.sqrt(beta[1:]) / alpha[:-1]
        tridiagonal += np.diag(beside, 1) + np.diag(beside, -1)
        _, vectors = np.linalg.eigh(tridiagonal)  # ascending: the smooth ones come first
        weights = np.where(np.arange(count) < (count + 1) // 2, _LOW_WEIGHT, 1.0)
        mixed = self._rng.standard_normal((_COMBINATIONS, count)) * weights @ vectors.T * signs
        combinations = np.tensordot(mixed, basis, axes=1)
        combinations /= np.linalg.norm(combinations, axis=(1, 2), keepdims=True)
        kept = basis[:: -(-count // _RESIDUALS)]
        return np.concatenate([kept, combinations]).astype(np.float32)

    def _train(self) -> None:
        """Make a network and fit it in rounds, each with the residuals that the last one left behind."""
        # torch takes seconds to import: those who do not solve do not wait for it.
        import torch

        from headrace.solvers.methods import dcdm_network as networks

        generator = torch.Generator().manual_seed(self._spec.seed)
        network = networks.Network(self._shape, self._spec.channels, generator)
        trainer = networks.Trainer(network, generator, self._spec.learning_rate)
        systems = [lesson.training for lesson in self._lessons]
        num_steps = self._spec.training_steps // _ROUNDS
        for round_ in range(_ROUNDS if num_steps else 0):
            if round_:
                systems = [*systems, *self._own_residuals(network)]
            trainer.fit(systems, num_steps)
        self.network = network
        self._lessons = []

    def _own_residuals(self, network: "Network") -> list["TrainingSystem"]:
        """What the network leaves behind on the systems that it is trained on, some steps each."""
        from headrace.solvers.methods import dcdm_network as networks

        found = []
        for lesson in self._lessons:
            scaled, own = lesson.training.operator, list[_Grid]()
            state = _Progress(x=np.zeros_like(lesson.rhs), r=lesson.rhs.copy())
            target = 1e-12 * float(np.linalg.norm(lesson.rhs))
            self._conjugate_directions(lesson.operator, scaled, lesson.rhs, state, target, network, _OWN, own)
            found.append(networks.TrainingSystem(operator=scaled, vectors=np.stack(own).astype(np.float32)))
        return found
