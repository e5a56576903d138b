"""The cache of decoded samples: what it is made from, when it is made anew, and by whom.

Decoding a picture takes longer than all that is done with it afterwards, and gives the same arrays in every pass. A
cache keeps them, packed as `dataloaders.packed` says.

What is decoded has a folder to itself, whose name tells its subject (data set, data root, splits, settings) from its
list of files. The files in it, arrays and an index in JSON, bear the name of a fingerprint, which changes with the
listed files and with the code that reads them. The index is written last: where it is, the arrays are whole.
"""

import hashlib
import inspect
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Generic

import cv2
import kornia_rs
import numpy as np
import PIL

from dataloaders.packed import Index, PackedSamples, layout_of, map_samples, size_of, write_arrays
from dataloaders.processes import results_in_order
from dataloaders.splits import Item, related
from dataloaders.transforms import Sample
from utils.children import num_cores
from utils.errors import UserError
from utils.faults import explanation
from utils.files import make_folder, read_bounded, remove_unfinished, replacing, write_text
from utils.progress import progress_bar
from utils.run_lock import locked_file

SETTING = "dataload.cache"

MOST_INDEX_BYTES = 64_000_000
"""Of an index, in which a sample takes two or three."""

MOST_THREADS = 8
"""That decode. With more, the disk is what they wait for."""

TYPICAL_SAMPLES = 16
"""The first ones, by which the room that all take is told beforehand."""


@dataclass(frozen=True)
class Decoding(Generic[Item]):
    """How the samples of a data set are decoded, and all that this depends on.

    Attributes:
        kind: the data set's class, whose module holds the code.
        source: the data root, and which part of it.
        settings: values that matter as well.
        files: item of a split -> the files that are read, absolute paths.
        read: item of a split -> the sample's arrays.
    """

    kind: type
    source: str
    settings: tuple[object, ...]
    files: Callable[[Item], Iterable[str]]
    read: Callable[[Item], Sample]


class Cache:
    """The folder of all caches, as one run uses it: for all its splits, it looks at each file once.

    Args:
        folder: made when the first samples are decoded.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._fingerprints: dict[Path, str] = {}

    def samples_of(self, decoding: Decoding[Item], members: Mapping[str, Sequence[Item]], split: str) -> PackedSamples:
        """The samples of a split, from the cache that it shares with related splits; decoded now if they must be.

        Of several processes one decodes, in threads, and the others wait for it. What was decoded from an earlier state
        of the same files is removed.

        Args:
            members: split -> its items.

        Raises: whatever `decoding.read` does, and UserError where a file is missing, a sample cannot be packed, or the
        cache cannot be written; nothing half done stays.
        """
        splits = related(members, split)
        items = sorted({item for name in splits for item in members[name]})
        folder = self.folder / name_of(decoding, splits, items)
        if folder not in self._fingerprints:
            self._fingerprints[folder] = fingerprint_of(decoding, items)
        fingerprint = self._fingerprints[folder]
        packed = find_samples(folder, fingerprint) or decode_alone(folder, fingerprint, decoding.read, items)
        numbers = {item: number for number, item in enumerate(items)}
        return packed.select([numbers[item] for item in members[split]])


# What a cache is made from


def name_of(decoding: Decoding[Item], splits: Iterable[str], items: Iterable[Item]) -> str:
    """The name of a cache's folder: class of the data set, subject, list of files; the last two as checksums."""
    # Of related splits the first name stands for all: test and val, of which val may be other data in the next run.
    subject = repr((decoding.source, min(splits), decoding.settings))
    listed = hashlib.sha256()
    for item in items:
        for file in decoding.files(item):
            listed.update(os.fsencode(file) + b"\0")
    return f"{decoding.kind.__name__}-{hashlib.sha256(subject.encode()).hexdigest()[:8]}-{listed.hexdigest()[:16]}"


def fingerprint_of(decoding: Decoding[Item], items: Sequence[Item]) -> str:
    """The state that files and code are in: sizes and times of change, settings, the text of the code, versions.

    Raises: UserError for a file that is missing.
    """
    state = hashlib.sha256(decoding_code(decoding.kind))
    versions = [module.__version__ for module in (np, cv2, PIL, kornia_rs)]
    state.update(repr((versions, decoding.settings)).encode())
    for item in progress_bar(items, f"looking at the files of {decoding.kind.__name__}"):
        for file in decoding.files(item):
            try:
                found = os.stat(file)
            except (OSError, ValueError) as error:
                raise UserError(
                    f"{file} cannot be read ({error}): put it there, or correct the list of splits"
                ) from error
            # Of a file's times the first can be set, as archives do that are unpacked; the second is the system's own.
            state.update(f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}\n".encode())
    return state.hexdigest()[:32]


def decoding_code(kind: type) -> bytes:
    """The text of all modules that may say how files become arrays: this folder's, and those of a class and its bases.

    Other modules that a data set of one's own imports are not seen.
    """
    own = Path(__file__).parent.glob("*.py")
    classes = [base for base in kind.__mro__ if base.__module__.partition(".")[0] not in sys.stdlib_module_names]
    files = {path.resolve() for path in (*own, *map(Path, map(inspect.getfile, classes)))}
    return b"".join(path.read_bytes() for path in sorted(files))


