"""The errors that a user meets, and the exit status that each ends with."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class HeadraceError(Exception):
    """Something failed that the user can understand and act on."""

    exit_status = 1


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong with an input.

    Attributes:
        where: the place, as the user wrote it: `training.batch_size`, a file's path, an address.
        value: what stood there, rendered for reading.
        expected: what would have been right.
        advice: what to do about it; may be empty.
    """

    where: str
    value: str
    expected: str
    advice: str = ""

    def __str__(self) -> str:
        came = f" is {self.value};" if self.value else ":"
        advice = f" {self.advice}" if self.advice else ""
        return f"{self.where}{came} expected {self.expected}.{advice}"


class InputError(HeadraceError):
    """The input is wrong: all faults that were found, before anything started."""

    exit_status = 2

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))

    @classmethod
    def single(cls, where: str, value: str, expected: str, advice: str = "") -> "InputError":
        """The error of one fault."""
        return cls([Fault(where=where, value=value, expected=expected, advice=advice)])

    def __reduce__(self) -> tuple[type, tuple[tuple[Fault, ...]]]:
        return type(self), (self.faults,)


class RunFailed(HeadraceError):
    """A run started and could not finish; what it stored is safe."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """`Did you mean "x"?`, or an empty string when nothing is near."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f'Did you mean "{close[0]}"?' if close else ""


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what it was made from in another process, is that of a full disk or an exhausted quota."""
    words = ("No space left on device", "Disk quota exceeded", "database or disk is full")
    return any(word in str(error) for word in words)
