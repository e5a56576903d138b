"""One run to a folder: a lock that the system takes back when its process ends, however it ends."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from utils.distributed import is_first_process
from utils.errors import UserError

PATIENCE, PAUSE = 2.0, 0.02
"""Seconds to wait for a lock, and between two attempts."""


@contextmanager
def locked(folders: Iterable[Path], *names: str, shared: bool = False, patience: float = PATIENCE) -> Iterator[None]:
    """Hold locks in each folder while the block runs; of several processes of a run, the first one holds them for all.

    Args:
        names: of the locks; those of different names do not hinder each other.
        shared: others may hold them at the same time, if they share them too.
        patience: seconds to wait for another process that holds one of them, for it may be about to end.

    Raises:
        UserError: another process holds one of them; says which process, on which machine.
    """
    if not is_first_process():
        yield
        return
    with ExitStack() as held:
        for folder in dict.fromkeys(path.resolve() for path in folders):
            for name in names:
                held.enter_context(locked_file(folder / f".{name}.lock", shared, patience))
        yield


@contextmanager
def locked_file(
    path: Path, shared: bool = False, patience: float = PATIENCE, tell: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold the lock of one file while the block runs; any process of a run can, and each for itself.

    Args:
        shared, patience: as `locked` takes them.
        tell: called, if the lock has to be waited for, with who holds it.

    Raises: as `locked`.
    """
    # Opened once and closed last: closing any descriptor of the file would give the lock away.
    with path.open("a+", encoding="utf-8") as file:
        until = time.monotonic() + patience
        while not _try_to_lock(file, shared):
            file.seek(0)
            holder = file.read().strip()
            if tell and holder:  # not between its locking and its writing
                tell(holder)
                tell = None
            if time.monotonic() >= until:
                raise UserError(
                    f"{path.parent} is in use by another run ({holder or 'of unknown origin'}): wait for it, stop it, "
                    "or choose another exp_name."
                )
            time.sleep(PAUSE)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        yield


def _try_to_lock(file: TextIO, shared: bool) -> bool:
    try:
        # Not `flock`: loader processes would inherit it, and could hold it after this process was killed.
        fcntl.lockf(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise UserError(
            f"{file.name}: cannot be locked ({error.strerror}), so nothing would keep a second run out; choose folders "
            "on a file system with locks."
        ) from error
    return True
