"""The habits of all preparations: a folder's record, work that goes on where it stopped, an index that comes last.

Sources are only read. Every file is whole or not there, so what is there need not be made again; the list of splits
(the index) is written when all else is there. `prepared.json` says what a folder was prepared from: without it,
files that a preparation would write are somebody else's, and are left alone.
"""

import io
import multiprocessing
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np

from utils.errors import UserError
from utils.files import read_json, replacing, write_json
from utils.progress import progress_bar

RECORD_FILE = "prepared.json"

RECIPE = 1
"""To be raised whenever the same sources give other files, so that a folder never mixes two kinds."""

Item, Result = TypeVar("Item"), TypeVar("Result")


class Prepared(NamedTuple):
    """What a preparation has come to."""

    index: Path  # the list of splits
    split_sizes: dict[str, int]  # split -> samples
    notes: tuple[str, ...] = ()  # sentences the user should read


def claim_folder(folder: Path, names: Collection[str], sources: Mapping[str, Path | str]) -> None:
    """Record in a folder what it is prepared from, before anything else is written.

    Args:
        names: the files and folders that are going to be made in it.
        sources: what decides their content; the folder's earlier preparations, if any, must have had the same.

    Raises: UserError where they had not, or where one of the names exists and no preparation made it.
    """
    origin: dict[str, Any] = {name: str(source) for name, source in sources.items()} | {"recipe": RECIPE}
    record = folder / RECORD_FILE
    if record.is_file():
        found = read_json(record)
        if found != origin:
            raise UserError(
                f"{folder} was prepared from something else ({found} in {RECORD_FILE}, not {origin}): name another "
                "folder, or delete this one"
            )
        _remove_leftovers(folder, names)
        return
    taken = [name for name in names if (folder / name).exists()]
    if taken:
        raise UserError(
            f"{folder} already holds {', '.join(taken)}, not prepared by this program: name another folder, or move "
            "them away"
        )
    write_json(record, origin)


def _remove_leftovers(folder: Path, names: Collection[str]) -> None:
    # A process that was killed had no time to remove the files that it was writing (`utils.files.replacing`).
    for name in names:
        for unfinished in (folder / name).glob(".*.tmp"):
            unfinished.unlink()


def carry_out(job: Callable[[Item], Result], items: Sequence[Item], num_workers: int, title: str) -> list[Result]:
    """Do a job for every item, in this or in several processes; results in order.

    Raises: UserError of the first job that fails; what other jobs have made stays.
    """
    if num_workers <= 1 or len(items) <= 1:
        return [job(item) for item in progress_bar(items, title)]
    # The processes share the cores already. NumPy's libraries read this when the new processes load them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(num_workers, len(items)), initializer=_use_one_thread) as pool:
        return list(progress_bar(pool.imap(job, items), title, total=len(items)))


def _use_one_thread() -> None:
    cv2.setNumThreads(1)


def whole(folder: Path, files: Sequence[str]) -> bool:
    """Whether all the files, relative to the folder, are there: then an earlier run has made them."""
    return all((folder / file).is_file() for file in files)


def write_index(path: Path, index: Any) -> None:
    """Write the index as JSON, unless this very index is already there."""
    if not path.is_file() or read_json(path) != index:
        write_json(path, index)


def write_if_new(path: Path, content: bytes) -> None:
    """Write a file, unless these very bytes are already there."""
    if not path.is_file() or path.read_bytes() != content:
        with replacing(path) as temporary:
            temporary.write_bytes(content)


def array_file(array: np.ndarray) -> bytes:
    """The content of the .npy file of an array."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def way_to(raw: Path, output: Path) -> str:
    """What turns a path relative to `raw` into one relative to `output`: "../raw/", or "" where both are one folder."""
    way = os.path.relpath(raw.resolve(), output.resolve())
    return "" if way == os.curdir else f"{way}/"


def refuse_no_folder(folder: Path, content: str) -> None:
    """Raise a `UserError` that says what a folder of raw data should hold, if it is none."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the one that holds {content}")


def refuse_missing(paths: Sequence[Path], remedy: str) -> None:
    """Raise a `UserError` that counts the source files that do not exist, names the first ones and says what to do."""
    missing = [str(path) for path in paths if not os.path.isfile(path)]
    if missing:
        first = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UserError(f"{len(missing)} source files do not exist ({first}): {remedy}")
