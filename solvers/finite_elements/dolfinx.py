"""DOLFINx: whether it is here, how it is loaded, and what it makes of our meshes and forms."""

import functools
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from headrace.platform.errors import InputError
from headrace.solvers.finite_elements.named_mesh import NamedMesh
from headrace.solvers.methods.factorizations import load_petsc

if TYPE_CHECKING:
    import dolfinx
    import ufl


@functools.cache
def dolfinx_is_installed() -> bool:
    """Whether DOLFINx can be imported."""
    # The wheel makes `dolfinx` importable only once `dolfinx_solver` was imported.
    return any(importlib.util.find_spec(name) is not None for name in ("dolfinx_solver", "dolfinx"))


def load_dolfinx() -> None:
    """Import DOLFINx in the order that its wheel needs."""
    load_petsc()
    import dolfinx  # noqa: F401


def compiler() -> str | None:
    """The C compiler that DOLFINx's forms are compiled with; None when there is none."""
    return os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


@functools.cache
def _form_cache() -> tempfile.TemporaryDirectory[str] | Path:
    """The user's cache of compiled forms, or where that cannot be written, a folder that goes with the process."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace" / "forms"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # As root, os.access says yes to a file system that is mounted read-only.
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return _private_cache()


@functools.cache
def _private_cache() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="headrace-forms-")


def compiled(form: "ufl.Form") -> "dolfinx.fem.Form":
    """Compile a form, or take it from the cache.

    Raises:
        InputError: the compiler failed.
    """
    from dolfinx import fem

    for cache in (_form_cache(), _private_cache()):
        folder = cache if isinstance(cache, Path) else Path(cache.name)
        try:
            # Another process may be at the same form: it is waited for, up to this long [s].
            return fem.form(form, jit_options={"cache_dir": str(folder), "timeout": 60})
        except TimeoutError:
            # A process that was killed while it compiled left its mark in the cache.
            continue
        except Exception as error:
            if type(error).__name__ not in ("CompileError", "VerificationError", "ExecError", "LinkError"):
                raise
            raise InputError.single(
                "the C compiler", compiler() or "missing", "one that compiles DOLFINx's forms", str(error)
            ) from error
    raise InputError.single("the cache of compiled forms", str(_form_cache()), "one that can be used", "Remove it.")


def dolfinx_mesh(named: NamedMesh) -> "dolfinx.mesh.Mesh":
    """A mesh of ours as one of DOLFINx."""
    import basix.ufl
    import ufl
    from dolfinx import mesh
    from mpi4py import MPI

    domain = ufl.Mesh(basix.ufl.element("Lagrange", "triangle", 1, shape=(2,)))
    return mesh.create_mesh(MPI.COMM_SELF, named.mesh.cells.astype(np.int64), domain, np.array(named.mesh.points))


def cell_corners(mesh: "dolfinx.mesh.Mesh") -> Int64[np.ndarray, "cells 3"]:
    """The corners of DOLFINx's cells as points of our mesh."""
    dofmap = mesh.geometry.dofmaps[0] if hasattr(mesh.geometry, "dofmaps") else mesh.geometry.dofmap
    return np.asarray(mesh.geometry.input_global_indices, dtype=np.int64)[np.asarray(dofmap)]


def tagged_facets(
    mesh: "dolfinx.mesh.Mesh", named: NamedMesh, corners: Int64[np.ndarray, "cells 3"]
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """DOLFINx's numbers of the named edges, the tag of each, and the tag of each name."""
    topology = mesh.topology
    topology.create_entities(1)
    topology.create_connectivity(1, 0)
    topology.create_connectivity(2, 1)
    topology.create_connectivity(1, 2)
    vertices = topology.connectivity(2, 0).array.reshape(-1, 3)
    point_of = np.empty(topology.index_map(0).size_local, dtype=np.int64)
    point_of[vertices] = corners
    base = len(named.mesh.points)
    ends = np.sort(point_of[topology.connectivity(1, 0).array.reshape(-1, 2)], axis=1)
    keys = ends[:, 0] * base + ends[:, 1]
    order = np.argsort(keys)
    facets, tags, names = [], [], {}
    for tag, (name, edges) in enumerate(named.boundaries.items(), start=1):
        wanted = np.sort(edges, axis=1)
        places = np.searchsorted(keys[order], wanted[:, 0] * base + wanted[:, 1])
        facets.append(order[places])
        tags.append(np.full(len(edges), tag))
        names[name] = tag
    if not facets:
        return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32), names
    return np.concatenate(facets).astype(np.int32), np.concatenate(tags).astype(np.int32), names


def meshtags(mesh: "dolfinx.mesh.Mesh", facets: np.ndarray, tags: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Pairs of facet and side for each tag, as `ds` takes them; unlike mesh tags, groups may overlap."""
    from dolfinx import fem

    return [
        (
            int(tag),
            fem.compute_integration_domains(
                fem.IntegralType.exterior_facet, mesh.topology, np.sort(facets[tags == tag])
            ),
        )
        for tag in np.unique(tags)
    ]
