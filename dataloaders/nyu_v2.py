"""NYU v2 in the released format: classes, surface normals and depth (480x640; 795 train, 654 test frames).

A data root holds `nyu_v2_3task.json`: {split: [[img, seg, normal, depth], ...]}, paths relative to the root
or absolute; splits train, test and, where given, train1 and train2 (the parts that weights and policy learn
from) and val. Without that file it holds folders img/ seg/ normal_mask/ depth/, whose common names are one
split for everything. The files of a frame:

- img      png, BGR once read
- seg      png, one channel, classes 0..39, 255 = ignore
- normal   png, (n + 1) / 2 * 255, (255, 255, 255) = ignore; red, OpenCV's last channel, is horizontal
- depth    npy, float32 metres [H, W], at most 3e-5 = not measured
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dataloaders.caching import Cache
from dataloaders.frames import (
    Frame,
    FrameDataset,
    Row,
    encode_classes,
    encode_depth,
    read_array,
    read_channel,
    read_image,
    read_normals,
    read_split_file,
    refuse_no_folder,
    refuse_other_sizes,
)
from dataloaders.options import DataOptions
from dataloaders.splits import Splits, complete_splits
from dataloaders.transforms import (
    Augmentations,
    Sample,
    TrainAugmentation,
    approach,
    channels_first,
    choose_augmentation,
    labelled_normals,
    mirror,
    reflect,
    scale,
    subtract_mean,
)
from utils.errors import UserError

SPLIT_FILE = "nyu_v2_3task.json"
FILES_OF_A_FRAME = ("img", "seg", "normal", "depth")
FOLDERS = {"img": "img/*.png", "seg": "seg/*.png", "normal": "normal_mask/*.png", "depth": "depth/*.npy"}

UNMEASURED_DEPTH = 3e-5

AUGMENTATIONS: Augmentations = {
    "release": partial(TrainAugmentation, scale=scale, mirror=mirror),
    "geometric": partial(TrainAugmentation, scale=approach, mirror=reflect),
}


class NYUv2(FrameDataset):
    """One split of NYU v2: key (pass number, index) -> sample, a dict of arrays and the frame's name.

    - "img"           float32 [3, H, W], BGR, 0..255 minus the mean
    - "seg"           int64 [H, W], 0..39, 255 = ignore
    - "normal"        float32 [3, H, W]; `normals="release"`: 0..255 as in the file, ignored pixels 255;
                      "decoded": components in [-1, 1], ignored pixels 0
    - "normal_valid"  bool [1, H, W], False where the file is white
    - "depth"         float32 [1, H, W], metres
    - "depth_valid"   bool [1, H, W], depth > 3e-5
    - "name"          str

    Args:
        dataroot: folder with `nyu_v2_3task.json`, or with img/ and one folder per target.
        split: "train", "train1", "train2", "test" or "val".
        targets: any of "seg", "normal", "depth"; files of other targets are neither read nor needed.
        crop_size, augmentation: (height, width) and a name in `AUGMENTATIONS`, for training; both None for
            whole frames as they are.
        normals: "release" or "decoded".
        seed: key of the augmentation's draws, together with split, pass number and index.
        validation: "test", the release's choice, makes "val" the test split; "held_out" makes it the split
            file's own, or a tenth of train that no training split then contains.
        cache: where `decoded` keeps frames; None reads their files each time.

    Attributes:
        frames: the paths of every frame.
        notes: sentences the user should read, if the data root leaves something to be assumed.

    Raises: UserError for everything about the data root that can be known before a frame is opened, and, when
    one is fetched, for files that cannot be read or do not fit each other.
    """

    def __init__(
        self,
        dataroot: str | Path,
        split: str,
        targets: Sequence[str],
        crop_size: tuple[int, int] | None = None,
        augmentation: str | None = None,
        normals: str = "release",
        seed: int = 0,
        validation: str = "test",
        cache: Cache | None = None,
    ):
        names = ("img", *targets)
        splits = resolve_splits(Path(dataroot), names, validation)
        augment = choose_augmentation(AUGMENTATIONS, augmentation, crop_size)
        super().__init__(Path(dataroot), names, splits, split, augment, seed, cache)
        self.encoders = ENCODERS | {"normal": NORMAL_ENCODERS[normals]}

    def read(self, frame: Frame) -> Sample:
        """The files of a frame as they are; UserError if their sizes differ."""
        sample = {name: READERS[name](path) for name, path in frame.items()}
        refuse_other_sizes(sample, frame)
        return sample

    def encode(self, sample: Sample) -> dict[str, np.ndarray]:
        """The arrays listed above."""
        encoded: dict[str, np.ndarray] = {}
        for name, array in sample.items():
            encoded |= self.encoders[name](array)
        return encoded


def open_nyu_v2(options: DataOptions, split: str, training: bool) -> NYUv2:
    """A split of NYU v2 as a run asks for it: augmented for training, whole frames else."""
    return NYUv2(
        options.dataroot,
        split,
        tuple(options.targets),
        crop_size=options.required_crop_size if training else None,
        augmentation=options.augmentation if training else None,
        normals=options.normals,
        seed=options.seed,
        validation=options.validation,
        cache=options.cache,
    )


# Which frames form a split


def resolve_splits(dataroot: Path, names: Sequence[str], validation: str = "test") -> Splits[Row]:
    """The splits train, train1, train2, test and val of a data root, each frame with the files in `names`.

    What the data root does not say is completed: train1 and train2 are 80 % and 20 % of train, val follows
    `validation` ("test" or "held_out"), and a folder without split file is train and test at once.

    Raises: UserError if the data root or its folders are missing, or the split file is not of its form.
    """
    refuse_no_folder(dataroot, f"{SPLIT_FILE} (or img/ seg/ normal_mask/ depth/)")
    split_file = dataroot / SPLIT_FILE
    if os.path.isfile(split_file):
        listed = read_split_file(split_file, FILES_OF_A_FRAME, names)
    else:
        listed = list_folders(dataroot, names)
    return complete_splits(listed, validation)


def list_folders(dataroot: Path, names: Sequence[str]) -> Splits[Row]:
    """The frames whose name stands in every wanted folder, in the order of their names, as train and test."""
    files = {name: {path.stem: path for path in sorted(dataroot.glob(FOLDERS[name]))} for name in names}
    stems = [stem for stem in files["img"] if all(stem in files[name] for name in names)]
    if not stems:
        found = ", ".join(f"{len(files[name])} in {FOLDERS[name]}" for name in names)
        raise UserError(
            f"{dataroot} has neither {SPLIT_FILE} nor a frame whose name stands in all the folders needed "
            f"(files: {found}): give the right folder with --set dataload.dataroot=FOLDER"
        )
    frames = [tuple(str(files[name][stem].relative_to(dataroot)) for name in names) for stem in stems]
    notes = [f"{dataroot} has no {SPLIT_FILE}: its {len(frames)} frames serve as train and as test"]
    unlabelled = len(files["img"]) - len(frames)
    if unlabelled:
        notes.append(f"{unlabelled} images of {dataroot} lack a target and are left out")
    return Splits(dataroot, {"train": frames, "test": frames}, tuple(notes))


# Files -> sample


def read_classes(path: Path) -> np.ndarray:
    """uint8 [H, W], 255 = ignore."""
    return read_channel(path, np.uint8, "class numbers")


def read_depth(path: Path) -> np.ndarray:
    """float32 [H, W], metres; at most 3e-5, or no finite number, where nothing was measured."""
    depth = read_array(path)
    if depth.ndim != 2 or depth.dtype.kind != "f":
        raise UserError(f"{path} must hold one array [H, W] of floating-point metres: convert it")
    return depth.astype(np.float32, copy=False)


READERS: dict[str, Callable[[Path], np.ndarray]] = {
    "img": read_image,
    "seg": read_classes,
    "normal": read_normals,
    "depth": read_depth,
}


# Sample -> arrays of a batch


def encode_image(image: np.ndarray) -> dict[str, np.ndarray]:
    """Image -> "img" of `NYUv2`."""
    return {"img": subtract_mean(image)}


def encode_raw_normals(normal: np.ndarray) -> dict[str, np.ndarray]:
    """Normals -> "normal" as stored, 0..255, and "normal_valid": the release's target."""
    normal = channels_first(normal)
    return {"normal": normal.astype(np.float32), "normal_valid": labelled_normals(normal)[None]}


def encode_decoded_normals(normal: np.ndarray) -> dict[str, np.ndarray]:
    """Normals -> "normal" as components in [-1, 1], 0 where ignored, and "normal_valid"."""
    encoded = encode_raw_normals(normal)
    components = encoded["normal"] / np.float32(127.5) - np.float32(1)
    return {"normal": components * encoded["normal_valid"], "normal_valid": encoded["normal_valid"]}


ENCODERS: dict[str, Callable[[np.ndarray], dict[str, np.ndarray]]] = {
    "img": encode_image,
    "seg": encode_classes,
    "depth": partial(encode_depth, unmeasured=UNMEASURED_DEPTH),
}
NORMAL_ENCODERS = {"release": encode_raw_normals, "decoded": encode_decoded_normals}
