"""A network for inference under fixed gates: the same predictions with less to compute.

BatchNorms become part of the convolutions before them, blocks that no task executes are dropped, weights are rounded
once where they are rounded at all, and on the CPU the wide 3x3 convolutions are Winograd's. Tasks with inputs of their
own go through a block as one batch. In float32, predictions differ by rounding alone, some 1e-5 of the largest.
"""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from models.batched_paths import run_batched_paths
from models.blocks import ONE_TURN, SharedBatchNorm, Turns
from models.compiling import compile_parts
from models.heads import LastConv
from models.multitask import MultiTaskNet
from models.shared_paths import HardGates, run_shared_paths
from models.winograd import Place, WinogradConv, has_winograd_form, is_winograd_faster


def prepare_for_inference(
    net: MultiTaskNet, gates: HardGates, compile_with: str | Callable | None = None
) -> MultiTaskNet:
    """The network to be called with these gates, or those of some of the tasks, in evaluation mode.

    Weights that stay as they are, most of them in the heads, are not copied: it is of use until the network learns on.
    It is not for torch's meta device, where nothing is rounded.

    Args:
        compile_with: torch.compile's backend; None compiles nothing. What is compiled has no Winograd convolutions:
            their choice by size would be compiled anew for every size.
    """
    prepared = deepcopy(net, same_weights(net)).eval()
    drop_dead_blocks(prepared, gates)
    fold_batch_norms(prepared)
    if net.precision != torch.float32:
        round_weights(prepared)
    prepared.run_paths = run_shared_paths if net.task_bn else run_batched_paths
    if compile_with:
        compile_parts(prepared, compile_with, for_all_sizes=not net.task_bn)
    elif net.precision == torch.float32 and next(net.parameters()).device.type == "cpu":
        use_winograd(prepared)
    return prepared


def same_weights(net: MultiTaskNet) -> dict[int, nn.Parameter]:
    """For `deepcopy`: parameters that ask for no gradients, and whose values lie where the network's do."""
    return {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in net.parameters()}


def drop_dead_blocks(net: MultiTaskNet, gates: HardGates) -> None:
    """Remove the residual branches that no task executes."""
    for block, of_tasks in zip(net.backbone.blocks, zip(*gates.values(), strict=True), strict=True):
        if not any(of_tasks):
            del block.residual


class Folded(nn.Module):
    """Where a BatchNorm was that is part of the convolution before it now."""

    def forward(self, x: Tensor, turns: Turns = ONE_TURN) -> Tensor:
        """The same tensor."""
        return x


def fold_batch_norms(net: nn.Module) -> None:
    """Scale and shift the convolutions' outputs by their weights; `conv2` is followed by `bn2`, and so on.

    BatchNorms of single tasks (`task_bn`) stay: the convolution is of all.
    """
    for module in list(net.modules()):
        for name, norm in list(module.named_children()):
            if isinstance(norm, SharedBatchNorm) and name.startswith("bn"):
                conv = name.replace("bn", "conv")
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), norm))
                setattr(module, name, Folded())


def round_weights(net: MultiTaskNet) -> None:
    """Keep convolutions in the network's precision, to which they would be rounded for every input anew."""
    for module in net.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d)) and not isinstance(module, LastConv):
            module.to(net.precision)


class FasterConv(nn.Module):
    """A convolution, and on the CPU its Winograd form once an input has a size at which that has less to do."""

    def __init__(self, conv: nn.Conv2d, places: tuple[Place, Place]) -> None:
        super().__init__()
        self.conv = conv
        self.places = places
        self.winograd: WinogradConv | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[N, I, H, W] -> [N, O, H, W]."""
        if x.device.type != "cpu" or x.requires_grad or not is_winograd_faster(self.conv, *x.shape[2:]):
            return self.conv(x)
        if self.winograd is None:
            # Only where it is used: its kernels take four times the memory.
            with torch.inference_mode(False), torch.no_grad():  # which they outlive
                self.winograd = WinogradConv(self.conv, self.places)
        return self.winograd(x)


def use_winograd(net: nn.Module) -> None:
    """Let every 3x3 convolution that keeps the size be Winograd's where that pays."""
    precision = next(net.parameters()).dtype
    places = Place(precision), Place(precision)
    for module in list(net.modules()):
        for name, conv in list(module.named_children()):
            if isinstance(conv, nn.Conv2d) and has_winograd_form(conv):
                setattr(module, name, FasterConv(conv, places))
