"""BatchNorm over the parts of a batch that several processes have, as if one process had the whole.

PyTorch's own SyncBatchNorm is for GPUs alone, and knows nothing of tasks that share a computation.
"""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.blocks import ONE_TURN, SharedBatchNorm, Turns
from utils.collectives import all_gather, mean_over_processes
from utils.distributed import num_processes
from utils.vectors import as_vector, fill_from_vector

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class SynchronisedBatchNorm(SharedBatchNorm):
    """A SharedBatchNorm with the statistics of the whole batch in training; every process has an equal part of it."""

    @classmethod
    def of(cls, norm: SharedBatchNorm) -> "SynchronisedBatchNorm":
        """The same norm, with the very same parameters and running statistics."""
        synchronised = cls(norm.num_features, norm.eps, norm.momentum).train(norm.training)
        synchronised.weight, synchronised.bias = norm.weight, norm.bias
        for name, average in norm.named_buffers():
            setattr(synchronised, name, average)
        return synchronised

    def forward(self, x: Tensor, turns: Turns = ONE_TURN) -> Tensor:
        """As `SharedBatchNorm.forward`; `x` [N, C, ...] is this process's part."""
        if not self.training:
            return super().forward(x, turns)
        mean, variance = self._statistics(x)
        self.num_batches_tracked.add_(len(turns.own))
        momentum, size = turns.momentum(self.momentum), num_processes() * x.numel() // self.num_features
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (size / (size - 1)), momentum)
        return _Normalisation.apply(x, self.weight, self.bias, mean, variance, self.eps)

    @torch.no_grad()
    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the whole batch, [C] each, of the parameters' type."""
        # Where there are averages to be moved, statistics of float16 and bfloat16 are float32. Here nobody needs them.
        averages = self.running_mean.clone(), self.running_var.clone()
        own = torch.stack(torch.batch_norm_update_stats(x, *averages, 0.0))
        means, variances = all_gather(own).unbind(dim=1)
        return means.mean(dim=0), variances.mean(dim=0) + means.var(dim=0, unbiased=False)


class _Normalisation(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, where mean and variance depend on `x` in all processes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        # With fixed statistics; `of_weight` is the sum of gradient * normalised x, `of_bias` that of the gradient.
        of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        # What passes through the statistics: scale * (mean gradient + normalised x * mean of gradient * normalised x).
        scale = weight / (variance + ctx.eps).sqrt()
        of_variance, of_mean = mean_over_processes(torch.stack([of_weight, of_bias])) * (len(weight) / x.numel())
        of_x -= F.batch_norm(x, mean, variance, scale * of_variance, scale * of_mean, training=False, eps=ctx.eps)
        return of_x, of_weight, of_bias, None, None, None


def synchronise_norms(net: AnyModule) -> AnyModule:
    """Let the norms of a network have the statistics of the whole batch; where there is one process, they have."""
    if num_processes() > 1:
        for module in list(net.modules()):
            for name, child in module.named_children():
                if type(child) is SharedBatchNorm:
                    module.add_module(name, SynchronisedBatchNorm.of(child))
    return net


def average_statistics(net: nn.Module) -> None:
    """Let norms that are not synchronised have the mean of all processes' running statistics."""
    averages = [
        average
        for module in net.modules()
        if type(module) is SharedBatchNorm
        for average in (module.running_mean, module.running_var)
    ]
    if averages and num_processes() > 1:
        fill_from_vector(averages, mean_over_processes(as_vector(averages)))
