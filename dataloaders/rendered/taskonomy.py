"""Rendered rooms in the format of Tiny-Taskonomy: image, 17 classes, normals, depth, keypoints, edges."""

from pathlib import Path

import numpy as np

from dataloaders.rendered.folders import (
    FIRST_TEST_NUMBER,
    is_finished,
    numbers_of_splits,
    picture_arguments,
    render_rooms,
)
from dataloaders.rooms.pieces import CLASS_NAMES
from dataloaders.rooms.view import IGNORE_LABEL, Frame
from dataloaders.taskonomy import CLASS_WEIGHTS_FILE, SPLIT_FILE, count_class_pixels, prior_factor
from dataloaders.writing import normals_to_colours, write_array, write_png
from utils.files import write_json

CLASSES: dict[str, tuple[str, ...]] = {
    "background": ("wall", "floor", "ceiling", "floor mat", "otherstructure"),
    "door": ("door",),
    "window": ("window", "blinds"),
    "cloth": ("curtain", "shower curtain", "towel", "clothes"),
    "picture": ("picture", "mirror", "whiteboard"),
    "cabinet": ("cabinet", "counter", "dresser", "night stand", "otherfurniture"),
    "shelves": ("bookshelf", "shelves"),
    "bed": ("bed", "pillow"),
    "chair": ("chair",),
    "sofa": ("sofa",),
    "table": ("table", "desk"),
    "refrigerator": ("refrigerator",),
    "television": ("television",),
    "basin": ("toilet", "sink", "bathtub"),
    "lamp": ("lamp",),
    "book": ("books", "paper"),
    "prop": ("box", "bag", "person", "otherprop"),
}
"""Class (17) -> NYU v2's classes (40). Numbers are places in this order; files hold the number plus 1."""

UNCERTAIN = 0
"""Value of pixels without a class, on the borders between things; to be read as class 0."""

DEPTH_UNITS = 512  # per metre
NO_DEPTH = 65535

STRONGEST_KEYPOINT, STRONGEST_EDGE = 0.01, 0.12
"""Files hold 16 bit shares of 2^16. The loader clips keypoints at 0.005 and edges at 0.08: at these strengths
about the strongest hundredth of the pixels is clipped, and the rest fills the range."""

FIRST_VAL_NUMBER = 2 * FIRST_TEST_NUMBER


def write_taskonomy(
    folder: str | Path, split_sizes: dict[str, int], height: int, width: int, seed: int, num_workers: int = 0
) -> Path:
    """Write a data set in the format of Tiny-Taskonomy, or leave alone the one that these arguments already made.

    Args:
        folder: new, empty, or from an earlier call with the same arguments.
        split_sizes: {"train": at least 2, "test": at least 1}; for the other splits see `taskonomy_splits`.
        num_workers: processes that render; 0 and 1 render in this one. The files do not depend on it.

    Returns:
        Path of `taskonomy.json`, {split: [[rgb, seg, normal, depth, keypoint, edge], ...]}, paths relative to the
        folder, beside `semseg_prior_factor.npy`. It is written last: where it is, everything is.

    Raises: UserError for sizes out of range and for a folder that holds something else.
    """
    folder = Path(folder)
    index_file = folder / SPLIT_FILE
    splits = taskonomy_splits(split_sizes)
    arguments = picture_arguments("taskonomy", split_sizes, height, width, seed, num_workers)
    if not is_finished(folder, arguments, index_file):
        files = render_rooms(folder, arguments, splits, write_taskonomy_frame, num_workers)
        counts = count_class_pixels(folder / seg for _, seg, *_ in files["train"])
        write_array(folder / CLASS_WEIGHTS_FILE, prior_factor(counts))
        write_json(index_file, files)
    return index_file


def taskonomy_splits(split_sizes: dict[str, int]) -> dict[str, range]:
    """The numbers of each split's frames: test_small is the first half of test, val as many frames of its own."""
    splits = numbers_of_splits(split_sizes)
    half = (len(splits["test"]) + 1) // 2
    val = range(FIRST_VAL_NUMBER, FIRST_VAL_NUMBER + half)
    return splits | {"val": val, "test_small": splits["test"][:half]}


def write_taskonomy_frame(folder: Path, name: str, frame: Frame) -> list[str]:
    """Write one frame as the six pictures of Taskonomy; returns their paths relative to the folder.

    8 bit: image; classes plus 1, 0 where uncertain; normals (n + 1) / 2 * 255, red = x right, green = y forward,
    blue = z up, everywhere. 16 bit: depth in 1/512 metres, 65535 in holes; keypoints and edges.
    """
    pictures = {
        "rgb": frame["img"],
        "seg": class_table()[frame["seg"]],
        "normal": normals_to_colours(frame["normal"]),
        "depth": np.where(frame["depth_valid"], np.rint(frame["depth"] * DEPTH_UNITS), NO_DEPTH).astype(np.uint16),
        "keypoint": np.rint(frame["keypoint"] * STRONGEST_KEYPOINT * 2**16).astype(np.uint16),
        "edge": np.rint(frame["edge"] * STRONGEST_EDGE * 2**16).astype(np.uint16),
    }
    files = [f"{kind}/{name}.png" for kind in pictures]
    for file, picture in zip(files, pictures.values(), strict=True):
        write_png(folder / file, picture)
    return files


def class_table() -> np.ndarray:
    """The value in the file for each value of a frame's classes: [256] uint8."""
    table = np.full(IGNORE_LABEL + 1, UNCERTAIN, np.uint8)
    for number, names in enumerate(CLASSES.values()):
        table[[CLASS_NAMES.index(name) for name in names]] = number + 1
    return table
