"""The splits of an experiment as streams of batches whose classes are checked, and that are on their device."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import Sampler

from dataloaders import TEXT_DATASETS, open_dataset
from dataloaders.domainnet import encode_frame
from dataloaders.fdu_mtl import Reviews
from dataloaders.images import ImageFolder
from dataloaders.keys import Dataset
from dataloaders.loading import (
    BatchLoader,
    build_loader,
    evaluation_sampler,
    training_sampler,
)
from dataloaders.options import DataOptions
from dataloaders.sharding import BatchesInTurns, part_of_every_batch, refuse_unequal_parts
from dataloaders.transforms import subtract_mean
from envs.batches import ClassNames, inputs_of
from envs.losses import Batch
from envs.tasks import Task, check_classes, known_classes
from models.multitask import Inputs
from utils.config import DataloadSection
from utils.devices import on_device
from utils.distributed import barrier, num_processes, rank
from utils.errors import UserError


class BatchStream:
    """An endless stream of batches on the device; workers start with the first batch.

    Processes go from batch to batch together: where one has none, since a file is damaged, all end.
    """

    def __init__(self, loader: BatchLoader, device: torch.device) -> None:
        self._loader = loader
        self._device = device
        self._batches: Iterator[Batch] | None = None

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = on_device(self._loader, self._device)
        batch = next(self._batches)
        barrier()
        return batch


@dataclass(frozen=True)
class EvaluationBatches:
    """This process's batches of one evaluation, on the device; can be gone through again and again."""

    loader: BatchLoader
    num_batches: int
    device: torch.device

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Batch]:
        return on_device(self.loader, self.device)


