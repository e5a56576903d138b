"""Rendered rooms in the format of CityScapes: image, inverse depth, and classes on three levels.

Streets have 19 classes, in 7 categories, on 2 sides; so do the rooms here: `CATEGORIES` groups their 40 classes.
"""

from pathlib import Path

import numpy as np

from dataloaders.cityscapes import SPLIT_FILE, label_tables
from dataloaders.rendered.folders import (
    is_finished,
    numbers_of_splits,
    picture_arguments,
    render_rooms,
)
from dataloaders.rooms.pieces import CLASS_NAMES
from dataloaders.rooms.view import IGNORE_LABEL, Frame
from dataloaders.writing import write_array
from utils.files import write_json

CATEGORIES: dict[str, dict[str, tuple[str, ...]]] = {
    "ground": {
        "floor": ("floor",),
        "mat": ("floor mat",),
    },
    "structure": {
        "wall": ("wall",),
        "column": ("otherstructure",),
    },
    "ceiling": {
        "ceiling": ("ceiling",),
    },
    "on the wall": {
        "door": ("door",),
        "window": ("window", "blinds"),
        "cloth": ("curtain", "shower curtain", "towel", "clothes"),
        "picture": ("picture", "mirror", "whiteboard"),
    },
    "storage": {
        "cabinet": ("cabinet", "counter", "dresser", "night stand", "otherfurniture"),
        "shelves": ("bookshelf", "shelves"),
    },
    "furniture": {
        "bed": ("bed", "pillow"),
        "seat": ("chair", "sofa"),
        "table": ("table", "desk"),
    },
    "things": {
        "appliance": ("refrigerator", "television"),
        "basin": ("toilet", "sink", "bathtub"),
        "lamp": ("lamp",),
        "paper": ("books", "paper"),
        "prop": ("box", "bag", "person", "otherprop"),
    },
}
"""Category (7) -> class (19) -> NYU v2's classes (40). Numbers are places in this order."""

FOREGROUND = ("storage", "furniture", "things")
"""The categories that stand in a room (side 1 of 2); the others are the room itself (side 0)."""

SCALE = 2.0
"""Rooms are written as though they were so many times larger: inverse depths then lie between 0.06 and 0.5."""


def write_cityscapes(
    folder: str | Path, split_sizes: dict[str, int], height: int, width: int, seed: int, num_workers: int = 0
) -> Path:
    """Write a data set in the format of CityScapes, or leave alone the one that these arguments already made.

    Args:
        folder: new, empty, or from an earlier call with the same arguments.
        split_sizes: {"train": at least 2, "test": at least 1}; train1 and train2 are 80 % and 20 % of train.
        num_workers: processes that render; 0 and 1 render in this one. The files do not depend on it.

    Returns:
        Path of `cityscape.json`, {split: [[img, depth, label2, label7, label19], ...]}, paths relative to the
        folder. It is written last: where it is, everything is.

    Raises: UserError for sizes out of range and for a folder that holds something else.
    """
    folder = Path(folder)
    index_file = folder / SPLIT_FILE
    splits = numbers_of_splits(split_sizes)
    arguments = picture_arguments("cityscapes", split_sizes, height, width, seed, num_workers)
    if not is_finished(folder, arguments, index_file):
        write_json(index_file, render_rooms(folder, arguments, splits, write_cityscapes_frame, num_workers))
    return index_file


def write_cityscapes_frame(folder: Path, name: str, frame: Frame) -> list[str]:
    """Write one frame as the five arrays of CityScapes; returns their paths relative to the folder.

    Image float32 [H, W, 3], RGB, 0..1. Depth float32 [H, W, 1], inverse depth of the enlarged room in 1/metres,
    0.06 to 0.5; 0 in holes. Labels int8 [H, W]; -1 ignore.
    """
    arrays = {
        "img": frame["img"].astype(np.float32) / 255,
        "depth": inverse_depth(frame["depth"], frame["depth_valid"])[..., None],
        **{f"label{count}": labels[frame["seg"]] for count, labels in tables_of_rooms().items()},
    }
    files = [f"{kind}/{name}.npy" for kind in arrays]
    for file, array in zip(files, arrays.values(), strict=True):
        write_array(folder / file, array)
    return files


def inverse_depth(depth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """1 / (`SCALE` * metres), 0 where invalid: float32 [H, W]."""
    return np.divide(1, SCALE * depth, out=np.zeros_like(depth), where=valid)


def tables_of_rooms() -> dict[int, np.ndarray]:
    """Number of classes (2, 7, 19) -> the label of each value of a frame's classes: [256] int8, -1 ignore."""
    hierarchy = {
        category: {label: [CLASS_NAMES.index(name) for name in names] for label, names in classes.items()}
        for category, classes in CATEGORIES.items()
    }
    return label_tables(hierarchy, FOREGROUND, IGNORE_LABEL + 1)
