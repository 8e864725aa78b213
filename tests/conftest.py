"""What every test relies on: one thread a process, pictures without a screen, GPU tests only where there is a GPU."""

import functools
import importlib.util
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

# Set before NumPy, torch or Numba are imported, and inherited by every process that a test starts.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("MPLBACKEND", "Agg")


def _cuda_is_available() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def _unit(item: pytest.Item) -> str:
    """What a test is dealt out with: the finished run, the compiled model, or, of most others, their file.

    Those that only need a cluster, or are long by themselves, share nothing with their file: they go alone.
    """
    fixtures = getattr(item, "fixturenames", ())
    for shared in ("finished", "compiled"):
        if shared in fixtures:
            return shared
    is_long = any(mark.name == "slow" for mark in item.own_markers)
    return item.nodeid if is_long or "ray_cluster" in fixtures else item.nodeid.split("::")[0]


def _seconds(item: pytest.Item) -> float:
    """About how long a test takes [s], as far as its marks and fixtures tell."""
    if item.get_closest_marker("slow"):
        return 20.0
    return 5.0 if "ray_cluster" in getattr(item, "fixturenames", ()) else 0.1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` where torch finds no CUDA device; in a process of xdist, put long units first."""
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not _cuda_is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
    if hasattr(config, "workerinput"):
        seconds: Counter[str] = Counter()
        for item in items:
            seconds[_unit(item)] += _seconds(item)
        # A long one at the end would leave the other processes idle.
        items.sort(key=lambda item: -seconds[_unit(item)])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """Tell a process, before it starts, where to write how its tests are dealt out."""
    node.workerinput["units"] = str(_folder(node.config) / node.gateway.id)


@functools.cache
def _folder(config: pytest.Config) -> Path:
    folder = tempfile.TemporaryDirectory(prefix="headrace-tests-")
    config.add_cleanup(folder.cleanup)
    return Path(folder.name)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Write down the unit of every test: xdist knows their ids alone, which do not say what fixtures they use."""
    path = getattr(session.config, "workerinput", {}).get("units")
    if path is not None:
        Path(path).write_text(json.dumps({item.nodeid: _unit(item) for item in session.items}))


class ByFixture(LoadScopeScheduling):
    """Deals out the tests by the run or the file that they share, in the order in which they were collected.

    The run that tests only look at is carried out once, so they go to one process. A cluster lives as long as its
    process: the other tests that need one may go to any, one by one, and each process starts one at most.
    """

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        self._units: dict[str, str] = {}

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """Take what a process has collected, and what it wrote down about it."""
        super().add_node_collection(node, collection)
        self._units.update(json.loads(Path(node.workerinput["units"]).read_text()))

    def _split_scope(self, nodeid: str) -> str:
        return self._units[nodeid]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Deal out the tests by fixture: Ray's starts and whole runs are what takes long."""
    config.option.loadscopereorder = False
    return ByFixture(config, log)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One embedded Ray cluster for all tests that need one: starting it costs seconds."""
    import ray

    from headrace.platform.cluster.cluster import start_embedded

    start_embedded(num_cpus=4)
    yield
    ray.shutdown()
