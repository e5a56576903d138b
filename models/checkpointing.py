"""Activation checkpointing: less memory for more time (Chen et al., 2016).

The backward pass needs what the forward pass computed inside of blocks and heads. Here only their inputs are kept, and
the rest is computed again when its turn comes. Results are the same to the last bit, dropout's masks included.
"""

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from models.blocks import ONE_TURN, GatedBlock, Turns
from models.shared_paths import Gates, RunPaths


class CheckpointedBlock:
    """A gated block that keeps the inputs alone of what it executes."""

    def __init__(self, block: GatedBlock) -> None:
        self.block = block

    def skip(self, x: Tensor, turns: Turns = ONE_TURN) -> Tensor:
        """As `GatedBlock.skip`: there is little to save."""
        return self.block.skip(x, turns)

    def execute(self, x: Tensor, skipped: Tensor, turns: Turns = ONE_TURN) -> Tensor:
        """As `GatedBlock.execute`."""
        counted = iter([turns])

        def execute(x: Tensor, skipped: Tensor) -> Tensor:
            # BatchNorm's running statistics have seen this batch when it is computed again.
            return self.block.execute(x, skipped, next(counted, turns.again()))

        return checkpoint(execute, x, skipped, use_reentrant=False, preserve_rng_state=False)


def checkpoint_blocks(run_paths: RunPaths) -> RunPaths:
    """The same way to run paths, over checkpointed blocks."""

    def run(blocks: Sequence[GatedBlock], features: dict[str, Tensor], gates: Gates) -> dict[str, Tensor]:
        return run_paths([CheckpointedBlock(block) for block in blocks], features, gates)

    return run


def run_checkpointed(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`module(x)`, computed again in the backward pass, with the same dropout."""
    return checkpoint(module, x, use_reentrant=False)
