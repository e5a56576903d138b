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
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        forward(shadow)
    for hook in hooks:
        hook.remove()
    return Cost(parameters=sum(used.values()), multiply_adds=counter.get_total_flops() // 2)
