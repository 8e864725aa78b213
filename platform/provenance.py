"""Where a result came from: versions of packages, the state of the code, the machine."""

import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

# The packages whose version can change a number in a report, in the order in which a reader asks for them.
PACKAGES = (
    "headrace",
    "numpy",
    "scipy",
    "numba",
    "dolfinx-solver-real",
    "torch",
    "pytorch-lightning",
    "ray",
    "mlflow",
    "zarr",
    "pydantic",
)
COMMAND_SECONDS = 5.0


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Python and every package that is installed, by name; one that is missing is left out."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state(path: Path) -> dict[str, Any] | None:
    """The commit that the code at `path` stands on, and whether tracked files differ from it.

    Returns:
        `{"commit": 40 hex digits, "dirty": bool}`; None outside a repository, before its first commit, without git.
    """
    commit = _output(["git", "-C", str(path), "rev-parse", "--verify", "HEAD"])
    if commit is None:
        return None
    changes = _output(["git", "-C", str(path), "status", "--porcelain", "--untracked-files=no"])
    return {"commit": commit, "dirty": changes != ""}


def machine() -> dict[str, Any]:
    """The machine that this process runs on.

    Returns:
        hostname, system, cpu (its model), cores (that this process may use), memory_gib, gpus (by `nvidia-smi`).
    """
    return {
        "hostname": socket.gethostname(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": _gpus(),
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the standard library knows less, but something
    return platform.processor() or platform.machine()


def _gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    listed = _output(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"])
    return [line.strip() for line in (listed or "").splitlines() if line.strip()]


def _output(command: list[str]) -> str | None:
    """What a command printed, or None when it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
