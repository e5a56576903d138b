"""The release's execution: one task after the other, every block computed, a skipped one multiplied by 0.

`run_shared_paths` gives the same features for less work. One thing differs: here the inputs of tasks that skip a
block move the block's BatchNorm statistics too, as they did when the published numbers were made.
"""

from collections.abc import Sequence

from torch import Tensor

from models.blocks import GatedBlock, Turns
from models.shared_paths import Gate, Gates


def run_task_by_task(blocks: Sequence[GatedBlock], features: dict[str, Tensor], gates: Gates) -> dict[str, Tensor]:
    """Each task's features after all blocks, starting from its own [N, C, H, W]; nothing is shared or left out."""
    return {task: _run_every_block(blocks, features[task], path, Turns(tasks=(task,))) for task, path in gates.items()}


def _run_every_block(blocks: Sequence[GatedBlock], x: Tensor, path: Sequence[Gate], turn: Turns) -> Tensor:
    for block, gate in zip(blocks, path, strict=True):
        skipped = block.skip(x, turn)
        x = gate * block.execute(x, skipped, turn) + (1 - gate) * skipped
    return x