class Data:
    """The splits of an experiment, opened once, as streams of batches.

    Several processes share the batches: each trains on an equal part of every batch, and evaluates batches of its own.

    Attributes:
        seed: key of every random draw of the pipeline.
        num_samples: split that is trained on -> number of samples, or {task: number} where tasks have their own.
        class_names: task -> class -> name, as far as the data tell.
        vocabulary: the words of texts, to be kept with the checkpoint; None for images.

    Args:
        training_splits: those that will be trained on, of `train`, `train1` and `train2`.
        evaluation_splits: those whose samples are taken as they are, of all splits.
        vocabulary: the words of texts as a checkpoint keeps them; None builds it from the train split.

    Raises:
        UserError: whatever is wrong with the data root and these splits, as far as it is known before files of samples
            are opened.
    """

    def __init__(
        self,
        settings: DataloadSection,
        tasks: Mapping[str, Task],
        seed: int,
        device: torch.device,
        training_splits: Sequence[str] = (),
        evaluation_splits: Sequence[str] = (),
        vocabulary: tuple[str, ...] | None = None,
    ) -> None:
        self.seed = seed
        self._num_workers = settings.num_workers
        self._known_classes, self._device = known_classes(tasks), device
        options = replace(data_options(settings, tasks, seed), vocabulary=vocabulary)
        self._training = {split: open_dataset(settings.dataset, options, split, True) for split in training_splits}
        self._evaluation = {split: open_dataset(settings.dataset, options, split, False) for split in evaluation_splits}
        self.num_samples = {split: num_samples_of(dataset) for split, dataset in self._training.items()}
        datasets = [part for opened in (self._training, self._evaluation) for part in parts_of(opened.values())]
        self.class_names = class_names_of([*self._training.values(), *self._evaluation.values()])
        self.vocabulary = next((dataset.vocabulary.words for dataset in datasets if isinstance(dataset, Reviews)), None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the data root, and about the cache where samples come from one."""
        opened = (*self._training.values(), *self._evaluation.values())
        return tuple(dict.fromkeys(notes_of(opened)))

    def with_seed(self, seed: int) -> "Data":
        """The same splits, with other random draws; nothing is opened again."""
        other = copy(self)
        other.seed = seed
        other._training = {split: with_seed(dataset, seed) for split, dataset in self._training.items()}
        return other

    def decoded(self) -> "Data":
        """The same splits, whose samples come from `dataload.cache`, where there is one.

        What it does not have is decoded now, which may take hours: all else that can be wrong is looked for before.

        Raises:
            UserError: a file of samples cannot be read, or the cache cannot be written.
        """
        other = copy(self)
        other._training = {split: decoded(dataset) for split, dataset in self._training.items()}
        other._evaluation = {split: decoded(dataset) for split, dataset in self._evaluation.items()}
        return other

    def refuse_unequal_parts(self, batch_size: int) -> None:
        """Raise `UserError` where processes could not share the batches of training equally."""
        refuse_unequal_parts(self.num_samples, batch_size, num_processes())

    def batches_per_pass(self, split: str, batch_size: int) -> int:
        """Number of batches in one pass over a split, over its largest task where tasks have their own inputs."""
        return training_sampler(self._training[split], batch_size, self.seed, split).batches_per_pass

    def training(self, split: str, batch_size: int, start: int = 0) -> BatchStream:
        """Augmented batches, endlessly, from batch number `start` on; tasks with own inputs have `batch_size` each."""
        dataset = self._training[split]
        sampler = training_sampler(dataset, batch_size, self.seed, split, start)
        own = part_of_every_batch(sampler, rank(), num_processes())
        return BatchStream(self._loader(dataset, own), self._device)

    def evaluation(self, split: str, batch_size: int, whole: bool, most: int | None = None) -> EvaluationBatches:
        """Samples as they are, always in the same order.

        Args:
            whole: keeps a last short batch.
            most: batches, of all processes together; None for all there are.
        """
        return self._evaluated_batches(split, batch_size, whole, most, rank(), num_processes())

    def first_samples(self, split: str, number: int) -> EvaluationBatches:
        """The first samples of an evaluation split, one by one, for one process that looks at them alone."""
        return self._evaluated_batches(split, batch_size=1, whole=True, most=number, part=0, num_parts=1)

    def example(self, split: str) -> Inputs:
        """The first input, or that of each task, of an evaluation split, as a batch of 1 on the CPU."""
        dataset = self._evaluation[split]
        loader = build_loader(dataset, evaluation_sampler(dataset, 1, keep_last=True), num_workers=0, pin_memory=False)
        return inputs_of(next(iter(loader)))

    def _evaluated_batches(
        self, split: str, batch_size: int, whole: bool, most: int | None, part: int, num_parts: int
    ) -> EvaluationBatches:
        dataset = self._evaluation[split]
        sampler = evaluation_sampler(dataset, batch_size, keep_last=whole)
        own = BatchesInTurns(sampler, part, num_parts, most)
        return EvaluationBatches(self._loader(dataset, own), len(own), self._device)

    def _loader(self, dataset: Dataset | dict[str, Dataset], sampler: Sampler) -> BatchLoader:
        check = partial(check_classes, self._known_classes)
        return build_loader(dataset, sampler, self._num_workers, self._device.type == "cuda", check)


def data_options(settings: DataloadSection, tasks: Mapping[str, Task], seed: int) -> DataOptions:
    """What the configuration asks of its data set."""
    return DataOptions.of(settings, {task.target: task.num_channels for task in tasks.values()}, seed)


def with_seed(dataset: Dataset | dict[str, Dataset], seed: int) -> Dataset | dict[str, Dataset]:
    """A data set, or that of each task, whose augmentation draws from another seed."""
    if isinstance(dataset, dict):
        return {task: with_seed(own, seed) for task, own in dataset.items()}
    other = copy(dataset)
    other.seed = seed
    return other


def decoded(dataset: Dataset | dict[str, Dataset]) -> Dataset | dict[str, Dataset]:
    """A data set, or that of each task, with samples from its cache, if it can have one."""
    if isinstance(dataset, dict):
        return {task: decoded(own) for task, own in dataset.items()}
    return dataset.decoded() if hasattr(dataset, "decoded") else dataset


def num_samples_of(dataset: Dataset | dict[str, Dataset]) -> int | dict[str, int]:
    """How many samples a data set, or that of each task, has."""
    return {task: len(own) for task, own in dataset.items()} if isinstance(dataset, dict) else len(dataset)


def notes_of(opened: Iterable[Dataset | dict[str, Dataset]]) -> Iterator[str]:
    """What the data sets leave to be assumed; of tasks with inputs of their own, the first one speaks for all."""
    for dataset in opened:
        if isinstance(dataset, dict):
            first, *others = dataset.values()
            yield from (f"{note}, and likewise of {len(others)} more" if others else note for note in first.notes)
        else:
            yield from dataset.notes


def class_names_of(opened: Iterable[Dataset | dict[str, Dataset]]) -> ClassNames:
    """Those that any split of a task with inputs of its own tells."""
    names: dict[str, dict[int, str]] = {}
    for dataset in opened:
        if isinstance(dataset, dict):
            for task, own in dataset.items():
                names[task] = names.get(task, {}) | own.class_names
    return names


def parts_of(opened: Iterable[Dataset | dict[str, Dataset]]) -> list[Dataset]:
    """The data sets themselves, those of tasks with inputs of their own one by one."""
    return [part for dataset in opened for part in (dataset.values() if isinstance(dataset, dict) else [dataset])]


def own_images(
    folder: Path, settings: DataloadSection, tasks: Mapping[str, Task], device: torch.device
) -> EvaluationBatches:
    """The images of a folder ("img" and "name"), one by one, for all tasks, in the form that their network takes.

    Raises:
        UserError: as `ImageFolder`, and where the tasks are about texts.
    """
    if settings.dataset in TEXT_DATASETS:
        raise UserError(f"--images: {settings.dataset} holds texts; only networks for images look at images.")
    encode = subtract_mean
    if not all(task.per_pixel for task in tasks.values()):
        encode = partial(encode_frame, size=data_options(settings, tasks, seed=0).required_crop_size)
    images = ImageFolder(folder, encode)
    sampler = evaluation_sampler(images, batch_size=1, keep_last=True)
    loader = build_loader(images, sampler, settings.num_workers, device.type == "cuda")
    return EvaluationBatches(loader, len(sampler), device)
