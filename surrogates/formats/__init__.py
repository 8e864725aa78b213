"""Formats of other programs: data sets taken in from files and written to them.

A format is a module with a first docstring line that describes it and
- `SUFFIXES`: the endings of its files;
- `import_files(path, out_dir, *, input_name, output_name) -> dict[str, int]`: takes in a file or a folder of files, one
  data set in a folder of `out_dir` for each; returns the number of samples of each by name;
- `export_dataset(stored, out_dir, name, split) -> tuple[Path, ...]`: writes a data set; returns the files.
"""

from collections.abc import Mapping
from types import ModuleType

from headrace.surrogates.formats import hdf5, neuraloperator

FORMATS: Mapping[str, ModuleType] = {"neuraloperator": neuraloperator, "hdf5": hdf5}

__all__ = ["FORMATS"]
