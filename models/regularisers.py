"""The two losses that shape the policy: sparsity and sharing.

Each exists in the release's form (the published numbers') and in the paper's. All take the logits {task: [L, 2]}
and weigh block l of L by `block_weights` [L].
"""

from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.policy import EXECUTE, SKIP

Logits = dict[str, Tensor]


def top_heavy_weights(num_blocks: int) -> Tensor:
    """(l + 1) / L for l = 0 .. L-1: the last block weighs 1 (release, `diff_sparsity_weights`)."""
    return torch.arange(1, num_blocks + 1) / num_blocks


def release_sparsity_weights(num_blocks: int, diff_sparsity_weights: bool, is_sharing: bool) -> Tensor:
    """The release's block weights of the sparsity loss: 2 (l + 1) / L, but only where the sharing loss is off."""
    if diff_sparsity_weights and not is_sharing:
        return 2 * top_heavy_weights(num_blocks)
    return torch.ones(num_blocks)


def release_sharing_weights(num_blocks: int, diff_sparsity_weights: bool) -> Tensor:
    """The release's block weights of the sharing loss."""
    return top_heavy_weights(num_blocks) if diff_sparsity_weights else torch.ones(num_blocks)


def paper_sharing_weights(num_blocks: int) -> Tensor:
    """(L - l) / L for l = 0 .. L-1 (equation 4): the bottom blocks are pressed hardest to agree.

    Counted from 0 as everywhere here, so that the last block is pressed too.
    """
    return top_heavy_weights(num_blocks).flip(0)


def release_sparsity(logits: Logits, num_open: int, block_weights: Tensor) -> Tensor:
    """Mean cross-entropy of the last `num_open` blocks' logits towards "skip", summed over tasks."""
    total = 0
    for task_logits in logits.values():
        active = task_logits[-num_open:]
        towards_skip = torch.full((len(active),), SKIP, device=active.device)
        cross_entropy = F.cross_entropy(active, towards_skip, reduction="none")
        total = total + (block_weights[-num_open:].to(active) * cross_entropy).mean()
    return total


def paper_sparsity(logits: Logits, num_open: int) -> Tensor:
    """Sum over tasks and the last `num_open` blocks of log P(execute) (equation 3)."""
    return sum(F.log_softmax(task[-num_open:], dim=-1)[:, EXECUTE].sum() for task in logits.values())


def release_sharing(logits: Logits, block_weights: Tensor) -> Tensor:
    """Weighted sum over pairs of tasks and all blocks of the distance of the raw execution logits."""
    return _pairwise_distance({task: values[:, EXECUTE] for task, values in logits.items()}, block_weights)


def paper_sharing(logits: Logits, block_weights: Tensor) -> Tensor:
    """Weighted sum over pairs of tasks and all blocks of the distance of P(execute) (equation 4)."""
    return _pairwise_distance(
        {task: torch.softmax(values, dim=-1)[:, EXECUTE] for task, values in logits.items()}, block_weights
    )


def _pairwise_distance(values: dict[str, Tensor], block_weights: Tensor) -> Tensor:
    """sum over pairs i < j and blocks l of weight[l] * |value_i[l] - value_j[l]|; 0 for a single task."""
    first = next(iter(values.values()))
    weights = block_weights.to(first)
    total = first.new_zeros(())
    for one, other in combinations(values.values(), 2):
        total = total + (weights * (one - other).abs()).sum()
    return total
