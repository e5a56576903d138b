"""A network's parts compiled by torch.compile, one by one.

Which parts run on which tensors is a matter of gates, and changes while a policy is learned: the network as a whole
would be compiled again and again. Blocks, stem and heads remain the same. Parts of the same shape share what was
compiled; what differs among them are shapes, and the `Turns` of their BatchNorms.
"""

import os
import shutil
import sys
from collections.abc import Callable
from inspect import signature

import torch

from models.multitask import MultiTaskNet
from utils.errors import UserError

MOST_VARIANTS = 256
"""Of one class of parts, over all shapes, modes and turns. PyTorch's 8 would leave most of them uncompiled."""

COMPILERS = {"CXX": ["clang++" if sys.platform == "darwin" else "g++"], "CC": ["gcc", "clang"]}
"""What torch.compile calls for CPUs (C++) and for GPUs (C): the variable that may name it, and else one of these."""


def compile_parts(net: MultiTaskNet, backend: str | Callable = "inductor", for_all_sizes: bool = False) -> None:
    """Compile stem, residual branches and heads when they are first run, each in seconds; weights keep their names.

    A copy is not compiled. Every way in which tasks share a block is a program of its own: with gates that are drawn as
    0 or 1 there are so many that it does not pay.

    Args:
        backend: of torch.compile.
        for_all_sizes: compile once for images of all sizes, when a second one comes, instead of once for each. Not for
            training: BatchNorms compute with their place among the tasks, which must stay a fixed number.

    Raises:
        UserError: there is no compiler of C++, without which nothing can be compiled for a CPU, or of C, for a GPU.
    """
    language, variable = ("C", "CC") if torch.cuda.is_available() else ("C++", "CXX")
    if backend == "inductor" and not has_compiler(variable):
        raise UserError(
            f"train.compile needs a {language} compiler, but there is neither {' nor '.join(COMPILERS[variable])} nor "
            f"one that {variable} names: install one or set train.compile to False."
        )
    # DistributedDataParallel would have compiled parts split where gradients are exchanged. They are small enough, and
    # before PyTorch 2.5 those with autograd functions of their own cannot be split.
    torch._dynamo.config.optimize_ddp = False
    limit = limit_of_variants()
    residuals = [block.residual for block in net.backbone.blocks if hasattr(block, "residual")]
    for part in (net.backbone.stem, *residuals, *net.heads.values()):
        part.compile(backend=backend, dynamic=None if for_all_sizes else False, **limit)


def limit_of_variants() -> dict[str, int]:
    """What torch.compile is given to allow `MOST_VARIANTS`; before it could be given that, they are allowed to all.

    Where it can, settings hold for the thread that makes them: not for what is computed again in a GPU's backward pass.
    """
    if "recompile_limit" in signature(torch.compile).parameters:
        return {"recompile_limit": MOST_VARIANTS}
    # Its name in PyTorch before 2.7, and since.
    for limit in ("cache_size_limit", "recompile_limit"):
        if hasattr(torch._dynamo.config, limit):
            setattr(torch._dynamo.config, limit, MOST_VARIANTS)
    return {}


def has_compiler(variable: str) -> bool:
    """Whether torch.compile will find the compiler that this variable of the environment may name."""
    named = os.environ.get(variable)
    return any(shutil.which(compiler) for compiler in ([named] if named else COMPILERS[variable]))
