"""A network's parts compiled by torch.compile, one by one.

Which parts run on which tensors is a matter of gates, and changes while a policy is learned: the network as a whole
would be compiled again and again. Blocks, stem and heads remain the same. Parts of the same shape share what was
compiled; what differs among them are shapes, and the `Turns` of their BatchNorms.
"""

import os
import shutil
import sys
from collections.abc import Callable

import torch

from models.multitask import MultiTaskNet
from utils.errors import UserError

MOST_VARIANTS = 256
"""Of one class of parts, over all shapes, modes and turns. PyTorch's 8 would leave most of them uncompiled."""

COMPILER = "clang++" if sys.platform == "darwin" else "g++"
"""What torch.compile calls where CXX names no other."""


def compile_parts(net: MultiTaskNet, backend: str | Callable = "inductor", for_all_sizes: bool = False) -> None:
    """Compile stem, residual branches and heads when they are first run, each in seconds; weights keep their names.

    A copy is not compiled, but for one that is prepared for inference. Every way in which tasks share a block is a
    program of its own: with gates that are drawn as 0 or 1 there are so many that it does not pay.

    Args:
        backend: of torch.compile.
        for_all_sizes: compile once for images of all sizes, when a second one comes, instead of once for each. Not for
            training: BatchNorms compute with their place among the tasks, which must stay a fixed number.

    Raises:
        UserError: there is no C++ compiler, without which nothing can be compiled for a CPU.
    """
    if backend == "inductor" and not torch.cuda.is_available() and not has_compiler():
        raise UserError(
            f"train.compile needs a C++ compiler, but there is neither {COMPILER} nor one that CXX names: install one "
            "or set train.compile to False."
        )
    # DistributedDataParallel would have compiled parts split where gradients are exchanged. They are small enough, and
    # before PyTorch 2.5 those with autograd functions of their own cannot be split.
    torch._dynamo.config.optimize_ddp = False
    # Its name in PyTorch before 2.7, and since.
    for limit in ("cache_size_limit", "recompile_limit"):
        if hasattr(torch._dynamo.config, limit):
            setattr(torch._dynamo.config, limit, MOST_VARIANTS)
    residuals = [block.residual for block in net.backbone.blocks if hasattr(block, "residual")]
    for part in (net.backbone.stem, *residuals, *net.heads.values()):
        part.compile(backend=backend, dynamic=None if for_all_sizes else False)
    net.compiled_by = backend


def has_compiler() -> bool:
    """Whether torch.compile will find a C++ compiler."""
    return shutil.which(os.environ.get("CXX") or COMPILER) is not None
