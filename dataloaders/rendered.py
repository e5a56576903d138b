"""Data sets of rendered rooms, as large as you like, in the formats of the real ones.

    python -m dataloaders.rendered nyu_v2 FOLDER --train 400 --test 80 --height 240 --width 320 --seed 0
    python -m dataloaders.rendered samples FOLDER

`dataloaders.rooms` draws the rooms and takes the pictures; this file turns frames into files. Frame i of a
seed is the same whoever renders it: `np.random.default_rng([seed, i])` makes all its draws. A new format is
one function and its line in `WRITERS`.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dataloaders.rooms.view import Frame, render, render_frame
from utils.errors import UserError, exit_on_user_error
from utils.files import replacing, write_json
from utils.progress import progress_bar

__all__ = ["WRITERS", "render", "render_frame", "write_nyu_v2", "write_samples"]

ARGUMENTS_FILE = "rendered.json"

RECIPE = 1
"""To be raised whenever the same seed gives other pictures, so that a folder never mixes two kinds."""

FIRST_TEST_FRAME = 1_000_000
"""Test frames count from here: the test split stays the same when the training split grows."""


# ------------------------------------------------------------------------------------------- formats


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
    index_file = folder / "nyu_v2_3task.json"
    splits = frames_of_splits(split_sizes)
    check_picture(height, width, seed, num_workers)
    arguments = {"format": "nyu_v2", **split_sizes, "height": height, "width": width, "seed": seed}
    arguments["recipe"] = RECIPE
    if is_finished(folder, arguments, index_file):
        return index_file
    write_json(folder / ARGUMENTS_FILE, arguments)
    write = partial(render_to_files, write_nyu_v2_frame, folder, seed, height, width)
    numbers = [*splits["train"], *splits["test"]]
    files = dict(zip(numbers, map_frames(write, numbers, num_workers), strict=True))
    write_json(index_file, {split: [files[number] for number in numbers] for split, numbers in splits.items()})
    return index_file


Writer = Callable[[str | Path, dict[str, int], int, int, int, int], Path]
WRITERS: dict[str, Writer] = {"nyu_v2": write_nyu_v2}
"""Format -> function that writes a data set: folder, split sizes, height, width, seed, workers -> index."""


def write_nyu_v2_frame(folder: Path, name: str, frame: Frame) -> list[str]:
    """Write one frame as the four files of NYU v2; returns their paths relative to the folder."""
    files = [f"img/{name}.png", f"seg/{name}.png", f"normal_mask/{name}.png", f"depth/{name}.npy"]
    image, seg, normal, depth = (folder / file for file in files)
    write_png(image, frame["img"])
    write_png(seg, frame["seg"])
    write_png(normal, normals_to_colours(frame["normal"], frame["normal_valid"]))
    with replacing(depth) as temporary, temporary.open("wb") as file:
        np.save(file, frame["depth"])
    return files


def normals_to_colours(normal: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Normals as NYU v2's pictures hold them, (n + 1) / 2 * 255, white where invalid: [H, W, 3] uint8 RGB.

    White is no normal: at least one component of a unit vector is below 0.58, that is 202 of 255.
    """
    colours = np.rint((normal + 1) * 127.5).astype(np.uint8)
    return np.where(valid[..., None], colours, np.uint8(255))


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write uint8 [H, W] or RGB [H, W, 3] as a picture file."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 4])[1]
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def write_samples(folder: str | Path, count: int = 4, height: int = 480, width: int = 640, seed: int = 0) -> None:
    """Write frames 0, 1, ... of a seed as a bare folder: NYU v2's files without the list of splits."""
    if count < 1:
        raise UserError(f"samples: expected a count of at least 1, got {count}")
    check_picture(height, width, seed, num_workers=0)
    write = partial(render_to_files, write_nyu_v2_frame, Path(folder), seed, height, width)
    map_frames(write, range(count), num_workers=0)


# ------------------------------------------------------------------------------- what all formats share


def frames_of_splits(split_sizes: dict[str, int]) -> dict[str, range]:
    """The numbers of each split's frames: train, its first 80 % (train1), the rest (train2), and test."""
    train, test = split_sizes["train"], split_sizes["test"]
    if not 2 <= train <= FIRST_TEST_FRAME or test < 1:
        raise UserError(
            f"split sizes: expected 2 to {FIRST_TEST_FRAME} training frames (they are divided into train1 "
            f"and train2) and at least 1 test frame, got {train} and {test}"
        )
    boundary = train - max(1, round(0.2 * train))
    return {
        "train": range(train),
        "train1": range(boundary),
        "train2": range(boundary, train),
        "test": range(FIRST_TEST_FRAME, FIRST_TEST_FRAME + test),
    }


