"""Scripts that try a library: each runs in a process of its own, which may hang or crash without harm."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What came of a probe.

    Attributes:
        told: the JSON object that the script printed; empty when it failed.
        trouble: why it failed, in a line; empty when it did not.
    """

    told: Mapping[str, Any]
    trouble: str = ""


def probe(script: str, seconds: float = 120.0) -> ProbeResult:
    """Run a probe and hear its answer.

    Args:
        script: Python that prints one JSON object last; `sys.argv[1]` is a scratch folder.
        seconds: how long it may take; a first import from a network file system takes a minute.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-doctor-") as scratch:
        command = [sys.executable, "-c", script, scratch]
        # MLflow and Ray would otherwise say in this process's name that somebody uses them.
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "MPLBACKEND": "Agg"}
        environment = {**os.environ, **quiet}
        try:
            done = subprocess.run(
                command, cwd=scratch, env=environment, capture_output=True, text=True, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return ProbeResult(told={}, trouble=f"no answer within {seconds:g} s")
    if done.returncode < 0:
        return ProbeResult(told={}, trouble=f"the process was killed by signal {-done.returncode}")
    if done.returncode > 0:
        return ProbeResult(told={}, trouble=_last_line(done.stderr) or f"exit status {done.returncode}")
    try:
        return ProbeResult(told=json.loads(_last_line(done.stdout)))
    except ValueError:
        return ProbeResult(told={}, trouble=f'answered "{_last_line(done.stdout)}"')


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


# Every group of entry points is looked up; what cannot be imported is told, not raised.
PLUG_INS = """
import json
from headrace.pipelines.recipe.config import RunConfig
from headrace.platform.spec import broken_plug_ins
RunConfig.model_rebuild(force=True)
print(json.dumps({"broken": [str(one) for one in broken_plug_ins()]}))
"""

TORCH = """
import json, torch
matrix = torch.eye(4) + torch.ones(4, 4)
assert torch.allclose(torch.linalg.solve(matrix, torch.full((4,), 5.0)), torch.ones(4))
devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda,
                  "devices": [f"{d.name} ({d.total_memory / 1e9:.0f} GB)" for d in devices]}))
"""

# Starts no cluster, which would take seconds and ports.
RAY = """
import json, ray, ray.job_submission
print(json.dumps({"version": ray.__version__}))
"""

# Opens no store: a new one takes ten seconds to lay out its tables.
MLFLOW = """
import json, mlflow
mlflow.MlflowClient
print(json.dumps({"version": mlflow.__version__}))
"""

STORAGE = """
import json, os, sys, h5py, numpy, zarr
folder = zarr.create_array(store=os.path.join(sys.argv[1], "a.zarr"), data=numpy.arange(16.0), chunks=(4,))
with h5py.File(os.path.join(sys.argv[1], "a.h5"), "w") as file:
    file["a"] = zarr.open_array(os.path.join(sys.argv[1], "a.zarr"))[:]
with h5py.File(os.path.join(sys.argv[1], "a.h5")) as file:
    assert (file["a"][:] == numpy.arange(16.0)).all()
print(json.dumps({"zarr": zarr.__version__, "h5py": h5py.__version__}))
"""

# Numba looks for a cache folder when a function is decorated, by where its source lies: so the function that asks for
# the cache pretends to be of the solvers. It is never called, and leaves nothing there.
NUMBA = """
import importlib.util, json, numba

@numba.njit
def total(n):
    s = 0.0
    for i in range(n):
        s += i
    return s

assert total(5) == 10.0
names = {}
exec(compile("def cached(x):\\n    return x", importlib.util.find_spec("headrace.solvers").origin, "exec"), names)
try:
    folder = numba.njit(cache=True)(names["cached"]).stats.cache_path
except RuntimeError:
    folder = ""
print(json.dumps({"version": numba.__version__, "cache": folder}))
"""

# Poisson's equation with the solution 1 + x^2 + 2 y^2, which quadratic elements represent exactly.
DOLFINX = """
import importlib.util, json, numpy
if importlib.util.find_spec("dolfinx_solver"):
    import dolfinx_solver
import dolfinx, ufl
from dolfinx import fem, mesh
from dolfinx.fem.petsc import LinearProblem
from mpi4py import MPI
from petsc4py import PETSc
domain = mesh.create_unit_square(MPI.COMM_SELF, 4, 4)
space = fem.functionspace(domain, ("Lagrange", 2))
exact = fem.Function(space)
exact.interpolate(lambda x: 1 + x[0] ** 2 + 2 * x[1] ** 2)
domain.topology.create_connectivity(1, 2)
edge = fem.locate_dofs_topological(space, 1, mesh.exterior_facet_indices(domain.topology))
u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
options = {"ksp_type": "preonly", "pc_type": "lu", "pc_factor_mat_solver_type": "mumps",
           "ksp_error_if_not_converged": True}
problem = LinearProblem(
    ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx, fem.Constant(domain, -6.0) * v * ufl.dx,
    bcs=[fem.dirichletbc(exact, edge)], petsc_options_prefix="headrace_doctor_", petsc_options=options)
solution = problem.solve()
assert abs(solution.x.array - exact.x.array).max() < 1e-10, "Poisson's equation was solved wrongly"
print(json.dumps({"dolfinx": dolfinx.__version__, "petsc": ".".join(map(str, PETSc.Sys.getVersion()))}))
"""
