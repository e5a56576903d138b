"""One run to a folder: a lock that the system takes back when its process ends, however it ends."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from utils.errors import UserError


@contextmanager
def locked(folders: Iterable[Path], *names: str, shared: bool = False) -> Iterator[None]:
    """Hold locks in each folder while the block runs.

    Args:
        names: of the locks; those of different names do not hinder each other.
        shared: others may hold them at the same time, if they share them too.

    Raises:
        UserError: another process holds one of them; says which process, on which machine.
    """
    with ExitStack() as held:
        for folder in dict.fromkeys(path.resolve() for path in folders):
            for name in names:
                held.enter_context(_locked_file(folder / f".{name}.lock", shared))
        yield


@contextmanager
def _locked_file(path: Path, shared: bool) -> Iterator[None]:
    # Opened once and closed last: closing any descriptor of the file would give the lock away.
    with path.open("a+", encoding="utf-8") as file:
        try:
            # Not `flock`: loader processes would inherit it, and hold it for seconds after this process was killed.
            fcntl.lockf(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                raise UserError(
                    f"{path.parent} is in use by another run ({file.read().strip() or 'of unknown origin'}): wait for "
                    "it, stop it, or choose another exp_name."
                ) from error
            raise UserError(
                f"{path}: cannot be locked ({error.strerror}), so nothing would keep a second run out; choose folders "
                "on a file system with locks."
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        yield
