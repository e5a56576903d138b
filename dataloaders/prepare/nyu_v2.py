"""NYU v2 from `nyu_depth_v2_labeled.mat`: 1449 frames of 480x640 with classes and depth; normals are computed.

The file is HDF5, as MATLAB 7.3 writes it, with the axes in MATLAB's order:

- images     [N, 3, W, H] uint8, RGB
- depths     [N, W, H] float32, metres, holes filled in (the released depth)
- rawDepths  [N, W, H] float32, metres, 0 where the camera measured nothing; may be missing
- labels     [N, W, H] uint16, one of 894 names, counted from 1; 0 = unlabelled

A normal is fitted to the filled-in depth, as in the release, but kept only where something was measured.
"""

import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import scipy.io

from dataloaders.nyu_v2 import SPLIT_FILE, UNMEASURED_DEPTH
from dataloaders.prepare.output import (
    MOST_SOURCE_BYTES,
    Prepared,
    claim_folder,
    digest_of,
    stamp_of,
    whole,
    write_index,
)
from dataloaders.prepare.surface_normals import Intrinsics, surface_normals
from dataloaders.processes import carry_out
from dataloaders.reading import read_file
from dataloaders.splits import Splits, divide_train
from dataloaders.writing import masked_normal_colours, write_array, write_png
from utils.errors import UserError

NUM_CLASSES = 40
IGNORE_LABEL = 255

CAMERA = Intrinsics(518.857901, 519.469611, 325.582449 - 0.5, 253.736166 - 0.5)
"""Of frames of 480x640. The data set's toolbox counts pixels from 1, so that its first centre is at 1, here 0.5."""


class ArrayForm(NamedTuple):
    """What an array of the file must be like."""

    num_axes: int
    numbers: type[np.generic]


LABELED_FORMS: dict[str, ArrayForm] = {
    "images": ArrayForm(4, np.uint8),
    "depths": ArrayForm(3, np.floating),
    "labels": ArrayForm(3, np.unsignedinteger),
    "rawDepths": ArrayForm(3, np.floating),
}


def prepare_nyu_v2(labeled: Path, splits: Path, classes: Path, output: Path, num_workers: int) -> Prepared:
    """Write img/, seg/, normal_mask/, depth/ and `nyu_v2_3task.json`; files are named by the frame's number from 1.

    Args:
        labeled: `nyu_depth_v2_labeled.mat`.
        splits: `splits.mat`, the official 795 train and 654 test frames: trainNdxs, testNdxs, counted from 1.
        classes: `classMapping40.mat`, the usual 40 classes: mapClass [1, 894], values 1..40.
        output: new, empty, or from an earlier run with the same sources.

    Raises: UserError for sources that are missing, damaged or do not fit each other, and for an output folder that
    holds something else.
    """
    numbers = read_official_splits(splits)
    class_table = read_class_table(classes)
    every_number = sorted({*numbers["train"], *numbers["test"]})
    check_labeled(labeled, last_number=every_number[-1])
    sources = {"labeled": stamp_of(labeled), "splits": digest_of(splits), "classes": digest_of(classes)}
    claim_folder(output, ["img", "seg", "normal_mask", "depth", SPLIT_FILE], sources)

    unfinished = [number for number in every_number if not whole(output, files_of_frame(number))]
    carry_out(partial(prepare_frame, labeled, class_table, output), unfinished, num_workers, "frames")
    members = divide_train(Splits(splits, numbers)).members
    write_index(output / SPLIT_FILE, {split: list(map(files_of_frame, own)) for split, own in members.items()})
    return Prepared(output / SPLIT_FILE, {split: len(own) for split, own in members.items()})


def files_of_frame(number: int) -> list[str]:
    """The paths of a frame's image, classes, normals and depth, relative to the data root."""
    name = f"{number:04d}"
    return [f"img/{name}.png", f"seg/{name}.png", f"normal_mask/{name}.png", f"depth/{name}.npy"]


def prepare_frame(labeled: Path, class_table: np.ndarray, output: Path, number: int) -> None:
    """Write the four files of a frame."""
    frame = read_frame(labeled, number)
    if frame["labels"].max() >= len(class_table):
        raise UserError(
            f"frame {number} of {labeled} has label {frame['labels'].max()}, but the class mapping ends at "
            f"{len(class_table) - 1}: give the mapping that belongs to this file"
        )
    height, width = frame["depth"].shape
    camera = CAMERA.scaled(width / 640, height / 480)
    normal, fitted = surface_normals(frame["depth"], frame["depth"] > 0, camera)
    image, seg, normal_mask, depth = (output / file for file in files_of_frame(number))
    write_png(image, frame["image"])
    write_png(seg, class_table[frame["labels"]])
    write_png(normal_mask, masked_normal_colours(normal, fitted & frame["measured"]))
    write_array(depth, frame["depth"])


