"""The errors that a user meets, and the exit status that each ends with."""

import difflib
import errno
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


class ClusterLost(RunFailed):
    """What a run needs of a cluster, beyond its own parts, has ended; the run can be gone on with on another one."""


class TakenOver(RunFailed):
    """Another process has become the writer of a file: this one had been out of reach, and must write no more."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """`Did you mean "x"?`, or an empty string when nothing is near."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f'Did you mean "{close[0]}"?' if close else ""


_FULL = "is full"
_QUOTA = "has no room left in this user's quota"
_READ_ONLY = "can only be read (mounted read-only?)"
_FAILING = "fails (input/output error)"
_FORBIDDEN = "may not be written by this user"
_BY_NUMBER = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _QUOTA,
    errno.EROFS: _READ_ONLY,
    errno.EIO: _FAILING,
    errno.ESTALE: _FAILING,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
}
_BY_WORDS = {
    "No space left on device": _FULL,
    "database or disk is full": _FULL,
    "Disk quota exceeded": _QUOTA,
    "Read-only file system": _READ_ONLY,
    "attempt to write a readonly database": _READ_ONLY,
    "Input/output error": _FAILING,
    "disk I/O error": _FAILING,
    "Stale file handle": _FAILING,
}


def storage_refusal(error: BaseException, below: str | None = None) -> str | None:
    """What a storage that takes nothing more is, in words that go on with "the disk that holds it"; None otherwise.

    Reads the error, or what it was made from in another process. To try again at once is of no use then.

    Args:
        error: what came.
        below: the folder that is written. That something may not be written counts as the storage's refusal only if
            the error names a path in it: a program that may not be started is another matter. None: wherever it is.
    """
    told = str(error)
    for words, what in _BY_WORDS.items():
        if words in told:
            return what
    number = error.errno if isinstance(error, OSError) else None
    what_else = _BY_NUMBER.get(number or 0)
    if what_else is None and ("Permission denied" in told or "Operation not permitted" in told):
        what_else = _FORBIDDEN if below is not None else None
    if what_else == _FORBIDDEN and below is not None and below not in told:
        return None
    return what_else


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what it was made from in another process, is that of a full disk or an exhausted quota."""
    return storage_refusal(error) in (_FULL, _QUOTA)
