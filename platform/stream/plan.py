"""StreamPlan: what is streamed, and how; all that the stream's actors share."""

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headrace.platform.dataset.log import SampleLog
from headrace.platform.fields import SampleSchema
from headrace.platform.reservoir.spec import ReservoirSpec
from headrace.platform.samplers.fixed_mix import MIXED
from headrace.platform.samplers.sampler import AbstractSampler, DerivedRequests
from headrace.platform.source import SourceSpec

# How long one that starts where another was lost waits for its files: that one may be alive beyond a cut link, and Ray
# gives it some minutes to find out that it is cut off.
TAKE_OVER_SECONDS = 600.0
HELD_OUT = ("validation", "test")
ReplayOrder = Literal["recorded", "shuffled"]


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """What is streamed and how: everything that the actors need to know, and nothing that cannot be pickled.

    Attributes:
        run_dir: folder of the run; must be reachable from every node that holds a shard.
        checkpoint_dir: where joint checkpoints go.
        sources: the source of each split.
        sampler: who decides what the training samples shall be; held-out ones are stratified to the mix.
        sequence_length: simulations in a sequence, neighbours in the ledger's order; a lease is one sequence, or
            several while they are solved in no time.
        message_bytes: size of a message between solver and shard at most, as far as one sample is not larger [B].
        message_seconds: age of its oldest sample at which a message is sent, full or not [s].
        credits: messages that a solver may have sent and not yet seen acknowledged.
        lease_seconds: how long a solver may be silent, that is: take for one sample, before others get its work [s].
        reservoir: the policy of each shard; None stores without a trainer.
        seed: seed of the reservoirs.
        num_ranks: shards, one a rank.
        num_batches: batches that each rank will take.
        solves: whether there are solvers; without them, what is stored is all there will be.
        paced: whether the reservoirs are filled in a fixed order and at a fixed pace (`PacedReservoir`): the order is
            the planned one where there are solvers, and the order of the replay elsewhere.
        replay: the order in which stored samples that came from elsewhere enter the reservoirs.
        scouts: samples of a replay that enter first, from all over it: what is learned of them holds of all.
        keeps_incomplete: whether the parts of a trajectory that were solved before it broke are trained on.
    """

    run_dir: Path
    checkpoint_dir: Path
    sources: dict[str, SourceSpec]
    sequence_length: int
    message_bytes: int
    message_seconds: float
    credits: int
    lease_seconds: float
    reservoir: ReservoirSpec | None
    seed: int
    num_ranks: int = 1
    num_batches: int = 1
    solves: bool = True
    paced: bool = False
    replay: ReplayOrder = "recorded"
    keeps_incomplete: bool = False
    scouts: int = 0
    sampler: AbstractSampler = MIXED

    def data_dir(self, split: str) -> Path:
        """The data set directory of a split."""
        return self.run_dir / "data" / split

    @functools.cached_property
    def schemas(self) -> dict[str, SampleSchema]:
        """What the samples of each split look like."""
        return {split: source.schema() for split, source in self.sources.items()}

    def requests(self, split: str) -> DerivedRequests:
        """What the training samples shall be, by their indices, where a lease does not say it."""
        sampler = MIXED if self.sampler.decides_late else self.sampler
        return DerivedRequests(sampler, self.sources[split].sampler_context(), self.parts(split))

    def parts(self, split: str) -> int:
        """How many samples a trajectory of a split comes in."""
        return self.schemas[split].parts

    def lease_length(self, split: str) -> int:
        """Samples in a sequence."""
        return self.sequence_length * self.parts(split)

    def message_rows(self, split: str) -> int:
        """Samples in a full message: the messages of a full lease are alike, none of them a small remainder."""
        most = max(1, self.message_bytes // self.schemas[split].sample_nbytes)
        length = self.lease_length(split)
        num_messages = math.ceil(length / most)
        return math.ceil(length / num_messages)

    def sample_log(self, name: str) -> SampleLog:
        """The log of a process that stores samples in shards of this name."""
        rows = {split: self.message_rows(split) for split in self.sources}
        return SampleLog(name, self.schemas, self.data_dir, rows, wait_seconds=TAKE_OVER_SECONDS)


def solver_name(number: int) -> str:
    """What a solver is called in leases and messages."""
    return f"solver-{number}"
