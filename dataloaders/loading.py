"""Which samples form which batch, and the DataLoader that fetches them.

A data set is asked for keys (pass number, index), and every random draw comes from a generator keyed by
(seed, split, pass, index), never from global state. So the number of workers, a resume or the number of
processes changes no batch.

Where all tasks share each image there is one data set. Where tasks have inputs of their own (domains, texts)
there is {task: data set}, and a step takes one batch of every task:

- shared    {"img": [N, ...], one entry or more per target, "name": [N names]}
- their own {"img" or "text": {task: [N, ...]}, task: its target [N, ...], "name": {task: [N names]}}
"""

import itertools
import multiprocessing
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.queues import Queue
from operator import itemgetter
from types import TracebackType

import cv2
import torch
from torch.utils import data
from torch.utils.data import DataLoader, Sampler, default_collate

from dataloaders.keys import Dataset, Key, keyed_generator
from dataloaders.processes import obey_parent_alone, signals_held_back
from utils.errors import UserError
from utils.faults import explanation
from utils.memory import return_freed_memory

TaskKey = tuple[str, Key]
"""A task with its own inputs, and the key of one of its samples."""

Check = Callable[[dict], object]
"""Looks at a batch, and raises `UserError` where something is wrong with it."""

SECONDS_TO_LEARN_OF_AN_END = 2
"""Of a worker's, once its connection is broken; a signal ends the waiting."""


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


