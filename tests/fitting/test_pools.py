"""What a worker of a fit by tiles is to its tasks."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

ARRAYS = 200
TASK = f"""
import resource
import numpy as np
from napari_gaussfit.fitting.pools import do_on_worker

class Work:
    def do(self, task):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range({ARRAYS}):
            np.ones(2**17)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

work = Work()
do_on_worker(work, None, 0)
print(do_on_worker(work, None, 0))
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the setting that dask makes is one of glibc"
)
def test_a_worker_keeps_the_memory_of_one_array_for_the_next() -> None:
    # As dask starts its workers: then each array of a megabyte is 256 page faults.
    dask = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", TASK], env=dask, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < ARRAYS
