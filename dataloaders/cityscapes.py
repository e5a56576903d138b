"""CityScapes in the released format: classes and inverse depth (256x512; 2975 train, 500 val frames).

A data root holds `cityscape.json`: {split: [[img, depth, label2, label7, label19], ...]}, paths relative to the
root or absolute; splits train, test and, where given, train1 and train2 (the parts that weights and policy learn
from) and val. The files of a frame are npy:

- img                     float [H, W, 3], RGB, 0..1
- depth                   float [H, W, 1] or [H, W], inverse depth, 0 = not measured
- label2, label7, label19 integers [H, W], classes 0..1, 0..6, 0..18, -1 = ignore
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dataloaders.caching import Cache
from dataloaders.frames import (
    Frame,
    FrameDataset,
    encode_classes,
    encode_depth,
    find_file,
    read_array,
    read_split_file,
    refuse_other_sizes,
)
from dataloaders.options import DataOptions
from dataloaders.splits import complete_splits
from dataloaders.transforms import (
    Augmentations,
    Sample,
    TrainAugmentation,
    approach_inverse,
    choose_augmentation,
    mirror,
    resize,
    scale,
    subtract_mean,
)
from utils.errors import UserError

SPLIT_FILE = "cityscape.json"
FILES_OF_A_FRAME = ("img", "depth", "label2", "label7", "label19")
LABELS = {2: "label2", 7: "label7", 19: "label19"}

SMALL_SIZE = (128, 256)
IGNORED_CLASS = 255

# Images that were resized as floating-point numbers leave 0..1 by a rounding error.
ROUNDING = 1e-3

AUGMENTATIONS: Augmentations = {
    "release": partial(TrainAugmentation, scale=scale, mirror=mirror),
    "geometric": partial(TrainAugmentation, scale=approach_inverse, mirror=mirror),
}


class CityScapes(FrameDataset):
    """One split of CityScapes: key (pass number, index) -> sample, a dict of arrays and the frame's name.

    - "img"          float32 [3, H, W], BGR, 0..255 minus the mean, not rounded to whole numbers
    - "seg"          int64 [H, W], 255 = ignore
    - "depth"        float32 [1, H, W], inverse depth
    - "depth_valid"  bool [1, H, W], depth > 0
    - "name"         str

    Args:
        dataroot: folder with `cityscape.json`.
        split: "train", "train1", "train2", "test" or "val".
        targets: of "seg" and "depth" those wanted -> channels of the prediction. For "seg" this is the number of
            classes, which chooses the labels: 2, 7 or 19. Files of other targets are neither read nor needed.
        crop_size, augmentation: (height, width) and a name in `AUGMENTATIONS`, for training; both None for
            whole frames.
        small_res: resize every file that is of another size to 128x256.
        seed: key of the augmentation's draws, together with split, pass number and index.
        validation: "test" or "held_out", see `dataloaders.splits`.
        cache: where `decoded` keeps frames; None reads their files each time.

    Raises: UserError for another number of classes, for everything about the data root that can be known before a
    frame is opened, and, when one is fetched, for files that cannot be read or contradict the format.
    """

    def __init__(
        self,
        dataroot: str | Path,
        split: str,
        targets: Mapping[str, int],
        crop_size: tuple[int, int] | None = None,
        augmentation: str | None = None,
        small_res: bool = False,
        seed: int = 0,
        validation: str = "test",
        cache: Cache | None = None,
    ):
        dataroot = Path(dataroot)
        num_classes = targets.get("seg")
        files = ["img", *(choose_labels(num_classes) if target == "seg" else target for target in targets)]
        listed = read_split_file(find_file(dataroot, SPLIT_FILE), FILES_OF_A_FRAME, files)
        augment = choose_augmentation(AUGMENTATIONS, augmentation, crop_size)
        splits = complete_splits(listed, validation)
        self.readers = READERS | {"seg": partial(read_classes, num_classes=num_classes)}
        self.small_res = small_res
        settings = (num_classes, small_res)
        super().__init__(dataroot, ["img", *targets], splits, split, augment, seed, cache, settings)

    def read(self, frame: Frame) -> Sample:
        """The files of a frame, all of `SMALL_SIZE` if asked for; UserError if they are of several sizes else."""
        sample = {name: self.readers[name](path) for name, path in frame.items()}
        if self.small_res:
            return resize(sample, SMALL_SIZE)
        refuse_other_sizes(sample, frame)
        return sample

    def encode(self, sample: Sample) -> dict[str, np.ndarray]:
        """The arrays listed above."""
        encoded: dict[str, np.ndarray] = {}
        for name, array in sample.items():
            encoded |= ENCODERS[name](array)
        return encoded


def open_cityscapes(options: DataOptions, split: str, training: bool) -> CityScapes:
    """A split of CityScapes as a run asks for it: augmented for training, whole frames else."""
    return CityScapes(
        options.dataroot,
        split,
        options.targets,
        crop_size=options.required_crop_size if training else None,
        augmentation=options.augmentation if training else None,
        small_res=options.small_res,
        seed=options.seed,
        validation=options.validation,
        cache=options.cache,
    )


Hierarchy = Mapping[str, Mapping[str, Sequence[int]]]
"""Category (7) -> class (19) -> the values that mean it. A number is a place in this order."""


def label_tables(hierarchy: Hierarchy, foreground: Collection[str], num_values: int) -> dict[int, np.ndarray]:
    """Number of classes (2, 7, 19) -> the label of each value: [num_values] int8, -1 = ignore.

    The three are nested: every label is a function of the finer one.

    Args:
        foreground: the categories that are label 1 of 2; the others are label 0.
        num_values: values count from 0; those that are not in the hierarchy are ignored.
    """
    tables = {count: np.full(num_values, -1, np.int8) for count in LABELS}
    classes = [(category, list(values)) for category, own in hierarchy.items() for values in own.values()]
    for label, (category, values) in enumerate(classes):
        tables[2][values] = category in foreground
        tables[7][values] = list(hierarchy).index(category)
        tables[19][values] = label
    return tables


def choose_labels(num_classes: int) -> str:
    """The labels of so many classes; UserError if there are none."""
    if num_classes not in LABELS:
        raise UserError(
            f"tasks_num_class gives seg {num_classes} classes, but CityScapes has labels of 2, 7 or 19 classes: "
            "choose one of these numbers"
        )
    return LABELS[num_classes]


# Files -> sample


def read_image(path: Path) -> np.ndarray:
    """float32 [H, W, 3], RGB, 0..1."""
    image = read_array(path)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype.kind != "f":
        raise UserError(f"{path} must hold one array [H, W, 3] of floating-point RGB: convert it")
    # Written so that it is true of NaN, too.
    if not (image.min() >= -ROUNDING and image.max() <= 1 + ROUNDING):
        raise UserError(f"{path} holds values from {image.min():g} to {image.max():g}, but RGB is 0..1: divide by 255")
    return image.astype(np.float32, copy=False)


def read_classes(path: Path, num_classes: int) -> np.ndarray:
    """uint8 [H, W], -1 of the file as 255; whole numbers may be stored as floating-point numbers."""
    labels = read_array(path)
    if labels.ndim != 2 or labels.dtype.kind not in "iuf":
        raise UserError(f"{path} must hold one array [H, W] of class numbers: convert it")
    known = (labels >= -1) & (labels < num_classes)
    if labels.dtype.kind == "f":
        known &= labels == np.floor(labels)
    if not known.all():
        raise UserError(
            f"{path} holds {labels[~known][0]:g} where a class 0..{num_classes - 1} or -1 (ignore) should be: "
            "correct it, or choose the labels' number of classes in tasks_num_class"
        )
    return np.where(labels < 0, IGNORED_CLASS, labels.astype(np.int16)).astype(np.uint8)


def read_depth(path: Path) -> np.ndarray:
    """float32 [H, W], inverse depth; not positive, or no finite number, where nothing was measured."""
    depth = read_array(path)
    if depth.ndim == 3 and depth.shape[2] == 1:
        depth = depth[:, :, 0]
    if depth.ndim != 2 or depth.dtype.kind != "f":
        raise UserError(f"{path} must hold one array [H, W, 1] of floating-point inverse depth: convert it")
    return depth.astype(np.float32, copy=False)


READERS: dict[str, Callable[[Path], np.ndarray]] = {"img": read_image, "depth": read_depth}


# Sample -> arrays of a batch


def encode_image(image: np.ndarray) -> dict[str, np.ndarray]:
    """RGB 0..1 -> "img" of `CityScapes`."""
    return {"img": subtract_mean(image[:, :, ::-1] * np.float32(255))}


ENCODERS: dict[str, Callable[[np.ndarray], dict[str, np.ndarray]]] = {
    "img": encode_image,
    "seg": encode_classes,
    "depth": partial(encode_depth, unmeasured=0),
}