# Sources


def check_labeled(path: Path, last_number: int) -> None:
    """Raise a `UserError` where the file is no `nyu_depth_v2_labeled.mat` with so many frames, all of one size."""
    shapes = read_labeled_shapes(path)
    num_frames, _, width, height = shapes["images"]
    for name, shape in shapes.items():
        expected = (num_frames, 3, width, height) if name == "images" else (num_frames, width, height)
        if shape != expected:
            raise UserError(
                f"{name!r} of {path} is {list(shape)}, but beside its 'images' must be {list(expected)}: give the "
                "whole nyu_depth_v2_labeled.mat"
            )
    if num_frames < last_number:
        raise UserError(
            f"{path} has {num_frames} frames, but the splits name frame {last_number}: give the splits that belong to "
            "this file"
        )


def read_labeled_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays of `LABELED_FORMS`; UserError where one but rawDepths is missing, or not of its form."""
    shapes = {}
    with _open_labeled(path) as file:
        for name, form in LABELED_FORMS.items():
            if name == "rawDepths" and name not in file:
                continue
            array = file.get(name)
            if (
                not isinstance(array, h5py.Dataset)
                or array.ndim != form.num_axes
                or not np.issubdtype(array.dtype, form.numbers)
            ):
                raise UserError(
                    f"{path} lacks {name!r} with {form.num_axes} axes of type {form.numbers.__name__}: give "
                    "nyu_depth_v2_labeled.mat"
                )
            shapes[name] = array.shape
    return shapes


def read_frame(path: Path, number: int) -> Mapping[str, np.ndarray]:
    """The arrays of a frame: "image" [H, W, 3]; "labels" [H, W]; "depth" [H, W], 0 where there is none; "measured"
    [H, W] bool."""
    with _open_labeled(path) as file:
        try:
            arrays = {name: file[name][number - 1].T for name in LABELED_FORMS if name in file}
        except OSError as error:
            raise UserError(f"frame {number} of {path} cannot be read ({error}): download the file again") from error
    present = np.isfinite(arrays["depths"]) & (arrays["depths"] > UNMEASURED_DEPTH)
    depth = np.where(present, arrays["depths"], 0).astype(np.float32)
    return {
        "image": arrays["images"],
        "labels": arrays["labels"],
        "depth": depth,
        "measured": arrays.get("rawDepths", depth) > 0,
    }


def _open_labeled(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(
            f"{path} cannot be opened as HDF5 ({error}): give the whole nyu_depth_v2_labeled.mat"
        ) from error


def read_class_table(path: Path) -> np.ndarray:
    """The class of every label, [895] uint8: 0..39, and 255 for label 0, unlabelled.

    Raises: UserError if the file is not a class mapping.
    """
    mapping = read_matlab_numbers(path, "mapClass")
    if not all(1 <= number <= NUM_CLASSES for number in mapping):
        raise UserError(f"mapClass of {path} must hold classes from 1 to {NUM_CLASSES}: give classMapping40.mat")
    return np.array([IGNORE_LABEL, *(number - 1 for number in mapping)], np.uint8)


def read_official_splits(path: Path) -> dict[str, list[int]]:
    """Split ("train", "test") -> the numbers of its frames, from 1, in ascending order.

    Raises: UserError if the file holds no such splits, or names a frame twice.
    """
    numbers = {
        "train": sorted(read_matlab_numbers(path, "trainNdxs")),
        "test": sorted(read_matlab_numbers(path, "testNdxs")),
    }
    named = [*numbers["train"], *numbers["test"]]
    if min(named) < 1 or len(set(named)) < len(named):
        raise UserError(f"{path} must name every frame, counted from 1, at most once: give the official splits.mat")
    return numbers


def read_matlab_numbers(path: Path, name: str) -> Sequence[int]:
    """The whole numbers of a variable in a MATLAB file up to version 7; UserError if there are none."""
    file = BytesIO(read_file(path, MOST_SOURCE_BYTES))
    try:
        content = scipy.io.loadmat(file, variable_names=[name])
    # What SciPy raises depends on the damage, and some of it, zlib.error for instance, is not SciPy's own.
    except Exception as error:
        reason = textwrap.shorten(str(error), width=150, placeholder=" ...")
        raise UserError(
            f"{path} cannot be read as a MATLAB file ({reason}): give the file that holds {name}"
        ) from error
    values = np.ravel(content.get(name, ()))
    if not values.size or values.dtype.kind not in "iuf" or (values != np.floor(values)).any():
        raise UserError(f"{path} has no whole numbers called {name}: give the file that holds them")
    return values.astype(int).tolist()
