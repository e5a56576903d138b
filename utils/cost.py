"""What a forward pass costs: parameters that it touches, multiply-adds, time."""

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from utils.modes import evaluation_mode


@dataclass(frozen=True)
class Cost:
    """Parameters used (numbers, not bytes) and multiply-adds of one forward pass."""

    parameters: int
    multiply_adds: int


def without_data(module: nn.Module) -> nn.Module:
    """A copy on torch's meta device, in evaluation mode: it has shapes only, and running it takes no time."""
    return copy.deepcopy(module).to("meta").eval()


def measure_cost(shadow: nn.Module, forward: Callable[[nn.Module], object]) -> Cost:
    """Cost of `forward(shadow)` for a module `without_data`; only parts that run count, each parameter once.

    Multiply-adds are half of what torch's flop counter counts: matrix products and convolutions, without biases,
    activations and norms. `forward` must make its inputs on the meta device.
    """
    used: dict[int, int] = {}

    def remember(part: nn.Module, *_: object) -> None:
        used.update({id(parameter): parameter.numel() for parameter in part.parameters(recurse=False)})

    hooks = [part.register_forward_hook(remember) for part in shadow.modules()]
    with torch.no_grad():
        operations = count_operations(lambda: forward(shadow))
    for hook in hooks:
        hook.remove()
    return Cost(parameters=sum(used.values()), multiply_adds=operations // 2)


def count_operations(run: Callable[[], object]) -> int:
    """Operations of the matrix products and convolutions that are executed; a product and a sum are two."""
    # Imported when it is needed, for it loads Triton (see `utils.memory`), or warns that it is missing.
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return counter.get_total_flops()


SLOW = 0.5
"""Seconds from which on a pass is timed once: what disturbs it hardly shows in so long a time."""


@torch.inference_mode()
def measure_seconds(module: nn.Module, forward: Callable[[nn.Module], object], device: torch.device) -> float:
    """Wall time of `forward(module)` in evaluation mode: the median of five passes, or a slow one alone.

    One pass goes before, which sets up what the others find: kernels that are transformed, memory, caches.
    """
    with evaluation_mode(module):
        forward(module)
        first = _timed(module, forward, device)
        if first >= SLOW:
            return first
        return median([first, *(_timed(module, forward, device) for _ in range(4))])


def _timed(module: nn.Module, forward: Callable[[nn.Module], object], device: torch.device) -> float:
    start = _clock(device)
    forward(module)
    return _clock(device) - start


def _clock(device: torch.device) -> float:
    """Seconds, once the device has finished what it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
