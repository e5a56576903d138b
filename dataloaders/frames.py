"""Data sets of frames: an image and, in files of their own, the targets of each of its pixels.

NYU v2, CityScapes and Tiny-Taskonomy have in common that a split file in the data root lists the files of every
frame, {split: [[path, ...], ...]}, paths relative to the root or absolute. What the files hold differs.
"""

import math
import os
import re
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import cv2
import numpy as np
from kornia_rs.io import decode_image_png_u8

from dataloaders.caching import Cache, Decoding
from dataloaders.keys import Key, keyed_generator
from dataloaders.packed import PackedSamples
from dataloaders.picture_files import MOST_PIXELS, picture_size, plain_png_channels, read_picture_file
from dataloaders.reading import open_file
from dataloaders.split_files import read_members
from dataloaders.splits import Splits
from dataloaders.transforms import Sample, TrainAugmentation
from utils.errors import UserError
from utils.faults import explanation
from utils.problems import shorten

Frame = dict[str, Path]
"""Name of an array -> the file that holds it; "img" is always there."""

Row = tuple[str, ...]
"""The files of one frame as they are listed."""

MOST_PATH_CHARACTERS = 4096
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")

NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""Version -> what reads the header; a third one serves names of fields, which no array of ours has."""

ONE_HEADER_AT_A_TIME = Lock()
"""NumPy has Python parse a header; in Python 3.11 threads that do so at once can disturb each other (SystemError)."""

MOST_ARRAY_BYTES = 250_000_000
"""Of an npy file; CityScapes' raw images would be 50 MB as float64."""

MOST_CHANNELS = 3
"""Of an array as large as a picture can be."""


@dataclass(frozen=True)
class Frames(Sequence[Frame]):
    """The frames of a split. A slice of them is `Frames` again.

    Paths are made when a frame is asked for: those of Tiny-Taskonomy, a million and more, would fill gigabytes.

    Attributes:
        root: folder that the files are relative to.
        names: of the arrays that a row's files hold, in the same order.
        rows: the files of each frame.
    """

    root: Path
    names: Sequence[str]
    rows: Sequence[Row]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | slice) -> "Frame | Frames":
        if isinstance(index, slice):
            return replace(self, rows=self.rows[index])
        return {name: self.root / file for name, file in zip(self.names, self.rows[index], strict=True)}

    def files(self) -> Iterator[str]:
        """The path of every file of every frame, as text: a million Path objects would take half a minute."""
        return (os.path.join(self.root, file) for row in self.rows for file in row)


class FrameDataset(ABC):
    """One split of a data set of frames: key (pass number, index) -> sample, a dict of arrays and the frame's name.

    A subclass says how files are read (`read`) and what a batch gets of them (`encode`).

    Args:
        dataroot: folder that the listed files are relative to.
        names: of the arrays that a member's files hold, "img" among them.
        splits: every split of the data root.
        split: the one to take.
        augment: the random changes of training; None for whole frames as they are.
        seed: key of the augmentation's draws, together with split, pass number and index.
        cache: where `decoded` keeps what `read` returns; None reads the files again each time.
        read_settings: values besides the files that the result of `read` depends on.

    Attributes:
        frames: the paths of every frame.
        notes: sentences the user should read, if the data root leaves something to be assumed.

    Raises: UserError for an unknown or empty split, for files that do not exist, and, when a frame is fetched,
    for one that cannot be read or is not of its form.
    """

    def __init__(
        self,
        dataroot: Path,
        names: Sequence[str],
        splits: Splits[Row],
        split: str,
        augment: TrainAugmentation | None,
        seed: int,
        cache: Cache | None = None,
        read_settings: tuple[object, ...] = (),
    ):
        self.frames = Frames(dataroot, names, splits.members_of(split))
        refuse_missing(self.frames.files(), split, splits.source)
        self.split = split
        self.augment = augment
        self.seed = seed
        self.notes = splits.notes
        self.packed: PackedSamples | None = None
        self._to_pack = (cache, splits, read_settings) if cache else None

    @abstractmethod
    def read(self, frame: Frame) -> Sample:
        """The arrays of a frame, alike in height and width, in the form that `augment` takes."""

    @abstractmethod
    def encode(self, sample: Sample) -> dict[str, np.ndarray]:
        """The arrays of a sample in the form that a batch has them."""

    def __len__(self) -> int:
        return len(self.frames)

    def source_of(self, index: int) -> str:
        """The image of a frame, for messages."""
        return str(self.frames[index]["img"])

    def __getitem__(self, key: Key) -> dict[str, np.ndarray | str]:
        pass_number, index = key
        frame = self.frames[index]
        sample = self.packed[index] if self.packed else self.read(frame)
        if self.augment:
            sample = self.augment(sample, keyed_generator(self.seed, self.split, pass_number, index))
        else:
            # `encode` gets its own arrays, as it does from `read`: those of a cache cannot be written to.
            sample = {name: np.require(array, requirements="W") for name, array in sample.items()}
        return {"name": frame["img"].stem, **self.encode(sample)}

    def decoded(self) -> "FrameDataset":
        """The same frames from the cache, where there is one; they are decoded now if they must be.

        Raises: UserError for a frame that cannot be read, and as `Cache.samples_of`.
        """
        if self._to_pack is None:
            return self
        other = copy(self)
        other.packed, other._to_pack = self.pack(*self._to_pack), None
        other.notes = (*self.notes, other.packed.note)
        return other

    def pack(self, cache: Cache, splits: Splits[Row], read_settings: tuple[object, ...]) -> PackedSamples:
        """The frames as a cache keeps them, together with those of the splits that have some of them, too.

        Raises: UserError for a frame that is missing or cannot be read, and as `Cache.samples_of`.
        """
        root, names = Path(os.path.abspath(self.frames.root)), tuple(self.frames.names)
        decoding = Decoding(
            type(self),
            source=str(root),
            settings=(names, *read_settings),
            files=lambda row: Frames(root, names, [row]).files(),
            read=lambda row: self.read(Frames(root, names, [row])[0]),
        )
        rows = {split: [tuple(row) for row in own] for split, own in splits.members.items()}
        return cache.samples_of(decoding, rows, self.split)


