"""Lists: text files of which every line is a sample."""

import codecs
from pathlib import Path

from dataloaders.reading import read_file
from utils.errors import UserError

MOST_BYTES = 64_000_000
MOST_LINES = 2_000_000
MOST_BYTES_OF_A_LINE = 1_000_000
"""Bounds of a list; DomainNet's longest has half a million lines in 30 MB, FDU-MTL's two thousand in 3 MB."""


def read_lines(path: Path, form: str) -> list[bytes]:
    """The lines of a list, undecoded, without a byte-order mark at its start and blank lines at its end.

    Only a line feed ends a line: a carriage return before it stays, and so does U+0085 inside of a text.

    Args:
        form: what a line must look like, for messages.

    Raises: UserError if the file cannot be read, or has no line, more than `MOST_LINES`, or one of more than
    `MOST_BYTES_OF_A_LINE`.
    """
    content = read_file(path, MOST_BYTES)
    if content.count(b"\n") > MOST_LINES:
        raise UserError(f"{path} has more than {MOST_LINES} lines {form!r}: it is no list of samples, replace it")
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UserError(f"{path} is empty: it needs a line {form!r} for each sample")
    for number, line in enumerate(lines, start=1):
        if len(line) > MOST_BYTES_OF_A_LINE:
            most = f"{MOST_BYTES_OF_A_LINE / 1e6:.0f} MB"
            raise UserError(f"line {number} of {path} has more than {most}, but must be {form!r}: shorten it")
    return lines
