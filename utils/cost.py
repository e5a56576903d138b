"""What a forward pass costs: parameters that it touches, multiply-adds, time."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """Parameters used (numbers, not bytes) and multiply-adds of one forward pass."""

    parameters: int
    multiply_adds: int


def measure_cost(module: nn.Module, forward: Callable[[nn.Module], object]) -> Cost:
    """Cost of `forward(module)`; only modules that run count, each parameter once.

    Works on a copy without data (torch's meta device), so that it takes no time and changes nothing;
    `forward` must make its inputs on that device. Multiply-adds are half of what torch's flop counter counts:
    matrix products and convolutions, without biases, activations and norms.
    """
    shadow = copy.deepcopy(module).to("meta").eval()
    used: dict[int, int] = {}

    def remember(part: nn.Module, *_: object) -> None:
        used.update({id(parameter): parameter.numel() for parameter in part.parameters(recurse=False)})

    for part in shadow.modules():
        part.register_forward_hook(remember)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        forward(shadow)
    return Cost(parameters=sum(used.values()), multiply_adds=counter.get_total_flops() // 2)
