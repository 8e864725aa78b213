"""A cluster of two nodes that loses one in the middle, and gets another one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_a_node_is_removed_and_another_one_joins(tmp_path: Path) -> None:
    # In a process of its own: this one is connected to the cluster of the other tests.
    script = Path(__file__).with_name("two_nodes.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert 50 < found["before"] < 800, "the node was removed in the middle"
    assert found["stored"] == 1200 and found["failed"] == 0 and found["right"]
