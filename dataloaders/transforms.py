"""Joint transforms of an image and its targets: scale, mirror, pad, crop, and their random composition.

A sample is a dict of NumPy arrays [H, W] or [H, W, C] that share one height and width, mostly as read from the
files; each data set says what its samples hold. The transforms know of them:

- "img"     the image, of any range that starts at black = 0
- "seg"     uint8 [H, W], class numbers, 255 = ignore
- "normal"  uint8 [H, W, 3], (n + 1) / 2 * 255 in OpenCV's channel order, (255, 255, 255) = no label
- "depth"   [H, W], distances or their inverse
- others    [H, W]; masks are uint8, 1 = valid, since OpenCV cannot resize truth values

Targets that a run does not need are absent. Every transform returns a new dict and leaves its input as
it was.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

Sample = dict[str, np.ndarray]

IMAGE_MEAN_BGR = np.array([104.00698793, 116.66876762, 122.67891434], dtype=np.float32)

# What stands where a sample has no content: the mark for "no label" of targets that have one that is not 0. All
# else is 0: black, not measured, not valid. A target in which 0 is a value like any other needs a mask beside it.
PADDING = {"seg": 255, "normal": 255}

# A normal's component along the image's horizontal axis is the file's red channel, OpenCV's last.
NORMAL_X = 2


def channels_first(array: np.ndarray) -> np.ndarray:
    """[H, W, C] -> [C, H, W], contiguous; done while the values are still bytes, it costs next to nothing."""
    planes = np.empty((array.shape[2], *array.shape[:2]), array.dtype)
    cv2.split(array, list(planes))  # which fills arrays that it is given, three times as fast as NumPy copies
    return planes


def subtract_mean(image: np.ndarray) -> np.ndarray:
    """The network's input: BGR 0..255 [H, W, 3], uint8 or float32 -> float32 [3, H, W], minus the mean, not scaled."""
    return channels_first(image) - IMAGE_MEAN_BGR[:, None, None]


def image_from_input(image: np.ndarray) -> np.ndarray:
    """The picture behind a network input: float32 [3, H, W], BGR minus the mean -> uint8 [H, W, 3], RGB."""
    return (image + IMAGE_MEAN_BGR[:, None, None])[::-1].transpose(1, 2, 0).round().clip(0, 255).astype(np.uint8)


def labelled_normals(normal: np.ndarray) -> np.ndarray:
    """bool [H, W]: where uint8 normals [3, H, W] are labels at all, that is, not white."""
    blue, green, red = normal
    return (blue & green & red) != 255


