"""Lists: text files of which every line is a sample."""

import codecs
from pathlib import Path

from utils.errors import UserError


def read_lines(path: Path, form: str) -> list[bytes]:
    """The lines of a list, undecoded, without a byte-order mark at its start and blank lines at its end.

    Only a line feed ends a line: a carriage return before it stays, and so does U+0085 inside of a text.

    Args:
        form: what a line must look like, for messages.

    Raises: UserError if the file cannot be read, or has no line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): replace the file") from error
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UserError(f"{path} is empty: it needs a line {form!r} for each sample")
    return lines
