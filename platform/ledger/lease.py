"""Lease, Counts: what the ledger hands out, and how far it is."""

from dataclasses import dataclass

from headrace.platform.sample import Request


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right and the duty of one worker to solve some samples for a while.

    Attributes:
        id: names the lease in `Ledger.commit`.
        epoch: the ledger's epoch when it was granted.
        worker: who holds it.
        split: the split that the indices count in.
        indices: the samples in the order to solve them in; in what `release` and `expire` return, those that were still
            outstanding, ascending.
        requests: what each of them shall be, where a sampler decided late; else empty: their indices say it.
    """

    id: int
    epoch: int
    worker: str
    split: str
    indices: tuple[int, ...]
    requests: tuple[Request, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How far a split is. `planned = leased + stored + failed + waiting`.

    Attributes:
        planned: samples that the run asked for.
        leased: handed to a worker and not back yet.
        stored: committed: durable in a shard.
        failed: ended with a reason instead of a sample.
        duplicates: deliveries of a sample that was stored already.
    """

    planned: int
    leased: int
    stored: int
    failed: int
    duplicates: int

    @property
    def waiting(self) -> int:
        """Samples that nobody works on yet."""
        return self.planned - self.leased - self.stored - self.failed
