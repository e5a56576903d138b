"""What a run asks of its data set, whichever it is; each data set takes what concerns it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dataloaders.caching import Cache
from utils.config import DataloadSection
from utils.errors import UserError


@dataclass(frozen=True)
class DataOptions:
    """What a run asks of its data set.

    Attributes:
        dataroot: folder of the data.
        targets: name of a target, as in the batch -> channels of the prediction, which for classes is their number.
        crop_size: (height, width) of training crops in pixels; None for data that are no images.
        augmentation: "release" or "geometric", see `dataloaders.transforms`.
        normals: NYU v2: "release" or "decoded".
        small_res: CityScapes: halve to 128x256.
        max_tokens: texts: length to which they are cut or filled.
        num_words: texts: size of the vocabulary.
        validation: "test" or "held_out", see `dataloaders.splits`.
        seed: key of the augmentation's draws.
        cache: where decoded images and their targets are kept; None for nowhere.
        vocabulary: texts: the words that a checkpoint was trained with; None takes them from the train split.
    """

    dataroot: Path
    targets: Mapping[str, int]
    crop_size: tuple[int, int] | None
    augmentation: str
    normals: str
    small_res: bool
    max_tokens: int
    num_words: int
    validation: str
    seed: int
    cache: Cache | None = None
    vocabulary: tuple[str, ...] | None = None

    @classmethod
    def of(cls, settings: DataloadSection, targets: Mapping[str, int], seed: int) -> "DataOptions":
        """What the configuration asks for, with the targets of its tasks."""
        return cls(
            dataroot=Path(settings.dataroot),
            targets=targets,
            crop_size=None
            if settings.crop_h is None or settings.crop_w is None
            else (settings.crop_h, settings.crop_w),
            augmentation=settings.augmentation,
            normals=settings.normals,
            small_res=settings.small_res,
            max_tokens=settings.max_tokens,
            num_words=settings.num_words,
            validation=settings.validation,
            seed=seed,
            cache=None if settings.cache is None else Cache(Path(settings.cache)),
        )

    @property
    def required_crop_size(self) -> tuple[int, int]:
        """The crop size, for data sets of images; UserError where the configuration has none."""
        if self.crop_size is None:
            raise UserError("dataload.crop_h and dataload.crop_w are missing: images need the size of their crops")
        return self.crop_size
