"""How many Fourier modes a grid carries, and how it is padded: what a spec must know of layers that are not built."""

from collections.abc import Sequence


def largest_modes(num_points: int) -> int:
    """The most modes that an axis resolves: |k| < modes, without the Nyquist frequency of an even axis.

    At the Nyquist frequency a grid cannot tell a cosine's sign from its phase, so a weight there would mean something
    else on every grid.
    """
    return (num_points + 1) // 2


def appended(share: float, shape: Sequence[int], periodic: Sequence[bool]) -> list[int]:
    """Points to append along each axis."""
    return [0 if wraps else round(share * n) for n, wraps in zip(shape, periodic, strict=True)]
