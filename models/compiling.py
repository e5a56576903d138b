"""A network's parts compiled by torch.compile, one by one.

Which parts run on which tensors is a matter of gates, and changes while a policy is learned: the network as a whole
would be compiled again and again. Blocks, stem and heads remain the same. Parts of the same shape share what was
compiled; what differs among them are shapes, and the `Turns` of their BatchNorms.
"""

import os
import shutil

import torch

from models.multitask import MultiTaskNet
from utils.errors import UserError

MOST_VARIANTS = 256
"""Of one class of parts, over all shapes, modes and turns. PyTorch's 8 would leave most of them uncompiled."""

COMPILERS = ("c++", "g++", "clang++")


def compile_parts(net: MultiTaskNet, backend: str = "inductor") -> None:
    """Compile stem, residual branches and heads when they are first run, each in seconds; weights keep their names.

    Args:
        backend: of torch.compile.

    Raises:
        UserError: there is no C++ compiler, without which nothing can be compiled for a CPU.
    """
    if backend == "inductor" and not torch.cuda.is_available() and not has_compiler():
        raise UserError(
            f"train.compile needs a C++ compiler, but neither CXX nor {', '.join(COMPILERS)} is there: install one or "
            "set train.compile to False."
        )
    # Its name in PyTorch before 2.7, and since.
    for limit in ("cache_size_limit", "recompile_limit"):
        if hasattr(torch._dynamo.config, limit):
            setattr(torch._dynamo.config, limit, MOST_VARIANTS)
    for part in (net.backbone.stem, *(block.residual for block in net.backbone.blocks), *net.heads.values()):
        part.compile(backend=backend)


def has_compiler() -> bool:
    """Whether a C++ compiler is on the PATH, or is named by CXX."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), *COMPILERS) if name)
