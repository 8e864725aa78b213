"""What every training rank does. Imports little at first: the process of a rank waits for nothing else."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headrace.pipelines.recipe.config import RunConfig
from headrace.pipelines.run_dir import RunDir, write_json
from headrace.platform.allocator import keep_freed_memory
from headrace.platform.cluster.rank import RankContext
from headrace.platform.fields import SampleSchema
from headrace.platform.joint_checkpoint import newest

if TYPE_CHECKING:
    from headrace.platform.stream.stream import StreamFeed
    from headrace.surrogates.datamodule import StoredDataModule, StreamDataModule


@dataclass(frozen=True, kw_only=True)
class StreamedData:
    """Training data that solvers are still making."""

    feed: "StreamFeed"

    def open(self, context: RankContext, batch_size: int, seed: int) -> "StreamDataModule":
        """The data module of a rank; waits for the held-out samples."""
        from headrace.surrogates.datamodule import StreamDataModule

        context.tell("streaming, the trainer waits for the held-out samples")
        reader = self.feed.claim(context.rank, context.node)
        return StreamDataModule(
            pull=reader.pull,
            batch_size=batch_size,
            validation=self.feed.held_out("validation"),
            save=reader.save,
            observe=reader.observe if self.feed.is_observed else None,
        )


@dataclass(frozen=True, kw_only=True)
class StoredData:
    """Training data that lie in data set directories."""

    train: Path
    validation: Path
    keeps_incomplete: bool

    def open(self, context: RankContext, batch_size: int, seed: int) -> "StoredDataModule":
        """The data module of a rank."""
        from headrace.platform.dataset.reader import StoredSamples
        from headrace.surrogates.datamodule import StoredDataModule

        context.tell("the trainer reads the samples")
        stored = StoredSamples.open(self.train)
        samples = stored.read_all()
        return StoredDataModule(
            samples=samples if self.keeps_incomplete else samples.take(np.flatnonzero(stored.is_whole)),
            batch_size=batch_size,
            validation=StoredSamples.open(self.validation).read_all(),
            rank=context.rank,
            world_size=context.world_size,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Everything that a rank needs to know; `schema` and `parts` as in `fit`."""

    config: RunConfig
    schema: SampleSchema
    parts: int
    data: StreamedData | StoredData
    run: RunDir
    num_threads: int


def train_on_rank(context: RankContext, job: TrainingJob) -> None:
    """Train on one rank, from the newest checkpoint on if there is one.

    Rank 0 reports metrics, writes checkpoints and what training came to.
    """
    keep_freed_memory()
    context.tell("the trainer imports torch")
    # Lightning and torch take seconds to import: the driver, which names this function, does not wait for them.
    from headrace.surrogates.fit import fit
    from headrace.surrogates.process_group import StartedRanks, strategy_for

    training, surrogate = job.config.training, job.config.surrogate
    assert training is not None and surrogate is not None
    checkpoint = newest(job.run.checkpoints)
    data = job.data.open(context, training.batch_size, job.config.seed)
    context.tell("the trainer is made ready and waits for its first samples")
    result = fit(
        surrogate=surrogate,
        training=training,
        schema=job.schema,
        parts=job.parts,
        data=data,
        seed=job.config.seed,
        report=context.report,
        checkpoint_dir=job.run.checkpoints,
        resume=checkpoint.model if checkpoint else None,
        num_threads=job.num_threads,
        deterministic=job.config.deterministic,
        accelerator=context.accelerator,
        strategy=strategy_for(context.world_size, on_gpu=context.accelerator == "gpu"),
        plugins=StartedRanks(
            rank=context.rank, world_size=context.world_size, address=context.address, port=context.port
        ),
        observe=data.observe,
    )
    if context.rank == 0:
        write_json(job.run.training, {**asdict(result), "ranks": context.world_size})
