"""`headrace doctor`: what works on this machine, and what to do about the rest."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from headrace.pipelines.doctor import probes
from headrace.pipelines.doctor.probes import ProbeResult, probe

Status = Literal["ok", "warn", "fail"]

GB = 1e9
# The demo writes 0.2 GB, checkpoints and MLflow's copies included; a study writes tens.
DISK_WARN, DISK_FAIL = 5 * GB, 0.5 * GB
# Below this Ray moves its object store from shared memory to the disk. Docker gives a container 64 MB.
SHARED_MEMORY_WARN = 1 * GB
# Ray's own processes, two solvers and a trainer with torch come to about 3 GB.
MEMORY_WARN = 4 * GB

REINSTALL = "Install Headrace anew with its pins: pip install -c constraints.txt ."


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was examined.

    Attributes:
        name: the thing.
        status: `ok`, `warn` (Headrace runs, but slower or with less), `fail` (it does not).
        detail: what was found.
        advice: what to do about it; empty when all is well.
    """

    name: str
    status: Status
    detail: str
    advice: str = ""


def examine(folder: Path | None = None) -> list[Finding]:
    """Look at everything that a run needs; starts no cluster, and takes some seconds.

    Args:
        folder: where runs will be written; the working folder when left out.
    """
    where = Path.cwd() if folder is None else folder
    checks: list[Callable[[], list[Finding]]] = [
        lambda: [python()],
        lambda: torch_and_cuda(probe(probes.TORCH)),
        lambda: [installed("Lightning", "pytorch-lightning")],
        lambda: [ray(probe(probes.RAY))],
        lambda: [library("MLflow", probe(probes.MLFLOW))],
        lambda: [library("storage", probe(probes.STORAGE))],
        lambda: [numba(probe(probes.NUMBA))],
        lambda: [dolfinx(probe(probes.DOLFINX))],
        lambda: plug_ins(lambda: probe(probes.PLUG_INS)),
        lambda: [processors(), memory(), shared_memory(), disk(where)],
    ]
    # The probes mostly wait for files to be read: three at once are faster than one, nine on two cores are not.
    with ThreadPoolExecutor(max_workers=3) as pool:
        return [finding for found in pool.map(lambda check: check(), checks) for finding in found]


def python() -> Finding:
    """The interpreter."""
    # An older one could not have read this file: nothing is left to check.
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    return Finding(name="Python", status="ok", detail=detail)


def library(name: str, answer: ProbeResult) -> Finding:
    """A library that Headrace cannot do without."""
    if answer.trouble:
        return Finding(name=name, status="fail", detail=answer.trouble, advice=REINSTALL)
    versions = answer.told.items()
    detail = ", ".join(str(value) if key == "version" else f"{key} {value}" for key, value in versions)
    return Finding(name=name, status="ok", detail=detail)


def installed(name: str, distribution: str) -> Finding:
    """A library that is not tried, for it takes ten seconds to import; only its version is read."""
    try:
        return Finding(name=name, status="ok", detail=importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name=name, status="fail", detail=f"{distribution} is not installed", advice=REINSTALL)


def torch_and_cuda(answer: ProbeResult, driver: Path = Path("/dev/nvidiactl")) -> list[Finding]:
    """Torch, and the GPUs that it can use.

    Args:
        answer: of the probe `TORCH`.
        driver: the device file of NVIDIA's driver, there when the machine has a GPU.
    """
    if answer.trouble:
        return [Finding(name="torch", status="fail", detail=answer.trouble, advice=REINSTALL)]
    built_for = answer.told["cuda"]
    build = f"built for CUDA {built_for}" if built_for else "built without CUDA"
    found = [Finding(name="torch", status="ok", detail=f"{answer.told['version']}, {build}")]
    if answer.told["devices"]:
        found.append(Finding(name="CUDA", status="ok", detail=", ".join(answer.told["devices"])))
    elif driver.exists():
        advice = (
            f"Update NVIDIA's driver to one for CUDA {built_for}; `nvidia-smi` shows its version. "
            "In a container, start it with --gpus all."
            if built_for
            else "Install a torch that is built for CUDA."
        )
        detail = "this machine has a GPU, but torch cannot use it"
        found.append(Finding(name="CUDA", status="warn", detail=detail, advice=advice))
    else:
        found.append(Finding(name="CUDA", status="ok", detail="no GPU here: training runs on the CPU"))
    return found


def ray(answer: ProbeResult) -> Finding:
    """Ray, and whether the token of a cluster is at hand (never the token itself)."""
    if answer.trouble:
        return library("Ray", answer)
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token").expanduser()
    if os.environ.get("RAY_AUTH_TOKEN"):
        held = "cluster token in RAY_AUTH_TOKEN"
    elif path.is_file():
        held = f"cluster token in {path}"
    else:
        held = "no cluster token (only `headrace submit` needs one)"
    return Finding(name="Ray", status="ok", detail=f"{answer.told['version']}, {held}")


def numba(answer: ProbeResult) -> Finding:
    """Numba, and the folder where it keeps what it has compiled."""
    if answer.trouble:
        return library("Numba", answer)
    if not answer.told["cache"]:
        return Finding(
            name="Numba",
            status="fail",
            detail=f"{answer.told['version']}, but no folder for its compiled code can be written",
            advice="Set NUMBA_CACHE_DIR to a folder that you may write to.",
        )
    return Finding(name="Numba", status="ok", detail=f"{answer.told['version']}, cache in {answer.told['cache']}")


