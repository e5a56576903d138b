"""Being asked to stop: a signal becomes a request that a run honours once its state is whole."""

import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from utils.distributed import is_first_process, max_over_processes

SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What schedulers of preemptible machines send, and Ctrl+C."""
SAME_REQUEST = 1.0
"""Seconds in which signals are one request: a scheduler tells every process of a job, and some of these tell others."""

STDERR = 2
"""Its number to the system."""


class Interrupted(SystemExit):
    """Ends the script, with 128 plus the signal's number as shells expect: 143 for SIGTERM, 130 for SIGINT."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(128 + signal_number)
        self.signal_name = signal.Signals(signal_number).name


class StopRequests:
    """As a context manager, takes SIGTERM and SIGINT for requests to stop; those that come together are one.

    Args:
        take: called with a signal's number once for each request, amid whatever is under way.
    """

    def __init__(self, take: Callable[[int], object]) -> None:
        self._take = take
        self._taken_at = -math.inf
        self._handlers_before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequests":
        for number in SIGNALS:
            # What runs in a shell's background ignores Ctrl+C, and so do the processes that it starts.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers_before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def end(self) -> None:
        """Let signals do again what they did before."""
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        self._handlers_before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._taken_at >= SAME_REQUEST:
            self._taken_at = now
            self._take(number)


class Interruption:
    """As a context manager, waits for a request to stop; a second one ends the process at once.

    What one of several processes is asked for, all do, at the same `check`.
    """

    def __init__(self) -> None:
        self._requested = 0
        self._requests = StopRequests(self._take)

    def __enter__(self) -> "Interruption":
        self._requests.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._requests.end()

    def check(self) -> None:
        """Raise `Interrupted` if a stop was requested; called where the run's state is whole, by all processes."""
        requested = max_over_processes(self._requested)
        if requested:
            raise Interrupted(requested)

    def _take(self, number: int) -> None:
        if self._requested:
            self._requests.end()
            os.kill(os.getpid(), number)
        self._requested = number
        if not is_first_process():
            return
        # Not `print`: the signal may have come while the same stream was being written to.
        name = signal.Signals(number).name
        with suppress(OSError):  # who read it may be gone by the same signal
            os.write(STDERR, f"\n{name}: finishing this step, then saving; once more ends at once\n".encode())
