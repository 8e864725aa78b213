"""What a reservoir tells of itself."""

from typing import TypedDict


class ReservoirStats(TypedDict):
    """What a reservoir holds and has done.

    Keys:
        size: samples in it.
        capacity: samples that fit.
        fill: size / capacity.
        seen: samples in it that were served at least once.
        unseen: samples in it that were not served yet.
        spent: samples in it that were served as often as allowed, or more often.
        total_in: samples that came in since the start.
        total_out: rows that were served since the start.
        distinct: samples that were served at least once since the start.
        distinct_held: distinct simulations that it holds samples of.
        mean_uses: total_out / distinct: how often a served sample was served.
        mean_age_seconds: time from arrival to service, mean over the rows of the latest batch [s].
        drift: by parameter, how far the rows that were served are from those that came in; see `Drift.distances`.
        shares_in: share of each level in the rows that came in, by name; rows without provenance do not count.
        shares_served: the same of the rows that were served.
    """

    size: int
    capacity: int
    fill: float
    seen: int
    unseen: int
    spent: int
    total_in: int
    total_out: int
    distinct: int
    distinct_held: int
    mean_uses: float
    mean_age_seconds: float
    drift: dict[str, float]
    shares_in: dict[str, float]
    shares_served: dict[str, float]
