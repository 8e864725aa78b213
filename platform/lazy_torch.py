"""torch for modules that must load without it: specs, and what only some commands ever call.

Importing torch takes seconds, and `headrace check`, the driver of a run and a solver of linear systems never need it. A
module imports `torch`, `nn` and `Tensor` from here in place of the library, and everything reads as ever: `Tensor` and
`nn.Module` may stand in annotations, and functions use `torch.zeros`, which imports torch when it is first called for.
What needs the library while it is loaded (a class below `nn.Module`, a decorator) belongs into a file of its own, which
imports torch.
"""

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch as torch
    from torch import Tensor as Tensor
    from torch import nn as nn


class _StandIn(type):
    """The type of a class that stands for another one, which nobody may have imported yet."""

    home: str

    def __instancecheck__(cls, value: object) -> bool:
        module = sys.modules.get(cls.home)
        return module is not None and isinstance(value, getattr(module, cls.__name__))

    def __call__(cls, *args: object, **kwargs: object) -> object:
        return getattr(importlib.import_module(cls.home), cls.__name__)(*args, **kwargs)


def stand_in(home: str, name: str) -> type:
    """A class for annotations that are looked at while the program runs, whose instances are those of another one.

    jaxtyping and beartype ask by `isinstance`. While nobody has imported the module there are no instances.

    Args:
        home: the module of the class that it stands for.
        name: its name there.
    """
    return _StandIn(name, (), {"home": home, "__doc__": f"Stands for `{home}.{name}` in annotations."})


class _Later:
    """A module that is imported when something of it is asked for."""

    def __init__(self, name: str, **stand_ins: object) -> None:
        self._name = name
        self.__dict__.update(stand_ins)

    def __getattr__(self, name: str) -> object:
        return getattr(importlib.import_module(self._name), name)


if not TYPE_CHECKING:
    Tensor = stand_in("torch", "Tensor")
    nn = _Later("torch.nn", **{name: stand_in("torch.nn", name) for name in ("Module", "Parameter")})
    optim = _Later("torch.optim", Optimizer=stand_in("torch.optim", "Optimizer"))
    types = {name: stand_in("torch", name) for name in ("Generator", "device", "dtype")}
    torch = _Later("torch", Tensor=Tensor, nn=nn, optim=optim, **types)
