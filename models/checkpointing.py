"""Activation checkpointing: less memory for more time (Chen et al., 2016).

The backward pass needs what the forward pass computed. Here little of it is kept, and the rest is computed again when
its turn comes, in two levels: of the blocks, about sqrt(2 L) segments keep the features that they began with; computed
again, the blocks of one segment keep their inputs; and of one block everything is there. Stem and heads keep their
inputs.
Results are the same to the last bit, dropout's masks included. Where no gradient is asked for, nothing is kept anyway,
and all is run plainly.
"""

from collections.abc import Callable, Sequence
from math import isqrt
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.blocks import ONE_TURN, GatedBlock, IdentityShortcut, Turns
from models.shared_paths import Gates, RunPaths

Result = TypeVar("Result")


class CountedOnce:
    """A computation that is done several times on one batch, of which BatchNorm's averages shall see the first."""

    def __init__(self, is_new: bool = True) -> None:
        self._is_new = is_new

    def begin(self) -> bool:
        """Begin the computation; returns whether it is for the first time."""
        first, self._is_new = self._is_new, False
        return first


class CheckpointedBlock:
    """A gated block that keeps the inputs alone of what it executes.

    Args:
        is_new: whether this batch has not passed the block before.
    """

    def __init__(self, block: GatedBlock, is_new: bool) -> None:
        self.block = block
        self.is_new = is_new

    def skip(self, x: Tensor, turns: Turns = ONE_TURN) -> Tensor:
        """As `GatedBlock.skip`."""
        counted = CountedOnce(self.is_new)

        def skip(x: Tensor) -> Tensor:
            return self.block.skip(x, turns if counted.begin() else turns.again())

        if isinstance(self.block.shortcut, IdentityShortcut):
            return skip(x)
        return checkpointed(skip, x, preserve_rng_state=False)

    def execute(self, x: Tensor, skipped: Tensor, turns: Turns = ONE_TURN) -> Tensor:
        """As `GatedBlock.execute`."""
        counted = CountedOnce(self.is_new)

        def execute(x: Tensor, skipped: Tensor) -> Tensor:
            return self.block.execute(x, skipped, turns if counted.begin() else turns.again())

        return checkpointed(execute, x, skipped, preserve_rng_state=False)


def checkpoint_blocks(run_paths: RunPaths) -> RunPaths:
    """The same way to run paths, over checkpointed blocks in checkpointed segments."""

    def run(blocks: Sequence[GatedBlock], features: dict[str, Tensor], gates: Gates) -> dict[str, Tensor]:
        first = 0
        for length in segment_lengths(len(blocks)):
            segment = slice(first, first + length)
            own_gates = {task: path[segment] for task, path in gates.items()}
            features = run_segment(run_paths, blocks[segment], features, own_gates)
            first += length
        return features

    return run


def segment_lengths(num_blocks: int) -> list[int]:
    """From the first segment to the last: 5, 4, 3, 2, 1 for 15 blocks; what is over lengthens the first ones.

    When a segment's turn comes, those before it keep their beginnings, and it keeps what each of its blocks begins
    with: as much together for every segment, if each has one block less than the one before.
    """
    num_segments = (isqrt(8 * num_blocks + 1) - 1) // 2
    over = num_blocks - num_segments * (num_segments + 1) // 2
    return [num_segments - index + (index < over) for index in range(num_segments)]


def run_segment(
    run_paths: RunPaths, blocks: Sequence[GatedBlock], features: dict[str, Tensor], gates: Gates
) -> dict[str, Tensor]:
    """Run paths through some blocks, and keep nothing but what they start from."""
    counted = CountedOnce()

    def run(features: dict[str, Tensor]) -> dict[str, Tensor]:
        is_new = counted.begin()
        return run_paths([CheckpointedBlock(block, is_new) for block in blocks], features, gates)

    return checkpointed(run, features, preserve_rng_state=False)


def run_plainly(module: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """`module(*inputs)`, which keeps its activations."""
    return module(*inputs)


def run_checkpointed(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`module(x)`, computed again in the backward pass, with the same dropout."""
    return checkpointed(module, x, preserve_rng_state=True)


def run_stem_checkpointed(stem: nn.Module, x: Tensor, turns: Turns) -> Tensor:
    """`stem(x, turns)`, likewise."""
    counted = CountedOnce()
    return run_checkpointed(lambda x: stem(x, turns if counted.begin() else turns.again()), x)


def checkpointed(function: Callable[..., Result], *inputs: Any, preserve_rng_state: bool) -> Result:
    """`function(*inputs)`, which keeps its inputs alone.

    Args:
        preserve_rng_state: whether it draws random numbers, which must be the same when it is computed again.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=preserve_rng_state)
