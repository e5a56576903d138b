"""Tiny-Taskonomy in the released format: classes, normals, depth, keypoints and edges (256x256).

A data root holds `taskonomy.json`: {split: [[rgb, seg, normal, depth, keypoint, edge], ...]}, paths relative to
the root or absolute; splits train, test and, where given, train1 and train2 (the parts that weights and policy
learn from), val, and test_small, the part of test that the release evaluates while it trains. Beside it lies
`semseg_prior_factor.npy`, float [17]: the weight of each class. The files of a frame are png:

- rgb       BGR once read
- seg       8 bit, one channel; 0 is class 0, any other value v is class v - 1, of 17 classes
- normal    8 bit, (n + 1) / 2 * 255; red, OpenCV's last channel, is horizontal
- depth     16 bit, one channel, linear in metres; from 64500 on = not measured
- keypoint  16 bit, one channel, response * 2^16
- edge      16 bit, one channel, response * 2^16
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dataloaders.caching import Cache
from dataloaders.frames import (
    Frame,
    FrameDataset,
    encode_classes,
    find_file,
    read_array,
    read_channel,
    read_image,
    read_normals,
    read_split_file,
)
from dataloaders.options import DataOptions
from dataloaders.splits import complete_splits
from dataloaders.transforms import (
    Augmentations,
    Sample,
    TrainAugmentation,
    approach,
    channels_first,
    choose_augmentation,
    reflect,
    resize_nearest,
    scale,
    subtract_mean,
)
from utils.errors import UserError

SPLIT_FILE = "taskonomy.json"
FILES_OF_A_FRAME = ("img", "seg", "normal", "depth", "keypoint", "edge")
CLASS_WEIGHTS_FILE = "semseg_prior_factor.npy"

SIZE = (256, 256)
NUM_CLASSES = 17
UNMEASURED_DEPTH = 64500
STRONGEST_KEYPOINT = 0.005
STRONGEST_EDGE = 0.08

# Unlike NYU v2's, the published numbers were trained with normals that a mirror turns round.
AUGMENTATIONS: Augmentations = {
    "release": partial(TrainAugmentation, scale=scale, mirror=reflect),
    "geometric": partial(TrainAugmentation, scale=approach, mirror=reflect),
}


class Taskonomy(FrameDataset):
    """One split of Tiny-Taskonomy: key (pass number, index) -> sample, a dict of arrays and the frame's name.

    - "img"             float32 [3, H, W], BGR, 0..255 minus the mean
    - "seg"             int64 [H, W], 0..16, 255 = padding
    - "seg_weight"      float32 [H, W], the weight of the pixel's class, 0 in padding
    - "normal"          float32 [3, H, W], components in [-1, 1] in OpenCV's channel order
    - "normal_valid"    bool [1, H, W], where depth was measured
    - "depth"           float32 [1, H, W], log(1 + d) / log(2^16) of the file's d: 0..1
    - "depth_valid"     bool [1, H, W], d < 64500
    - "keypoint"        float32 [1, H, W], the response's range [0, 0.005], beyond which it is cut, as [-1, 1]
    - "edge"            float32 [1, H, W], the same for [0, 0.08]
    - "keypoint_valid", "edge_valid"  bool [1, H, W], False in padding
    - "name"            str

    Args:
        dataroot: folder with `taskonomy.json` and, for "seg", `semseg_prior_factor.npy`.
        split: "train", "train1", "train2", "test", "test_small" or "val".
        targets: any of "seg", "normal", "depth", "keypoint", "edge"; files of other targets are neither read
            nor needed, but for the depth that tells which normals are valid.
        crop_size, augmentation: (height, width) and a name in `AUGMENTATIONS`, for training; both None for
            whole frames, 256x256.
        seed: key of the augmentation's draws, together with split, pass number and index.
        validation: "test" or "held_out", see `dataloaders.splits`.
        cache: where `decoded` keeps frames; None reads their files each time.

    Raises: UserError for everything about the data root that can be known before a frame is opened, and, when
    one is fetched, for files that cannot be read or contradict the format.
    """

    def __init__(
        self,
        dataroot: str | Path,
        split: str,
        targets: Sequence[str],
        crop_size: tuple[int, int] | None = None,
        augmentation: str | None = None,
        seed: int = 0,
        validation: str = "test",
        cache: Cache | None = None,
    ):
        dataroot = Path(dataroot)
        names = ["img", *targets]
        if "normal" in targets and "depth" not in targets:
            names.append("depth")  # It tells which normals are valid.
        listed = read_split_file(find_file(dataroot, SPLIT_FILE), FILES_OF_A_FRAME, names)
        augment = choose_augmentation(AUGMENTATIONS, augmentation, crop_size)
        super().__init__(dataroot, names, complete_splits(listed, validation), split, augment, seed, cache)
        encoders = dict(ENCODERS)
        if "seg" in targets:
            class_weights = read_class_weights(find_file(dataroot, CLASS_WEIGHTS_FILE))
            encoders["seg"] = partial(encode_weighted_classes, class_weights=class_weights)
        self.encoders = [encoders[name] for name in ("img", *targets)]

    def read(self, frame: Frame) -> Sample:
        """The files of a frame, 256x256, and the masks that cannot be told from the files after augmentation.

        "inside" tells the frame from padding, "depth_valid" where depth was measured. Files of another size are
        resized, the image as well, each pixel to the nearest one's copy, as in the release.
        """
        sample = {name: resize_nearest(READERS[name](path), SIZE) for name, path in frame.items()}
        sample["inside"] = np.ones(SIZE, dtype=np.uint8)
        if "depth" in sample:
            sample["depth_valid"] = (sample["depth"] < UNMEASURED_DEPTH).astype(np.uint8)
        return sample

    def encode(self, sample: Sample) -> dict[str, np.ndarray]:
        """The arrays listed above."""
        encoded: dict[str, np.ndarray] = {}
        for encode in self.encoders:
            encoded |= encode(sample)
        return encoded


def open_taskonomy(options: DataOptions, split: str, training: bool) -> Taskonomy:
    """A split of Tiny-Taskonomy as a run asks for it: augmented for training, whole frames else."""
    return Taskonomy(
        options.dataroot,
        split,
        tuple(options.targets),
        crop_size=options.required_crop_size if training else None,
        augmentation=options.augmentation if training else None,
        seed=options.seed,
        validation=options.validation,
        cache=options.cache,
    )


def read_class_weights(path: Path) -> np.ndarray:
    """float32 [256]: the weight of each class number, 0 for numbers that are no class, as padding's 255.

    Raises: UserError if the file cannot be read or does not hold 17 weights.
    """
    weights = read_array(path)
    if weights.shape != (NUM_CLASSES,) or weights.dtype.kind != "f":
        raise UserError(f"{path} must hold one array [{NUM_CLASSES}] of floating-point class weights: correct it")
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise UserError(f"{path} holds a class weight that is negative or no finite number: correct it")
    return np.pad(weights.astype(np.float32), (0, 256 - NUM_CLASSES))


def count_class_pixels(paths: Iterable[Path]) -> np.ndarray:
    """Pixels of each class in pictures of classes: [17] int; UserError if one cannot be read."""
    counts = np.zeros(NUM_CLASSES, int)
    for path in paths:
        counts += np.bincount(read_classes(path).ravel(), minlength=NUM_CLASSES)
    return counts


def prior_factor(counts: np.ndarray) -> np.ndarray:
    """Weights of the classes in the loss, from their pixels in the training split: [17] float32.

    Rare classes weigh more, as in class rebalancing for colourisation (Zhang et al., ECCV 2016): 1 / (half the
    frequency + half of 1/17), scaled so that the mean over all pixels is 1.
    """
    frequency = counts / counts.sum()
    factor = 1 / (0.5 * frequency + 0.5 / len(counts))
    return (factor / (frequency * factor).sum()).astype(np.float32)


# Files -> sample


def read_classes(path: Path) -> np.ndarray:
    """uint8 [H, W], 0..16."""
    values = read_channel(path, np.uint8, "class numbers")
    if values.max() > NUM_CLASSES:
        raise UserError(
            f"{path} holds the value {values.max()}, but {NUM_CLASSES} classes have values 0..{NUM_CLASSES}: correct it"
        )
    return values - (values > 0)


READERS: dict[str, Callable[[Path], np.ndarray]] = {
    "img": read_image,
    "seg": read_classes,
    "normal": read_normals,
    "depth": partial(read_channel, dtype=np.uint16, meaning="depth"),
    "keypoint": partial(read_channel, dtype=np.uint16, meaning="keypoint responses"),
    "edge": partial(read_channel, dtype=np.uint16, meaning="edge responses"),
}


# Sample -> arrays of a batch


def encode_image(sample: Sample) -> dict[str, np.ndarray]:
    """The image -> "img" of `Taskonomy`."""
    return {"img": subtract_mean(sample["img"])}


def encode_weighted_classes(sample: Sample, class_weights: np.ndarray) -> dict[str, np.ndarray]:
    """Class numbers -> "seg" and "seg_weight" of `Taskonomy`."""
    return {**encode_classes(sample["seg"]), "seg_weight": class_weights[sample["seg"]]}


def encode_normals(sample: Sample) -> dict[str, np.ndarray]:
    """Normals -> "normal" and "normal_valid" of `Taskonomy`."""
    components = channels_first(sample["normal"]) / np.float32(127.5) - np.float32(1)
    return {"normal": components, "normal_valid": is_valid(sample["depth_valid"])}


def encode_depth(sample: Sample) -> dict[str, np.ndarray]:
    """Linear depth -> "depth" and "depth_valid" of `Taskonomy`."""
    depth = np.log1p(sample["depth"][None], dtype=np.float32) / np.float32(np.log(2**16))
    return {"depth": depth, "depth_valid": is_valid(sample["depth_valid"])}


def encode_response(sample: Sample, name: str, strongest: float) -> dict[str, np.ndarray]:
    """Responses -> "keypoint" or "edge" of `Taskonomy` and its mask: 0 becomes -1; `strongest`, and more, 1."""
    response = sample[name][None] / np.float32(2**16 * strongest)
    encoded = np.minimum(response, 1) * 2 - 1
    return {name: encoded, f"{name}_valid": is_valid(sample["inside"])}


def is_valid(mask: np.ndarray) -> np.ndarray:
    """A mask of a sample, uint8 [H, W] -> bool [1, H, W]."""
    return mask[None] != 0


ENCODERS: dict[str, Callable[[Sample], dict[str, np.ndarray]]] = {
    "img": encode_image,
    "normal": encode_normals,
    "depth": encode_depth,
    "keypoint": partial(encode_response, name="keypoint", strongest=STRONGEST_KEYPOINT),
    "edge": partial(encode_response, name="edge", strongest=STRONGEST_EDGE),
}
