"""The splits of an experiment as streams of batches that are checked and on their device."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset, Sampler

from dataloaders import open_dataset
from dataloaders.images import ImageFolder
from dataloaders.loading import BatchLoader, FileOrderBatchSampler, PassBatchSampler, build_loader
from dataloaders.options import DataOptions
from envs.losses import Batch
from envs.tasks import Task, check_classes
from utils.config import DataloadSection
from utils.devices import to_device


@dataclass(frozen=True)
class Preparation:
    """The last step of a batch before the network: class numbers checked, tensors moved to the device."""

    tasks: Mapping[str, Task]
    device: torch.device

    def __call__(self, batch: Batch) -> Batch:
        check_classes(self.tasks, batch)
        return to_device(batch, self.device)


class BatchStream:
    """An endless stream of checked batches on the device; workers start with the first batch."""

    def __init__(self, loader: BatchLoader, batches_per_pass: int, prepare: Preparation) -> None:
        self.batches_per_pass = batches_per_pass
        self._loader = loader
        self._prepare = prepare
        self._batches: Iterator[Batch] | None = None

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = iter(self._loader)
        return self._prepare(next(self._batches))


@dataclass(frozen=True)
class EvaluationBatches:
    """The batches of one evaluation; can be gone through again and again."""

    loader: BatchLoader
    num_batches: int
    prepare: Preparation

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Batch]:
        return map(self.prepare, self.loader)


class Data:
    """The splits of an experiment, opened once, as streams of batches.

    Attributes:
        seed: key of every random draw of the pipeline.
        notes: what the user should know about the data root.

    Args:
        training_splits: those that will be trained on, of `train`, `train1` and `train2`.
        evaluation_splits: those whose frames are taken as they are, of `val` and `test`.

    Raises:
        UserError: whatever is wrong with the data root and these splits, before anything is computed.
    """

    def __init__(
        self,
        settings: DataloadSection,
        tasks: Mapping[str, Task],
        seed: int,
        device: torch.device,
        training_splits: Sequence[str] = (),
        evaluation_splits: Sequence[str] = (),
    ) -> None:
        self.seed = seed
        self._num_workers = settings.num_workers
        self._prepare = Preparation(tasks, device)
        options = DataOptions(
            dataroot=Path(settings.dataroot),
            targets={task.target: task.num_channels for task in tasks.values()},
            crop_size=(settings.crop_h, settings.crop_w),
            augmentation=settings.augmentation,
            normals=settings.normals,
            small_res=settings.small_res,
            validation=settings.validation,
            seed=seed,
        )
        self._training = {split: open_dataset(settings.dataset, options, split, True) for split in training_splits}
        self._evaluation = {split: open_dataset(settings.dataset, options, split, False) for split in evaluation_splits}
        datasets = [*self._training.values(), *self._evaluation.values()]
        self.notes = tuple(dict.fromkeys(note for dataset in datasets for note in dataset.notes))

    def training(self, split: str, batch_size: int, start: int = 0) -> BatchStream:
        """Augmented batches, endlessly, from batch number `start` on."""
        dataset = self._training[split]
        sampler = PassBatchSampler(len(dataset), batch_size, self.seed, split, start)
        return BatchStream(self._loader(dataset, sampler), sampler.batches_per_pass, self._prepare)

    def evaluation(self, split: str, batch_size: int, whole: bool) -> EvaluationBatches:
        """Frames as they are, in file order; `whole` keeps a last short batch."""
        dataset = self._evaluation[split]
        sampler = FileOrderBatchSampler(len(dataset), batch_size, keep_last=whole)
        return EvaluationBatches(self._loader(dataset, sampler), len(sampler), self._prepare)

    def image_size(self, split: str) -> tuple[int, int]:
        """(height, width) of the first frame of an evaluation split."""
        height, width = self._evaluation[split][0, 0]["img"].shape[-2:]
        return height, width

    def _loader(self, dataset: Dataset, sampler: Sampler) -> BatchLoader:
        return build_loader(dataset, sampler, self._num_workers, self._prepare.device.type == "cuda")


@dataclass(frozen=True)
class ImageBatches:
    """A folder of one's own images, one per batch ("img" and "name"), on the device."""

    loader: BatchLoader
    device: torch.device

    def __iter__(self) -> Iterator[Batch]:
        return (to_device(batch, self.device) for batch in self.loader)


def own_images(folder: Path, num_workers: int, device: torch.device) -> ImageBatches:
    """The images of a folder; raises `UserError` as `ImageFolder`."""
    images = ImageFolder(folder)
    sampler = FileOrderBatchSampler(len(images), batch_size=1, keep_last=True)
    return ImageBatches(build_loader(images, sampler, num_workers, device.type == "cuda"), device)
