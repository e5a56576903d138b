"""Files that are either whole or not there: written to a temporary name, then renamed."""

import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from utils.errors import UserError

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
        _flush_to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); expected a folder with room and the "
            "right to write, choose another one"
        ) from error
    finally:
        # What stopped the writing (a parent that is a file, a right withdrawn) may stop the removal too.
        with suppress(OSError):
            temporary.unlink()


def make_folder(path: Path) -> None:
    """Make a folder and its parents; raises `UserError` where that, or writing a file into it, fails."""
    probe = path / f".{uuid.uuid4().hex}.tmp"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written to ({error.strerror or error}); expected a folder, or a place where one can be "
            "made, choose another one with --set paths"
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


def read_json(path: Path) -> Any:
    """Read a JSON file; raises `UserError` where it is missing, damaged, or nested beyond all sense."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"{path} cannot be read as JSON ({reason}): repair it, or run again what writes it") from error


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
