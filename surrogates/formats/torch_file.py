"""Tensors that torch saved: `.pt`, `.pth`."""

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from headrace.platform.errors import InputError
from headrace.surrogates.format import AbstractFormat
from headrace.surrogates.intake.arrays import Container, Selection, SourceArray
from headrace.surrogates.intake.layout import ATTRIBUTE, Layout
from headrace.surrogates.intake.origin import ORIGIN, completed
from headrace.surrogates.intake.sniffing import kind_of_file, not_of

if TYPE_CHECKING:
    import torch


class Torch(AbstractFormat):
    """Tensors that torch saved (.pt): a dictionary, a tuple or a single one, taken in with a layout."""

    kind: Literal["torch"] = "torch"

    suffixes: ClassVar[tuple[str, ...]] = (".pt", ".pth")
    writes: ClassVar[bool] = False

    @contextmanager
    def open_file(self, path: Path) -> Iterator[Container]:
        """Open a file: entries of dictionaries by their keys (`a/b`), of tuples by number, a single one as `tensor`.

        Raises:
            InputError: it is no torch file, or holds other objects.
        """
        content = load(path)
        arrays: dict[str, SourceArray] = {}
        refused: dict[str, str] = {}
        _collect(content, "", arrays, refused)
        layout = None
        if isinstance(content, Mapping) and isinstance(text := content.get(ATTRIBUTE), str):
            layout = Layout.from_json(text, str(path))
        origin = content.get(ORIGIN) if isinstance(content, Mapping) else None
        container = Container(path=path, arrays=arrays, refused=refused, layout=layout)
        yield completed(container, origin if isinstance(origin, str) else None)


@dataclass(frozen=True)
class TensorValues:
    """A dense tensor as an array, its values cast when they are asked for; kinds that NumPy lacks as float32."""

    tensor: "torch.Tensor"

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> np.dtype:
        """Kind of the values."""
        return _plain(self.tensor[(slice(0, 0),) * bool(self.shape)]).numpy().dtype

    def __getitem__(self, selection: Selection) -> np.ndarray:
        return np.asarray(_plain(self.tensor[selection]).numpy())


def load(path: Path) -> Any:
    """What torch saved, without unpickling objects; storages are mapped where the file allows it.

    Raises:
        InputError: it is no torch file, or holds other objects than tensors, numbers and text.
    """
    import torch

    words, format_ = kind_of_file(path)
    if format_ not in ("torch", "") and not zipfile.is_zipfile(path):
        raise not_of(path, "a torch file")
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)  # of before torch 1.6
    except pickle.UnpicklingError as error:
        if format_ == "torch" or words == "a pickle" or zipfile.is_zipfile(path):
            value = "a pickle of other objects than tensors, which could run code"
            advice = 'Save it anew with torch.save({"x": x, "y": y}, path).'
            raise InputError.single(str(path), value, "a torch file of tensors", advice) from error
        raise not_of(path, "a torch file") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise not_of(path, "a torch file", reason) from error


def _collect(content: object, prefix: str, arrays: dict[str, SourceArray], refused: dict[str, str]) -> None:
    import torch

    if isinstance(content, torch.Tensor):
        name = prefix.rstrip("/") or "tensor"
        try:
            arrays[name] = SourceArray(values=TensorValues(_dense(content)))
        except (RuntimeError, TypeError, NotImplementedError) as error:
            refused[name] = f"a tensor that has no plain values ({str(error).splitlines()[0]})"
    elif isinstance(content, Mapping):
        for key, value in content.items():
            _collect(value, f"{prefix}{key}/", arrays, refused)
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            _collect(value, f"{prefix}{number}/", arrays, refused)


def _dense(tensor: "torch.Tensor") -> "torch.Tensor":
    """A tensor without its history, with all its zeros."""
    import torch

    if tensor.is_quantized or tensor.is_meta or tensor.is_nested:
        raise TypeError("quantized" if tensor.is_quantized else "without values" if tensor.is_meta else "nested")
    plain = tensor.detach()
    return plain.to_dense() if plain.layout != torch.strided else plain.resolve_conj().resolve_neg()


def _plain(tensor: "torch.Tensor") -> "torch.Tensor":
    import torch

    known = (torch.float16, torch.float32, torch.float64)
    return tensor.float() if tensor.dtype.is_floating_point and tensor.dtype not in known else tensor
