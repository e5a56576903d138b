"""Convolutions that compute what `nn.Conv2d` computes, and bear its parameters, where its own way is slow or unsafe.

On CPUs the gradient of weights is a few matrix products, which are faster than the libraries' own way. Most so in the
heads, which see a small map through a wide window: with a dilation of 24 and a map of 29x29, most of the nine taps of
the kernel look beyond the border almost everywhere. CPU libraries know how to leave that out of the output and of the
gradient of the input, but not of the gradient of the weights, where it costs up to eight times as much as what is
needed. In the blocks hardly a tap looks beyond the border, but the libraries' gradient comes in another order of memory
than the weights have, and is copied twice.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PointwiseConv(nn.Conv2d):
    """Convolution of kernel size 1: one matrix product over all pixels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H, W]; both in channels-last memory, else copies are made."""
        # In the order of channels-last memory, so that the gradient has the weights' strides: it need not be copied.
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(x.permute(0, 2, 3, 1), weight, self.bias).permute(0, 3, 1, 2)


class SubsamplingConv(nn.Conv2d):
    """Convolution of kernel size 1 without bias, of every `stride`-th row and column: the others are left out first.

    In PyTorch 2.15 the library's own, on CPUs without AVX-512, writes the gradient of fewer than 8 input channels
    beyond its memory.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H/stride, W/stride], rounded up."""
        rows, columns = self.stride
        return F.conv2d(x[:, :, ::rows, ::columns], self.weight, self.bias)


class BlockConv(nn.Conv2d):
    """3x3 convolution of a block, without bias, that keeps the size; its weights' gradient as `DilatedConv`'s.

    But not in bfloat16, in which the library is faster where nearly all taps see something.
    """

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H, W]."""
        if x.device.type != "cpu" or not torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        return _DilatedConvolution.apply(x, self.weight, None, self.dilation[0])


class DilatedConv(nn.Conv2d):
    """3x3 convolution with bias that keeps the size; on the CPU its weights' gradient is computed tap by tap."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H, W]."""
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        if torch.is_autocast_enabled("cpu"):
            x, *parameters = (value.to(torch.get_autocast_dtype("cpu")) for value in (x, self.weight, self.bias))
        else:
            parameters = [self.weight, self.bias]
        return _DilatedConvolution.apply(x, *parameters, self.dilation[0])


class _DilatedConvolution(torch.autograd.Function):
    """`F.conv2d`, with the gradient of the weights by `weight_gradient`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return F.conv2d(x, weight, bias, padding=dilation, dilation=dilation)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_input = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_input = input_gradient(gradient, x, weight, ctx.dilation)
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(gradient, x, ctx.dilation)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(dim=(0, 2, 3))
        return of_input, of_weight, of_bias, None


def input_gradient(gradient: Tensor, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Gradient of the input of a dilated 3x3 convolution, by PyTorch's own function."""
    dilations, stride, no_padding = [dilation, dilation], [1, 1], [0, 0]
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, dilations, dilations, False, no_padding, 1, [True, False, False]
    )[0]


def weight_gradient(gradient: Tensor, x: Tensor, dilation: int) -> Tensor:
    """Gradient of the weights of a dilated 3x3 convolution that keeps the size.

    For each tap of the kernel, the product of the outputs' gradients with the inputs that the tap looks at, over
    those places only where it does not look beyond the border.

    Args:
        gradient: of the output, [N, O, H, W].
        x: the input, [N, I, H, W].

    Returns:
        [O, I, 3, 3], in channels-last memory.
    """
    height, width = x.shape[2:]
    gradient, x = gradient.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1)
    out_channels, in_channels = gradient.shape[3], x.shape[3]
    of_weight = x.new_empty(out_channels, 3, 3, in_channels)
    # One place for what all taps look at: memory that is new for each would cost more than the copies themselves.
    of_outputs, inputs = gradient.new_empty(gradient.numel()), x.new_empty(x.numel())
    for row in range(3):
        out_rows, in_rows = inside(height, (row - 1) * dilation)
        for column in range(3):
            out_columns, in_columns = inside(width, (column - 1) * dilation)
            seen_from = as_matrix(gradient[:, out_rows, out_columns], of_outputs)
            of_weight[:, row, column] = seen_from.T @ as_matrix(x[:, in_rows, in_columns], inputs)
    return of_weight.permute(0, 3, 1, 2)


def as_matrix(pixels: Tensor, place: Tensor) -> Tensor:
    """Pixels [N, H, W, C] as rows [N * H * W, C]; unless they are that in memory, copied to a place of their size."""
    if not pixels.is_contiguous():
        pixels = place[: pixels.numel()].view(pixels.shape).copy_(pixels)
    return pixels.flatten(0, 2)


def inside(length: int, offset: int) -> tuple[slice, slice]:
    """Along one axis: the outputs whose input, `offset` further on, is no padding; and these inputs."""
    first, last = max(0, -offset), min(length, length - offset)
    last = max(first, last)
    return slice(first, last), slice(first + offset, last + offset)
