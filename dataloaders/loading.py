"""Which frames form which batch, and the DataLoader that fetches them.

A data set is asked for keys (pass number, index), and every random draw comes from a generator keyed by
(seed, split, pass, index), never from global state. So the number of workers, a resume or the number of
processes changes no batch.
"""

import itertools
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from utils.errors import UserError

Key = tuple[int, int]


def keyed_generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """The generator of one draw: the same arguments give the same numbers in every process and every run."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), *numbers])


class PassBatchSampler(Sampler[list[Key]]):
    """Training batches without end: pass after pass over the data set, each in its own random order.

    Args:
        num_samples: length of the data set.
        batch_size: samples per batch. The rest of a pass that does not fill a batch is dropped, unless it is
            the pass's only batch.
        seed, split: key of the orders, together with the pass number.
        start: number of batches already consumed, so that a resumed run continues with the next one.
    """

    def __init__(self, num_samples: int, batch_size: int, seed: int, split: str, start: int = 0):
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.split = split
        self.start = start

    @property
    def batches_per_pass(self) -> int:
        """Number of batches in one pass over the data set, at least 1."""
        return max(1, self.num_samples // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        first_pass, consumed = divmod(self.start, self.batches_per_pass)
        for pass_number in itertools.count(first_pass):
            yield from self._batches_of(pass_number)[consumed:]
            consumed = 0

    def _batches_of(self, pass_number: int) -> list[list[Key]]:
        # NumPy seeds [a, b, c] and [a, b, c, 0] alike: the order needs a purpose that no sample shares.
        generator = keyed_generator(self.seed, f"order of {self.split}", pass_number)
        keys = [(pass_number, index) for index in generator.permutation(self.num_samples).tolist()]
        return [keys[batch * self.batch_size : (batch + 1) * self.batch_size] for batch in range(self.batches_per_pass)]


class FileOrderBatchSampler(Sampler[list[Key]]):
    """Evaluation batches: one pass in the order of the files.

    Args:
        num_samples: length of the data set.
        batch_size: samples per batch.
        keep_last: whether a last batch that is not full is kept (the whole split counts) or dropped (the
            release while training); as the only batch it is always kept.
    """

    def __init__(self, num_samples: int, batch_size: int, keep_last: bool):
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.keep_last = keep_last

    def __len__(self) -> int:
        if self.keep_last:
            return -(-self.num_samples // self.batch_size)
        return max(1, self.num_samples // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in range(len(self)):
            first = batch * self.batch_size
            yield [(0, index) for index in range(first, min(first + self.batch_size, self.num_samples))]


class BatchLoader(DataLoader):
    """A DataLoader that raises a data set's `UserError` with its own sentence.

    PyTorch's workers would replace the sentence by a whole traceback; here the error travels as a value in
    place of the batch, and is raised in the process that asked for it.
    """

    def __iter__(self) -> Iterator[dict]:
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                # A new error: through its traceback, `batch` would hold this frame, and so its workers.
                raise UserError(str(batch))
            yield batch


class _ErrorsAsValues(Dataset):
    """A data set whose `UserError` is returned in place of the sample."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getitem__(self, key: Key) -> dict | UserError:
        try:
            return self.dataset[key]
        except UserError as error:
            return error


def collate(samples: list[dict | UserError]) -> dict | UserError:
    """Samples -> batch: arrays become stacked tensors [N, ...], names a list; an error replaces all."""
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
    first = samples[0]
    for sample in samples:
        if sample["img"].shape != first["img"].shape:
            frames = f"{first['name']} ({_size(first)}) and {sample['name']} ({_size(sample)})"
            return UserError(
                f"frames {frames} differ in size and cannot share a batch: "
                "bring all frames to one size, or use a batch size of 1"
            )
    return default_collate(samples)


def _size(sample: dict) -> str:
    return "x".join(str(length) for length in sample["img"].shape[1:])


def _start_worker(worker: int) -> None:
    # One thread per worker: PyTorch sees to its own, OpenCV's would fight over the cores.
    cv2.setNumThreads(0)


def build_loader(dataset: Dataset, sampler: Sampler[list[Key]], num_workers: int, pin_memory: bool) -> BatchLoader:
    """The loader of `sampler`'s batches of `dataset`, as dicts of tensors [N, ...] and lists of names.

    Args:
        num_workers: 0 loads in this process. Workers live as long as the loader.
        pin_memory: for faster copies to a CUDA device.

    Raises (while iterating): UserError of the data set; frames of several sizes in one batch.
    """
    return BatchLoader(
        _ErrorsAsValues(dataset),
        batch_sampler=sampler,
        num_workers=num_workers,
        pin_memory=pin_memory,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        persistent_workers=num_workers > 0,
        # A generator of its own: else each new iteration would draw from the global one, which training uses.
        generator=torch.Generator(),
    )
