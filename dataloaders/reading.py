"""The content of files that others may have made, and a sentence where it cannot be had."""

from pathlib import Path

from utils.errors import UserError
from utils.faults import explanation
from utils.files import read_bounded


def read_file(path: Path, most_bytes: int) -> bytes:
    """The content of a file.

    Raises: UserError that names the reason if it cannot be read, is no file, or is larger; the OSError itself if the
    machine is at fault, such as too many open files.
    """
    try:
        return read_bounded(path, most_bytes)
    except OSError as error:
        if explanation(error):
            raise
        raise UserError(f"{path} cannot be read ({error.strerror or error}): replace the file") from error
    except ValueError as error:
        raise UserError(f"{path} cannot be read ({error}): replace the file") from error
