"""Processes that a script starts: they are told when it is told to stop, and end when it ends.

- A signal that reaches the script is passed on to each of them, once: they have sessions of their own, which a
  terminal's Ctrl+C does not reach.
- However the script ends, even killed, they end: their standard input is a pipe that nobody writes to, and that closes
  with the script. Each runs a script of this project, which calls `end_with_parent` first.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

from utils.interruption import StopRequests

PAUSE = 0.05
"""Seconds between two looks at the processes."""
GRACE = 5.0
"""Seconds for processes that shall end: until they are told to stop, and again until they are killed."""
LAST_SAVE = 30.0
"""Seconds that a process has to finish its step and save, once its parent is gone."""

LIFELINE = "ADASHARE_LIFELINE"
"""Environment variable of processes whose standard input ends with their parent."""
STDIN = 0
TAIL_BYTES, TAIL_LINES = 16_384, 20


class Children:
    """Starts processes; as a context manager, passes signals on to them, and leaves none behind.

    Those that run when the block is left are given `GRACE`, are told to stop, and in the end are killed.

    Attributes:
        running: those that have not been seen to end.
        signals: numbers of those that came, one for each request, oldest first; `watch` passes them on.
    """

    def __init__(self) -> None:
        self.running: list[subprocess.Popen] = []
        self.signals: list[int] = []
        self._num_passed_on = 0
        # Passed on later: when a signal comes, a process might just be between its start and its place in the list.
        self._requests = StopRequests(self.signals.append)

    def __enter__(self) -> "Children":
        self._lifeline, self._held_end = os.pipe()
        self._requests.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + GRACE
            while self.running and time.monotonic() < deadline:
                self.watch()
            self._send(number)
        while self.running:
            self.watch()
        self._requests.end()
        for end in (self._lifeline, self._held_end):
            os.close(end)

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], stdout: IO | int | None, stderr: IO | int | None
    ) -> subprocess.Popen:
        """Start a process; its outputs are as those of `subprocess.Popen`, None for this one's own."""
        process = subprocess.Popen(
            command,
            env={**environment, LIFELINE: "stdin"},
            stdin=self._lifeline,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        self.running.append(process)
        return process

    def watch(self) -> list[subprocess.Popen]:
        """Pass on the signals that have come, and wait a moment; returns the processes that have ended."""
        while self._num_passed_on < len(self.signals):
            self._send(self.signals[self._num_passed_on])
            self._num_passed_on += 1
        time.sleep(PAUSE)
        ended = [process for process in self.running if process.poll() is not None]
        self.running = [process for process in self.running if process not in ended]
        return ended

    def _send(self, number: int) -> None:
        for process in self.running:
            process.send_signal(number)


def exit_code(process: subprocess.Popen) -> int:
    """The code of a process that has ended; 128 plus the number of the signal that ended it, as in a shell."""
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def manner(process: subprocess.Popen) -> str:
    """How a process has ended, such as "failed with exit code 2" or "was ended by SIGKILL"."""
    if process.returncode >= 0:
        return f"failed with exit code {process.returncode}"
    name = signal.Signals(-process.returncode).name
    return f"was ended by {name}{', as the system does for want of memory' if name == 'SIGKILL' else ''}"


def last_words(output: IO[bytes]) -> str:
    """The last lines of a file that a process has written its output to, indented."""
    size = os.fstat(output.fileno()).st_size
    text = os.pread(output.fileno(), TAIL_BYTES, max(size - TAIL_BYTES, 0)).decode("utf-8", "replace")
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-TAIL_LINES:]) or "    (nothing)"


def threads_of_each(num_processes: int) -> int:
    """Threads for each of the processes that share the cores, where OMP_NUM_THREADS does not say otherwise."""
    return max(num_cores() // num_processes, 1)


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# In the processes themselves


def end_with_parent() -> None:
    """From a process that `Children` started: when that script has ended, finish the step, save and stop.

    In any other process it does nothing.
    """
    if os.environ.pop(LIFELINE, None):
        threading.Thread(target=_stop_at_end_of_parent, daemon=True).start()


def _stop_at_end_of_parent() -> None:
    os.read(STDIN, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    # It may be stuck in a library, waiting for others that are gone.
    time.sleep(LAST_SAVE)
    os.kill(os.getpid(), signal.SIGKILL)
