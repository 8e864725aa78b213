"""Headrace's client for solvers in Python: three calls, `init`, `send`, `finalize`.

    from headrace_client import finalize, init, send

    while run := init():
        u = solve(run.parameters["viscosity"], run.seed)
        send(run, "velocity", u)
        finalize(run)

One file that needs NumPy and nothing else. Headrace puts it on the PYTHONPATH of the programs that it runs; copy it
beside yours to run that without Headrace. With the protocol `files` the loop is gone through once, with `pipe` until
Headrace has no more requests. MPI: call it on rank 0 and broadcast what the others need.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Run", "fail", "finalize", "init", "send"]

_served = False  # with `files`, whether the one request was given out
_open: "Run | None" = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One sample that is wanted.

    Attributes:
        folder: a folder for whatever the program writes; it is removed afterwards.
        split: train, validation or test.
        index: which sample it is.
        seed: the sample's own, 0 <= seed < 2^63: the only source of randomness that a sample may have.
        level: its difficulty level.
        parameters: name -> value.
        shape: points of the grid per axis.
        extent: length of each axis.
        periodic: whether each axis wraps around.
        location: where the points are: `nodes` or `cells`.
        times: the times to send outputs at.
        components: of each field that is to be sent, by name.
    """

    folder: Path
    split: str
    index: int
    seed: int
    level: str
    parameters: Mapping[str, float]
    shape: tuple[int, ...]
    extent: tuple[float, ...]
    periodic: tuple[bool, ...]
    location: str
    times: tuple[float, ...]
    components: Mapping[str, int]
    _sent: set[str] = field(default_factory=set, repr=False)


def init() -> Run | None:
    """The next request; None when there is none. A sample that was not finalized until then has failed.

    Raises:
        RuntimeError: the program was not started by Headrace (HEADRACE_FOLDER is not set).
    """
    global _served, _open
    if _open is not None:
        _answer(_open, error="init was called again before finalize")
    if os.environ.get("HEADRACE_PROTOCOL") == "pipe":
        line = sys.stdin.readline()
        if not line.strip():
            return None
        values = json.loads(line)
    else:
        if _served:
            return None
        _served = True
        if "HEADRACE_FOLDER" not in os.environ:
            raise RuntimeError("HEADRACE_FOLDER is not set: to try a program without Headrace, let it name a folder")
        values = json.loads((Path(os.environ["HEADRACE_FOLDER"]) / "request.json").read_text(encoding="utf-8"))
    grid = values["grid"]
    _open = Run(
        folder=Path(values["folder"]),
        split=values["split"],
        index=values["index"],
        seed=values["seed"],
        level=values["level"],
        parameters=values["parameters"],
        shape=tuple(grid["shape"]),
        extent=tuple(grid["extent"]),
        periodic=tuple(grid["periodic"]),
        location=grid["location"],
        times=tuple(values["times"]),
        components={name: one["components"] for name, one in values["send"].items()},
    )
    return _open


def send(run: Run, name: str, values: Any, time: int = 0) -> None:
    """Hand over a field at one time.

    Args:
        run: what `init` returned.
        name: the field's name in the recipe.
        values: real numbers, "components *grid"; any array of that size, read row by row.
        time: number of the time in `run.times`; 0 for an input or a steady field.

    Raises:
        ValueError: there is no such field or time, or the size is another.
    """
    if name not in run.components:
        raise ValueError(f"the recipe has no field {name!r} to send; it has {', '.join(run.components)}")
    if not 0 <= time < len(run.times):
        raise ValueError(f"{name}: time is {time}, expected 0 to {len(run.times) - 1}")
    array = np.asarray(values)
    shape = (run.components[name], *run.shape)
    if array.size != np.prod(shape):
        raise ValueError(f"{name} has {array.size} values of shape {array.shape}, expected {shape}")
    draft = run.folder / f".{name}.{time}.npy.draft"
    with draft.open("wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array).reshape(shape), allow_pickle=False)
    draft.replace(run.folder / f"{name}.{time}.npy")
    run._sent.add(f"{name}.{time}")


def finalize(run: Run, *, relative_residual: float | None = None, num_iterations: int | None = None) -> None:
    """Say that the sample is whole.

    Args:
        run: what `init` returned.
        relative_residual: how well the equation is solved, if known; it is stored with the sample, as you say it.
        num_iterations: how many iterations that took, if known.
    """
    known = {
        "relative_residual": None if relative_residual is None else float(relative_residual),
        "num_iterations": None if num_iterations is None else int(num_iterations),
    }
    _answer(run, **{name: value for name, value in known.items() if value is not None})


def fail(run: Run, reason: str) -> None:
    """Say that the sample cannot be had, instead of `finalize`; the reason is kept in Headrace's ledger."""
    _answer(run, error=reason)


def _answer(run: Run, **values: Any) -> None:
    global _open
    _open = None
    text = json.dumps({"index": run.index, "sent": sorted(run._sent), **values})
    if os.environ.get("HEADRACE_PROTOCOL") == "pipe":
        # On a line of its own, whatever the program has printed.
        sys.stdout.write(f"\n{text}\n")
        sys.stdout.flush()
    else:
        draft = run.folder / ".answer.json.draft"
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(run.folder / "answer.json")
