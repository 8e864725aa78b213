"""How often rows are served, in proportion: their own weights times those of their levels."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Float64

from headrace.platform.sample import SampleBatch

Policy = Literal["fifo", "firo", "reservoir"]


def row_weights(
    batch: SampleBatch,
    start: int,
    weights: Float64[np.ndarray, " batch"] | None,
    policy: Policy,
    level_weights: Mapping[str, float],
) -> Float64[np.ndarray, " offered"]:
    """Weights of the rows of a batch from `start` on.

    Args:
        batch: the samples; with provenance where there are weights by level.
        start: the first row.
        weights: of all rows of the batch; None for 1.
        policy: of the reservoir.
        level_weights: weight of the rows of a level, by name; 1 for others.

    Raises:
        ValueError: a weight is not positive and finite, there are weights but the policy is not `reservoir`, or weights
            by level lack the provenance.
    """
    offered = len(batch) - start
    given = np.ones(offered) if weights is None else np.asarray(weights, dtype=np.float64)[start:]
    if weights is not None:
        if policy != "reservoir":
            raise ValueError(f"weights are for reservoir; {policy} serves each sample once")
        if given.shape != (offered,) or not (np.isfinite(given) & (given > 0)).all():
            raise ValueError(f"expected {len(batch)} positive, finite weights, one a sample; got {weights}")
    if not level_weights:
        return given
    if not batch.provenance and offered:
        raise ValueError("weights by level need samples with provenance, which names their level")
    return given * np.array([level_weights.get(row.level, 1.0) for row in batch.provenance[start:]])
