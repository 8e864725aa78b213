"""Bandits: which of several methods next, when the best may change (Tsallis-INF) or depends on the system (ChebCB).

Both are used as in "Learning to Relax: Setting Solver Parameters Across a Sequence of Linear System Instances" (Khodak,
Chow, Balcan & Talwalkar, ICLR 2024, arXiv 2310.02246), with measured seconds for the loss in place of iterations.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64

_NEWTON_STEPS = 50


class TsallisINF:
    """Tsallis-INF with α = 1/2 and importance-weighted losses: no assumption about what the losses do.

    Algorithm 1 of Zimmert & Seldin, "Tsallis-INF: an optimal algorithm for stochastic and adversarial bandits", JMLR 22
    (2021), with the learning rate 2 / √t of its Theorem 1; Algorithm 1 of Khodak et al. (2024). Its regret against the
    best fixed arm grows with √(arms · rounds) against any losses, and with log(rounds) if they are i.i.d.

    Args:
        num_arms: at least one.
        rng: what arms are drawn with.
    """

    def __init__(self, num_arms: int, rng: np.random.Generator) -> None:
        self._losses = np.zeros(num_arms)
        self._rng = rng
        self._round = 0
        self._normalizer = 0.0
        self.probabilities: Float64[np.ndarray, " arms"] = np.full(num_arms, 1.0 / num_arms)

    def pick(self) -> int:
        """Draw an arm."""
        self._round += 1
        self.probabilities = self._weights(2.0 / np.sqrt(self._round))
        return int(self._rng.choice(len(self._losses), p=self.probabilities))

    def learn(self, arm: int, loss: float) -> None:
        """Take the loss, from 0 to 1, of the arm that was picked last."""
        self._losses[arm] += loss / self.probabilities[arm]

    def _weights(self, rate: float) -> Float64[np.ndarray, " arms"]:
        """Weights 4 / (η (L - x))² with the x < min L that makes them sum to 1: Newton's method (Algorithm 2 there)."""
        # At the x where the largest weight alone is 1, the sum is at least 1; from there Newton's method on the convex
        # function Σ w(x) - 1 descends without overshooting.
        x = float(self._losses.min()) - 2.0 / rate
        weights = np.ones(1)
        for _ in range(_NEWTON_STEPS):
            weights = 4.0 / (rate * (self._losses - x)) ** 2
            excess = float(weights.sum()) - 1.0
            if abs(excess) < 1e-12:
                break
            x -= excess / (rate * float((weights**1.5).sum()))
        return np.asarray(weights / weights.sum())


class ChebCB:
    """ChebCB: a regression on Chebyshev polynomials of the context for each arm, and inverse-gap weighting.

    Algorithm 2 of Khodak et al. (2024): SquareCB (Foster & Rakhlin, ICML 2020) with Chebyshev polynomials of the
    context as features. Each arm's loss is predicted for the context; the arm of least prediction s* gets what is left
    when every other one has the probability 1 / (arms + γ (s - s*)).

    We differ from the paper in that contexts may have several coordinates, whose polynomials are added up, that the
    decay of the coefficients is a ridge penalty growing with the degree instead of a bound, and that the logarithm of
    the loss may be handed in: then γ weighs ratios of seconds.

    Args:
        num_arms: at least one.
        low: least value of each coordinate of the context; what lies outside is moved to the border.
        high: largest value of each.
        rng: what arms are drawn with.
        degree: of the polynomials.
        learning_rate: γ after the first round; it grows with the square root of the rounds.
    """

    def __init__(
        self,
        num_arms: int,
        low: Sequence[float],
        high: Sequence[float],
        rng: np.random.Generator,
        degree: int = 4,
        learning_rate: float = 20.0,
    ) -> None:
        self._low, self._edge = np.asarray(low, dtype=np.float64), np.subtract(high, low)
        self._rng, self._degree, self._learning_rate = rng, degree, learning_rate
        penalty = np.concatenate([[1e-3], np.tile(1e-2 * np.arange(1.0, degree + 1) ** 2, len(self._low))])
        self._normal = np.repeat(np.diag(penalty)[np.newaxis], num_arms, axis=0)
        self._right = np.zeros((num_arms, len(penalty)))
        self._round = 0
        self.probabilities: Float64[np.ndarray, " arms"] = np.full(num_arms, 1.0 / num_arms)

    def predict(self, context: Float[np.ndarray, " coordinates"]) -> Float64[np.ndarray, " arms"]:
        """The loss that every arm is expected to have."""
        features = self._features(context)
        return np.array([features @ np.linalg.solve(a, b) for a, b in zip(self._normal, self._right, strict=True)])

    def pick(self, context: Float[np.ndarray, " coordinates"]) -> int:
        """Draw an arm for a context."""
        self._round += 1
        predictions = self.predict(context)
        best = int(np.argmin(predictions))
        rate = self._learning_rate * np.sqrt(self._round)
        weights = 1.0 / (len(predictions) + rate * (predictions - predictions[best]))
        weights[best] = 0.0
        weights[best] = 1.0 - weights.sum()
        self.probabilities = weights
        return int(self._rng.choice(len(weights), p=weights))

    def learn(self, arm: int, context: Float[np.ndarray, " coordinates"], loss: float) -> None:
        """Take the loss of an arm in a context; also of arms that something else picked."""
        features = self._features(context)
        self._normal[arm] += np.outer(features, features)
        self._right[arm] += loss * features

    def _features(self, context: Float[np.ndarray, " coordinates"]) -> Float64[np.ndarray, " features"]:
        scaled = np.clip(
            2.0 * (np.asarray(context) - self._low) / np.where(self._edge > 0, self._edge, 1.0) - 1.0, -1, 1
        )
        columns = np.polynomial.chebyshev.chebvander(scaled, self._degree)[:, 1:]
        return np.concatenate([[1.0], columns.ravel()])
