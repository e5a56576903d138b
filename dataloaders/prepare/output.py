"""The habits of all preparations: a folder's record, files that are not made twice, an index that comes last.

Sources are only read. Every file is whole or not there, so what is there need not be made again; the list of splits
(the index) is written when all else is there. `prepared.json` says what a folder was prepared from: without it,
files that a preparation would write are somebody else's, and are left alone.
"""

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataloaders.reading import read_file
from dataloaders.split_files import MOST_SPLIT_BYTES
from utils.errors import UserError
from utils.files import read_json, remove_unfinished, replacing, write_json

RECORD_FILE = "prepared.json"

MOST_SOURCE_BYTES = 1_000_000
"""Of a source that is read whole: splits and classes of NYU v2, a list of buildings. Each has a few KB."""

RECIPE = 1
"""To be raised whenever the same sources give other files, so that a folder never mixes two kinds."""


class Prepared(NamedTuple):
    """What a preparation has come to."""

    index: Path  # the list of splits
    split_sizes: dict[str, int]  # split -> samples
    notes: tuple[str, ...] = ()  # sentences the user should read


def claim_folder(folder: Path, names: Sequence[str], sources: Mapping[str, str]) -> None:
    """Record in a folder what it is prepared from, before anything else is written.

    What an earlier run that was killed left half-written is removed.

    Args:
        names: the files and folders that are going to be made in it.
        sources: what decides their content, each by its place, its digest or its stamp; the folder's earlier
            preparations, if any, must have had the same.

    Raises: UserError where they had not, or where one of the names exists and no preparation made it.
    """
    origin: dict[str, Any] = {**sources, "recipe": RECIPE}
    record = folder / RECORD_FILE
    if record.is_file():
        refuse_other_origin(folder, names, read_json(record), origin)
    else:
        refuse_taken(folder, names)
        write_json(record, origin)
    for place in (folder, *(folder / name for name in names)):
        remove_unfinished(place.glob(".*.tmp"))


def refuse_other_origin(folder: Path, names: Sequence[str], found: Any, origin: Mapping[str, Any]) -> None:
    """Raise a `UserError` that names the sources which differ from the recorded ones, and what was made of those."""
    recorded = found if isinstance(found, dict) else {}
    differences = [
        f"{name} was {recorded.get(name)}, now is {origin.get(name)}"
        for name in {**origin, **recorded}
        if recorded.get(name) != origin.get(name)
    ]
    if differences:
        # The folder may be the download itself: no more than what a preparation made may be given up.
        made = [name for name in (*names, RECORD_FILE) if (folder / name).exists()]
        raise UserError(
            f"{folder} was prepared from other sources ({'; '.join(differences)}): bring those back, name another "
            f"OUTPUT, or remove {', '.join(made)} from it, and nothing else, to prepare it anew"
        )


def refuse_taken(folder: Path, names: Sequence[str]) -> None:
    """Raise a `UserError` where one of the names exists."""
    taken = [name for name in names if (folder / name).exists()]
    if taken:
        raise UserError(
            f"{folder} already holds {', '.join(taken)}, not prepared by this program: name another folder, or move "
            "them away"
        )


def place_of(raw: Path, output: Path) -> str:
    """Where the folder of raw data is, seen from the output folder, "." where both are one: moving them together
    changes nothing."""
    return os.path.relpath(raw.resolve(), output.resolve())


def digest_of(path: Path) -> str:
    """The digest of a small file's content, by which another content is known."""
    return f"sha256 {hashlib.sha256(read_file(path, MOST_SOURCE_BYTES)).hexdigest()[:16]}"


def stamp_of(path: Path) -> str:
    """Size and time of the last change of a file that is too large to be read for its digest."""
    status = path.stat()
    changed = datetime.fromtimestamp(status.st_mtime, tz=timezone.utc)
    return f"{status.st_size} bytes of {changed:%Y-%m-%d %H:%M:%S} UTC"


def whole(folder: Path, files: Sequence[str]) -> bool:
    """Whether all the files, relative to the folder, are there: then an earlier run has made them."""
    return all((folder / file).is_file() for file in files)


def write_index(path: Path, index: Any) -> None:
    """Write the index as JSON, unless this very index is already there."""
    if not path.is_file() or read_json(path, MOST_SPLIT_BYTES) != index:
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
    place = place_of(raw, output)
    return "" if place == os.curdir else f"{place}/"


def refuse_no_raw_folder(folder: Path, content: str) -> None:
    """Raise a `UserError` that says what a folder of raw data should hold, if it is none."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the one that holds {content}")


def refuse_missing_sources(paths: Sequence[Path], remedy: str) -> None:
    """Raise a `UserError` that counts the source files that do not exist, names the first ones and says what to do."""
    missing = [str(path) for path in paths if not os.path.isfile(path)]
    if missing:
        first = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UserError(f"{len(missing)} source files do not exist ({first}): {remedy}")
