"""AbstractFormat: files of another program, taken in and written."""

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import ClassVar

from headrace.platform.dataset.samples import Samples
from headrace.platform.errors import Fault, InputError
from headrace.platform.spec import Spec, kind_of
from headrace.surrogates.intake.arrays import Container
from headrace.surrogates.intake.layout import Layout
from headrace.surrogates.intake.sources import find_sets, left_out, of_resolution, require_new


def _tell_nobody(understood: object) -> None:
    """For callers who ask for no words."""


class AbstractFormat(Spec):
    """A format of another program's files: data sets are taken in from them and written to them.

    A new format is a subclass with `kind: Literal["its_name"] = "its_name"`, in a file of its own, named in the tuple
    `FORMATS` of `formats/__init__.py` or in an entry point of the group `headrace.formats`. It opens a file as named
    arrays, and the layout where files of its kind say it; the rest is the same for all. It declares what its files
    hold, and is tested on that.
    """

    suffixes: ClassVar[tuple[str, ...]]
    """The endings of its files; the first one is written."""

    writes: ClassVar[bool] = True
    """Whether data sets are written in it, too."""

    joins: ClassVar[bool] = False
    """Whether each file holds one array, so that several make a data set."""

    holds_times: ClassVar[bool] = True
    """Whether its files hold several output times."""

    holds_parameters: ClassVar[bool] = True
    """Whether they hold the scalars of samples."""

    holds_meshes: ClassVar[bool] = True
    """Whether they hold samples on a mesh."""

    @abstractmethod
    def open_file(self, path: Path) -> AbstractContextManager[Container]:
        """Open a file for reading: its arrays, read when they are asked for.

        Raises:
            InputError: it is not of this format.
        """

    def open_files(self, paths: Sequence[Path]) -> AbstractContextManager[Container]:
        """Open several files, of one array each, as one.

        Raises:
            InputError: one is not of this format.
        """
        raise NotImplementedError(f"{type(self).__name__} says that its files are joined, and does not join them")

    def recognizes(self, path: Path) -> bool:
        """Whether a file with one of its endings is one of its files, where several formats have the same ending."""
        return True

    def import_files(
        self,
        path: str | os.PathLike[str] | Sequence[Path],
        out_dir: str | os.PathLike[str],
        layout: Layout | None = None,
        *,
        resolution: str | None = None,
        name: str | None = None,
        tell: Callable[..., None] = _tell_nobody,
    ) -> dict[str, int]:
        """Take in a file, several of one array each, or all of a folder: each data set in a folder of `out_dir`.

        Everything is checked before the first data set is written.

        Args:
            path: the file or folder, or the files.
            out_dir: where to put the data sets; new or empty.
            layout: what the user says of the arrays; the rest must stand in the files.
            resolution: which of several training and validation files to take, by the number in their names.
            name: what to call the data set, when it is one.
            tell: is called with what was understood (`Understood`), once for each data set, before any is written.

        Returns:
            The number of samples of each data set by name.

        Raises:
            InputError: nothing to import, a file is not of this format, or its numbers cannot be used.
        """
        # Zarr takes a moment to import; commands that only look do not wait for it.
        from headrace.surrogates.intake.taking import take

        paths = [Path(path)] if isinstance(path, str | os.PathLike) else [Path(one) for one in path]
        given = Layout() if layout is None else layout
        sets = find_sets(paths, self.suffixes, joins=self.joins)
        sets, dropped = of_resolution(sets, resolution)
        notes = [f"left out, of another resolution: {', '.join(dropped)}"] if dropped else []
        if others := left_out(paths[0], sets):
            notes.append(f"left out, for their endings: {', '.join(others[:8])}{', ...' if len(others) > 8 else ''}")
        if (given.split is not None or name is not None) and len(sets) > 1:
            option = "--split" if given.split is not None else "--as"
            raise InputError.single(option, f"for {len(sets)} data sets ({', '.join(sets)})", "one data set")
        if name is not None:
            sets = {name: next(iter(sets.values()))}
            require_new(Path(out_dir) / name)
        else:
            require_new(Path(out_dir))
        return take(partial(opened, self), kind_of(type(self)), sets, Path(out_dir), given, notes, tell)

    def export_dataset(
        self, stored: Samples, out_dir: str | os.PathLike[str], name: str, split: str = "train"
    ) -> tuple[Path, ...]:
        """Write a data set; returns the files.

        Args:
            stored: the samples.
            out_dir: the folder for the files.
            name: what to call the data.
            split: `train`, `test`, ...

        Raises:
            InputError: a file exists, or the format cannot hold the samples.
        """
        raise InputError.single("--format", kind_of(type(self)), "a format that is written, too", "Export to hdf5.")


@contextmanager
def opened(format_: AbstractFormat, paths: Sequence[Path]) -> Iterator[list[Container]]:
    """The files of a data set.

    Raises:
        InputError: with the faults of all files that cannot be opened.
    """
    with ExitStack() as stack:
        if format_.joins:
            yield [stack.enter_context(format_.open_files(paths))]
            return
        containers, faults = [], list[Fault]()
        for path in paths:
            try:
                containers.append(stack.enter_context(format_.open_file(path)))
            except InputError as error:
                faults += error.faults
        if faults:
            raise InputError(faults)
        yield containers
