"""Files that are either whole or not there: written to a temporary name, then renamed."""

import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from utils.errors import UserError

MOST_JSON_BYTES = 16_000_000
MOST_JSON_VALUES = 6_000_000
"""Bounds of a JSON file. A value takes up to a hundred bytes of memory, however few it takes in the file."""

UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.tmp")
"""Name of a file that `replacing` is writing."""

# A list of numbers as `json.dumps(indent=2)` spreads it over lines. Strings hold no real line break,
# so nothing inside one can match.
SPREAD_NUMBERS = re.compile(r"\[\n\s*([-+.\deE,\s]+)\n\s*\]")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Hand out a temporary path in the folder of `path`, renamed to `path` when the block succeeds.

    Parent folders are made. If the block raises, the temporary file is removed and `path` is as it was.
    Raises `UserError` where the folder or the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        flush_to_disk(temporary)
        os.replace(temporary, path)
        flush_to_disk(path.parent)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); expected a folder with room and the "
            "right to write, choose another one"
        ) from error
    finally:
        # What stopped the writing (a parent that is a file, a right withdrawn) may stop the removal too.
        with suppress(OSError):
            temporary.unlink()


def make_folder(path: Path, setting: str = "paths") -> None:
    """Make a folder and its parents; raises `UserError` where that, or writing a file into it, fails.

    Args:
        setting: key of the configuration that names the folder, for messages.
    """
    probe = path / f".{uuid.uuid4().hex}.probe"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written to ({error.strerror or error}); expected a folder, or a place where one can be "
            f"made, choose another one with --set {setting}"
        ) from error


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all; raises `UserError` where it cannot be written."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON, indented by 2, each list of plain numbers (a row of gates) on one line.

    Raises `ValueError` for NaN and infinities, which JSON does not have: write None where a number has no
    meaning. Raises `UserError` where the file cannot be written.
    """
    spread = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, SPREAD_NUMBERS.sub(lambda numbers: f"[{' '.join(numbers[1].split())}]", spread) + "\n")


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """The content of a file that someone else may have made: a regular file, and not larger than what it is for.

    Raises `OSError` where it cannot be read, and `ValueError` where it is no regular file (a pipe would block, a
    device has no end) or is larger than `most_bytes`.
    """
    with open_bounded(path, most_bytes) as (file, size):
        content = file.read(size + 1)
    if len(content) > size:
        raise ValueError("it is still being written")
    return content


@contextmanager
def open_bounded(path: Path, most_bytes: int) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file that someone else may have made: hand out the file and its size; raises as `read_bounded`."""
    if path.exists() and not path.is_file():
        raise ValueError("it is a folder" if path.is_dir() else "it is no regular file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise ValueError(f"it is larger than {most_bytes / 1e6:.10g} MB")
        yield file, size


def read_json(path: Path, most_bytes: int = MOST_JSON_BYTES) -> Any:
    """Read a JSON file; raises `UserError` where it is missing, damaged, or large or nested beyond all sense."""
    with reading_json(path):
        return json.loads(read_json_text(path, most_bytes), object_pairs_hook=_without_repetition)


@contextmanager
def reading_json(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading a JSON file into a `UserError`."""
    try:
        yield
    except (OSError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"{path} cannot be read as JSON ({reason}): repair it, or run again what writes it") from error


def read_json_text(path: Path, most_bytes: int) -> str:
    """The text of a JSON file; raises as `read_bounded`, and `ValueError` for more values than fit into memory.

    One letter that is not ASCII can make each take four bytes, so a text with such letters may be a quarter as large.
    """
    content = read_bounded(path, most_bytes)
    if sum(map(content.count, (b",", b":", b"[", b"{"))) > MOST_JSON_VALUES:
        raise ValueError(f"it holds more than {MOST_JSON_VALUES} values")
    if len(content) > most_bytes // 4 and not content.isascii():
        raise ValueError(f"it is larger than {most_bytes / 4e6:.10g} MB and not written in ASCII alone")
    return content.decode("utf-8")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:60]!r} stands there twice")
        found[key] = value
    return found


def flush_to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, would survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(paths: Iterable[Path]) -> None:
    """Remove those of the paths that `replacing` was writing when its process was killed.

    Only where nobody else is writing: their names do not tell whose they are.
    """
    for path in list(paths):
        if UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)
