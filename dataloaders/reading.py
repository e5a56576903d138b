"""The content of files that others may have made, and a sentence where it cannot be had."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from utils.errors import UserError
from utils.faults import explanation
from utils.files import open_bounded, read_bounded


def read_file(path: Path, most_bytes: int) -> bytes:
    """The content of a file.

    Raises: UserError that names the reason if it cannot be read, is no file, or is larger; the OSError itself if the
    machine is at fault, such as too many open files.
    """
    with _reading(path):
        return read_bounded(path, most_bytes)


@contextmanager
def open_file(path: Path, most_bytes: int) -> Iterator[tuple[BinaryIO, int]]:
    """Hand out a file to read from and its size in bytes; raises as `read_file`, in the block as well."""
    with _reading(path), open_bounded(path, most_bytes) as (file, size):
        yield file, size


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if explanation(error):
            raise
        raise UserError(f"{path} cannot be read ({error.strerror or error}): replace the file") from error
    except ValueError as error:
        raise UserError(f"{path} cannot be read ({error}): replace the file") from error