def dolfinx(answer: ProbeResult) -> Finding:
    """DOLFINx and PETSc: some methods use them, and others stand in where they are missing."""
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), "")
    without = "The methods that use PETSc and the problems by finite elements are not available; the others are."
    if answer.trouble and importlib.util.find_spec("dolfinx") is None:
        detail, advice = (
            "not installed",
            f"{without} Linux x86-64: pip install dolfinx-solver-real; elsewhere: conda's fenics-dolfinx.",
        )
    elif not compiler:
        detail = "no C compiler, with which DOLFINx compiles its forms"
        advice = f"{without} Install one (Debian, Ubuntu: apt install gcc)."
    elif answer.trouble:
        detail, advice = answer.trouble, f"{without} {REINSTALL}"
    else:
        versions = f"DOLFINx {answer.told['dolfinx']}, PETSc {answer.told['petsc']} with MUMPS"
        return Finding(name="DOLFINx", status="ok", detail=f"{versions}: solved Poisson's equation")
    return Finding(name="DOLFINx", status="warn", detail=detail, advice=advice)


def plug_ins(ask: Callable[[], ProbeResult]) -> list[Finding]:
    """The kinds that other packages add; nothing where none does.

    Args:
        ask: runs the probe `PLUG_INS`, which takes seconds.
    """
    points = [point for point in importlib.metadata.entry_points() if point.group.startswith("headrace.")]
    if not points:
        return []
    answer = ask()
    troubles = [answer.trouble] if answer.trouble else list(answer.told["broken"])
    if not troubles:
        names = ", ".join(sorted({point.name for point in points}))
        return [Finding(name="plug-ins", status="ok", detail=names)]
    advice = "Mend or uninstall the package; recipes that do not use it run."
    return [Finding(name="plug-ins", status="warn", detail=one, advice=advice) for one in troubles]


def cgroup_limits(name: str, root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[str]:
    """What version 2 control groups, this process's and those above it, say about a resource.

    Containers and Slurm limit jobs so, and neither the number of cores nor the size of the memory shows it.

    Args:
        name: `cpu.max` or `memory.max`.
        root: where the control groups are mounted.
        own: the file that names the group of this process.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    group = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    files = [root / group / name, *(root / parent / name for parent in Path(group).parents)]
    # In a container the path may be the host's, of which only the end is mounted here: then the root is our group.
    existing = [file for file in dict.fromkeys([*files, root / name]) if file.is_file()]
    return [file.read_text(encoding="utf-8").strip() for file in existing]


def processors() -> Finding:
    """The cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [text.split() for text in cgroup_limits("cpu.max")]
    shares = [int(quota) / int(period) for quota, period in quotas if quota != "max"]
    usable = min([float(cores), *shares])
    detail = f"{cores} cores" if usable == cores else f"{cores} cores, limited to {usable:g} by the control group"
    if usable >= 2:
        return Finding(name="CPU", status="ok", detail=detail)
    advice = "Solvers and trainer take turns on one core: allow two or more."
    return Finding(name="CPU", status="warn", detail=detail, advice=advice)


def memory() -> Finding:
    """The memory that is left, of the machine and of the control group."""
    machine = psutil.virtual_memory()
    limits = [int(text) for text in cgroup_limits("memory.max") if text != "max"]
    total = min([machine.total, *limits])
    left = min(machine.available, total)
    limited = "" if total == machine.total else " (limit of the control group)"
    detail = f"{left / GB:.1f} of {total / GB:.1f} GB available{limited}"
    if left >= MEMORY_WARN:
        return Finding(name="memory", status="ok", detail=detail)
    advice = f"A run of two solvers and a trainer wants {MEMORY_WARN / GB:g} GB."
    return Finding(name="memory", status="warn", detail=detail, advice=advice)


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """The shared memory, which holds Ray's object store."""
    if not folder.is_dir():
        return Finding(name="shared memory", status="ok", detail="not a folder on this system")
    usage = shutil.disk_usage(folder)
    detail = f"{usage.free / GB:.1f} of {usage.total / GB:.1f} GB free in {folder}"
    if usage.free >= SHARED_MEMORY_WARN:
        return Finding(name="shared memory", status="ok", detail=detail)
    advice = "Ray will move messages through the disk, which is slow. In a container: --shm-size=4g."
    return Finding(name="shared memory", status="warn", detail=detail, advice=advice)


def disk(folder: Path) -> Finding:
    """The disk that runs are written to."""
    free = shutil.disk_usage(folder).free
    detail = f"{free / GB:.1f} GB free at {folder}"
    if not os.access(folder, os.W_OK):
        advice = "Work in a folder that you may write to, or give one with --out."
        return Finding(name="disk", status="fail", detail=f"{folder} cannot be written", advice=advice)
    if free >= DISK_WARN:
        return Finding(name="disk", status="ok", detail=detail)
    advice = "Free some, or write elsewhere with --out."
    return Finding(name="disk", status="fail" if free < DISK_FAIL else "warn", detail=detail, advice=advice)