class FixedOrderBatchSampler(Sampler[list[Key]]):
    """Evaluation batches: one pass, always in the same order.

    Args:
        order: the samples' indices.
        batch_size: samples per batch.
        keep_last: whether a last batch that is not full is kept (the whole split counts) or dropped (the
            release while training); as the only batch it is always kept.
    """

    def __init__(self, order: Sequence[int], batch_size: int, keep_last: bool):
        self.order = order
        self.batch_size = batch_size
        self.keep_last = keep_last

    def __len__(self) -> int:
        if self.keep_last:
            return -(-len(self.order) // self.batch_size)
        return max(1, len(self.order) // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in range(len(self)):
            first = batch * self.batch_size
            yield [(0, index) for index in self.order[first : first + self.batch_size]]


def mixed_order(num_samples: int, purpose: str) -> list[int]:
    """A random order, the same in every run: lists of classes are sorted by class, and their first part no sample."""
    return keyed_generator(0, purpose).permutation(num_samples).tolist()


class TaskwiseBatchSampler(Sampler[list[TaskKey]]):
    """One batch of every task side by side, for tasks with inputs of their own.

    Each task goes through its samples at its own pace: a small one begins its next pass while a large one is
    still in its first, and in evaluation a task that has run out is absent from the later batches.

    Args:
        samplers: task -> the sampler of its batches; all endless, or none.
    """

    def __init__(self, samplers: Mapping[str, PassBatchSampler] | Mapping[str, FixedOrderBatchSampler]):
        self.samplers = samplers

    @property
    def batches_per_pass(self) -> int:
        """Number of training batches in one pass over the largest task."""
        return max(sampler.batches_per_pass for sampler in self.samplers.values())

    def __len__(self) -> int:
        return max(map(len, self.samplers.values()))

    def __iter__(self) -> Iterator[list[TaskKey]]:
        for batches in itertools.zip_longest(*self.samplers.values(), fillvalue=()):
            yield [(task, key) for task, keys in zip(self.samplers, batches, strict=True) for key in keys]


def training_sampler(
    dataset: Dataset | Mapping[str, Dataset], batch_size: int, seed: int, split: str, start: int = 0
) -> PassBatchSampler | TaskwiseBatchSampler:
    """Endless training batches of a data set, or of every task's own; arguments as of `PassBatchSampler`."""
    if isinstance(dataset, Mapping):
        samplers = {
            task: PassBatchSampler(len(own), batch_size, seed, f"{split} of {task}", start)
            for task, own in dataset.items()
        }
        return TaskwiseBatchSampler(samplers)
    return PassBatchSampler(len(dataset), batch_size, seed, split, start)


def evaluation_sampler(
    dataset: Dataset | Mapping[str, Dataset], batch_size: int, keep_last: bool
) -> FixedOrderBatchSampler | TaskwiseBatchSampler:
    """Evaluation batches of a data set, in the order of its files, or of every task's own, each in a mixed order."""
    if isinstance(dataset, Mapping):
        samplers = {
            task: FixedOrderBatchSampler(mixed_order(len(own), f"evaluation of {task}"), batch_size, keep_last)
            for task, own in dataset.items()
        }
        return TaskwiseBatchSampler(samplers)
    return FixedOrderBatchSampler(range(len(dataset)), batch_size, keep_last)


class SampleError(Exception):
    """A sample that could not be made, for a reason that its data set did not foresee: the error's cause."""


def fetch(dataset: Dataset, key: Key) -> dict:
    """The sample of a key.

    Raises: UserError of the data set; `SampleError`, which names the sample, for everything else. A data set may tell
    its `split`, and its `source_of(index)`, the file that a sample is made from.
    """
    try:
        return dataset[key]
    except UserError:
        raise
    except Exception as error:
        pass_number, index = key
        split = f" of split {dataset.split!r}" if hasattr(dataset, "split") else ""
        source = f" ({dataset.source_of(index)})" if hasattr(dataset, "source_of") else ""
        raise SampleError(f"sample {index}{split}{source} could not be made, in pass {pass_number}") from error


def collate(samples: Sequence[dict]) -> dict:
    """Samples -> batch: arrays become stacked tensors [N, ...], names a list.

    Raises: UserError for images of several sizes.
    """
    first = samples[0]
    for sample in samples:
        if "img" in first and sample["img"].shape != first["img"].shape:
            frames = f"{first['name']} ({_size(first)}) and {sample['name']} ({_size(sample)})"
            raise UserError(
                f"frames {frames} differ in size and cannot share a batch: "
                "bring all frames to one size, or use a batch size of 1"
            )
    return default_collate(samples)


def _size(sample: dict) -> str:
    return "x".join(str(length) for length in sample["img"].shape[1:])


class _Batches(data.Dataset, ABC):
    """The keys of a batch -> the batch, checked. An error that one sentence explains is returned in its place."""

    def __init__(self, check: Check | None):
        self.check = check

    @abstractmethod
    def batch(self, keys: list) -> dict:
        """Fetch the samples of the keys, and collate them."""

    def __getitem__(self, keys: list) -> dict | UserError:
        try:
            batch = self.batch(keys)
            if self.check:
                self.check(batch)
            return batch
        except UserError as error:
            # The file that was being read is not to blame for what the machine failed at.
            return UserError(explanation(error.__cause__) or str(error))
        except Exception as error:
            sentence = explanation(error)
            if sentence is None:
                raise
            return UserError(sentence)


class _SharedBatches(_Batches):
    """Batches of the data set that all tasks share."""

    def __init__(self, dataset: Dataset, check: Check | None):
        super().__init__(check)
        self.dataset = dataset

    def batch(self, keys: list[Key]) -> dict:
        return collate([fetch(self.dataset, key) for key in keys])


class _TaskwiseBatches(_Batches):
    """Batches of tasks with inputs of their own.

    The target of such a task bears the task's name. Everything else, input and name, is kept per task.
    """

    def __init__(self, datasets: Mapping[str, Dataset], check: Check | None):
        super().__init__(check)
        self.datasets = datasets

    def batch(self, keys: list[TaskKey]) -> dict:
        batch: dict = {}
        for task, of_task in itertools.groupby(keys, key=itemgetter(0)):
            collated = collate([fetch(self.datasets[task], key) for _, key in of_task])
            batch[task] = collated.pop(task)
            for name, values in collated.items():
                batch.setdefault(name, {})[task] = values
        return batch


class BatchLoader(DataLoader):
    """A DataLoader that raises an error with its own sentence, and whose workers end when this process wants them to.

    PyTorch's workers would replace the sentence by a whole traceback; here the error travels as a value in
    place of the batch, and is raised in the process that asked for it.
    """

    def __iter__(self) -> Iterator[dict]:
        with signals_held_back():
            batches = super().__iter__()
        try:
            for batch in batches:
                if isinstance(batch, UserError):
                    # A new error: through its traceback, `batch` would hold this frame, and so its workers.
                    raise UserError(str(batch))
                yield batch
        except (EOFError, ConnectionError) as error:
            # A worker ended in the middle of handing over. PyTorch, whom the system tells of it, knows why.
            time.sleep(SECONDS_TO_LEARN_OF_AN_END)
            raise UserError(f"a data loading process ended ({error!r}): lower dataload.num_workers") from error


def _way_to_start() -> str:
    """How workers are started: as this system does, but not by a fork server, as Linux does since Python 3.14.

    That server knows neither which signals this process holds back nor which files of a cache it has open.
    """
    method = multiprocessing.get_start_method()
    return "fork" if method == "forkserver" else method


def _start_worker(worker: int) -> None:
    # One thread per worker: PyTorch sees to its own, OpenCV's would fight over the cores.
    cv2.setNumThreads(0)
    # As the process that trains may have it, arrays would go back to the system one by one: twice the time of a sample.
    return_freed_memory(at_once=False)
    obey_parent_alone()
    # Python would print what its threads fail at while they hand over a batch, and PyTorch wait for good for it.
    Queue._on_queue_feeder_error = _send_error_instead
    sys.excepthook = _end_where_nothing_can_be_sent


def _send_error_instead(queue: Queue, error: Exception, unsent: tuple[int, dict] | memoryview) -> None:
    """Hand over an error in place of a batch that could not be: memory or files may not suffice to share it."""
    if isinstance(unsent, memoryview):
        # Part of the message may be under way: no other would be understood.
        _end_where_nothing_can_be_sent(type(error), error, error.__traceback__)
    number, _ = unsent
    reason = f"a data loading process could not hand over a batch ({type(error).__name__}: {error})"
    queue.put((number, UserError(explanation(error) or reason)))


def _end_where_nothing_can_be_sent(kind: type, error: BaseException, traceback: TracebackType | None) -> None:
    """End this process, and say why by the exit code, unless it is the receiver that has gone."""
    if not isinstance(error, (EOFError, ConnectionError)):
        os._exit(getattr(error, "errno", None) or 1)


def _unchanged(batch: dict | UserError) -> dict | UserError:
    return batch


def build_loader(
    dataset: Dataset | Mapping[str, Dataset],
    sampler: Sampler,
    num_workers: int,
    pin_memory: bool,
    check: Check | None = None,
) -> BatchLoader:
    """The loader of `sampler`'s batches of `dataset`, dicts as above; the same workers serve all tasks.

    Args:
        dataset: what `sampler` was made for.
        num_workers: 0 loads in this process. Workers live as long as the loader.
        pin_memory: for faster copies to a CUDA device.
        check: is given each batch where it is made, so that a process that trains does not wait for it.

    Raises (while iterating): UserError of the data set and of `check`; frames of several sizes in one batch; a fault of
    the machine. `SampleError` for what the data set did not foresee. RuntimeError of PyTorch, at any moment, where a
    worker dies.
    """
    if num_workers == 0:
        cv2.setNumThreads(0)  # As in a worker: here it is PyTorch's threads that need the cores.
    return BatchLoader(
        (_TaskwiseBatches if isinstance(dataset, Mapping) else _SharedBatches)(dataset, check),
        # Whole batches are asked for, so that all that can fail in making one fails in one place.
        batch_size=None,
        sampler=sampler,
        collate_fn=_unchanged,
        num_workers=num_workers,
        pin_memory=pin_memory,
        multiprocessing_context=_way_to_start() if num_workers else None,
        worker_init_fn=_start_worker,
        persistent_workers=num_workers > 0,
        # A generator of its own: else each new iteration would draw from the global one, which training uses.
        generator=torch.Generator(),
    )