# Which frames form a split


def refuse_no_folder(dataroot: Path, content: str) -> None:
    """Raise a `UserError` that says what the data root should hold, if it is no folder."""
    # Unlike Path's, these functions of os.path raise nothing, whatever the path is.
    if not os.path.isdir(dataroot):
        raise UserError(
            f"the data root {dataroot} is not a folder: give the one that holds {content} "
            "with --set dataload.dataroot=FOLDER"
        )


def find_file(dataroot: Path, name: str) -> Path:
    """The path of a file that a data root must hold; UserError if it, or the data root, is missing."""
    refuse_no_folder(dataroot, name)
    path = dataroot / name
    if not os.path.isfile(path):
        raise UserError(f"{dataroot} has no {name}: give the folder that holds it with --set dataload.dataroot=FOLDER")
    return path


def read_split_file(path: Path, columns: Sequence[str], wanted: Sequence[str]) -> Splits[Row]:
    """The splits as a split file lists them, with the files that are wanted of each frame.

    Args:
        columns: what the files of a row are, in order.
        wanted: some of the columns, in the order that the rows returned shall have.

    Raises: UserError if the file is not of the form {split: [[path, ...], ...]}.
    """
    places = [columns.index(column) for column in wanted]
    members: dict[str, list[Row]] = {}
    known: dict[Row, Row] = {}
    for split, rows in read_members(path, f"{{split: [[{', '.join(columns)}], ...]}}"):
        if not split.isprintable():
            raise UserError(f"{path} has a split called '{shorten(split)}': give it a name that can be printed")
        members[split] = []
        for number, row in enumerate(rows):
            if not _is_row(row, len(columns)):
                raise UserError(
                    f"frame {number} of split '{shorten(split)}' of {path} is not a list of the "
                    f"{len(columns)} paths {', '.join(columns)}: correct it"
                )
            kept = tuple(row[place] for place in places)
            # What train1 and train2 list is in train as well, and of Tiny-Taskonomy that is 200 MB.
            members[split].append(known.setdefault(kept, kept))
    return Splits(path, members)


def _is_row(row: object, length: int) -> bool:
    return isinstance(row, list) and len(row) == length and all(map(is_path, row))


def is_path(value: object) -> bool:
    """Whether an entry of a list can be a file's path, and stand in a sentence: text of one line that has an end."""
    return isinstance(value, str) and len(value) <= MOST_PATH_CHARACTERS and not CONTROL_CHARACTER.search(value)


def refuse_missing(paths: Iterable[str], split: str, source: Path | str) -> None:
    """Raise a `UserError` that counts those files of a split that do not exist and names the first ones."""
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise UserError(
            f"{len(missing)} files that split {split!r} of {source} names do not exist "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}): "
            "put them there or correct the paths, which are relative to the data root"
        )


# Files -> arrays


def read_image(path: Path) -> np.ndarray:
    """A picture file in colour: uint8 [H, W, 3], BGR; UserError if it cannot be read."""
    return _decode(path, cv2.IMREAD_COLOR)


