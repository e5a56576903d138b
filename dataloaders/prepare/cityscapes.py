"""CityScapes from its packages leftImg8bit, gtFine and disparity, 1024x2048, to arrays of 256x512.

    leftImg8bit/{train,val}/{city}/{name}_leftImg8bit.png       RGB
    gtFine/{train,val}/{city}/{name}_gtFine_labelIds.png        8 bit, one of the ids 0..33
    disparity/{train,val}/{city}/{name}_disparity.png           16 bit, disparity * 256 + 1, 0 = not measured

The official test images have no public labels: the folder val becomes the split test, as in the release.
"""

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from dataloaders.cityscapes import FILES_OF_A_FRAME, SPLIT_FILE, Hierarchy, label_tables
from dataloaders.frames import read_channel, read_image, refuse_other_sizes
from dataloaders.prepare.output import Prepared, claim_folder, place_of, refuse_missing_sources, whole, write_index
from dataloaders.processes import carry_out
from dataloaders.splits import Splits, divide_train
from dataloaders.writing import write_array
from utils.errors import UserError

SPLITS = {"train": "train", "test": "val"}
"""Split -> folder of the download."""

HEIGHT, WIDTH = 256, 512

CATEGORIES: Hierarchy = {
    "flat": {"road": (7,), "sidewalk": (8,)},
    "construction": {"building": (11,), "wall": (12,), "fence": (13,)},
    "object": {"pole": (17,), "traffic light": (19,), "traffic sign": (20,)},
    "nature": {"vegetation": (21,), "terrain": (22,)},
    "sky": {"sky": (23,)},
    "human": {"person": (24,), "rider": (25,)},
    "vehicle": {"car": (26,), "truck": (27,), "bus": (28,), "train": (31,), "motorcycle": (32,), "bicycle": (33,)},
}
"""Category (7) -> class (19) -> its id. Numbers are places in this order, which is that of the official table's
category ids and train ids. Ids that are not here (void, and the classes too rare to be evaluated) are ignored."""

LARGEST_ID = 33
FOREGROUND = ("human", "vehicle")
"""The categories that are label 1 of 2, all that can move by itself; the others are label 0, the background."""

FOCAL_LENGTH, BASELINE = 2262.52, 0.209313
"""Pixels at full size, and metres: the camera of most of the recordings."""


class View(NamedTuple):
    """A frame of the download."""

    folder: str  # "train/aachen"
    name: str  # "aachen_000000_000019"


def prepare_cityscapes(raw: Path, output: Path, num_workers: int) -> Prepared:
    """Write img/, depth/, label2/, label7/, label19/ and `cityscape.json`.

    Args:
        raw: folder that holds leftImg8bit/, gtFine/ and disparity/.
        output: new, empty, or from an earlier run with the same source.

    Raises: UserError for sources that are missing, damaged or not of their form, and for an output folder that
    holds something else.
    """
    views = {split: list_views(raw, folder) for split, folder in SPLITS.items()}
    every_view = [view for own in views.values() for view in own]
    refuse_missing_sources(
        [path for view in every_view for path in sources_of_view(raw, view).values()],
        "unpack leftImg8bit, gtFine and disparity, whole, into the same folder",
    )
    claim_folder(output, [*FILES_OF_A_FRAME, SPLIT_FILE], {"raw": place_of(raw, output)})

    unfinished = [view for view in every_view if not whole(output, files_of_view(view))]
    carry_out(partial(prepare_view, raw, output), unfinished, num_workers, "frames")
    members = divide_train(Splits(raw, views)).members
    write_index(output / SPLIT_FILE, {split: list(map(files_of_view, own)) for split, own in members.items()})
    return Prepared(output / SPLIT_FILE, {split: len(own) for split, own in members.items()})


def list_views(raw: Path, folder: str) -> list[View]:
    """The frames of a folder (train or val) of leftImg8bit, in the order of their names; UserError if none."""
    images = raw / "leftImg8bit" / folder
    ending = "_leftImg8bit.png"
    # Names with a dot before them are not the data set's: macOS leaves such beside files that it packs.
    views = [
        View(f"{folder}/{path.parent.name}", path.name.removesuffix(ending))
        for path in images.glob(f"[!.]*/[!.]*{ending}")
    ]
    if not views:
        raise UserError(
            f"{images} holds no {{city}}/*{ending}: give the folder that holds leftImg8bit/, gtFine/ and disparity/"
        )
    return sorted(views)


def sources_of_view(raw: Path, view: View) -> dict[str, Path]:
    """The files of a frame in the download: "img", "ids" and "disparity"."""
    return {
        "img": raw / "leftImg8bit" / view.folder / f"{view.name}_leftImg8bit.png",
        "ids": raw / "gtFine" / view.folder / f"{view.name}_gtFine_labelIds.png",
        "disparity": raw / "disparity" / view.folder / f"{view.name}_disparity.png",
    }


def files_of_view(view: View) -> list[str]:
    """The paths of a frame's image, depth and labels, relative to the data root."""
    return [f"{kind}/{view.name}.npy" for kind in FILES_OF_A_FRAME]


def prepare_view(raw: Path, output: Path, view: View) -> None:
    """Write the five files of a frame."""
    paths = sources_of_view(raw, view)
    frame = {
        "img": read_image(paths["img"]),
        "ids": read_channel(paths["ids"], np.uint8, "label ids"),
        "disparity": read_channel(paths["disparity"], np.uint16, "disparities"),
    }
    refuse_other_sizes(frame, paths)
    if frame["ids"].max() > LARGEST_ID:
        raise UserError(
            f"{paths['ids']} holds the value {frame['ids'].max()}, but label ids end at {LARGEST_ID}: "
            "replace it by the one of the gtFine package"
        )
    ids = resize_targets(frame["ids"])
    arrays = [
        resize_image(frame["img"]),
        inverse_depth(resize_targets(frame["disparity"]))[..., None],
        *(table[ids] for table in tables_of_ids().values()),
    ]
    for file, array in zip(files_of_view(view), arrays, strict=True):
        write_array(output / file, array)


def resize_image(image: np.ndarray) -> np.ndarray:
    """uint8 BGR -> float32 [256, 512, 3], RGB, 0..1, each pixel the mean of the area that it covers."""
    colours = image[..., ::-1].astype(np.float32) / 255
    return np.clip(cv2.resize(colours, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), 0, 1)


def resize_targets(values: np.ndarray) -> np.ndarray:
    """[H, W] -> [256, 512], each pixel the value nearest to its centre, so that nothing is mixed."""
    return cv2.resize(values, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST_EXACT)


def inverse_depth(stored: np.ndarray) -> np.ndarray:
    """Stored 16 bit disparity -> inverse depth, float32, 1/metres, up to about 0.27; 0 where not measured.

    1 / Z = d / (f * b) with d = (stored - 1) / 256 pixels; where d = 0, infinitely far, it cannot be told from not
    measured. Disparity in pixels would shrink with the picture; inverse depth belongs to the point, and does not.
    """
    disparity = np.maximum(stored.astype(np.float32) - 1, 0) / 256
    return disparity / np.float32(FOCAL_LENGTH * BASELINE)


@cache
def tables_of_ids() -> Mapping[int, np.ndarray]:
    """Number of classes (2, 7, 19) -> the label of each id: [34] int8, -1 ignore."""
    return label_tables(CATEGORIES, FOREGROUND, LARGEST_ID + 1)
