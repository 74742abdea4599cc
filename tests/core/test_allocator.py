"""What `keep_freed_memory` saves: the page faults of blocks that are freed and taken again."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from ampnet_opt.core.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
def blocks():
    for size in (900_000, 2_400_000, 600_000, 3_000_000):
        np.ones(size, np.uint8)
        np.concatenate([np.ones(size, np.uint8), np.ones(size, np.uint8)])
for _ in range(5):
    blocks()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    blocks()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_blocks_that_are_taken_again_cost_no_page_faults():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("given back", "kept")
    }
    assert faults["given back"] > 2_000
    assert faults["kept"] < 200
