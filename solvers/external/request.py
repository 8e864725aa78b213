"""ProgramRequest: what a program is told about the sample that it is to make."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.platform.sample import Request
from headrace.platform.seeding import generator
from headrace.solvers.external.spec import External

CLIENT_FOLDER = Path(__file__).parent / "client"
"""Where headrace.h and headrace_client.py lie; on the PYTHONPATH of every program."""

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ProgramRequest:
    """One sample that is wanted, as the program is told.

    Attributes:
        folder: its scratch folder, which exists.
        split: train, validation or test.
        index: position in the planned data set.
        seed: the sample's own, 0 <= seed < 2^63: every language has an integer that holds it.
        level: name of its difficulty level.
        parameters: as drawn or chosen; single precision holds them.
        problem: what it is made from, at this level.
    """

    folder: Path
    split: str
    index: int
    seed: int
    level: str
    parameters: Mapping[str, float]
    problem: External

    @classmethod
    def draw(cls, problem: External, wanted: Request, *, folder: Path, seed: int, split: str) -> "ProgramRequest":
        """What a sample is made from, fixed by (problem, seed, split, wanted).

        Each parameter has a stream of its own, so that one that was chosen changes no other.
        """
        index, chosen = wanted.index, wanted.parameters or {}
        return cls(
            folder=folder,
            split=split,
            index=index,
            seed=int(generator(seed, split, "external", index).integers(2**63)),
            level=wanted.level,
            parameters={
                name: spec.rounded(chosen[name])
                if name in chosen
                else spec.draw(generator(seed, split, "parameter", name, index))
                for name, spec in problem.parameters.items()
            },
            problem=problem,
        )

    @property
    def json_file(self) -> Path:
        """The request as JSON."""
        return self.folder / "request.json"

    def command(self) -> list[str]:
        """The words to run, launcher first; a value never becomes another word, and no shell sees any."""
        known = {
            **{name: repr(value) for name, value in self.parameters.items()},
            "folder": str(self.folder),
            "request": str(self.json_file),
            "index": str(self.index),
            "seed": str(self.seed),
            "level": self.level,
        }
        return [word.format_map(known) for word in (*self.problem.launcher, *self.problem.command)]

    def to_json(self) -> dict[str, object]:
        """The request as plain values; the folder comes first, so that a program can find it without a parser."""
        grid = self.problem.grid.grid()
        return {
            "folder": str(self.folder),
            "headrace": VERSION,
            "split": self.split,
            "index": self.index,
            "seed": self.seed,
            "level": self.level,
            "parameters": dict(self.parameters),
            "grid": {
                "shape": list(grid.shape),
                "extent": list(grid.extent),
                "periodic": list(grid.periodic),
                "location": grid.location,
            },
            "times": list(self.problem.times),
            "send": {
                name: {"kind": self._kind(name), "components": spec.components}
                for name, spec in self.problem.sent().items()
            },
        }

    def to_text(self) -> str:
        """The same for programs that would rather not parse JSON: one value a line, its name first."""
        grid = self.problem.grid.grid()
        lines = [
            f"headrace {VERSION}",
            f"split {self.split}",
            f"index {self.index}",
            f"seed {self.seed}",
            # Whatever a user called it, it is one line, and not a long one.
            f"level {' '.join(self.level.split())[:200]}",
            f"location {grid.location}",
        ]
        for points, length, wraps in zip(grid.shape, grid.extent, grid.periodic, strict=True):
            lines.append(f"axis {points} {length!r} {int(wraps)}")
        lines += [f"time {time!r}" for time in self.problem.times]
        lines += [f"parameter {name} {value!r}" for name, value in self.parameters.items()]
        lines += [f"{self._kind(name)} {name} {spec.components}" for name, spec in self.problem.sent().items()]
        return "\n".join(lines) + "\n"

    def line(self) -> bytes:
        """The line that asks for it through a pipe."""
        return json.dumps(self.to_json(), ensure_ascii=False).encode() + b"\n"

    def write(self) -> None:
        """Write request.json and request.txt into the folder."""
        self.json_file.write_text(json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        (self.folder / "request.txt").write_text(self.to_text(), encoding="utf-8")

    def _kind(self, name: str) -> str:
        return "output" if name in self.problem.outputs else "input"
