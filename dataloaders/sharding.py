"""Which part of the batches each of several processes takes.

While training, every process takes an equal part of every batch, so that together they take the steps that one process
would. In evaluation, each takes whole batches in turns: nothing is done twice, and no metric depends on how many
processes there are.
"""

from collections.abc import Iterator, Mapping
from itertools import islice

from torch.utils.data import Sampler

from dataloaders.loading import FixedOrderBatchSampler, Key, PassBatchSampler, TaskKey, TaskwiseBatchSampler
from utils.errors import UserError


class PartOfEveryBatch(Sampler[list[Key]]):
    """Of training batches whose length can be divided by `num_parts`, the samples of one part, counted from 0."""

    def __init__(self, sampler: PassBatchSampler, part: int, num_parts: int):
        self.sampler = sampler
        self.part = part
        self.num_parts = num_parts

    def __iter__(self) -> Iterator[list[Key]]:
        for keys in self.sampler:
            length = len(keys) // self.num_parts
            yield keys[self.part * length : (self.part + 1) * length]


def part_of_every_batch(
    sampler: PassBatchSampler | TaskwiseBatchSampler, part: int, num_parts: int
) -> PartOfEveryBatch | TaskwiseBatchSampler:
    """One process's part of every batch; where tasks have inputs of their own, of every task's."""
    if isinstance(sampler, TaskwiseBatchSampler):
        return TaskwiseBatchSampler(
            {task: PartOfEveryBatch(own, part, num_parts) for task, own in sampler.samplers.items()}
        )
    return PartOfEveryBatch(sampler, part, num_parts)


class BatchesInTurns(Sampler[list[Key] | list[TaskKey]]):
    """Of the first `most` evaluation batches (None: of all), every `num_parts`-th, from number `part` on."""

    def __init__(
        self, sampler: FixedOrderBatchSampler | TaskwiseBatchSampler, part: int, num_parts: int, most: int | None = None
    ):
        self.sampler = sampler
        self.part = part
        self.num_parts = num_parts
        self.most = len(sampler) if most is None else min(most, len(sampler))

    def __len__(self) -> int:
        return len(range(self.part, self.most, self.num_parts))

    def __iter__(self) -> Iterator[list[Key] | list[TaskKey]]:
        return islice(iter(self.sampler), self.part, self.most, self.num_parts)


def refuse_unequal_parts(num_samples: Mapping[str, int | Mapping[str, int]], batch_size: int, num_parts: int) -> None:
    """Raise `UserError` where the batches of a split cannot be divided into equal parts.

    Args:
        num_samples: split that is trained on -> number of samples, or {task: number} where tasks have their own.
    """
    for split, of_split in num_samples.items():
        for length in of_split.values() if isinstance(of_split, Mapping) else [of_split]:
            # A pass with fewer samples than a batch is one batch.
            samples = min(length, batch_size)
            if samples % num_parts:
                raise UserError(
                    f"split {split!r} has batches of {samples} samples, which cannot be shared equally by {num_parts} "
                    "processes: let train.batch_size be a multiple of their number, or use fewer."
                )
