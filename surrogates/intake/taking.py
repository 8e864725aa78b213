"""Taking files in: open, understand, examine, tell, write."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from headrace.platform.errors import Fault, HeadraceError, InputError
from headrace.platform.fields import SampleSchema
from headrace.platform.sample import SampleBatch
from headrace.surrogates.intake.arrays import Container
from headrace.surrogates.intake.examining import Intake, Understood, examine
from headrace.surrogates.intake.layout import Layout
from headrace.surrogates.intake.reading import read
from headrace.surrogates.intake.writing import Shares, shares, write


@dataclass(frozen=True, kw_only=True)
class _Whole:
    """A file that brings samples and their schema."""

    container: Container
    layout: Layout

    @property
    def schema(self) -> SampleSchema:
        assert self.container.samples is not None
        return self.container.samples.schema

    def __len__(self) -> int:
        assert self.container.samples is not None
        return self.container.samples.count

    def batches(self) -> Iterator[SampleBatch]:
        assert self.container.samples is not None
        return self.container.samples.read()


def take(
    open_set: Callable[[Sequence[Path]], AbstractContextManager[list[Container]]],
    kind: str,
    sets: Mapping[str, Sequence[Path]],
    out_dir: Path,
    given: Layout,
    notes: Sequence[str],
    tell: Callable[[Understood], None],
) -> dict[str, int]:
    """Take in data sets: nothing is written before all of them are understood, examined and told.

    Args:
        open_set: opens the files of a data set.
        kind: of the files.
        sets: the files of each data set by its name.
        out_dir: where to make the data sets.
        given: what the user says of the arrays.
        notes: what a user should know of the choice of files.
        tell: is called with what was understood of each data set.

    Returns:
        The number of samples of each data set by name.

    Raises:
        InputError: with all faults of all files.
        HeadraceError: the data sets could not be written.
    """
    found: list[tuple[Understood, Shares]] = []
    faults: list[Fault] = []
    for name, paths in sets.items():
        try:
            with open_set(paths) as containers:
                readings = _readings(containers, given)
                to = shares(sum(len(reading) for reading in readings), given.split, given.seed, name)
                found.append((examine(readings, to.counts, () if found else notes), to))
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    for understood, _ in found:
        tell(understood)
    counts: dict[str, int] = {}
    for (_, to), paths in zip(found, sets.values(), strict=True):
        counts |= to.counts
        try:
            with ExitStack() as stack:
                write(_readings(stack.enter_context(open_set(paths)), given), to, out_dir, kind)
        except BaseException as error:
            for name in counts:
                shutil.rmtree(out_dir / name, ignore_errors=True)  # no half of a data set is left
            if isinstance(error, OSError):
                raise HeadraceError(f"{out_dir} could not be written: {error.strerror}. Nothing was kept.") from error
            raise
    return counts


def _readings(containers: Sequence[Container], given: Layout) -> list[Intake]:
    """The files of a data set, understood.

    Raises:
        InputError: with the faults of all that are not.
    """
    readings: list[Intake] = []
    faults: list[Fault] = []
    for container in containers:
        if container.samples is not None:
            readings.append(_Whole(container=container, layout=given))
            continue
        try:
            readings.append(read(container, given))
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    return readings
