"""Many small tensors as one vector: one copy, or one message to other processes, instead of many."""

from collections.abc import Sequence

import torch
from torch import Tensor


def as_vector(tensors: Sequence[Tensor]) -> Tensor:
    """The values of tensors of one type, one tensor after the other, [sum of their sizes]; none gives [0]."""
    return torch.cat([tensor.flatten() for tensor in tensors]) if tensors else torch.empty(0)


def fill_from_vector(tensors: Sequence[Tensor], vector: Tensor) -> None:
    """Give tensors the values of a vector that `as_vector` made of ones of their sizes."""
    for tensor, values in zip(tensors, vector.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(values.view_as(tensor))
