"""Activation checkpointing: less memory for more time (Chen et al., 2016).

The backward pass needs what the forward pass computed. Here little of it is kept, and the rest is computed again when
its turn comes, in two levels: of the blocks, sqrt(L) segments keep the features that they began with; computed again,
the blocks of one segment keep their inputs; and of one block everything is there. Stem and heads keep their inputs.
Results are the same to the last bit, dropout's masks included.
"""

from collections.abc import Callable, Sequence
from math import isqrt

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.blocks import ONE_TURN, GatedBlock, Turns
from models.shared_paths import Gates, RunPaths


class CountedOnce:
    """A computation that is done several times on one batch, of which BatchNorm's averages shall see the first."""

    def __init__(self, is_new: bool = True) -> None:
        self._is_new = is_new

    def turns(self, turns: Turns) -> Turns:
        """The turns of the next time."""
        first, self._is_new = self._is_new, False
        return turns if first else turns.again()

    def is_new(self) -> bool:
        """Whether the next time is the first."""
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
        """As `GatedBlock.skip`: there is little to save."""
        return self.block.skip(x, turns if self.is_new else turns.again())

    def execute(self, x: Tensor, skipped: Tensor, turns: Turns = ONE_TURN) -> Tensor:
        """As `GatedBlock.execute`."""
        counted = CountedOnce(self.is_new)

        def execute(x: Tensor, skipped: Tensor) -> Tensor:
            return self.block.execute(x, skipped, counted.turns(turns))

        return checkpoint(execute, x, skipped, use_reentrant=False, preserve_rng_state=False)


def checkpoint_blocks(run_paths: RunPaths) -> RunPaths:
    """The same way to run paths, over checkpointed blocks in checkpointed segments."""

    def run(blocks: Sequence[GatedBlock], features: dict[str, Tensor], gates: Gates) -> dict[str, Tensor]:
        length = isqrt(len(blocks))
        for first in range(0, len(blocks), length):
            segment = slice(first, first + length)
            own_gates = {task: path[segment] for task, path in gates.items()}
            features = run_segment(run_paths, blocks[segment], features, own_gates)
        return features

    return run


def run_segment(
    run_paths: RunPaths, blocks: Sequence[GatedBlock], features: dict[str, Tensor], gates: Gates
) -> dict[str, Tensor]:
    """Run paths through some blocks, and keep nothing but what they start from."""
    counted = CountedOnce()

    def run(features: dict[str, Tensor]) -> dict[str, Tensor]:
        is_new = counted.is_new()
        return run_paths([CheckpointedBlock(block, is_new) for block in blocks], features, gates)

    return checkpoint(run, features, use_reentrant=False, preserve_rng_state=False)


def run_checkpointed(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`module(x)`, computed again in the backward pass, with the same dropout."""
    return checkpoint(module, x, use_reentrant=False)


def run_stem_checkpointed(stem: nn.Module, x: Tensor, turns: Turns) -> Tensor:
    """`stem(x, turns)`, likewise."""
    counted = CountedOnce()
    return run_checkpointed(lambda x: stem(x, counted.turns(turns)), x)
