"""Freed memory goes back to the system, where the C library can be told so."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PROGRAM = """
import sys

import numpy as np

from utils.memory import return_freed_memory


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


if sys.argv[1] != "as it is":
    assert return_freed_memory(at_once=sys.argv[1] == "returned")
np.ones(24 * 2**20, np.uint8)  # freed at once, from which glibc learns that such sizes come and go
before = resident()
arrays = [np.ones(2**20, np.uint8) for _ in range(200)]
del arrays[::2]
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_what_is_freed_between_what_is_kept_goes_back() -> None:
    left = {}
    for way in ("as it is", "returned", "kept"):
        run = subprocess.run([sys.executable, "-c", PROGRAM, way], cwd=ROOT, capture_output=True, text=True, check=True)
        left[way] = float(run.stdout)
    assert left["returned"] == pytest.approx(100, abs=10)
    assert min(left["as it is"], left["kept"]) > 150
