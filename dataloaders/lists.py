"""Lists: text files of which every line is a sample."""

import codecs
from pathlib import Path

from dataloaders.reading import read_file
from utils.errors import UserError

MOST_BYTES = 130_000_000
MOST_LINES = 2_000_000
"""Bounds of a list; DomainNet's longest has half a million lines in 30 MB."""


def read_lines(path: Path, form: str) -> list[bytes]:
    """The lines of a list, undecoded, without a byte-order mark at its start and blank lines at its end.

    Only a line feed ends a line: a carriage return before it stays, and so does U+0085 inside of a text.

    Args:
        form: what a line must look like, for messages.

    Raises: UserError if the file cannot be read, or has no line, or more than `MOST_LINES`.
    """
    content = read_file(path, MOST_BYTES)
    if content.count(b"\n") > MOST_LINES:
        raise UserError(f"{path} has more than {MOST_LINES} lines {form!r}: it is no list of samples, replace it")
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UserError(f"{path} is empty: it needs a line {form!r} for each sample")
    return lines
