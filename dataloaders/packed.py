"""Packed samples: the decoded arrays of many samples in one file that is mapped into memory.

Decoding a picture takes longer than all that is done with it afterwards, and gives the same arrays in every pass. A
cache keeps them. All processes share the system's one copy of the file, and of a sample only those parts are read that
somebody looks at.

A cache has a folder to itself, named after the files that it is made from. In it are the arrays, one after the other,
and an index in JSON that says what they are; both bear the name of a fingerprint, which changes with the files' content
and the code that reads them. The index is written last: where it is, the arrays are whole.
"""

import hashlib
import inspect
import math
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Annotated, Generic, NamedTuple

import cv2
import numpy as np
import PIL
from pydantic import BaseModel, Field

from dataloaders.processes import results_in_order
from dataloaders.splits import Item, related
from dataloaders.transforms import Sample, resize
from utils.errors import UserError
from utils.files import read_bounded, remove_unfinished, replacing, write_text
from utils.progress import progress_bar
from utils.run_lock import locked

ALIGNMENT = 64
"""Every array begins at a multiple of so many bytes, where its values can be read as what they are."""

MOST_INDEX_BYTES = 64_000_000
"""Of an index, in which a sample takes two or three."""

MOST_THREADS = 8
"""That decode. With more, the disk is what they wait for."""


