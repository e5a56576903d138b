"""The one exception that a user is meant to see, and how the scripts end where something goes wrong."""

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from utils.faults import explanation

FAILED, INTERRUPTED, READER_GONE = 2, 128 + signal.SIGINT, 128 + signal.SIGPIPE
"""Exit codes; the last two as shells know them of programs that a signal ended."""


class UserError(Exception):
    """Bad input: one sentence that names the thing, what was expected and what to do.

    Raised before any work is lost; the scripts print the sentence and exit with code 2.
    """


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End a script as its user expects, without a traceback, unless the program itself is at fault.

    - a `UserError`, or a fault of the machine (`utils.faults`): its sentence on standard error, exit code 2
    - Ctrl+C: one line, exit code 130
    - `SystemExit`, such as of a run that was asked to stop: its own exit code
    - whoever reads standard output has gone (`python test.py | head`): nothing, exit code 141
    """
    try:
        yield
        # What is still to be written meets a full disk or a closed pipe here, not when Python has taken its leave.
        sys.stdout.flush()
    except UserError as error:
        _exit(FAILED, f"error: {error}")
    except SystemExit as stop:
        _exit(stop.code)
    except KeyboardInterrupt:
        # Whoever is still in a hurry is not told where Python was while it tidied up.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _exit(INTERRUPTED, "interrupted")
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            _exit(READER_GONE)
        sentence = explanation(error)
        if sentence is None:
            raise
        _exit(FAILED, f"error: {sentence}")


def _exit(code: int | str | None, line: str | None = None) -> NoReturn:
    # PyTorch would raise an error, at any moment from here on, for a data loading process that fails as this one ends.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if line:
        print(line, file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        # Python would try again as it exits, and complain.
        discard_output()
    sys.exit(code)


def discard_output() -> None:
    """Let standard output lead nowhere from now on, where nobody reads it any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reader_is_gone() -> bool:
    # Asks for no event: that nobody reads is told unasked.
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
