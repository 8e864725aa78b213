"""`headrace init`: a package for one's own problem, equation in time, network, loss, strategy and sampler."""

import importlib.util
import keyword
import os
import re
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from headrace.platform.errors import InputError

EXAMPLE = "my_pdes"
"""What the package is called in the templates, and in `docs/extending.md`, which prints them."""

KINDS = ("problem", "equation", "network", "loss", "strategy", "sampler")
_NAME = re.compile(r"[A-Za-z](\w*[A-Za-z0-9])?", re.ASCII)


def files_of(name: str) -> Mapping[Path, str]:
    """The files of the package, by their paths below its folder."""
    places = {
        "pyproject.toml": Path("pyproject.toml"),
        "README.md": Path("README.md"),
        "recipe.yaml": Path("recipe.yaml"),
        "recipe_in_time.yaml": Path("recipe_in_time.yaml"),
        **{f"{kind}.py": Path(name, f"{kind}.py") for kind in KINDS},
        "test_kinds.py": Path("tests", f"test_{name}.py"),
    }
    folder = resources.files("headrace.pipelines") / "templates" / "package"
    texts = {
        path: (folder / f"{template}.tmpl").read_text(encoding="utf-8").replace(EXAMPLE, name)
        for template, path in places.items()
    }
    return {Path(name, "__init__.py"): f'"""Kinds of {name} for Headrace: see `pyproject.toml`."""\n', **texts}


def write_package(name: str, folder: Path) -> list[Path]:
    """Write the package into a new folder of its name.

    Args:
        name: of the folder, the package, and what its kinds begin with.
        folder: where the new folder goes.

    Returns:
        What was written, below `folder`.

    Raises:
        InputError: the name cannot be a package's, there is something of that name, or it cannot be written.
    """
    target = folder / name
    if reason := _unfit(name, target):
        raise InputError.single("NAME", f'"{name}"', *reason)
    try:
        target.mkdir()
        for path, text in files_of(name).items():
            (target / path).parent.mkdir(exist_ok=True)
            (target / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError.single(str(target), "not writable", "a folder to write to", f"{error.strerror}.") from error
    return [Path(name) / path for path in files_of(name)]


def _unfit(name: str, target: Path) -> tuple[str, str] | None:
    """What was expected of a name in place of this one, and what to do about it; None when it may be used."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        return "the name of a Python package: letters, digits and _, beginning with a letter", "For example my_pdes."
    if os.path.lexists(target):
        return "a name that is free", f"{target} exists."
    if name == "tests" or name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        return "a name that no package has", "It would hide one that is installed, or be hidden by it."
    return None
