"""What comparisons of online with offline training share: a reservoir in this process, and who judges at the end."""

from collections.abc import Callable

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from headrace.platform.fields import SampleSchema
from headrace.platform.reservoir.spec import ReservoirSpec
from headrace.platform.sample import SampleBatch

_AT_ONCE = 500


class Stream:
    """A reservoir that takes up fresh samples as batches are served."""

    def __init__(
        self,
        *,
        reservoir: ReservoirSpec,
        schema: SampleSchema,
        seed: int,
        arriving: Callable[[int], SampleBatch],
        fresh: float,
    ) -> None:
        """Build the reservoir.

        Args:
            reservoir: what the samples wait in.
            schema: of the samples.
            seed: of what the reservoir draws.
            arriving: the next so many samples, in the order in which solvers send them.
            fresh: how many come for every step.
        """
        self._reservoir = reservoir.build(schema, seed)
        self._arriving, self._fresh, self._came = arriving, fresh, 0

    @property
    def arrived(self) -> int:
        """How many samples have come in."""
        return int(self._reservoir.stats()["total_in"])

    def pull(self, count: int, step: int) -> SampleBatch:
        """The next batch; before it the fresh samples that are due come in, and as many as it takes to have one."""
        due = int(self._fresh * step)
        self._put(due - self._came)
        self._came = due
        while not self._reservoir.ready(count):
            self._put(count)
        return self._reservoir.take(count)

    def _put(self, count: int) -> None:
        if count:
            done = self._reservoir.try_put(self._arriving(count))
            assert done == count, "samples were offered to a full reservoir that nobody had read from"


class Judge(Callback):
    """Predicts the held-out samples when training has ended.

    Attributes:
        prediction: what the network says, like the samples' outputs.
    """

    def __init__(self, held_out: SampleBatch) -> None:
        self._held_out = held_out
        self.prediction = np.empty_like(held_out.outputs)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predict."""
        pl_module.eval()
        inputs, parameters = torch.from_numpy(self._held_out.inputs), torch.from_numpy(self._held_out.parameters)
        with torch.no_grad():
            for start in range(0, len(self._held_out), _AT_ONCE):
                some = slice(start, start + _AT_ONCE)
                self.prediction[some] = pl_module(inputs[some], parameters[some]).numpy()