def resize_nearest(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize [H, W] or [H, W, C] to `size` = (height, width), each pixel the nearest one's copy."""
    return array if array.shape[:2] == size else cv2.resize(array, size[::-1], interpolation=cv2.INTER_NEAREST)


def resize_bilinear(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize [H, W] or [H, W, C] to `size` = (height, width), bilinearly."""
    return array if array.shape[:2] == size else cv2.resize(array, size[::-1], interpolation=cv2.INTER_LINEAR)


def resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """Resize all arrays to (height, width): the image bilinearly, everything else to its nearest pixel."""
    return {
        key: resize_bilinear(array, size) if key == "img" else resize_nearest(array, size)
        for key, array in sample.items()
    }


class Window(NamedTuple):
    """A part of a frame: those of its rows and columns that are in both ranges, counted from its first pixel."""

    rows: range
    columns: range


def resize_window(array: np.ndarray, size: tuple[int, int], window: Window, interpolation: int) -> np.ndarray:
    """What `window` shows of [H, W] or [H, W, C] resized to `size` = (height, width): a copy of the very same pixels.

    OpenCV knows no windows, but it can be told the ratio instead of the size. Then what lies below and to the right of
    the window need not be there. What lies above and to the left must be, since the places that pixels are taken from
    count from the corner. (Of floating-point numbers that are interpolated the last bit may differ.)

    Args:
        interpolation: cv2.INTER_LINEAR or cv2.INTER_NEAREST.
    """
    rows, columns = window
    row_ratio, column_ratio = size[0] / array.shape[0], size[1] / array.shape[1]
    # One more than the pixels lie in: they are interpolated with their neighbours.
    num_rows, num_columns = math.ceil(rows.stop / row_ratio) + 1, math.ceil(columns.stop / column_ratio) + 1
    part = array[:num_rows, :num_columns]
    if part.shape[:2] == (round(part.shape[0] * row_ratio), round(part.shape[1] * column_ratio)):
        part = array  # OpenCV would take its size for that of the result, and copy it, whatever the ratio.
    resized = cv2.resize(part, None, fx=column_ratio, fy=row_ratio, interpolation=interpolation)
    return resized[rows.start : rows.stop, columns.start : columns.stop]


def scaled_size(sample: Sample, factor: float) -> tuple[int, int]:
    """Height and width of a sample scaled by a factor, rounded to whole pixels."""
    height, width = sample["img"].shape[:2]
    return round(height * factor), round(width * factor)


def scale(sample: Sample, factor: float, window: Window | None = None) -> Sample:
    """Resize to `scaled_size`, and keep `window` of the result, or all of it.

    Depth stays as it was measured, as in the release; `approach` and `approach_inverse` are geometrically right.
    """
    height, width = scaled_size(sample, factor)
    kept = window or Window(range(height), range(width))
    return {
        key: resize_window(array, (height, width), kept, cv2.INTER_LINEAR if key == "img" else cv2.INTER_NEAREST)
        for key, array in sample.items()
    }


def approach(sample: Sample, factor: float, window: Window | None = None) -> Sample:
    """`scale`, with depth / factor: things look `factor` times as large from 1/factor of the distance."""
    scaled = scale(sample, factor, window)
    if "depth" in scaled:
        scaled["depth"] = scaled["depth"] / np.float32(factor)
    return scaled


def approach_inverse(sample: Sample, factor: float, window: Window | None = None) -> Sample:
    """`approach` where "depth" is inverse depth, which is `factor` times as large then."""
    scaled = scale(sample, factor, window)
    if "depth" in scaled:
        scaled["depth"] = scaled["depth"] * np.float32(factor)
    return scaled


def mirror(sample: Sample) -> Sample:
    """Swap left and right. Normals keep their values, as in the release; `reflect` turns them round, too."""
    return {key: cv2.flip(array, 1) for key, array in sample.items()}


def reflect(sample: Sample) -> Sample:
    """`mirror`, with the x component of every labelled normal negated: 255 - value."""
    mirrored = mirror(sample)
    if "normal" in mirrored:
        normal = mirrored["normal"]
        x = normal[:, :, NORMAL_X]
        normal[:, :, NORMAL_X] = np.where(labelled_normals(channels_first(normal)), 255 - x, x)
    return mirrored


def pad_to(sample: Sample, height: int, width: int) -> Sample:
    """Centre the sample in at least height x width pixels; the border holds `PADDING`, or else 0."""
    sample_height, sample_width = sample["img"].shape[:2]
    missing_rows, missing_columns = max(height - sample_height, 0), max(width - sample_width, 0)
    if not missing_rows and not missing_columns:
        return dict(sample)
    top, left = missing_rows // 2, missing_columns // 2
    borders = (top, missing_rows - top, left, missing_columns - left)
    return {
        key: cv2.copyMakeBorder(array, *borders, cv2.BORDER_CONSTANT, value=[PADDING.get(key, 0)] * 4)
        for key, array in sample.items()
    }


def draw_range(length: int, wanted: int, generator: np.random.Generator) -> range:
    """`wanted` neighbours among 0, 1, ... length - 1 at random, or all of them if they are fewer."""
    start = int(generator.integers(max(length - wanted, 0) + 1))
    return range(start, min(start + wanted, length))


@dataclass(frozen=True)
class TrainAugmentation:
    """Random scale, mirror with probability 1/2, padding, random crop: alike for all arrays.

    The crop is chosen first, so that of the scaled frame only what lies above and to the left of the crop's last pixel
    is computed, and of the sample no more is looked at than that is made from.

    Attributes:
        crop_size: (height, width) of every result, in pixels.
        scale: `scale`, `approach` or `approach_inverse`, called with a factor drawn from U[0.5, 1.5) and the window
            of the scaled frame that the crop shows.
        mirror: `mirror` or `reflect`.
    """

    crop_size: tuple[int, int]
    scale: Callable[[Sample, float, Window], Sample]
    mirror: Callable[[Sample], Sample]

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """The augmented sample, height x width of `crop_size`; all randomness comes from `generator`."""
        factor = generator.uniform(0.5, 1.5)
        is_mirrored = generator.random() < 0.5
        scaled_height, scaled_width = scaled_size(sample, factor)
        height, width = self.crop_size
        rows, columns = draw_range(scaled_height, height, generator), draw_range(scaled_width, width, generator)
        if is_mirrored:
            # The crop is drawn from the mirrored frame: before the mirror it shows the other side.
            columns = range(scaled_width - columns.stop, scaled_width - columns.start)
        sample = self.scale(sample, factor, Window(rows, columns))
        if is_mirrored:
            sample = self.mirror(sample)
        return pad_to(sample, height, width)


Augmentations = Mapping[str, Callable[[tuple[int, int]], TrainAugmentation]]
"""Name -> maker, called with the crop size. Every data set of frames has two: "release" is what the published
numbers were trained with, "geometric" keeps depth and normals true to the augmented image."""


def choose_augmentation(
    known: Augmentations, name: str | None, crop_size: tuple[int, int] | None
) -> TrainAugmentation | None:
    """The augmentation of a name, or None for frames as they are, where neither name nor crop size is given."""
    if (name is None) != (crop_size is None):
        raise ValueError("crop_size and augmentation belong together: give both or neither")
    return known[name](crop_size) if name else None
