"""Zarr groups and arrays of versions 2 and 3: folders `.zarr`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from headrace.platform.errors import InputError
from headrace.surrogates.format import AbstractFormat
from headrace.surrogates.intake.arrays import ArrayLike, Container, SourceArray
from headrace.surrogates.intake.layout import ATTRIBUTE, Layout
from headrace.surrogates.intake.sniffing import not_of

if TYPE_CHECKING:
    import zarr

_RUNS_CODE = ("pickle",)  # codecs that build objects


class ZarrFolder(AbstractFormat):
    """Zarr folders (.zarr) of version 2 or 3, those of xarray included, taken in with a layout."""

    kind: Literal["zarr"] = "zarr"

    suffixes: ClassVar[tuple[str, ...]] = (".zarr",)
    writes: ClassVar[bool] = False

    @contextmanager
    def open_file(self, path: Path) -> Iterator[Container]:
        """Open a group, or a single array as `array`; values are read chunk by chunk.

        Raises:
            InputError: it is no Zarr folder, or files of it lie elsewhere.
        """
        import zarr

        if not path.is_dir():
            raise not_of(path, "a Zarr folder")
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                if os.path.islink(os.path.join(folder, name)):
                    where = os.path.relpath(os.path.join(folder, name), path)
                    value = f"a link to {os.readlink(os.path.join(folder, name))}"
                    raise InputError.single(f"{path}: {where}", value, "a file in the folder itself")
        try:
            node = zarr.open(path, mode="r")
            members = {"array": node} if isinstance(node, zarr.Array) else dict(node.members(max_depth=None))
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise not_of(path, "a Zarr folder", str(error).splitlines()[0]) from error
        arrays: dict[str, SourceArray] = {}
        refused: dict[str, str] = {}
        for name, member in members.items():
            if isinstance(member, zarr.Array):
                if codec := _unsafe(member):
                    refused[name] = f"coded as {codec}, which could run code"
                else:
                    arrays[name] = _described(member)
        text = node.attrs.get(ATTRIBUTE)
        layout = Layout.from_json(text, str(path)) if isinstance(text, str) else None
        yield Container(path=path, arrays=arrays, refused=refused, layout=layout)


def _unsafe(array: "zarr.Array[Any]") -> str | None:
    codecs = [*array.filters, *array.compressors]
    for codec in codecs:
        name = str(getattr(codec, "codec_id", getattr(codec, "codec_name", type(codec).__name__)))
        if any(word in name.lower() for word in _RUNS_CODE):
            return name
    return "Python objects" if array.dtype.kind == "O" else None


def _described(array: "zarr.Array[Any]") -> SourceArray:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    unit = array.attrs.get("units", array.attrs.get("unit"))
    axes = tuple(str(name) for name in names) if isinstance(names, list | tuple) and all(names) else None
    return SourceArray(values=cast(ArrayLike, array), axes=axes, unit=unit if isinstance(unit, str) else None)
