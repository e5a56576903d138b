"""Rendered rooms in the format of NYU v2: image, 40 classes, normals, depth."""

from functools import partial
from pathlib import Path

from dataloaders.nyu_v2 import SPLIT_FILE
from dataloaders.processes import carry_out
from dataloaders.rendered.folders import (
    check_not_negative,
    check_picture,
    is_finished,
    numbers_of_splits,
    picture_arguments,
    render_rooms,
    render_to_files,
)
from dataloaders.rooms.view import Frame
from dataloaders.writing import masked_normal_colours, write_array, write_png
from utils.errors import UserError
from utils.files import write_json


def write_nyu_v2(
    folder: str | Path, split_sizes: dict[str, int], height: int, width: int, seed: int, num_workers: int = 0
) -> Path:
    """Write a data set in the format of NYU v2, or leave alone the one that these arguments already made.

    Args:
        folder: new, empty, or from an earlier call with the same arguments.
        split_sizes: {"train": at least 2, "test": at least 1}; train1 and train2 are 80 % and 20 % of train.
        num_workers: processes that render; 0 and 1 render in this one. The files do not depend on it.

    Returns:
        Path of `nyu_v2_3task.json`, {split: [[img, seg, normal, depth], ...]}, paths relative to the folder.
        It is written last: where it is, everything is.

    Raises: UserError for sizes out of range and for a folder that holds something else.
    """
    folder = Path(folder)
    index_file = folder / SPLIT_FILE
    splits = numbers_of_splits(split_sizes)
    arguments = picture_arguments("nyu_v2", split_sizes, height, width, seed, num_workers)
    if not is_finished(folder, arguments, index_file):
        write_json(index_file, render_rooms(folder, arguments, splits, write_nyu_v2_frame, num_workers))
    return index_file


def write_nyu_v2_frame(folder: Path, name: str, frame: Frame) -> list[str]:
    """Write one frame as the four files of NYU v2; returns their paths relative to the folder."""
    files = [f"img/{name}.png", f"seg/{name}.png", f"normal_mask/{name}.png", f"depth/{name}.npy"]
    image, seg, normal, depth = (folder / file for file in files)
    write_png(image, frame["img"])
    write_png(seg, frame["seg"])
    write_png(normal, masked_normal_colours(frame["normal"], frame["normal_valid"]))
    write_array(depth, frame["depth"])
    return files


def write_samples(folder: str | Path, count: int = 4, height: int = 480, width: int = 640, seed: int = 0) -> None:
    """Write frames 0, 1, ... of a seed as a bare folder: NYU v2's files without the list of splits."""
    if count < 1:
        raise UserError(f"samples: expected a count of at least 1, got {count}")
    check_picture(height, width)
    check_not_negative(seed=seed)
    write = partial(render_to_files, write_nyu_v2_frame, Path(folder), seed, height, width)
    carry_out(write, range(count), 0, "rendering")
