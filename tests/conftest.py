"""What every test relies on: one thread a process, pictures without a screen, GPU tests only where there is a GPU."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Set before NumPy, torch or Numba are imported, and inherited by every process that a test starts.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("MPLBACKEND", "Agg")


def _cuda_is_available() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


# Files whose tests share one Ray cluster, and so one process.
_ON_ONE_CLUSTER = {"test_stream.py", "test_security.py"}


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Deal out the tests by file, those that share a cluster together: Ray's starts are what takes long."""

    class ByCluster(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.split("::")[0]
            if "/pipelines/" in path:
                return "pipelines"
            return "platform" if Path(path).name in _ON_ONE_CLUSTER else path

    return ByCluster(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` where torch finds no CUDA device."""
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not _cuda_is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One embedded Ray cluster for all tests that need one: starting it costs seconds."""
    import ray

    from headrace.platform.cluster.cluster import start_embedded

    start_embedded(num_cpus=4)
    yield
    ray.shutdown()