class Form(NamedTuple):
    """What an array of a sample is: its name, NumPy's code of its type, and its lengths."""

    name: str
    dtype: Annotated[str, Field(pattern=r"^[<>|][biuf][1248]$")]
    shape: tuple[Annotated[int, Field(ge=1)], ...]

    @property
    def num_bytes(self) -> int:
        """Of its values."""
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)

    @property
    def padded_bytes(self) -> int:
        """From its beginning to that of the next array."""
        return -(-self.num_bytes // ALIGNMENT) * ALIGNMENT


Layout = tuple[Form, ...]
"""The arrays of a sample, in order."""


class Index(BaseModel):
    """What a file of arrays holds.

    Attributes:
        layouts: those that samples have; frames of one size share theirs.
        samples: the number of each sample's layout.
    """

    layouts: tuple[Layout, ...]
    samples: tuple[Annotated[int, Field(ge=0)], ...]

    def places(self) -> list[int]:
        """Where each sample begins in the file, in bytes, and where the last one ends: [N + 1].

        Raises: IndexError for a layout that is not there.
        """
        sizes = [sum(form.padded_bytes for form in layout) for layout in self.layouts]
        return list(accumulate((sizes[number] for number in self.samples), initial=0))


class MappedFile:
    """The bytes of a file, mapped into memory for reading: uint8. A process that it is sent to maps it anew."""

    def __init__(self, path: Path):
        self.path = path
        self.content = np.memmap(path, np.uint8, "r").view(np.ndarray)

    def __reduce__(self) -> tuple[type["MappedFile"], tuple[Path]]:
        return MappedFile, (self.path,)


class PackedSamples:
    """Samples of a cache: number -> sample, whose arrays are views of the file and cannot be written to.

    Args:
        file: the arrays.
        layouts: [N], of each sample.
        starts: [N] int64, the place in the file where it begins.
    """

    def __init__(self, file: MappedFile, layouts: Sequence[Layout], starts: np.ndarray):
        self.file = file
        self.layouts = layouts
        self.starts = starts

    def __len__(self) -> int:
        return len(self.layouts)

    def __getitem__(self, number: int) -> Sample:
        sample, start = {}, int(self.starts[number])
        for form in self.layouts[number]:
            content = self.file.content[start : start + form.num_bytes]
            sample[form.name] = content.view(form.dtype).reshape(form.shape)
            start += form.padded_bytes
        return sample

    def select(self, numbers: Sequence[int]) -> "PackedSamples":
        """Some of the samples of the same file, in the order that is asked for."""
        return PackedSamples(self.file, [self.layouts[number] for number in numbers], self.starts[list(numbers)])

    @property
    def note(self) -> str:
        """A sentence for the user: where the cache is, and how large."""
        size = len(self.file.content) / 1e6
        return (
            f"decoded samples are taken from {self.file.path.parent} ({size:.0f} MB), which may be removed at any time"
        )


# What a cache is made from


@dataclass(frozen=True)
class Decoding(Generic[Item]):
    """How the samples of a data set are decoded, and all that this depends on.

    Attributes:
        kind: the data set's class, whose module holds the code.
        settings: values that matter as well.
        files: item of a split -> the files that are read, absolute paths.
        read: item of a split -> the sample's arrays.
    """

    kind: type
    settings: tuple[object, ...]
    files: Callable[[Item], Iterable[str]]
    read: Callable[[Item], Sample]


def identify(decoding: Decoding[Item], items: Iterable[Item]) -> tuple[str, str]:
    """The name of a cache's folder, and the fingerprint of the state that files and code are in.

    Raises: UserError for a file that is missing.
    """
    name, state = hashlib.sha256(repr(decoding.settings).encode()), hashlib.sha256(decoding_code(decoding.kind))
    state.update(f"OpenCV {cv2.__version__}, Pillow {PIL.__version__}".encode())
    for file in chain.from_iterable(map(decoding.files, items)):
        try:
            found = os.stat(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{file} cannot be read ({error}): put it there, or correct the list of splits") from error
        name.update(os.fsencode(file) + b"\0")
        state.update(f"{found.st_size} {found.st_mtime_ns}\n".encode())
    state.update(name.digest())
    return f"{decoding.kind.__name__}-{name.hexdigest()[:16]}", state.hexdigest()[:32]


def decoding_code(kind: type) -> bytes:
    """The text of the modules that say how files become arrays: those of a class and its bases, and the transforms."""
    classes = [base for base in kind.__mro__ if base.__module__.partition(".")[0] not in sys.stdlib_module_names]
    files = dict.fromkeys(map(inspect.getfile, [*classes, resize]))
    return b"".join(Path(file).read_bytes() for file in files)


# A cache's files


def open_packed(
    cache: Path, decoding: Decoding[Item], members: Mapping[str, Iterable[Item]], split: str
) -> PackedSamples:
    """The samples of a split from the cache that it shares with related splits; they are decoded now if they must be.

    Of several processes one decodes, in threads, and the others wait for it. What was decoded from an earlier state of
    the same files is removed.

    Args:
        cache: the folder of all caches; made if missing.
        members: split -> its items.

    Raises: whatever `decoding.read` does, and UserError where a file is missing or the cache cannot be written;
    nothing half done stays.
    """
    items = related(members, split)
    name, fingerprint = identify(decoding, items)
    folder = cache / name
    packed = find_packed(folder, fingerprint)
    if packed is None:
        make_cache_folder(folder)
        with locked([folder], "decoding", patience=math.inf):
            # Whoever held the lock before may have done it.
            packed = find_packed(folder, fingerprint) or build(folder, fingerprint, decoding.read, items)
    numbers = {item: number for number, item in enumerate(items)}
    return packed.select([numbers[item] for item in members[split]])


def find_packed(folder: Path, fingerprint: str) -> PackedSamples | None:
    """The samples that a folder has under a fingerprint; None if they are not there, or the files are damaged.

    Raises: UserError if they are there but cannot be read.
    """
    arrays, index = files_of(folder, fingerprint)
    try:
        return assemble(arrays, Index.model_validate_json(read_bounded(index, MOST_INDEX_BYTES), strict=True))
    except (FileNotFoundError, ValueError, IndexError):  # IndexError: of a layout that is not there
        return None
    except OSError as error:
        raise UserError(f"dataload.cache: {folder} cannot be read ({error.strerror}): give another folder") from error


def build(folder: Path, fingerprint: str, read: Callable[[Item], Sample], items: Sequence[Item]) -> PackedSamples:
    """Decode the samples of all items, and keep them in a folder that nobody else writes to."""
    remove_unfinished(folder.iterdir())
    arrays, index = files_of(folder, fingerprint)
    index.unlink(missing_ok=True)
    num_threads = min(MOST_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(num_threads) as executor, replacing(arrays) as temporary:
        samples = results_in_order(executor, read, items, most_ahead=2 * num_threads)
        written = write_arrays(temporary, progress_bar(samples, f"decoding {folder.name}", total=len(items)))
    write_text(index, written.model_dump_json())
    for path in folder.iterdir():
        if path.suffix in (arrays.suffix, index.suffix) and path not in (arrays, index):
            path.unlink(missing_ok=True)
    return assemble(arrays, written)


def write_arrays(path: Path, samples: Iterable[Sample]) -> Index:
    """Write the arrays of samples one after the other."""
    layouts: dict[Layout, int] = {}
    numbers = []
    with path.open("wb") as file:
        for sample in samples:
            layout = tuple(Form(name, array.dtype.str, array.shape) for name, array in sample.items())
            numbers.append(layouts.setdefault(layout, len(layouts)))
            for form, array in zip(layout, sample.values(), strict=True):
                file.write(array.tobytes())
                file.write(bytes(form.padded_bytes - form.num_bytes))
    return Index(layouts=tuple(layouts), samples=tuple(numbers))


def assemble(arrays: Path, index: Index) -> PackedSamples:
    """The samples of a file of arrays; ValueError if its size is not what the index says."""
    file = MappedFile(arrays)
    *starts, end = index.places()
    if len(file.content) != end:
        raise ValueError(f"{arrays} has {len(file.content)} bytes instead of {end}")
    return PackedSamples(file, [index.layouts[number] for number in index.samples], np.array(starts, np.int64))


def files_of(folder: Path, fingerprint: str) -> tuple[Path, Path]:
    """The file of the arrays and its index."""
    return folder / f"{fingerprint}.bin", folder / f"{fingerprint}.json"


def make_cache_folder(folder: Path) -> None:
    """Make a folder that can be written to; UserError if that fails."""
    probe = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"dataload.cache: {folder} cannot be written to ({error.strerror}): give a folder with room, or null"
        ) from error
