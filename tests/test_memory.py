"""Freed memory goes back to the system, where the C library can be told so; what no CPU needs is not loaded."""

import platform
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from utils.memory import leave_out_triton

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


WITHOUT_TRITON = """
import sys
import torch
import envs.cost_report, envs.experiment
from utils.memory import leave_out_triton
assert leave_out_triton()
weights = torch.nn.Linear(3, 3)
torch.optim.Adam(weights.parameters())
assert "torch._dynamo" in sys.modules, "which is what loads it"
x = torch.ones(2, 3)
torch.testing.assert_close(torch.compile(weights, backend="aot_eager")(x), weights(x))
assert not [name for name in sys.modules if name.startswith("triton.")]
"""


def test_pytorch_does_without_triton_where_it_is_left_out() -> None:
    assert subprocess.run([sys.executable, "-c", WITHOUT_TRITON], cwd=ROOT, check=False).returncode == 0


def test_what_has_been_loaded_is_not_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = ModuleType("triton")
    monkeypatch.setitem(sys.modules, "triton", loaded)
    assert not leave_out_triton()
    assert sys.modules["triton"] is loaded
