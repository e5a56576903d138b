"""Paths that start from inputs of their own, in one batch wherever they execute the same block: for inference.

Where every task has an image or text of its own, no computation is the same as another's. But blocks treat the inputs
of a batch apart from each other, unless BatchNorm takes statistics of them, so that inputs of several tasks can be one
batch: weights are read once, and small maps fill the machine.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from models.blocks import GatedBlock
from models.shared_paths import Gate, Gates, group_by_tensor, run_shared_paths, skips


def run_batched_paths(blocks: Sequence[GatedBlock], features: dict[str, Tensor], gates: Gates) -> dict[str, Tensor]:
    """As `run_shared_paths`, under gates of 1 and 0, by blocks whose norms are not in training.

    Tasks that have their input in common with some of the others, but not with all, are computed one by one.
    """
    features = {task: features[task] for task in gates}
    if len(group_by_tensor(features)) == 1:
        return run_shared_paths(blocks, features, gates)  # they have the input in common
    for index, block in enumerate(blocks):
        features = pass_block(block, features, {task: path[index] for task, path in gates.items()})
    return features


def pass_block(block: GatedBlock, features: dict[str, Tensor], gates: Mapping[str, Gate]) -> dict[str, Tensor]:
    """Pass the features of all tasks through a block: those that execute it together, the others one by one."""
    executing = [task for task, gate in gates.items() if not skips(gate)]
    executed = in_batches(lambda x: block.execute(x, block.skip(x)), [features[task] for task in executing])
    after = dict(zip(executing, executed, strict=True))
    return {task: after[task] if task in after else block.skip(x) for task, x in features.items()}


def in_batches(run: Callable[[Tensor], Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """`run(x)` of each input [N, ...], those of one shape in one batch."""
    outputs: dict[int, Tensor] = {}
    for shape in dict.fromkeys(x.shape[1:] for x in inputs):
        alike = [number for number, x in enumerate(inputs) if x.shape[1:] == shape]
        batch = [inputs[number] for number in alike]
        together = torch.cat(batch) if len(batch) > 1 else batch[0]
        outputs |= zip(alike, run(together).split([len(x) for x in batch]), strict=True)
    return [outputs[number] for number in range(len(inputs))]
