"""SurrogateModule: normalise, predict, take the loss."""

from typing import TypedDict

import torch
from jaxtyping import Float
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from headrace.platform.fields import SampleSchema
from headrace.platform.sample import SampleBatch
from headrace.surrogates import metrics, ranks
from headrace.surrogates.batch import Batch
from headrace.surrogates.checkpoint import Checkpoint
from headrace.surrogates.loss import Loss, LossContext, Residual
from headrace.surrogates.losses.zero_targets import ZeroTargets
from headrace.surrogates.normalizer import NormalizedNetwork, Normalizer
from headrace.surrogates.seen import Seen
from headrace.surrogates.strategy import TrainingStep
from headrace.surrogates.surrogate import AbstractSurrogate
from headrace.surrogates.training import TrainingSpec


class StepOutput(TypedDict):
    """What a training step hands to Lightning and to the callbacks.

    Attributes:
        loss: this rank's share of the weighted mean, to go down along.
        losses: of each sample, without gradient.
    """

    loss: Float[Tensor, ""]
    losses: Float[Tensor, " batch"]


class SurrogateModule(LightningModule):
    """Trains any surrogate on any problem.

    The network sees normalised fields; the loss is handed physical ones. The normaliser learns from the training
    batches until it freezes.
    """

    def __init__(
        self,
        *,
        surrogate: AbstractSurrogate,
        training: TrainingSpec,
        schema: SampleSchema,
        parts: int = 1,
        seed: int,
        residual: Residual | None = None,
    ) -> None:
        """Draw the initial weights: the same on every rank, and torch's global generator stays as it was.

        See `fit` for schema, parts and residual.
        """
        super().__init__()
        self.surrogate, self.training_spec, self.schema = surrogate, training, schema
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            seen = training.strategy.network_schema(schema, surrogate.capabilities)
            network = surrogate.build(seen)
        # First come the first parts: the scales shall know of as many trajectories as they would see whole.
        scales = training.normalization.model_copy(update={"samples": parts * training.normalization.samples})
        self.model = NormalizedNetwork(network, Normalizer(scales, seen), surrogate.capabilities, seen.domain)
        self.ranges = Seen(schema)
        self._residual = residual
        self._loss: Loss | None = None
        self.zero_targets: ZeroTargets | None = None
        self._resumed: Checkpoint | None = None

    @property
    def num_parameters(self) -> int:
        """Trained real numbers."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        """Take a checkpoint's weights and scales now, its optimiser and schedule when training starts."""
        self.model.network.load_state_dict(checkpoint.weights)
        self.model.normalizer.load_state_dict(checkpoint.moments)
        self.model.normalizer.seen = None if checkpoint.seen is None else set(checkpoint.seen)
        self.ranges.go_on_from(checkpoint.ranges)
        self._resumed = checkpoint

    def checkpoint(self, step: int) -> Checkpoint:
        """The state after a step."""
        schedule = self.lr_schedulers()
        assert isinstance(schedule, LRScheduler)
        return Checkpoint(
            step=step,
            surrogate=self.surrogate,
            normalization=self.training_spec.normalization,
            strategy=self.training_spec.strategy,
            training=self.training_spec.model_dump(mode="json"),
            schema=self.schema,
            weights=self.model.network.state_dict(),
            moments=self.model.normalizer.state_dict(),
            optimizer=schedule.optimizer.state_dict(),
            schedule=schedule.state_dict(),
            seen=None if self.model.normalizer.seen is None else sorted(self.model.normalizer.seen),
            ranges=self.ranges.bounds,
        )

    def forward(
        self,
        inputs: Float[Tensor, "batch channels_in *grid"],
        parameters: Float[Tensor, "batch num_parameters"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch time channels_out *grid"]:
        """Predict all output times in physical units."""
        forecast: Float[Tensor, "batch time channels_out *grid"] = self.training_spec.strategy.forecast(
            self.model, self.schema, inputs, parameters, generator
        )
        return forecast

    def on_train_start(self) -> None:
        """Build the loss, now that the network is on its device."""
        spec = self.training_spec
        context = LossContext(
            schema=self.schema,
            device=self.device,
            scales=self.model.normalizer,
            residual=self._residual,
            deviations=spec.strategy.deviations(self.model, self.schema),
        )
        loss = spec.loss.build(context)
        self.zero_targets = ZeroTargets(loss, context) if spec.loss.is_relative else None
        self._loss = self.zero_targets or loss

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Note what training sees, and learn the scales before any rank's forward pass uses them."""
        self.ranges.update(batch.inputs, batch.parameters)
        if not self.model.normalizer.is_frozen:
            new = batch.rows(self.model.normalizer.unseen(batch.indices))
            scales = self.training_spec.strategy.scales(self.schema, self.surrogate.capabilities, new)
            parameters = new.parameters if scales.parameters is None else scales.parameters
            self.model.normalizer.update(scales.inputs, scales.outputs, parameters, len(new.parameters), new.indices)

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        """The loss of a batch: the one place where a mean over samples is taken.

        Ranks average their gradients: each contributes its share of the weighted mean over the samples of all.
        """
        assert self._loss is not None
        spec, start = self.training_spec, 0 if self._resumed is None else self._resumed.step
        at = TrainingStep(step=start + self.global_step, steps=spec.steps, generator=_seeded_generator(self.device))
        losses = spec.strategy.losses(self.model, self.schema, self._loss, batch, at)
        return StepOutput(loss=batch.mean(losses), losses=losses.detach())

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by norm; Lightning refuses fused optimisers under bf16-mixed, where nothing is scaled that they undo."""
        if gradient_clip_val is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser, and the schedule over the planned steps."""
        spec = self.training_spec
        optimizer = spec.optimizer.build(self.model.parameters())
        schedule = LambdaLR(optimizer, lambda step: spec.schedule.factor(min(step, spec.steps - 1), spec.steps))
        if self._resumed is not None:
            optimizer.load_state_dict(dict(self._resumed.optimizer))
            schedule.load_state_dict(dict(self._resumed.schedule))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @torch.no_grad()
    def validate(self, samples: SampleBatch) -> dict[str, float]:
        """Mean relative L2 error of held-out samples, over all and by level; the ranks share the work.

        It is what `headrace evaluate` says of the same samples.

        Every rank must call it with the same samples.
        """
        levels = sorted({row.level for row in samples.provenance})
        sums = torch.zeros(1 + len(levels), 2, dtype=torch.float64)
        mine = range(ranks.rank(), len(samples), ranks.world_size())
        scale = metrics.field_scale(samples.outputs)
        # Scores that shall be compared use the same random numbers, where the network takes some.
        noise = torch.Generator(self.device).manual_seed(0) if self.surrogate.capabilities.noise else None
        was_training = self.model.training
        self.model.eval()
        for start in range(0, len(mine), self.training_spec.batch_size):
            part = samples.take(mine[start : start + self.training_spec.batch_size])
            batch = Batch.of(part).to(self.device, self.dtype)
            prediction = self(batch.inputs, batch.parameters, noise).float().cpu().numpy()
            errors = metrics.per_sample(prediction, part.outputs, self.schema.domain, ("relative_l2",), scale)
            for row, error in enumerate(errors["relative_l2"].tolist()):
                entry = torch.tensor([error, 1.0], dtype=torch.float64)
                sums[0] += entry
                if levels:
                    sums[1 + levels.index(part.provenance[row].level)] += entry
        self.model.train(was_training)
        total, count = ranks.total(sums.to(ranks.device())).unbind(1)
        names = ["validation/relative_l2", *(f"validation/relative_l2/{level}" for level in levels)]
        return dict(zip(names, (total / count).tolist(), strict=True))


def _seeded_generator(device: torch.device) -> torch.Generator | None:
    """Torch's generator of a device, which `StepSeeds` seeds before every step; None means that one, too."""
    if device.type == "cpu":
        return torch.default_generator
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    return None
