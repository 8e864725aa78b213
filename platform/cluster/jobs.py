"""Submit a run as a job to a Ray cluster, follow its log, and return its status."""

import asyncio
import os
import shlex
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Sequence
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from headrace.platform.errors import InputError, RunFailed

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

ACCEPT_SECONDS = 90.0
ROOMS = ("platform", "solvers", "surrogates", "pipelines")

# Runs on the cluster before anything of Headrace is imported, so it may use the standard library alone.
_PREFLIGHT = '''\
"""Says what this cluster lacks to run Headrace; the job stops here when it lacks anything."""
import importlib.util, os, runpy, sys

def lacks(module):
    try:
        return importlib.util.find_spec(module) is None
    except ModuleNotFoundError:  # the package that the module is in
        return True

NEEDED = {needed!r}
missing = [name for module, name in NEEDED.items() if lacks(module)]
if sys.version_info < (3, 12):
    missing.insert(0, "Python 3.12 or newer (the cluster runs %d.%d)" % sys.version_info[:2])
if missing:
    print("headrace: the cluster's `python` (" + sys.executable + ") lacks " + ", ".join(missing) +
          ". Install on every node: pip install " +
          " ".join(name for name in missing if not name.startswith("Python")) +
          ". If Ray runs in another environment, put that one first in PATH before `ray start`.", file=sys.stderr)
    sys.exit(2)
here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)
sys.argv = ["headrace", "run", os.path.join(here, "recipe.yaml"), *sys.argv[1:]]
os.chdir(os.path.expanduser("~"))  # the folder that this file is in goes with the job; results must not
runpy.run_module("headrace.pipelines.cli", run_name="__main__")
'''

NEEDED = {
    "h5py": "h5py",
    "jaxtyping": "jaxtyping",
    "jinja2": "jinja2",
    "matplotlib": "matplotlib",
    "mlflow": "mlflow",
    "numba": "numba",
    "pydantic": "pydantic",
    "pytorch_lightning": "pytorch-lightning",
    "ray": "'ray[default]'",
    "rich": "rich",
    "scipy": "scipy",
    "torch": "torch",
    "yaml": "pyyaml",
    "zarr": "zarr",
}


def token() -> str | None:
    """The cluster's token: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"]
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token").expanduser()
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def check_address(address: str) -> dict[str, str]:
    """Look whether a cluster's job server answers, and lets us in; returns the headers to send.

    Raises:
        InputError: the address is not one, nothing answers there, or it wants a (different) token.
    """
    parts = urllib.parse.urlsplit(address)
    expected = "http://HOST:8265, the address of a running Ray cluster's dashboard"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError.single("--address", address, expected)
    secret = token()
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    try:
        answer = requests.get(f"{address.rstrip('/')}/api/version", headers=headers, timeout=5)
    except requests.RequestException as error:
        raise InputError.single(
            "--address", address, expected, "Nothing answers there. Start one with `ray start --head`."
        ) from error
    if answer.status_code in (401, 403):
        held = "the token that is set is not the cluster's" if secret else "no token is set"
        raise InputError.single(
            "--address",
            address,
            f"the cluster's token: {held}",
            "Put it into RAY_AUTH_TOKEN or ~/.ray/auth_token; `ray get-auth-token` prints it on the head node.",
        )
    if not answer.ok:
        raise InputError.single("--address", address, expected, f"It answered {answer.status_code}.")
    return headers


def ship(recipe: str, folder: Path) -> None:
    """Fill a folder with what travels with the job: this Headrace, the recipe, and the preflight check."""
    for room in ROOMS:
        spec = util.find_spec(f"headrace.{room}")
        assert spec is not None and spec.submodule_search_locations
        shutil.copytree(
            list(spec.submodule_search_locations)[0],
            folder / "headrace" / room,
            ignore=shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc"),
        )
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    (folder / "headrace_job.py").write_text(_PREFLIGHT.format(needed=NEEDED), encoding="utf-8")


def _accepted(client: "JobSubmissionClient", entrypoint: str, runtime_env: dict[str, Any]) -> str:
    """Hand the job over; a cluster that has only just started takes a while to accept one."""
    deadline = time.monotonic() + ACCEPT_SECONDS
    while True:
        try:
            return str(client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env))
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise RunFailed(f"the cluster did not take the job: {error}") from error
            time.sleep(2.0)


def submit(
    address: str, recipe: str, arguments: Sequence[str], environment: dict[str, str], show: Callable[[str], None]
) -> tuple[str, str]:
    """Run a recipe as a job and follow it to its end.

    Args:
        address: the dashboard's address, `http://HOST:8265`.
        recipe: the recipe's text.
        arguments: further arguments of `headrace run` on the cluster.
        environment: environment variables for the job.
        show: takes the job's log as it grows.

    Returns:
        The job's id and its last status: SUCCEEDED, FAILED or STOPPED.

    Raises:
        InputError: the cluster does not answer or does not let us in.
        RunFailed: the cluster does not take the job.
    """
    headers = check_address(address)
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(address, headers=headers)
    with tempfile.TemporaryDirectory(prefix="headrace-job-") as folder:
        ship(recipe, Path(folder))
        entrypoint = shlex.join(["python", "headrace_job.py", *arguments])
        job = _accepted(client, entrypoint, {"working_dir": folder, "env_vars": environment})

    async def copy_log() -> None:
        async for lines in client.tail_job_logs(job):
            show(lines)

    try:
        asyncio.run(copy_log())
    except KeyboardInterrupt:
        client.stop_job(job)
        raise
    return job, str(client.get_job_status(job).value)
