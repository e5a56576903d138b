"""Progress bars that look the same everywhere and leave nothing behind."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from utils.distributed import is_first_process

Item = TypeVar("Item")


def progress_bar(items: Iterable[Item], title: str, total: int | None = None, start: int = 0) -> "tqdm[Item]":
    """Items with a bar; shown only on a terminal, so that logs stay readable, and by one process."""
    hidden = None if is_first_process() else True
    return tqdm(items, desc=title, total=total, initial=start, disable=hidden, leave=False, dynamic_ncols=True)
