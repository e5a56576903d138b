"""The precision of floating-point numbers that a network computes in."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""`train.precision` -> what convolutions and matrix products work on. Weights that learn are float32 in all."""


def computing_in(precision: torch.dtype, device: torch.device) -> AbstractContextManager:
    """Let convolutions and matrix products round what they take to `precision`; float32 changes nothing.

    On the meta device, where nothing is computed, nothing is rounded either.
    """
    if precision == torch.float32 or device.type == "meta":
        return nullcontext()
    return torch.autocast(device.type, precision)


def notes_on_precision(precision: str, device: torch.device) -> list[str]:
    """What whoever chose a name in `PRECISIONS` should know of it on this device."""
    if precision == "fp32" or device.type != "cpu" or torch.backends.cpu.get_cpu_capability() != "AVX2":
        return []
    return [
        f"train.precision={precision}: CPUs without AVX-512 have no instructions for it, so that it can take many "
        "times as long as fp32"
    ]


def in_full_precision(device: torch.device) -> AbstractContextManager:
    """Inside of `computing_in`: let all be computed in the precision that it comes in."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def at_least_float32(x: Tensor) -> Tensor:
    """The same values, in float32 where they came in less."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def allow_tf32(allowed: bool) -> None:
    """Whether GPUs may round the factors of float32 convolutions and products to 10 bits, for speed."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
