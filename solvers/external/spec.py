"""External: a program outside Headrace, what it is asked, and what it answers."""

import os
import re
import shutil
import string
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from headrace.platform.errors import nearest
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.frozen import Frozen, FrozenMap
from headrace.platform.samplers.sampler import Axis
from headrace.platform.spec import Count, Spec
from headrace.solvers.random_inputs.parameters import Uniform
from headrace.solvers.sampled import AbstractSampled

# What a command may name, besides the parameters. Also: names that no parameter may take.
PLACEHOLDERS = ("folder", "request", "index", "seed", "level")
FORMATS = {".npy": False, ".npz": True, ".h5": True, ".hdf5": True, ".txt": False, ".dat": False}
"""The endings of files that are read, and whether such a file holds several arrays."""
SCRIPTS = (".py", ".jl", ".m", ".R", ".r", ".sh", ".pl", ".jar")
"""The endings by which a word of a command is taken for a program, which has to be there."""
# A C program keeps names in arrays of 64.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")

Word = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]


class Output(Spec):
    """A field that the program answers with.

    Attributes:
        file: the file in the scratch folder that it writes: .npy, .npz, .h5, .hdf5, or numbers in text (.txt, .dat).
            Left out, the program sends the field through the client.
        dataset: the array's name in an .npz or HDF5 file.
        components: numbers at each point: 1 for a scalar, 2 or 3 for a vector.
        unit: of the values; "1" when dimensionless.
    """

    file: str | None = None
    dataset: str | None = None
    components: Count = 1
    unit: str = "1"

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.file is None:
            if self.dataset is not None:
                raise ValueError("a file for the dataset")
            return self
        path = PurePosixPath(self.file)
        if path.is_absolute() or ".." in path.parts or not path.name or "\0" in self.file:
            raise ValueError(f'a file inside the scratch folder, named from there and without "..", got "{self.file}"')
        if path.suffix not in FORMATS:
            raise ValueError(f'a file that ends in {", ".join(FORMATS)}, got "{self.file}"')
        if FORMATS[path.suffix] != (self.dataset is not None):
            holds = "a dataset: it holds several arrays" if FORMATS[path.suffix] else "no dataset: it holds one array"
            raise ValueError(f'for "{self.file}" {holds}')
        return self


class Input(Output):
    """A field that the network is given: one that the program answers with, or a parameter as a constant field.

    Attributes:
        parameter: the parameter that fills the field.
    """

    parameter: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.parameter is not None and (self.file is not None or self.components != 1):
            raise ValueError("a field that a parameter fills to have one component and no file")
        return self


class Points(Spec):
    """The grid that all fields live on.

    Attributes:
        shape: number of points along each axis.
        extent: length of each axis; default: 1.
        periodic: whether each axis wraps around; default: none does.
        location: `nodes` (both ends of an axis are points) or `cells` (points are centres of cells).
    """

    shape: Annotated[tuple[Count, ...], Field(min_length=1, max_length=4)]
    extent: tuple[Annotated[float, Field(gt=0.0)], ...] = ()
    periodic: tuple[bool, ...] = ()
    location: Literal["nodes", "cells"] = "nodes"

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        for name, values in (("extent", self.extent), ("periodic", self.periodic)):
            if values and len(values) != len(self.shape):
                raise ValueError(f"as many entries in {name} as in shape, {len(self.shape)}, got {len(values)}")
        return self

    def grid(self) -> Grid:
        """The grid itself."""
        axes = len(self.shape)
        return Grid(
            shape=self.shape,
            extent=self.extent or (1.0,) * axes,
            periodic=self.periodic or (False,) * axes,
            location=self.location,
        )


