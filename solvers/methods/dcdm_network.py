"""The network of the deep conjugate direction method: what it computes, and how it learns. Everything that needs torch.

A residual enters scaled, r̃ = D^-1/2 r with D the diagonal of A, and what comes out approximates Ã⁻¹ r̃ up to a factor,
Ã = D^-1/2 A D^-1/2: the identity minus four shifted products for a five-point operator. Where A is constant this
changes nothing; where the coefficient jumps it takes the jumps out of the numbers that the network sees.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, interpolate

from headrace.solvers.systems.operators import DiffusionOperator

# Below this many points across a grid is not halved any further.
_COARSEST = 3
# Vectors of a step of training.
_BATCH = 16

type Gate = tuple[Float32[Tensor, "systems channels nx ny"], Float32[Tensor, "systems channels nx ny"]]
"""On one level, what the coefficient multiplies the convolutions by, on the way down and on the way up."""


@dataclass(frozen=True, kw_only=True)
class ScaledOperator:
    """Ã of one system, with what scales it.

    Attributes:
        scale: D^-1/2 at the points.
        inner: the inner faces of both axes, scaled on either side.
        coefficient: the logarithm of the diagonal less its mean: what the network knows of A.
    """

    scale: Float64[np.ndarray, "nx ny"]
    inner: tuple[Float32[Tensor, "nx-1 ny"], Float32[Tensor, "nx ny-1"]]
    coefficient: Float32[Tensor, "nx ny"]

    @classmethod
    def of(cls, operator: DiffusionOperator) -> "ScaledOperator":
        """Scale an operator with a positive diagonal and without periodic axes."""
        cx, cy = operator.conductances
        logarithm = np.log(operator.diagonal())
        scale = np.exp(-0.5 * logarithm)
        inner_x = cx[1:-1] * scale[1:] * scale[:-1]
        inner_y = cy[:, 1:-1] * scale[:, 1:] * scale[:, :-1]
        return cls(
            scale=scale,
            inner=(torch.from_numpy(inner_x).float(), torch.from_numpy(inner_y).float()),
            coefficient=torch.from_numpy(logarithm - logarithm.mean()).float(),
        )


@dataclass(frozen=True, kw_only=True)
class TrainingSystem:
    """A system that was solved by conjugate gradients, and unit vectors that its residuals look like."""

    operator: ScaledOperator
    vectors: Float32[np.ndarray, "vectors nx ny"]


class Network:
    """f(r̃, A) ≈ Ã⁻¹ r̃ up to a factor: convolutions on a hierarchy of grids, with skips from level to level.

    It is linear in the residual and not in the coefficient: every level adds a convolution of its channels, multiplied
    by a gate that two further convolutions with a ReLU between them make from the coefficient. So it commutes with the
    normalisation of the residual. Kaneda et al. put a ReLU behind most of their convolutions instead; the inverse that
    is to be learnt is linear.

    Args:
        shape: of the finest grid; more levels for larger grids.
        channels: of every level.
        generator: where the first weights come from.
    """

    def __init__(self, shape: tuple[int, ...], channels: int, generator: torch.Generator) -> None:
        self.num_levels = 1
        while min(shape) > _COARSEST * 2**self.num_levels:
            self.num_levels += 1
        self.parameters: dict[str, Tensor] = {}

        def add(name: str, *size: int, gain: float = 1.0) -> None:
            fan_in = math.prod(size[1:])
            weight = torch.randn(*size, generator=generator) * gain / math.sqrt(max(fan_in, 1))
            self.parameters[name] = weight.requires_grad_()

        add("first", channels, 1, 3, 3)
        for level in range(self.num_levels):
            for side in ("in", "out"):
                add(f"{side}{level}", channels, channels, 3, 3, gain=0.5)
                add(f"{side}{level}.see", channels, 1, 3, 3)
                add(f"{side}{level}.gate", channels, channels, 1, 1, gain=0.1)
            if level + 1 < self.num_levels:
                add(f"down{level}", channels, channels, 3, 3)
                add(f"up{level}", channels, channels, 4, 4, gain=2.0)
        add("last", 1, channels, 3, 3, gain=0.1)
        self.parameters["itself"] = torch.ones(1, requires_grad=True)

    def gates(self, coefficient: Float32[Tensor, "systems nx ny"]) -> list[Gate]:
        """What the coefficients of some systems multiply the convolutions of every level by."""
        a, found = coefficient[:, None], []
        for level in range(self.num_levels):
            if level:
                half = tuple(-(-n // 2) for n in a.shape[2:])
                a = interpolate(a, size=half, mode="area")
            found.append((self._gate(f"in{level}", a), self._gate(f"out{level}", a)))
        return found

    def _gate(self, name: str, a: Tensor) -> Tensor:
        seen = conv2d(a, self.parameters[f"{name}.see"], padding=1).relu()
        return 1.0 + conv2d(seen, self.parameters[f"{name}.gate"])

    def __call__(self, residual: Float32[Tensor, "batch nx ny"], gates: list[Gate]) -> Float32[Tensor, "batch nx ny"]:
        """Search directions for a batch of scaled residuals of length 1, with one gate each or one for all."""
        weights = self.parameters
        # On average over the points a unit vector has values of 1 / √points; the channels are to be near 1.
        size = math.sqrt(residual[0].numel())
        u = conv2d(size * residual[:, None], weights["first"], padding=1)
        skips: list[Tensor] = []
        for level, (gate, _) in enumerate(gates):
            u = u + conv2d(u, weights[f"in{level}"], padding=1) * gate
            if level + 1 < self.num_levels:
                skips.append(u)
                u = conv2d(u, weights[f"down{level}"], stride=2, padding=1)
        for level in range(self.num_levels - 1, -1, -1):
            if level + 1 < self.num_levels:
                skip = skips[level]
                up = conv_transpose2d(u, weights[f"up{level}"], stride=2, padding=1)
                u = skip + up[:, :, : skip.shape[2], : skip.shape[3]]
            u = u + conv2d(u, weights[f"out{level}"], padding=1) * gates[level][1]
        return conv2d(u, weights["last"], padding=1)[:, 0] / size + weights["itself"] * residual

    def direction(self, residual: Float64[np.ndarray, "nx ny"], gates: list[Gate]) -> Float64[np.ndarray, "nx ny"]:
        """The search direction for one residual of any length, scaled."""
        length = float(np.linalg.norm(residual))
        with torch.inference_mode():
            return self(torch.from_numpy(residual / length).float()[None], gates)[0].double().numpy()


@dataclass
class Trainer:
    """Fits a network to systems, in one or more rounds.

    The loss is ‖r - α Ã f(r)‖² with α = r·f / f·Ãf over unit vectors r: what is left of the residual after a step of
    the method (the loss of Kaneda et al.). Optimised by Adam with a learning rate that falls to 0 along a cosine in
    every round.
    """

    network: Network
    generator: torch.Generator
    learning_rate: float
    losses: list[float] = field(default_factory=list)

    def fit(self, systems: list[TrainingSystem], num_steps: int) -> None:
        """Take some steps on vectors of all systems, drawn in equal parts."""
        vectors = torch.from_numpy(np.concatenate([system.vectors for system in systems]))
        owner: Int64[Tensor, " vectors"] = torch.repeat_interleave(
            torch.arange(len(systems)), torch.tensor([len(system.vectors) for system in systems])
        )
        inner_x = torch.stack([system.operator.inner[0] for system in systems])
        inner_y = torch.stack([system.operator.inner[1] for system in systems])
        coefficient = torch.stack([system.operator.coefficient for system in systems])
        parameters = list(self.network.parameters.values())
        optimizer = _Adam(parameters)
        for step in range(num_steps):
            picked = torch.randint(len(vectors), (_BATCH,), generator=self.generator)
            r, which = vectors[picked], owner[picked]
            gates = [(down[which], up[which]) for down, up in self.network.gates(coefficient)]
            f = self.network(r, gates)
            image = apply_scaled(inner_x[which], inner_y[which], f)
            energy = (f * image).sum(dim=(1, 2))
            alpha = (r * f).sum(dim=(1, 2)) / energy.clamp(min=1e-12)
            loss = ((r - alpha[:, None, None] * image) ** 2).sum(dim=(1, 2)).mean()
            rate = self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * step / num_steps))
            optimizer.step(torch.autograd.grad(loss, parameters), rate)
            self.losses.append(float(loss.detach()))


class _Adam:
    """Algorithm 1 of Kingma & Ba, "Adam: a method for stochastic optimization" (2015), on gradients of length <= 1.

    `torch.optim` would do the same, after importing torch's compiler for some seconds: longer than small networks
    train. A direction of almost no energy makes a step of almost any length, hence the bound on the gradient.
    """

    _FIRST, _SECOND, _SMALL = 0.9, 0.999, 1e-8

    def __init__(self, parameters: list[Tensor]) -> None:
        self._parameters = parameters
        self._mean = [torch.zeros_like(parameter) for parameter in parameters]
        self._square = [torch.zeros_like(parameter) for parameter in parameters]
        self._count = 0

    def step(self, gradients: tuple[Tensor, ...], rate: float) -> None:
        """Move the parameters against their gradients."""
        self._count += 1
        length = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
        shrink = min(1.0, 1.0 / max(length, 1e-30))
        bias = math.sqrt(1.0 - self._SECOND**self._count) / (1.0 - self._FIRST**self._count)
        with torch.no_grad():
            for parameter, gradient, mean, square in zip(
                self._parameters, gradients, self._mean, self._square, strict=True
            ):
                mean.lerp_(shrink * gradient, 1.0 - self._FIRST)
                square.lerp_((shrink * gradient) ** 2, 1.0 - self._SECOND)
                parameter -= rate * bias * mean / (square.sqrt() + self._SMALL)


def apply_scaled(
    inner_x: Float32[Tensor, "batch nx-1 ny"],
    inner_y: Float32[Tensor, "batch nx ny-1"],
    u: Float32[Tensor, "batch nx ny"],
) -> Float32[Tensor, "batch nx ny"]:
    """Ã u."""
    out = u.clone()
    out[:, 1:] -= inner_x * u[:, :-1]
    out[:, :-1] -= inner_x * u[:, 1:]
    out[:, :, 1:] -= inner_y * u[:, :, :-1]
    out[:, :, :-1] -= inner_y * u[:, :, 1:]
    return out
