"""keep_freed_memory: large arrays are served from pages that the process has touched already."""

import platform
import subprocess
import sys

import pytest

from headrace.platform.allocator import keep_freed_memory

SCRIPT = """
import resource, sys
import numpy as np
from headrace.platform.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(1_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
default = faults()
keep_freed_memory()
faults()
kept = faults()
keep_freed_memory(False)
print(default, kept, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_arrays_that_are_made_again_and_again_cost_no_page_faults() -> None:
    # In a process of its own: what a library keeps is a matter of all that ran before.
    out = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True, timeout=60)
    default, kept, again = map(int, out.stdout.split())
    # 8 MB are 1953 pages of 4 KiB; with huge pages a few only, and then there is nothing to save.
    assert kept <= default / 10 + 20
    assert again > kept or default < 100


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