# A cache's files


def find_samples(folder: Path, fingerprint: str) -> PackedSamples | None:
    """The samples that a folder has under a fingerprint; None if they are not there, or the files are damaged.

    Raises: UserError if they are there but cannot be read.
    """
    arrays, index = files_of(folder, fingerprint)
    with blamed_on(folder, "read"):
        try:
            content = read_bounded(index, MOST_INDEX_BYTES)
            return map_samples(arrays, Index.model_validate_json(content, strict=True))
        except (FileNotFoundError, ValueError, IndexError):  # IndexError: of a layout that is not there
            return None


def decode_alone(
    folder: Path, fingerprint: str, read: Callable[[Item], Sample], items: Sequence[Item]
) -> PackedSamples:
    """The samples of all items, decoded and kept in a folder, unless another process has done it by now."""
    make_folder(folder, SETTING)
    try:
        with (
            blamed_on(folder, "written to"),
            locked_file(folder / ".decoding.lock", patience=math.inf, tell=partial(tell_waiting, folder)),
        ):
            packed = find_samples(folder, fingerprint)
            if packed is None:
                packed = decode(folder, fingerprint, carrying_faults(read), items)
                tell_older(folder)
            return packed
    except CarriedFault as carried:
        raise carried.fault from carried.fault.__cause__


def decode(folder: Path, fingerprint: str, read: Callable[[Item], Sample], items: Sequence[Item]) -> PackedSamples:
    """Decode the samples of all items, and keep them in a folder that nobody else writes to."""
    remove_unfinished(folder.iterdir())
    arrays, index = files_of(folder, fingerprint)
    index.unlink(missing_ok=True)
    num_threads = min(MOST_THREADS, num_cores())
    with ThreadPoolExecutor(num_threads) as executor, replacing(arrays) as temporary:
        samples = results_in_order(executor, read, items, most_ahead=2 * num_threads)
        samples = if_there_is_room(samples, len(items), folder)
        written = write_arrays(temporary, progress_bar(samples, f"decoding {folder.name}", total=len(items)))
    write_text(index, written.model_dump_json())
    for path in folder.iterdir():
        if path.suffix in (arrays.suffix, index.suffix) and path not in (arrays, index):
            path.unlink(missing_ok=True)
    return map_samples(arrays, written)


def files_of(folder: Path, fingerprint: str) -> tuple[Path, Path]:
    """The file of the arrays and its index."""
    return folder / f"{fingerprint}.bin", folder / f"{fingerprint}.json"


def if_there_is_room(samples: Iterator[Sample], num_samples: int, folder: Path) -> Iterator[Sample]:
    """The samples; UserError before the first one if so many of their size do not fit onto the disk."""
    first = [(sample, size_of(layout_of(sample))) for sample in islice(samples, TYPICAL_SAMPLES)]
    needed = num_samples * mean(size for _, size in first)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{SETTING}: {folder} needs about {in_megabytes(needed)} for {num_samples} decoded samples, but its disk "
            f"has {in_megabytes(free)} left: make room, give another folder, or null"
        )
    yield from (sample for sample, _ in first)
    yield from samples


# What the user is told


def in_megabytes(num_bytes: float) -> str:
    """A size as it is told."""
    return f"{num_bytes / 1e6:.0f} MB"


def tell_waiting(folder: Path, holder: str) -> None:
    """Say that another process is decoding."""
    print(f"waiting for {holder}, which is decoding the samples of {folder}", flush=True)


def tell_older(folder: Path) -> None:
    """Name the caches of the same subject, but other files, that lie beside a new one."""
    subject, _, _ = folder.name.rpartition("-")
    for path in sorted(folder.parent.glob(f"{subject}-*")):
        if path == folder:
            continue
        with suppress(OSError):  # it is being removed
            size = in_megabytes(sum(file.stat().st_size for file in path.iterdir()))
            print(f"{path} ({size}) is of an earlier list of files: remove it if no run needs it any more", flush=True)


@contextmanager
def blamed_on(folder: Path, use: str) -> Iterator[None]:
    """Turn what goes wrong with a cache's files into a `UserError`, unless the machine is at fault."""
    try:
        yield
    except OSError as error:
        if explanation(error):
            raise
        raise UserError(
            f"{SETTING}: {folder} cannot be {use} ({error.strerror or error}): give another folder, or null"
        ) from error


class CarriedFault(Exception):
    """Carries what goes wrong with a data set's files past those who would take it for a fault of the cache's."""

    def __init__(self, fault: OSError):
        super().__init__(fault)
        self.fault = fault


def carrying_faults(read: Callable[[Item], Sample]) -> Callable[[Item], Sample]:
    """`read`, whose OSErrors are carried."""

    def carrying(item: Item) -> Sample:
        try:
            return read(item)
        except OSError as fault:
            raise CarriedFault(fault) from fault

    return carrying
