"""Being asked to stop: a signal becomes a request that a run honours once its state is whole."""

import os
import signal
from contextlib import suppress
from types import FrameType
from typing import Any

from utils.distributed import highest, is_first_process

SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What schedulers of preemptible machines send, and Ctrl+C."""


STDERR = 2
"""Its number to the system."""


class Interrupted(SystemExit):
    """Ends the script, with 128 plus the signal's number as shells expect: 143 for SIGTERM, 130 for SIGINT."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(128 + signal_number)
        self.signal_name = signal.Signals(signal_number).name


class Interruption:
    """As a context manager, takes the first SIGTERM or SIGINT for a request; a second one ends the process at once.

    What one of several processes is asked for, all do, at the same `check`.
    """

    def __init__(self) -> None:
        self._requested = 0
        self._handlers_before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        for number in SIGNALS:
            # What runs in a shell's background ignores Ctrl+C, and shall go on doing so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers_before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore_handlers()

    def check(self) -> None:
        """Raise `Interrupted` if a stop was requested; called where the run's state is whole, by all processes."""
        requested = highest(self._requested)
        if requested:
            raise Interrupted(requested)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._requested = number
        self._restore_handlers()
        if not is_first_process():
            return
        # Not `print`: the signal may have come while the same stream was being written to.
        name = signal.Signals(number).name
        with suppress(OSError):  # who read it may be gone by the same signal
            os.write(STDERR, f"\n{name}: finishing this step, then saving; once more ends at once\n".encode())

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        self._handlers_before = {}
