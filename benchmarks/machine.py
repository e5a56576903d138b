"""What the machine itself can do: the limits that all figures stand against."""

import platform
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Stopwatch
from benchmarks.settings import Settings
from utils.precision import PRECISIONS, allow_tf32
from utils.progress import progress_bar

MATRIX_SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
COPIED_BYTES = {"cpu": 2**28, "cuda": 2**32}
TRIALS = 10
MOST_SECONDS = 1
"""Of all trials together; one that takes longer is the last, and of the largest matrices."""

CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16")
"""Instructions on which the speed of matrix products depends, as Linux names them."""


def describe_machine(settings: Settings) -> dict[str, Any]:
    """Name, threads, versions and rates.

    Returns:
        "device", "name", "threads", "torch", "features" (of a CPU); "matmul" {"fp32", "bf16", "fp16", on GPUs "tf32":
        operations per second, a product and a sum being two}; "copy": bytes per second, read and written.
    """
    device = settings.device
    sizes = (64,) if settings.tiny else MATRIX_SIZES[device.type]
    rates = [*PRECISIONS, *(["tf32"] if device.type == "cuda" else [])]
    return {
        "device": device.type,
        "name": device_name(device),
        "threads": settings.threads,
        "torch": torch.__version__,
        "features": cpu_features() if device.type == "cpu" else [],
        "matmul": {rate: matmul_rate(rate, sizes, device) for rate in progress_bar(rates, "matrix products")},
        "copy": copy_rate(2**16 if settings.tiny else COPIED_BYTES[device.type], device),
    }


def at_its_best(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two descriptions of a machine as one, with the faster of the rates: the slower ones were disturbed."""
    matmul = {rate: max(value, other["matmul"][rate]) for rate, value in one["matmul"].items()}
    return {**one, "matmul": matmul, "copy": max(one["copy"], other["copy"])}


def slow_rates(machine: dict[str, Any]) -> tuple[str, ...]:
    """Precisions in which a machine multiplies more slowly than in float32."""
    return tuple(rate for rate, speed in machine["matmul"].items() if speed < machine["matmul"]["fp32"])


def device_name(device: torch.device) -> str:
    """The GPU's or CPU's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_facts().get("model name", platform.processor())


def cpu_features() -> list[str]:
    """Those of `CPU_FEATURES` that this CPU has; none where the system does not tell."""
    flags = cpu_facts().get("flags", "").split()
    return [feature for feature in CPU_FEATURES if feature in flags]


def cpu_facts() -> dict[str, str]:
    """What Linux says of its last CPU; nothing elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def matmul_rate(rate: str, sizes: Sequence[int], device: torch.device) -> float:
    """Operations per second of the fastest of several products of square matrices, the smaller ones first."""
    allow_tf32(rate == "tf32")
    dtype = PRECISIONS.get(rate, torch.float32)
    fastest_rate = 0.0
    for size in sizes:
        one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        result = torch.empty_like(one)
        seconds = fastest(partial(torch.mm, one, other, out=result), device)
        fastest_rate = max(fastest_rate, 2 * size**3 / seconds)
        if seconds > MOST_SECONDS:
            break
    return fastest_rate


def copy_rate(num_bytes: int, device: torch.device) -> float:
    """Bytes per second, read and written, of the fastest of several copies."""
    source = torch.ones(num_bytes, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * num_bytes / fastest(lambda: target.copy_(source), device)


def fastest(operation: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of several runs; what disturbs a machine only ever slows it down."""
    seconds: list[float] = []
    while len(seconds) < TRIALS and sum(seconds) < MOST_SECONDS:
        watch = Stopwatch(device)
        operation()
        seconds.append(watch.parts()["total"])
    return min(seconds)
