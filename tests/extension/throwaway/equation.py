"""An equation in time: diffusion with decay."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from headrace.solvers import AbstractSemilinear, Gaussian, Uniform

if TYPE_CHECKING:
    from torch import Tensor

    from headrace.solvers.evolution.equation import Semilinear
    from headrace.solvers.evolution.periodic_box import PeriodicBox


class ThrowawayDecay(AbstractSemilinear):
    """u_t = κ Δu - r u on a periodic box."""

    numbers: ClassVar[tuple[str, ...]] = ("decay",)
    positive: ClassVar[tuple[str, ...]] = numbers

    kind: Literal["throwaway_decay"] = "throwaway_decay"
    decay: float | Uniform = Uniform(low=0.5, high=2.0)
    start: Gaussian = Gaussian()

    @property
    def default_step(self) -> float:
        return self.horizon

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        return {"fast": {"decay": {"low": 2.0, "high": 4.0}}}

    def equation(self, box: "PeriodicBox", scalars: "Mapping[str, Tensor]") -> "Semilinear":
        from headrace.solvers.evolution.equation import Semilinear

        return Semilinear(symbol=0.01 * box.laplacian - scalars["decay"])