def check_picture(height: int, width: int, seed: int, num_workers: int) -> None:
    """Raise a `UserError` where one of the arguments is out of range."""
    if min(height, width) < 32:
        raise UserError(f"picture size: expected at least 32 x 32 pixels, got height {height}, width {width}")
    if seed < 0 or num_workers < 0:
        raise UserError(f"seed and workers: expected 0 or more, got seed {seed} and workers {num_workers}")


def is_finished(folder: Path, arguments: dict[str, Any], index_file: Path) -> bool:
    """Whether the folder already holds all that these arguments make.

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
        return index_file.is_file()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and was not rendered by this program: name a new or an empty folder")
    return False


def read_record(record: Path) -> dict[str, Any]:
    """The arguments that a folder was rendered with; `UserError` where the file is damaged."""
    try:
        return dict(json.loads(record.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(
            f"{record}: expected the arguments of a rendered data set as JSON, found none; delete its folder"
        ) from error


FrameWriter = Callable[[Path, str, Frame], list[str]]


def render_to_files(
    write_frame: FrameWriter, folder: Path, seed: int, height: int, width: int, number: int
) -> list[str]:
    """Render a frame and write its files; returns their paths relative to the folder."""
    return write_frame(folder, f"{number:07d}", render_frame(seed, number, height, width))


def map_frames(write: Callable[[int], list[str]], numbers: Sequence[int], num_workers: int) -> list[list[str]]:
    """Call the function for every frame number, in this or in several processes; results in order."""
    if num_workers <= 1:
        return [write(number) for number in progress_bar(numbers, "rendering")]
    context = multiprocessing.get_context("spawn")
    with context.Pool(num_workers, initializer=use_one_thread) as pool:
        return list(progress_bar(pool.imap(write, numbers, chunksize=4), "rendering", total=len(numbers)))


def use_one_thread() -> None:
    """Keep OpenCV to one thread: the processes share the cores already."""
    cv2.setNumThreads(1)


# -------------------------------------------------------------------------------------- command line


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line: a format, or "samples", then a folder and what to render."""
    parser = argparse.ArgumentParser(
        prog="python -m dataloaders.rendered", description="Render furnished rooms as a multi-task data set."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join([*WRITERS, "samples"]))
    for name in WRITERS:
        command = commands.add_parser(name, help=f"a data set with splits in the format of {name}")
        command.add_argument("--train", type=int, default=400, help="training frames (default: 400)")
        command.add_argument("--test", type=int, default=80, help="test frames (default: 80)")
        command.add_argument("--workers", type=int, default=2, help="processes that render (default: 2)")
        add_picture_arguments(command, height=240, width=320)
    samples = commands.add_parser("samples", help="a few frames of NYU v2's format without a list of splits")
    samples.add_argument("--count", type=int, default=4, help="frames (default: 4)")
    add_picture_arguments(samples, height=480, width=640)
    return parser.parse_args(arguments)


def add_picture_arguments(command: argparse.ArgumentParser, height: int, width: int) -> None:
    """What a data set and samples have in common: folder, size, seed."""
    command.add_argument("folder", metavar="FOLDER", help="where to write; made if missing")
    command.add_argument("--height", type=int, default=height, help=f"pixels (default: {height})")
    command.add_argument("--width", type=int, default=width, help=f"pixels (default: {width})")
    command.add_argument("--seed", type=int, default=0, help="which rooms; 0 or more (default: 0)")


def main(arguments: list[str] | None = None) -> None:
    """Entry of the command line; bad input ends with one sentence and exit code 2."""
    options = parse_arguments(arguments)
    with exit_on_user_error():
        if options.command == "samples":
            write_samples(options.folder, options.count, options.height, options.width, options.seed)
            return
        sizes = {"train": options.train, "test": options.test}
        write = WRITERS[options.command]
        started, frames = time.perf_counter(), sum(sizes.values())
        index = write(options.folder, sizes, options.height, options.width, options.seed, options.workers)
        seconds = time.perf_counter() - started
        print(f"{index}: {frames} frames in {seconds:.1f} s, {frames / seconds:.1f} per second")


if __name__ == "__main__":
    main()
