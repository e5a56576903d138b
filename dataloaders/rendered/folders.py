"""What all rendered data sets share: samples by number, and folders whose list of splits comes last.

Sample i of a seed is the same whoever makes it: a generator keyed by seed and number makes all its draws.
A folder holds its own arguments in `rendered.json`; the list of its splits is written when all else is there.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dataloaders.processes import carry_out
from dataloaders.rooms.view import Frame, render_frame
from utils.errors import UserError
from utils.files import read_bounded, remove_unfinished, write_json

ARGUMENTS_FILE = "rendered.json"
MOST_RECORD_BYTES = 100_000

RECIPE = 1
"""To be raised whenever the same seed gives other samples, so that a folder never mixes two kinds."""

FIRST_TEST_NUMBER = 1_000_000
"""Test samples count from here: the test split stays the same when the training split grows."""


# --------------------------------------------------------------------------------- arguments and splits


def picture_arguments(
    form: str, split_sizes: dict[str, int], height: int, width: int, seed: int, num_workers: int
) -> dict[str, Any]:
    """The arguments of a data set of pictures, by name, as its folder records them; `UserError` for bad ones."""
    check_picture(height, width)
    check_not_negative(seed=seed, workers=num_workers)
    return sample_arguments(form, split_sizes, height=height, width=width, seed=seed)


def sample_arguments(form: str, split_sizes: dict[str, int], **others: int) -> dict[str, Any]:
    """The arguments that decide what a folder of the format (`form`) holds, by name."""
    return {"format": form, **split_sizes, **others, "recipe": RECIPE}


def check_picture(height: int, width: int) -> None:
    """Raise a `UserError` where pictures would be too small to show anything."""
    if min(height, width) < 32:
        raise UserError(f"picture size: expected at least 32 x 32 pixels, got height {height}, width {width}")


def check_not_negative(**numbers: int) -> None:
    """Raise a `UserError` where one of the named numbers is negative."""
    if min(numbers.values()) < 0:
        found = " and ".join(f"{name} {number}" for name, number in numbers.items())
        raise UserError(f"{' and '.join(numbers)}: expected 0 or more, got {found}")


def numbers_of_splits(split_sizes: dict[str, int]) -> dict[str, range]:
    """The numbers of each split's samples: train, its first 80 % (train1), the rest (train2), and test.

    Args:
        split_sizes: {"train": 2 to a million, "test": at least 1}; else a `UserError`.
    """
    train, test = split_sizes["train"], split_sizes["test"]
    if not 2 <= train <= FIRST_TEST_NUMBER or test < 1:
        raise UserError(
            f"split sizes: expected 2 to {FIRST_TEST_NUMBER} training samples (they are divided into train1 "
            f"and train2) and at least 1 test sample, got {train} and {test}"
        )
    boundary = train - max(1, round(0.2 * train))
    return {
        "train": range(train),
        "train1": range(boundary),
        "train2": range(boundary, train),
        "test": range(FIRST_TEST_NUMBER, FIRST_TEST_NUMBER + test),
    }


def domain_generator(seed: int, number: int, place: int) -> np.random.Generator:
    """The generator of a sample of one of several domains, which is at this place among them."""
    # Counted from 1: NumPy seeds [seed, number] and [seed, number, 0] alike.
    return np.random.default_rng([seed, number, 1 + place])


# ---------------------------------------------------------------------------------------------- folders


def is_finished(folder: Path, arguments: dict[str, Any], last_file: Path) -> bool:
    """Whether the folder already holds all that these arguments make, which ends with `last_file`.

    Raises: UserError where the folder holds something else.
    """
    record = folder / ARGUMENTS_FILE
    if record.is_file():
        found = read_record(record)
        different = [name for name in arguments if found.get(name) != arguments[name]]
        if different:
            raise UserError(
                f"{folder} was rendered with other arguments: expected "
                + ", ".join(f"{name} {arguments[name]}, found {found.get(name)}" for name in different)
                + "; name another folder or delete this one"
            )
        return last_file.is_file()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and was not rendered by this program: name a new or an empty folder")
    return False


def read_record(record: Path) -> dict[str, Any]:
    """The arguments that a folder was rendered with; `UserError` where the file is damaged."""
    try:
        return dict(json.loads(read_bounded(record, MOST_RECORD_BYTES)))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{record}: expected the arguments of a rendered data set as JSON, found none; delete its folder"
        ) from error


def record_arguments(folder: Path, arguments: dict[str, Any]) -> None:
    """Say in the folder, before anything else is in it, what it is going to hold.

    What an earlier call that was killed left half-written is removed.
    """
    remove_unfinished(folder.rglob(".*.tmp"))
    write_json(folder / ARGUMENTS_FILE, arguments)


# -------------------------------------------------------------------------------------- frames of rooms

FrameWriter = Callable[[Path, str, Frame], list[str]]
"""Writes one frame under a name as files in a folder; returns their paths relative to the folder."""


def render_rooms(
    folder: Path,
    arguments: dict[str, Any],
    splits: dict[str, range],
    write_frame: FrameWriter,
    num_workers: int,
) -> dict[str, list[list[str]]]:
    """Render the frames of all splits, each once, and write their files.

    Args:
        arguments: of `picture_arguments`; recorded in the folder.

    Returns:
        {split: [[path, ...], ...]}, the files of each frame, relative to the folder.
    """
    record_arguments(folder, arguments)
    size = arguments["height"], arguments["width"]
    write = partial(render_to_files, write_frame, folder, arguments["seed"], *size)
    numbers = sorted({number for numbers in splits.values() for number in numbers})
    files = dict(zip(numbers, carry_out(write, numbers, num_workers, "rendering"), strict=True))
    return {split: [files[number] for number in numbers] for split, numbers in splits.items()}


def render_to_files(
    write_frame: FrameWriter, folder: Path, seed: int, height: int, width: int, number: int
) -> list[str]:
    """Render a frame and write its files; returns their paths relative to the folder."""
    return write_frame(folder, f"{number:07d}", render_frame(seed, number, height, width))
