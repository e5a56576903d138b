"""Run K execution paths through one list of blocks, no block computed twice for the same input.

Tasks that start from the same tensor start in one group: all tasks of a common image, and each alone where tasks have
inputs of their own. At each block a group splits where its tasks' gates differ; what the tasks of a group have in
common, `skip(x)` and `execute(x)`, is computed once, and `execute(x)` not at all where no task of the group needs it.
The result equals running the network once per task, BatchNorm statistics included.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from models.blocks import GatedBlock, Turns, take_turns

Gate = int | Tensor
"""1 executes the block, 0 skips it, a scalar tensor v in [0, 1] mixes: v * executed + (1 - v) * skipped."""

Gates = dict[str, Sequence[Gate]]
"""For each task to be run, one gate per block."""

HardGates = dict[str, list[int]]
"""Gates of 1 and 0 only: an architecture."""

RunPaths = Callable[[Sequence[GatedBlock], dict[str, Tensor], Gates], dict[str, Tensor]]
"""(blocks, what each task's path starts from, gates) -> each task's features after all blocks."""

Group = tuple[Tensor, list[str]]
"""A tensor and the tasks that have it in common."""


def all_blocks(tasks: Iterable[str], num_blocks: int) -> HardGates:
    """Gates by which every task executes every block: hard parameter sharing, and the warm-up phase."""
    return {task: [1] * num_blocks for task in tasks}


def decided(gates: Gates) -> HardGates:
    """Gate tensors that hold exactly 0 or 1 -> numbers, so that skipped blocks are left out."""
    tensors = [gate for path in gates.values() for gate in path if mixes(gate)]
    # One transfer for all: each `int(gate)` would wait for the device.
    values = iter(torch.stack(tensors).tolist() if tensors else [])
    return {task: [int(next(values)) if mixes(gate) else gate for gate in path] for task, path in gates.items()}


def group_by_tensor(features: dict[str, Tensor]) -> list[Group]:
    """Tasks in groups that hold the very same tensor, in the order of their first members."""
    groups: dict[int, Group] = {}
    for task, x in features.items():
        groups.setdefault(id(x), (x, []))[1].append(task)
    return list(groups.values())


def run_shared_paths(blocks: Sequence[GatedBlock], features: dict[str, Tensor], gates: Gates) -> dict[str, Tensor]:
    """Each task's features after all blocks.

    Args:
        features: task -> what its path starts from, [N, C, H, W] (texts: [N, C, T]).
        gates: of the same tasks.

    Returns:
        task -> [N, C', H', W']; tasks that start from the same tensor and whose gates agree in every block receive
        the same tensor.
    """
    order = list(gates)
    features = {task: features[task] for task in order}
    for index, block in enumerate(blocks):
        gate = {task: gates[task][index] for task in order}
        groups = group_by_tensor(features)
        passing = [tasks for _, tasks in groups]
        computing = [[task for task in tasks if not skips(gate[task])] for tasks in passing]
        all_turns = zip(take_turns(passing, order), take_turns(computing, order), strict=True)
        parts = [
            part
            for (x, tasks), (skip_turns, execute_turns) in zip(groups, all_turns, strict=True)
            for part in split_group(block, x, {task: gate[task] for task in tasks}, skip_turns, execute_turns)
        ]
        after = {task: x for x, tasks in parts for task in tasks}
        features = {task: after[task] for task in order}
    return features


def split_group(
    block: GatedBlock, x: Tensor, gates: dict[str, Gate], skip_turns: Turns, execute_turns: Turns
) -> list[Group]:
    """Pass a group of tasks with the common input `x` through one block.

    Tasks that mix part for good, since their gates are hardly ever equal; tasks with equal hard gates stay together.
    """
    mixing = [task for task, gate in gates.items() if mixes(gate)]
    skipping = [task for task, gate in gates.items() if skips(gate)]
    executing = [task for task in gates if task not in mixing and task not in skipping]
    skipped = block.skip(x, skip_turns)
    parts = []
    if skipping:
        parts.append((skipped, skipping))
    if executing or mixing:
        executed = block.execute(x, skipped, execute_turns)
        if executing:
            parts.append((executed, executing))
        for task in mixing:
            parts.append((torch.lerp(skipped, executed, gates[task].to(executed.dtype)), [task]))
    return parts


def mixes(gate: Gate) -> bool:
    """Whether a gate takes a share of both, executed and skipped."""
    return isinstance(gate, Tensor)


def skips(gate: Gate) -> bool:
    """Whether a gate leaves the block out."""
    return not mixes(gate) and gate == 0
