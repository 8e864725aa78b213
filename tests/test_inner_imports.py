"""Imports inside functions: those that save start-up time stay there, all others stand at the top of their file."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("platform", "solvers", "surrogates", "pipelines")

# What takes a tenth of a second or more to import, brings such things along, or comes with an extra only.
HEAVY = {
    "torch",
    "pytorch_lightning",
    "torchmetrics",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "ray",
    "mlflow",
    "zarr",
    "numcodecs",
    "fsspec",
    "requests",
    "scipy",
    "numba",
    "pyamg",
    "h5py",
    "h5netcdf",
    "xarray",
    "matplotlib",
    "jinja2",
    "meshio",
    "dolfinx",
    "dolfinx_solver",
    "petsc4py",
    "mpi4py",
    "ufl",
    "basix",
    # Of ours, the specs of all problems with what they are made of: a third of a second that `headrace --help` saves.
    "headrace.solvers.problems",
}
# Files whose imports inside functions have a reason of their own.
EXEMPT = {
    "solvers/external/guard.py": "a script that starts once for every external process, and mostly needs neither",
    "pipelines/entry.py": "Ctrl-C has to end it quietly while the command line is still imported",
}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("headrace", *(parts[:-1] if parts[-1] == "__init__" else parts)))


MODULES = {name_of(path): path for room in ROOMS for path in (ROOT / room).rglob("*.py")}


def imported(node: ast.stmt) -> Iterator[str]:
    """The modules that a statement imports, ours in full."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            below = f"{node.module}.{alias.name}"
            yield below if below in MODULES else node.module


def is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(tree: ast.AST, inside: str | None = None) -> Iterator[tuple[str | None, ast.stmt]]:
    """The imports of a file, each with the function that it stands in, if it stands in one."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield inside, node
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node, node.name)
        elif not is_typing_only(node):
            yield from imports(node, inside)


@functools.cache
def statements(path: Path) -> tuple[tuple[str | None, ast.stmt], ...]:
    return tuple(imports(ast.parse(path.read_text())))


@functools.cache
def heavy(*names: str) -> frozenset[str]:
    """The heavy packages that come with the import of these modules."""
    found: set[str] = set()
    seen: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        found |= HEAVY & {name, name.split(".")[0]}
        if name.startswith("headrace."):
            todo.append(name.rpartition(".")[0])  # the package runs first
        if path := MODULES.get(name):
            todo += [module for inside, node in statements(path) if inside is None for module in imported(node)]
    return frozenset(found)


def needless(path: Path) -> list[str]:
    """The imports inside functions of a file that would bring nothing heavy to its top."""
    own = heavy(name_of(path))
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for inside, node in statements(path)
        if inside is not None and not heavy(*imported(node)) - own
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_imports_inside_functions_save_start_up_time(room: str) -> None:
    files = [path for path in MODULES.values() if path.is_relative_to(ROOT / room)]
    found = [line for path in files if str(path.relative_to(ROOT)) not in EXEMPT for line in needless(path)]
    assert not found, "nothing heavy comes with these: let them stand at the top\n" + "\n".join(found)


def test_what_is_heavy_is_followed_through_our_modules() -> None:
    assert "numba" in heavy("headrace.solvers.methods.krylov_kernels")
    assert "zarr" in heavy("headrace.platform.dataset.reader")
    assert "torch" not in heavy("headrace.surrogates.models.fno")
    assert "torch" in heavy("headrace.surrogates.models.fno_network")
    assert not heavy("headrace.pipelines.cli")


def test_files_with_a_reason_of_their_own_need_it() -> None:
    for name in EXEMPT:
        assert any(inside for inside, _ in statements(ROOT / name)), name
