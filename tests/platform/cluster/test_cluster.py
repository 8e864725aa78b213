"""The embedded cluster is a run's own, whatever else there is, or was, of Ray on the machine."""

import os
import subprocess
import sys

import pytest


@pytest.mark.ray
@pytest.mark.slow
def test_an_embedded_cluster_does_not_join_another() -> None:
    # Ray would take an address from here, or from the file that `ray start` leaves behind when it is killed.
    code = (
        "import ray; from headrace.platform.cluster.cluster import start_embedded; start_embedded(1); "
        "print(len(ray.nodes()))"
    )
    environment = os.environ | {"RAY_ADDRESS": "127.0.0.1:1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0 and done.stdout.strip() == "1", done.stderr[-2000:]
