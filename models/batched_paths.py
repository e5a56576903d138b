"""Paths that start from inputs of their own, in one batch wherever they execute the same block: for inference.

Where every task has an image or text of its own, no computation is the same as another's. But blocks treat the inputs
of a batch apart from each other, unless BatchNorm takes statistics of them, so that inputs of several tasks can be one
batch: weights are read once, and small maps fill the machine.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.blocks import GatedBlock
from models.shared_paths import Gates, Group, group_by_tensor, run_shared_paths, skips


def run_batched_paths(blocks: Sequence[GatedBlock], features: dict[str, Tensor], gates: Gates) -> dict[str, Tensor]:
    """As `run_shared_paths`, under gates of 1 and 0, by blocks whose norms are not in training."""
    groups = group_by_tensor({task: features[task] for task in gates})
    if len(groups) == 1:
        return run_shared_paths(blocks, features, gates)  # they have the input in common
    for index, block in enumerate(blocks):
        skipping = {task for task in gates if skips(gates[task][index])}
        groups = pass_block(block, groups, skipping)
    after = {task: x for x, tasks in groups for task in tasks}
    return {task: after[task] for task in gates}


def pass_block(block: GatedBlock, groups: Sequence[Group], skipping: set[str]) -> list[Group]:
    """Pass all groups through a block: those with tasks that execute it together, the others one by one."""
    executing = [(x, [task for task in tasks if task not in skipping]) for x, tasks in groups]
    executing = [(x, tasks) for x, tasks in executing if tasks]
    executed = in_batches(lambda x: block.execute(x, block.skip(x)), [x for x, _ in executing])
    left = [(x, [task for task in tasks if task in skipping]) for x, tasks in groups]
    return [
        *((y, tasks) for y, (_, tasks) in zip(executed, executing, strict=True)),
        *((block.skip(x), tasks) for x, tasks in left if tasks),
    ]


def in_batches(run: Callable[[Tensor], Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """`run(x)` of each input [N, ...], those of one shape in one batch."""
    outputs: dict[int, Tensor] = {}
    for shape in dict.fromkeys(x.shape[1:] for x in inputs):
        alike = [number for number, x in enumerate(inputs) if x.shape[1:] == shape]
        batch = [inputs[number] for number in alike]
        together = torch.cat(batch) if len(batch) > 1 else batch[0]
        outputs |= zip(alike, run(together).split([len(x) for x in batch]), strict=True)
    return [outputs[number] for number in range(len(inputs))]
