"""AbstractFormat: files of another program, taken in and written."""

import os
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from headrace.platform.dataset.samples import Samples
from headrace.platform.spec import Spec


class AbstractFormat(Spec):
    """A format of another program's files: data sets are taken in from them and written to them.

    A new format is a subclass with `kind: Literal["its_name"] = "its_name"`, in a file of its own, named in the tuple
    `FORMATS` of `formats/__init__.py` or in an entry point of the group `headrace.formats`. `formats/plain.py` helps
    with arrays that come without a schema. It declares what its files hold, and is tested on that.
    """

    suffixes: ClassVar[tuple[str, ...]]
    """The endings of its files; the first one is written."""

    holds_times: ClassVar[bool] = True
    """Whether its files hold several output times."""

    holds_parameters: ClassVar[bool] = True
    """Whether they hold the scalars of samples."""

    holds_meshes: ClassVar[bool] = True
    """Whether they hold samples on a mesh."""

    @abstractmethod
    def import_files(
        self,
        path: str | os.PathLike[str],
        out_dir: str | os.PathLike[str],
        *,
        input_name: str = "x",
        output_name: str = "y",
    ) -> dict[str, int]:
        """Take in a file, or all of a folder: one data set for each, in a folder of `out_dir`.

        Everything is checked before the first data set is written.

        Args:
            path: the file or folder.
            out_dir: where to put the data sets; new or empty.
            input_name: what to call the input field of files that do not say.
            output_name: what to call the output field of files that do not say.

        Returns:
            The number of samples of each data set by name.

        Raises:
            InputError: nothing to import, a file is not of this format, or its numbers cannot be used.
        """

    @abstractmethod
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
