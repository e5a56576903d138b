"""Tensors that several processes compute together. Where there is one process, each comes back as it is.

Gradients: whatever a process computes from its part of a batch gets a gradient that is as many times too large as there
are processes, and the mean of the processes' gradients is that of the whole. For the weights, DistributedDataParallel
takes this mean, or `average_in_place`.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from utils.distributed import all_gather_object, num_processes
from utils.vectors import as_vector, fill_from_vector


def sum_over_processes(part: Tensor) -> Tensor:
    """The sum of all processes' tensors, in each of them; differentiable."""
    return part if num_processes() == 1 else _Sum.apply(part)


def broadcast_from_first(tensor: Tensor) -> Tensor:
    """The first process's tensor, in all; its gradient is the mean of all processes' gradients."""
    return tensor if num_processes() == 1 else _FromFirst.apply(tensor)


def mean_over_processes(tensor: Tensor) -> Tensor:
    """The mean of all processes' tensors, in each of them; without gradient.

    For little: each process gets the tensors of all, in one exchange, where `average_in_place` makes do with two.
    """
    return all_gather(tensor).mean(dim=0)


@torch.no_grad()
def average_in_place(tensor: Tensor) -> None:
    """Make a tensor the mean of all processes' tensors, whose values lie in memory in the same order."""
    if num_processes() > 1:
        dist.all_reduce(tensor)
        tensor /= num_processes()


@torch.no_grad()
def all_gather(tensor: Tensor) -> Tensor:
    """The tensors [...] of all processes in their order, [processes, ...]; without gradient."""
    if num_processes() == 1:
        return tensor[None]
    tensor = tensor.contiguous()
    tensors = [torch.empty_like(tensor) for _ in range(num_processes())]
    dist.all_gather(tensors, tensor)
    return torch.stack(tensors)


@torch.inference_mode(False)  # gloo's threads may not write to tensors of inference
def sums_by_name(sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """For each name that any process has, the sum of the tensors of that name; float64 on the CPU, of equal shapes."""
    if num_processes() == 1:
        return dict(sums)
    shapes: dict[str, torch.Size] = {}
    for of_process in all_gather_object({name: value.shape for name, value in sums.items()}):
        shapes |= of_process
    totals = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
    for name, value in sums.items():
        totals[name] += value
    vector = as_vector(list(totals.values()))
    dist.all_reduce(vector)
    fill_from_vector(list(totals.values()), vector)
    return totals


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * num_processes()


class _FromFirst(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        dist.broadcast(tensor, src=0)
        return tensor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return mean_over_processes(gradient)
