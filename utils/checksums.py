"""A checksum behind the content of a file, by which a file that was cut off or altered is found.

The last 48 bytes of the file are a mark and the SHA-256 of all bytes before the mark. Readers of zip archives, and
`torch.load` with them, ignore what follows an archive.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

MARK = b"AdaShare SHA-256"
LENGTH = len(MARK) + hashlib.sha256().digest_size
PIECE = 1 << 20


@contextmanager
def written_with_checksum(path: Path) -> Iterator["HashingWriter"]:
    """Hand out a file to write to, whose checksum is added when the block succeeds.

    Raises: `OSError` where the file cannot be written, whatever the code in between has made of it.
    """
    with path.open("wb") as file:
        writer = HashingWriter(file)
        try:
            yield writer
        except RuntimeError as error:
            # PyTorch's writer, in C++, raises its own error in place of what stopped it.
            raise writer.fault or error from None
        file.write(MARK + writer.hash.digest())


class HashingWriter:
    """A file for `torch.save` that hashes what passes, and remembers what stopped it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.hash = hashlib.sha256()
        self.fault: BaseException | None = None

    def write(self, data: bytes | memoryview) -> int:
        """Write and hash; returns the number of bytes."""
        try:
            self.file.write(data)
        except BaseException as fault:  # a pressed Ctrl-C as well
            self.fault = fault
            raise
        self.hash.update(data)
        return len(data)

    def flush(self) -> None:
        """Part of what a file can do; the block's end flushes."""


def checksum_holds(path: Path) -> bool | None:
    """Whether a file is as it was written; None where it has no checksum, or one that was cut off.

    Raises: `OSError` where the file cannot be read.
    """
    with path.open("rb") as file:
        remaining = max(0, file.seek(0, os.SEEK_END) - LENGTH)
        file.seek(remaining)
        mark, expected = file.read(len(MARK)), file.read()
        if mark != MARK:
            return None
        file.seek(0)
        hashed = hashlib.sha256()
        while remaining:
            piece = file.read(min(PIECE, remaining))
            if not piece:
                return False  # it is being cut off at this moment
            hashed.update(piece)
            remaining -= len(piece)
    return hashed.digest() == expected