class External(AbstractSampled):
    """A program of your own, in any language, that is run for every sample or asked for one after the other.

    Headrace draws the parameters and a seed, makes a scratch folder with the request, and checks what comes back:
    files, shapes, finite numbers. It cannot compute the residual of an equation that it does not know: samples carry
    the residual that the program reports, or none, and their status is `unverified`.

    Attributes:
        command: the words of the command line; no shell looks at them. A word that begins with ./ or ../ is a path from
            the folder where Headrace was started; the program starts in its scratch folder. With `files`, {folder},
            {request}, {index}, {seed}, {level} and {NAME} of each parameter are filled in; {{ and }} are braces.
        launcher: words before the command, for instance those of mpiexec.
        protocol: `files`: one process a sample. `pipe`: one process that is kept, with a line of JSON for each request
            on its standard input, and one for each answer on its standard output.
        timeout_seconds: after this long for one sample, the program and all it started are stopped [s].
        parameters: what is drawn for each sample, by name; stored with it.
        inputs: fields that the network is given; default: every parameter as a constant field.
        outputs: fields that it learns to predict, at all times.
        grid: where the fields live.
        times: output times; one when steady.
        environment: variables for the program, on top of those of Headrace.
        scratch: where scratch folders are made; default: the system's temporary folder.
        keep_folders: which of them stay: `never`, `on_failure`, `always`.
    """

    made_by: ClassVar[str] = "programs"
    solves_by_itself: ClassVar[tuple[str, str]] = (
        "an external program solves in its own way, and nobody checks its residual",
        "Say it in data.problem.command.",
    )

    kind: Literal["external"] = "external"
    command: Annotated[tuple[Word, ...], Field(min_length=1)]
    launcher: tuple[Word, ...] = ()
    protocol: Literal["files", "pipe"] = "files"
    timeout_seconds: Annotated[float, Field(gt=0.0, le=1e7)] = 600.0
    parameters: Frozen[Mapping[str, Uniform]] = Field(default_factory=lambda: FrozenMap({}))
    inputs: Frozen[Mapping[str, Input]] = Field(default_factory=lambda: FrozenMap({}))
    outputs: Annotated[Frozen[Mapping[str, Output]], Field(min_length=1)]
    grid: Points
    times: Annotated[tuple[float, ...], Field(min_length=1)] = (0.0,)
    environment: Frozen[Mapping[str, str]] = Field(default_factory=lambda: FrozenMap({}))
    scratch: str | None = None
    keep_folders: Literal["never", "on_failure", "always"] = "never"

    @model_validator(mode="before")
    @classmethod
    def _paths_from_here(cls, values: Any) -> Any:
        # Workers start elsewhere, and a run is gone on with from another folder.
        if not isinstance(values, Mapping):
            return values
        values = dict(values)
        for key in ("command", "launcher"):
            if isinstance(values.get(key), list | tuple):
                values[key] = [_from_here(word) for word in values[key]]
        if isinstance(values.get("scratch"), str):
            values["scratch"] = os.path.abspath(values["scratch"])
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [*self.parameters, *self.inputs, *self.outputs]
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(f'names of at most 63 letters, digits and _, a letter first; "{name}" is none')
        for name in self.parameters:
            if name in PLACEHOLDERS:
                raise ValueError(f'a parameter not to be called "{name}": {{{name}}} means something else in a command')
        if twice := sorted({*self.inputs} & {*self.outputs}):
            raise ValueError(f"inputs and outputs of different names; {', '.join(twice)} stands among both")
        for name, spec in self.inputs.items():
            if spec.parameter is not None and spec.parameter not in self.parameters:
                hint = nearest(spec.parameter, self.parameters)
                raise ValueError(f'a parameter to fill {name} with; there is no "{spec.parameter}". {hint}'.strip())
        if not self.inputs and not self.parameters:
            raise ValueError(
                "at least one parameter or input: samples of a network that is given nothing are all alike"
            )
        if any(later <= earlier for earlier, later in zip(self.times, self.times[1:], strict=False)):
            raise ValueError("times that increase")
        for name in self.environment:
            if not name or "=" in name or "\0" in name + self.environment[name]:
                raise ValueError(f'a variable\'s name in environment, got "{name}"')
        self._check_command()
        return self

    def _check_command(self) -> None:
        known = () if self.protocol == "pipe" else (*PLACEHOLDERS, *self.parameters)
        for word in (*self.launcher, *self.command):
            for name in placeholders(word):
                if self.protocol == "pipe":
                    raise ValueError(
                        f"no {{{name}}} in the command of a pipe: one process serves many samples and is told each"
                    )
                if name not in known:
                    raise ValueError(
                        f"one of {', '.join(known)} in braces, got {{{name}}}. {nearest(name, known)}".strip()
                    )
        for program in (self.command[0], *self.launcher[:1]):
            if any(True for _ in placeholders(program)):
                raise ValueError(f'a program without placeholders, got "{program}"')

    @property
    def choosable(self) -> Mapping[str, Axis]:
        """All parameters."""
        return {name: one.axis for name, one in self.parameters.items()}

    def unrefinable(self) -> str | None:
        """Its grid is the program's affair."""
        return "an external program has one grid, its own: nobody here can ask it for a finer one"

    @property
    def time_limit(self) -> tuple[str, float]:
        """After which the program is stopped."""
        return "timeout_seconds", self.timeout_seconds

    @property
    def program(self) -> str:
        """What the program is called in reports and errors."""
        return Path(self.command[0]).name

    @property
    def fields_in(self) -> Mapping[str, Input]:
        """The inputs; those that were left out are the parameters."""
        return self.inputs or {name: Input(parameter=name, unit=one.unit) for name, one in self.parameters.items()}

    def sent(self) -> dict[str, Output]:
        """The fields that come through the client."""
        fields = {**self.inputs, **self.outputs}
        return {
            name: spec
            for name, spec in fields.items()
            if spec.file is None and not (isinstance(spec, Input) and spec.parameter is not None)
        }

    def schema(self) -> SampleSchema:  # type: ignore[override]  # pydantic's own, deprecated, is not missed
        """The fields as the recipe lists them."""
        return SampleSchema(
            inputs=tuple(_field(name, spec) for name, spec in self.fields_in.items()),
            outputs=tuple(_field(name, spec) for name, spec in self.outputs.items()),
            parameters=tuple(FieldSpec(name=name, unit=spec.unit) for name, spec in self.parameters.items()),
            domain=self.grid.grid(),
            times=self.times,
        )

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """None are built in; `data.levels` of a recipe changes bounds of parameters, or whatever else."""
        return {}

    def unavailable(self) -> str | None:
        """Which program or file is not there."""
        path = self.environment.get("PATH")
        for program in (*self.launcher[:1], self.command[0]):
            program = program.replace("{{", "{").replace("}}", "}")
            if shutil.which(program, path=path) is None:
                there = os.path.isfile(program) and os.sep in program
                why = "may not be executed (chmod +x)" if there else "is not there"
                hint = "" if os.sep in program else ', nor on the PATH; write "./NAME" for one in the current folder'
                return f'The program "{program}" {why}{hint}.'
        for word in (*self.launcher[1:], *self.command[1:]):
            if os.path.isabs(word) and Path(word).suffix in SCRIPTS and not any(True for _ in placeholders(word)):
                word = word.replace("{{", "{").replace("}}", "}")
                if not os.path.exists(word):
                    return f'The file "{word}" of the command is not there.'
        if self.scratch is not None and not os.path.isdir(self.scratch):
            return f'The folder for scratch, "{self.scratch}", is not there.'
        return None


def placeholders(word: str) -> Iterator[str]:
    """The names in braces.

    Raises:
        ValueError: the braces do not match.
    """
    try:
        parsed = list(string.Formatter().parse(word))
    except ValueError as error:
        raise ValueError(f'matching braces ({{{{ and }}}} stand for themselves) in "{word}": {error}') from error
    for _, name, format_spec, conversion in parsed:
        if name is not None:
            yield name + (f"!{conversion}" if conversion else "") + (f":{format_spec}" if format_spec else "")


def _field(name: str, spec: Output) -> FieldSpec:
    return FieldSpec(name=name, components=spec.components, unit=spec.unit)


def _from_here(word: object) -> object:
    return os.path.abspath(word) if isinstance(word, str) and word.startswith(("./", "../")) else word
