"""AbstractOptimizer: how weights are moved along a gradient."""

from abc import abstractmethod
from collections.abc import Iterable

from headrace.platform.lazy_torch import torch
from headrace.platform.spec import Spec


class AbstractOptimizer(Spec):
    """The spec of an optimiser, which builds it.

    A new optimiser is a subclass with `kind: Literal["its_name"] = "its_name"`, in a file of its own, named in the
    tuple `OPTIMIZERS` of `optimizers/__init__.py` or in an entry point of the group `headrace.optimizers`.
    """

    @abstractmethod
    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of these parameters, at its peak learning rate."""
