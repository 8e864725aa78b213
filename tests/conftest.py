"""What every test relies on: one thread a process, pictures without a screen, GPU tests only where there is a GPU."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Set before NumPy, torch or Numba are imported, and inherited by every process that a test starts.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("MPLBACKEND", "Agg")


def _cuda_is_available() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share a cluster or a file in one process; skip those marked `gpu` where there is no GPU."""
    for item in items:
        room = item.path.relative_to(Path(__file__).parent).parts[0]
        shares_cluster = room == "pipelines" or "ray_cluster" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group(room if shares_cluster else str(item.path)))
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not _cuda_is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One embedded Ray cluster for all tests that need one: starting it costs seconds."""
    import ray

    from headrace.platform.cluster import start_embedded

    start_embedded(num_cpus=4)
    yield
    ray.shutdown()