def read_channel(path: Path, dtype: type[np.unsignedinteger], meaning: str) -> np.ndarray:
    """A picture file of one channel: [H, W] of `dtype`, np.uint8 or np.uint16.

    Args:
        meaning: what the values are, for messages.

    Raises: UserError if it cannot be read, or has other channels or another depth of bits.
    """
    values = _decode(path, cv2.IMREAD_UNCHANGED)
    if values.ndim != 2 or values.dtype != dtype:
        bits = np.iinfo(dtype).bits
        raise UserError(f"{path} must have one channel of {bits} bits that holds {meaning}: convert it")
    return values


def read_normals(path: Path) -> np.ndarray:
    """A picture file of surface normals: uint8 [H, W, 3] in OpenCV's channel order; UserError as `read_channel`."""
    normals = _decode(path, cv2.IMREAD_UNCHANGED)
    if normals.shape[2:] != (3,) or normals.dtype != np.uint8:
        raise UserError(f"{path} must have three channels of 8 bits that hold a normal: convert it to RGB")
    return normals


def read_array(path: Path) -> np.ndarray:
    """The array [H, W, ...] of an npy file, never of Python objects.

    Raises: UserError if it cannot be read as one, or has more than `MOST_PIXELS`, or `MOST_CHANNELS` times as many
    values.
    """
    with open_file(path, MOST_ARRAY_BYTES) as (file, size):
        try:
            array = _read_values(file, size)
        except OSError:
            raise
        # NumPy takes the header for Python. What it raises depends on the damage, be it TokenError or RecursionError.
        except Exception as error:
            reason = textwrap.shorten(str(error) or type(error).__name__, width=150, placeholder=" ...")
            raise UserError(f"{path} cannot be read as a NumPy array ({reason}): replace the file") from error
    if not array.size:
        raise UserError(f"{path} holds an array without a single value: replace the file")
    return array


def _read_values(file: BinaryIO, size: int) -> np.ndarray:
    """The array of an npy file of so many bytes. What its header claims is allocated only if the file has it."""
    version = np.lib.format.read_magic(file)
    if version not in NPY_HEADERS:
        raise ValueError(f"the format's version is {version}")
    with ONE_HEADER_AT_A_TIME:
        shape, is_fortran, dtype = NPY_HEADERS[version](file)
    num_values, num_bytes = math.prod(shape), size - file.tell()
    if num_bytes != num_values * dtype.itemsize:
        expected = num_values * dtype.itemsize
        raise ValueError(f"{num_bytes} bytes of values, where an array {list(shape)} of {dtype} has {expected}")
    if math.prod(shape[:2]) > MOST_PIXELS or num_values > MOST_CHANNELS * MOST_PIXELS:
        raise ValueError(f"an array {list(shape)} has more than {MOST_PIXELS:,} pixels")
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    return np.fromfile(file, dtype, num_values).reshape(shape, order="F" if is_fortran else "C")


def refuse_other_sizes(sample: Sample, frame: Frame) -> None:
    """Raise a `UserError` if an array differs in height or width from the image."""
    size = sample["img"].shape[:2]
    for name, path in frame.items():
        height, width = sample[name].shape[:2]
        if (height, width) != size:
            raise UserError(
                f"{path} is {height}x{width} pixels, but its image {frame['img']} is "
                f"{size[0]}x{size[1]}: bring both to the same size"
            )


def _decode(path: Path, flags: int) -> np.ndarray:
    content = read_picture_file(path)
    channels = plain_png_channels(content)
    if channels == 3 or (channels == 1 and flags == cv2.IMREAD_UNCHANGED):
        return _decode_plain_png(path, content, channels)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:  # for a size without sense; for other damage it returns None
        if explanation(error):
            raise
        image = None
    if image is None:
        raise UserError(f"{path} is not a whole image that OpenCV can decode: replace the file")
    return image


def _decode_plain_png(path: Path, content: bytes, channels: int) -> np.ndarray:
    # By a library in Rust, in less than half of OpenCV's time.
    try:
        picture = decode_image_png_u8(content, picture_size(content), {1: "mono", 3: "rgb"}[channels])
    except Exception as error:  # it has no class of its own
        raise UserError(f"{path} is not a whole image ({error}): replace the file") from error
    return cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if channels == 3 else picture[..., 0]


# Sample -> arrays of a batch


def encode_classes(classes: np.ndarray) -> dict[str, np.ndarray]:
    """Class numbers uint8 [H, W] -> "seg" int64 [H, W]."""
    return {"seg": np.ascontiguousarray(classes, dtype=np.int64)}


def encode_depth(depth: np.ndarray, unmeasured: float) -> dict[str, np.ndarray]:
    """Depth float32 [H, W] -> "depth" float32 [1, H, W] and "depth_valid" bool [1, H, W], more than `unmeasured`.

    What is no finite number becomes 0, not measured.
    """
    depth = depth[None].copy()
    depth[~np.isfinite(depth)] = 0
    return {"depth": depth, "depth_valid": depth > unmeasured}
